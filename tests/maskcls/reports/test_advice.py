"""Each run has one fault, and the advice on it comes first."""

import dataclasses
import shlex
from pathlib import Path

import pandas as pd
import pytest

from maskcls.config.load import load
from maskcls.config.search_space import parse
from maskcls.labels import Task
from maskcls.reports import advice, analysis, curves, finished_run
from maskcls.reports.analysis import Calibration, Difference, Single
from tests import made_run

GOOD = {"errors": dict.fromkeys(Task, 0.05)}
OVERFIT = ((1.0, 0.4, 0.09), (1.5, 1.8, 2.0))


def made(folder, **options):
    return finished_run.read(made_run.make(folder, photos=False, weights=False, **options))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run without a fault: few answers are wrong, and the losses are healthy."""
    return made(tmp_path_factory.mktemp("advice"), **GOOD)


def steps(run, *, calibrations=None, singles=None):
    return advice.next_steps(
        run, analysis.opinions(run), calibrations or {}, singles or {}, curves.fits(run)
    )


def titles(run, **options):
    return [step.title for step in steps(run, **options)]


def configured(command):
    """The configuration that a command of Ray's verbs reads, which raises where it is refused."""
    words = shlex.split(command)
    assert words[:2] == ["python", "-m"]
    at = words.index("--config")
    return load([Path(words[at + 1])], words[at + 2 :]).config


def test_a_run_without_a_fault_hears_of_its_weakest_attribute_and_of_comparing(run):
    perfect = analysis.if_perfect(run.answers)
    first = max(perfect, key=perfect.get)
    search, compare, use = steps(run)
    assert use.command == f"python -m maskcls predict {run.folder} PHOTOS --out predicted.csv"
    assert configured(search.command).tune.trials == advice.TRIALS
    assert search.training_s == pytest.approx(advice.TRIALS * 61)  # a trial is a job at most
    assert compare.training_s == 0
    assert search.title == f"Work on {first}"
    assert f"{first} {perfect[first]:.3f}" in search.reason
    assert compare.title.startswith("Compare runs")
    assert compare.command == f"python -m ray_jobs.report {run.folder} OTHER_RUN"


def test_training_loss_far_below_validation_loss_is_overfitting(tmp_path):
    found = steps(made(tmp_path, losses=OVERFIT, **GOOD))
    assert found[0].title == "Reduce overfitting of mask, gender, age"
    assert "age: training loss 0.09, validation loss 2.00 at the end" in found[0].reason
    assert configured(found[0].command).recipe(Task.AGE).augment.name == "autoaugment"


def test_a_validation_loss_that_rose_is_overfitting(tmp_path):
    run = made(tmp_path, losses=((0.6, 0.5, 0.4), (0.5, 0.4, 0.46)), **GOOD)
    first = steps(run)[0]
    assert "validation loss rose from 0.40 to 0.46" in first.reason


def test_a_validation_loss_that_is_next_to_nothing_has_not_risen(tmp_path):
    run = made(tmp_path, losses=((0.05, 0.02, 0.02), (0.04, 0.026, 0.031)), **GOOD)
    assert not [title for title in titles(run) if "overfitting" in title]


def test_models_that_do_not_fit_their_training_photos_underfit(tmp_path):
    run = made(tmp_path, losses=((1.1, 1.09, 1.08), (1.1, 1.09, 1.09)), tasks=[Task.AGE], **GOOD)
    first = steps(run)[0]
    assert first.title == "Train more strongly: age"
    assert "guessing has 1.10" in first.reason
    assert configured(first.command).recipe(Task.AGE).train.epochs == 60
    assert first.training_s == pytest.approx(2 * 61 * len(run.scores["jobs"]))


def test_training_that_ended_too_early_is_told(tmp_path):
    run = made(tmp_path, best_epoch=3, **GOOD)
    assert titles(run)[0] == "Train longer: mask, gender, age"


def test_random_weights_come_before_a_bad_fit(tmp_path):
    run = made(
        tmp_path, recipe={"model": {"name": "tf_efficientnet_lite0"}}, losses=OVERFIT, **GOOD
    )
    found = steps(run)
    assert found[0].title == "Start from pretrained weights"
    config = configured(found[0].command)
    assert config.recipe(Task.AGE).model.weights == "package:efficientnet_lite0"
    assert config.run.dir == run.folder.with_name("run-pretrained")


