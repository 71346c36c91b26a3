"""What is refused although each value for itself could be right."""

import importlib.util
import re
from pathlib import Path

import pytest
import timm

from maskcls.config import backbone_names, checks
from maskcls.config.load import ConfigError, load
from maskcls.config.schema import Config
from maskcls.labels import Task


def refused(*words):
    with pytest.raises(ConfigError) as caught:
        load(words=words)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("words", "where", "message"),
    [
        (["loss.class_weights=[1,2,3,4]"], "loss.class_weights", "one weight for each.*got 4"),
        (["task=joint", "loss.class_weights=[1,2]"], "loss.class_weights", "18 for joint; got 2"),
        (["task=multi", "loss.class_weights=[1,2,3]"], "loss.class_weights", "3 for mask and 2"),
        (
            ["recipes.gender.loss.class_weights=[1,1,1]"],
            "recipes.gender.loss.class_weights",
            "task gender needs one weight for each class, 2 for gender; got 3",
        ),
        (
            ["task=multi", "sampler={name: explicit, shares: [1, 1]}"],
            "sampler.shares",
            "each of its 18 classes, got 2",
        ),
        (["task=mask", "loss.name=age_regression"], "loss.name", "for task age, not for mask"),
        (["schedule.warmup_epochs=40"], "schedule.warmup_epochs", "epochs=30, got 40"),
        (["train.epochs=2", "schedule.warmup_epochs=2"], "schedule.warmup_epochs", "epochs=2"),
        (["model.name=resnet5"], "model.name", "did you mean resnet50 or.*got 'resnet5'"),
        (["model.weights=/nowhere/w.pth"], "model.weights", "no such file: /nowhere/w.pth"),
        (["model.weights=package:vgg"], "model.weights", "efficientnet_lite0 for model.name="),
        (["model.weights=package:efficientnet_lite0"], "model.weights", "for tf_efficientnetv2_m"),
        (["model.drop_rate=1.0"], "model.drop_rate", "less than 1"),
        (["people.drop_ages=[[30,20]]"], "people.drop_ages.0", r"write \[20, 30\]"),
        (["people.blend=[{ages: [39, 30]}]"], "people.blend.0.ages", r"write \[30, 39\]"),
        (["image.std=[58.1,57.1,57.4]"], "image.std", "from 0 to 1 .*divide .*by 255"),
        (["image.mean=[123.7,116.3,103.5]"], "image.mean", "from 0 to 1 .*divide .*by 255"),
        (["task=gender", "age.years_weight=0.1"], "age.years_weight", "gender does not tell age"),
        (["task=mask", "age.name=ordinal"], "age.name", "for tasks age and multi, not for mask"),
        (["task=joint", "age.name=distribution"], "age.name", "age and multi, not for joint"),
        (
            ["task=age", "age.name=distribution", "loss.name=focal"],
            "loss.name",
            "distribution goes with cross_entropy or logit_adjusted, got focal",
        ),
        (["task=age", "age.name=ordinal", "loss.name=logit_adjusted"], "loss.name", "ordinal goes"),
        (["task=multi", "age.name=ordinal", "loss.name=logit_adjusted"], "loss.name", "to adjust"),
        (
            ["task=age", "age.name=ordinal", "loss.class_weights=[1,1,2]"],
            "loss.class_weights",
            "ordinal takes no class weights",
        ),
        (
            ["task=age", "loss.name=age_regression", "age.years_weight=1"],
            "age.years_weight",
            "tells years already",
        ),
        (
            ["loss.name=logit_adjusted", "sampler.name=class_balanced"],
            "loss.name",
            "as the sampler does already",
        ),
        (["train.freeze_epochs=1"], "train.freeze_epochs", "freezes random weights"),
        (["train.freeze_layers=1"], "train.freeze_layers", "freezes random weights"),
        (
            ["train.freeze_epochs=31", "model.pretrained=true"],
            "train.freeze_epochs",
            "at most train.epochs=30, got 31",
        ),
        (
            ["train.freeze_layers=1", "model={name: squeezenet1_1, pretrained: true}"],
            "train.freeze_layers",
            "not for squeezenet1_1",
        ),
        (["train.ema=1"], "train.ema", "less than 1"),
        (["augment.erase=2"], "augment.erase", "less than or equal to 1"),
        (
            ["augment.mix={name: cutmix, partners: [{ages: [60, 50]}]}"],
            "augment.mix.partners.0.ages",
            r"write \[50, 60\]",
        ),
        (["train.batch_size=1"], "train.batch_size", "at least 2, got 1: a step needs 2 photos"),
        (
            ["train.batch_size=6", "resources.workers_per_job=4"],
            "train.batch_size",
            "at least 8, got 6.*resources.workers_per_job=4",
        ),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_its_key(words, where, message):
    lines = refused(*words)
    assert len(lines) == 1
    assert lines[0].startswith(f"{where} (command line): ")
    assert re.search(message, lines[0])


@pytest.mark.parametrize(
    "words",
    [
        ["task=age", "loss.name=age_regression"],
        ["tasks=[age]", "loss.name=age_regression"],
        ["recipes.age.loss.name=age_regression"],
        ["task=age", "age.name=distribution", "loss.name=logit_adjusted"],
        ["task=multi", "age.name=ordinal", "loss.name=focal"],
        ["task=joint", "age.years_weight=0.1"],
        ["recipes.age.age.name=ordinal"],
        ["train={freeze_epochs: 30, freeze_layers: 2, ema: 0.99}", "model.pretrained=true"],
        ["augment.mix={name: cutmix, partners: [{ages: [60, 99], gender: male}]}"],
        ["task=joint", f"loss.class_weights={[1] * 18}"],
        ["task=gender", "loss.class_weights=[1,2]"],
        ["schedule.warmup_epochs=29.5"],
        ["train.batch_size=4", "resources.workers_per_job=2"],
        ["model.name=squeezenet1_1"],
        ["model.name=resnet50.a1_in1k"],
        ["model={name: tf_efficientnet_lite0, weights: 'package:efficientnet_lite0'}"],
    ],
)
def test_what_can_work_is_taken(words):
    load(words=words)


def test_every_wrong_value_is_named_at_once():
    lines = refused("model.name=resnet5", "schedule.warmup_epochs=40", "train.batch_size=1")
    assert [line.partition(" ")[0] for line in lines] == [
        "model.name", "schedule.warmup_epochs", "train.batch_size"
    ]  # fmt: skip


def test_the_names_of_backbones_are_those_of_timm():
    known = backbone_names.timm_names()
    assert set(timm.list_models()) <= known
    assert all(timm.is_model(name) for name in known)


def test_the_fixed_backbones_are_those_that_are_built():
    from maskcls.learning import backbones

    assert not [n for n in backbones.BACKBONES if backbone_names.problem_with(n)]


# `ray job submit`


@pytest.fixture
def submitted(monkeypatch):
    monkeypatch.setenv(checks.JOB_VARIABLE, "{}")


HERE = ["run.dir=/runs/a", "data.root=/data"]


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("run.dir=runs/a", "run.dir"),
        ("data.root=data", "data.root"),
        ("data.cache=cache", "data.cache"),
        ("model.weights=w.pth", "model.weights"),
        ("data.label_fixes=fixes.yaml", "data.label_fixes"),
        ("recipes.age.model.weights=w.pth", "recipes.age.model.weights"),
        ("data.table=photos.csv", "data.table"),
        ("pseudo.run=runs/a", "pseudo.run"),
        ("answers.out=answers", "answers.out"),
        ("image.detector=w.onnx", "image.detector"),
    ],
)
def test_a_relative_path_in_a_submitted_job_is_refused(submitted, tmp_path, monkeypatch, word, key):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pth").touch()
    (line,) = refused(*HERE, word)
    assert line.startswith(f"{key} (command line): under `ray job submit`")
    assert "copy of the working folder" in line


