"""Labels that say nothing give scores that say nothing: what a model learns of a person never
counts where that person is scored.

Photos show who a person is and nothing else, labels are drawn at random. Whatever training gains
out of fold above chance would be a leak between people.
"""

import numpy as np
import pandas as pd
import pytest

from maskcls import labels
from maskcls.config.load import load
from maskcls.data import folds
from maskcls.data.preprocess import Preprocessing
from maskcls.labels import Task
from maskcls.learning import checkpoint
from maskcls.reports import analysis
from maskcls.scoring import ensemble, voting
from ray_jobs.data import stream
from ray_jobs.training import evaluate, fit
from ray_jobs.training import job as jobs
from ray_jobs.training.job import Job
from tests import one_process
from tests.conftest import ROOT

PEOPLE, PHOTOS_EACH, FOLDS = 72, 3, 2
SIZE = (32, 24)
FOUR_SIGMA = 4 * 0.5 / np.sqrt(PEOPLE)
"""Farther from chance than any score of so many people, who count once each, comes by luck."""


class Photos:
    """An image source in memory."""

    preprocessing = Preprocessing(height=SIZE[0], width=SIZE[1])

    def __init__(self, table, images_NHWC):
        self._table, self._images_NHWC = table, images_NHWC

    def photos(self):
        return self._table.copy()

    def open(self):
        return self._images_NHWC


def make_photos(seed):
    """People whose photos show a pattern of their own, with labels drawn for each person."""
    rng = np.random.default_rng(seed)
    person_N = np.repeat(np.arange(PEOPLE), PHOTOS_EACH)
    patterns = rng.integers(0, 256, (PEOPLE, *SIZE, 3))
    noise = rng.integers(-20, 21, (len(person_N), *SIZE, 3))
    drawn = {
        "mask": rng.permutation(np.arange(PEOPLE) % 3),
        "gender": rng.permutation(np.arange(PEOPLE) % 2),
        "age": rng.permutation(np.resize([22, 45, 63], PEOPLE)),
    }
    table = pd.DataFrame({name: values[person_N] for name, values in drawn.items()})
    table["person"] = [f"{number:06d}" for number in person_N]
    table["group"] = table["person"]
    table["stem"] = [f"photo{number}" for number in np.tile(np.arange(PHOTOS_EACH), PEOPLE)]
    table["variant"] = ""
    table["key"] = table["person"] + "/" + table["stem"]
    table["status"], table["weight"] = "ok", 1.0
    table["age_band"] = labels.age_band(table["age"])
    table["joint"] = labels.joint_class(table["mask"], table["gender"], table["age_band"])
    images_NHWC = np.clip(patterns[person_N] + noise, 0, 255).astype(np.uint8)
    return table, images_NHWC


def out_of_fold(task, table, images_NHWC, fold_of, folder, monkeypatch, extra=()):
    """The out-of-fold rows of a task's shipped recipe, and ``extra`` words, on a tiny model, by the
    worker's own loop."""

    monkeypatch.setattr(stream, "batches", one_process.batches)
    words = [
        "model.name=test_efficientnet", "model.pretrained=false", "image.size=[32,24]",
        "train.epochs=6", "train.lr=3e-3", "train.batch_size=24", f"folds.count={FOLDS}",
        "predict.views=[plain,flip]",
        *extra,
    ]  # fmt: skip
    config = load([ROOT / "configs" / "sweep.yaml"], words).config
    recipe = config.recipe(task)
    source = Photos(table.assign(fold=table["person"].map(fold_of)), images_NHWC)
    parts = []
    for fold in range(FOLDS):
        job = Job(
            name=f"{task}-fold{fold}", task=task, fold=fold, recipe=recipe, seed=1,
            identity=jobs.identity(recipe, task=task, fold=fold, seed=1, data="random"),
            folder=folder / f"{task}-fold{fold}", train=source, evaluation=None, group="random",
            tracking=config.tracking,
        )  # fmt: skip
        for report in fit.train(job, one_process.Alone()):
            report.keep()()
        evaluate.answer_in_all_views(job, one_process.Alone())
        parts.append(pd.read_parquet(job.folder / "out_of_fold.parquet"))
    return pd.concat(parts, ignore_index=True)


def test_random_labels_score_chance_by_every_recipe_and_every_vote(tmp_path, monkeypatch):
    table, images_NHWC = make_photos(seed=3)
    fold_of = folds.assign(table, FOLDS, seed=1)
    rows = {
        task: out_of_fold(task, table, images_NHWC, fold_of, tmp_path, monkeypatch) for task in Task
    }
    # It was the recipes that ship: what is told of them in the configuration has arrived.
    stored = checkpoint.read_info(tmp_path / "age-fold0").recipe
    assert stored.loss.name == "focal_smoothing"
    assert stored.sampler.name == "class_balanced"
    assert [list(ages) for ages in stored.people.drop_ages] == [[28, 29], [57, 59]]
    for task, of_task in rows.items():
        for head, said in of_task.groupby("head"):
            accuracy = (said["truth"] == said["predicted"]).mean()
            chance = 1 / len(labels.class_names(head))
            assert accuracy < chance + FOUR_SIGMA, (task, head)
    together = pd.concat(rows.values(), ignore_index=True)
    votes = [(name, False) for name in voting.ENSEMBLES] + [("soft", True), ("greedy", True)]
    for name, offsets in votes:
        answers = ensemble.out_of_fold_answers(name, together, seed=0, offsets=offsets)
        for space, values in ensemble.scores(answers, seed=0).items():
            chance = analysis.chance(answers[f"{space}_truth"])
            assert values["macro_f1"] < chance + FOUR_SIGMA, (name, offsets, space)


PARTS = (
    "tasks=[multi]", "train.ema=0.9", "optimizer.head_lr=3", "loss.name=logit_adjusted",
    "augment.erase=0.3",
    "augment.mix={name: vertical_cutmix, probability: 0.5, partners: [{ages: [60, 70]}]}",
)  # fmt: skip
"""What a recipe may add to the shipped ones."""


@pytest.mark.parametrize(
    "age", ["age={name: distribution}", "age={name: ordinal}", "age.years_weight=0.5"]
)
def test_random_labels_score_chance_by_every_part_of_learning(age, tmp_path, monkeypatch):
    table, images_NHWC = make_photos(seed=3)
    fold_of = folds.assign(table, FOLDS, seed=1)
    words = [*PARTS, age]
    if "ordinal" in age:  # it has no logits of classes to adjust
        words.append("loss.name=focal")
    said = out_of_fold(Task.MULTI, table, images_NHWC, fold_of, tmp_path, monkeypatch, words)
    assert set(said["head"]) == {"mask", "gender", "age"}
    for head, rows in said.groupby("head"):
        accuracy = (rows["truth"] == rows["predicted"]).mean()
        assert accuracy < 1 / len(labels.class_names(head)) + FOUR_SIGMA, head


def test_the_same_training_would_show_a_leak(tmp_path, monkeypatch):
    """With every photo a person of its own, people stand on both sides, and are recognised."""
    table, images_NHWC = make_photos(seed=3)
    leaking = table.assign(person=table["key"], group=table["key"])
    fold_of = folds.assign(leaking, FOLDS, seed=1)
    for task in (Task.MASK, Task.GENDER):
        said = out_of_fold(task, leaking, images_NHWC, fold_of, tmp_path, monkeypatch)
        chance = 1 / len(labels.class_names(task))
        assert (said["truth"] == said["predicted"]).mean() > chance + FOUR_SIGMA, task