def test_weak_models_are_told_to_train_first_and_not_to_look_at_labels(tmp_path):
    run = made(tmp_path, errors=0.75, losses=OVERFIT)
    doubted = pd.Series(True, index=run.out_of_fold.index)
    for row in doubted.index:  # every photo is answered otherwise, and surely so
        values = run.out_of_fold.at[row, "probabilities"]
        answer = (run.out_of_fold.at[row, "truth"] + 1) % len(values)
        run.out_of_fold.at[row, "probabilities"] = [
            0.95 if k == answer else 0.05 / (len(values) - 1) for k in range(len(values))
        ]
        run.out_of_fold.at[row, "predicted"] = answer
    run.out_of_fold.to_parquet(run.folder / "out_of_fold.parquet")
    run = finished_run.read(run.folder)
    assert analysis.doubtful_labels(analysis.opinions(run))["gender"]
    found = titles(run)
    assert found[0] == "Train better first"
    assert found[1].startswith("Reduce overfitting")
    assert not any("label" in title for title in found)


@pytest.mark.parametrize(
    ("tasks", "task"),
    [((Task.MULTI,), "multi"), ((Task.JOINT,), "joint"), (made_run.TASKS, None)],
)
def test_commands_are_complete_for_the_route_of_the_run(tmp_path, tasks, task):
    run = made(tmp_path / "my runs", tasks=tasks)
    for step in steps(run, singles={"age": Single("age", 0.9, Difference(-0.1, -0.2, -0.05))}):
        if "ray_jobs.sweep" in step.command or "ray_jobs.tune" in step.command:
            config = configured(step.command)
            assert config.data.root == run.folder.parent / "photos"
            assert config.run.dir.name.startswith("run")
            if "tune" in step.command:
                assert config.task == (task or config.task)
                assert config.task in tasks
                assert config.run.dir != run.folder
                assert parse(config.tune.space, config.recipe(config.task)).dimensions


def test_where_nothing_is_wrong_no_attribute_comes_first(tmp_path):
    assert not any("Work on" in title for title in titles(made(tmp_path, errors=0)))


@pytest.mark.parametrize(("surplus", "told"), [(0.2, True), (0.01, False), (-0.2, False)])
def test_overconfident_models_are_named(run, surplus, told):
    calibration = Calibration(pd.DataFrame(), abs(surplus), surplus)
    found = steps(run, calibrations={"age": calibration})
    assert any("too high on average: age by 0.20" in step.reason for step in found) == told


@pytest.mark.parametrize(("high", "told"), [(-0.01, True), (0.01, False)])
def test_an_ensemble_that_is_clearly_worse_is_told(run, high, told):
    single = Single("joint", 0.9, Difference(-0.02, -0.03, high))
    found = steps(run, singles={"age": single, "mask": Single("mask", 0.9, None)})
    assert any("age (joint)" in step.reason for step in found) == told


def test_doubtful_labels_are_named_by_person_where_models_are_good(tmp_path):
    folder = made_run.make(tmp_path, photos=False, weights=False, errors=0)
    path = folder / "out_of_fold.parquet"
    rows = pd.read_parquet(path)
    doubted = (rows["task"] == "gender") & (rows["person"] == "000003")
    rows.loc[doubted, "truth"] = 1 - rows.loc[doubted, "truth"]
    values = rows.loc[doubted, "probabilities"].map(lambda p: [0.95 * (k == p.argmax()) + 0.025
                                                               for k in range(2)])  # fmt: skip
    rows.loc[doubted, "probabilities"] = values
    rows.to_parquet(path)
    (found,) = [
        s for s in steps(finished_run.read(folder)) if "gender label of 1 person" in s.title
    ]
    assert "000003" in found.reason
    assert found.gain > 0
    assert found.command == f"python -m maskcls labels {folder}"


def test_missing_models_come_first(run):
    scores = {**run.scores, "failed": {"age-fold3": "no memory"}}
    first = steps(dataclasses.replace(run, scores=scores))[0]
    assert "age-fold3" in first.reason
    assert configured(first.command).run.dir == run.folder


def test_long_lists_are_cut():
    assert advice.named("abcdefgh") == "a, b, c, d, e, f, ..."


@pytest.mark.parametrize(
    ("losses", "loss", "verdict"),
    [
        (((1.0, 0.3), (0.9, 0.45)), {}, "good"),
        (OVERFIT, {}, "overfitting"),
        # A focal loss of 0.09 is a likelihood of 0.5: far less of a gap than it seems.
        (((0.5, 0.09), (0.9, 0.7)), {"name": "focal"}, "good"),
        (((0.5, 0.09), (0.9, 0.7)), {}, "overfitting"),
        # Its scale says nothing about a likelihood.
        (((0.5, 0.09), (0.9, 0.7)), {"name": "soft_f1"}, "good"),
        (((0.5, None), (None, None)), {}, "good"),
    ],
)
def test_the_verdict_on_curves(run, losses, loss, verdict):
    recipe = run.recipes[Task.AGE]
    recipe = type(recipe).model_validate(recipe.model_dump() | {"loss": loss})
    history = pd.DataFrame({"train/loss": losses[0], "val/loss": losses[1]}, dtype=float)
    assert curves.judge(Task.AGE, recipe, [history], best_at_end=False).verdict == verdict