def test_relative_defaults_are_refused_there_as_well(submitted):
    assert [line.partition(":")[0] for line in refused()] == ["run.dir", "data.root"]


def test_what_outlives_the_job_is_taken(submitted, tmp_path):
    weights = tmp_path / "w.pth"
    weights.touch()
    words = [
        "image.detector=blazeface",
        f"model.weights={weights}",
        "run.dir=s3://bucket/run",
        "data.root=~/data",
    ]
    load(words=[*words, "data.cache=/cache", "data.label_fixes=/shared/fixes.yaml"])


def test_files_beside_a_configuration_travel_with_it(submitted, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("data: {label_fixes: fixes.yaml}")
    assert load([path], HERE).config.data.label_fixes == tmp_path / "fixes.yaml"


def test_the_variable_is_the_one_that_ray_sets():
    # Read, not imported: Ray takes seconds.
    folder = Path(importlib.util.find_spec("ray").origin).parent
    source = (folder / "_private" / "runtime_env" / "constants.py").read_text()
    assert f'RAY_JOB_CONFIG_JSON_ENV_VAR = "{checks.JOB_VARIABLE}"' in source


def test_relative_paths_are_taken_elsewhere():
    assert load(words=["run.dir=runs/a"]).config.run.dir.is_absolute()


def test_the_recipes_that_are_checked_are_those_that_may_be_trained():
    assert checks.tasks_of(Config(task=Task.AGE)) == [Task.AGE]
    assert checks.tasks_of(Config()) == [Task.MASK, Task.GENDER, Task.AGE]
