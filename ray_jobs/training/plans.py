"""What a job trains and validates on, and in which order, worked out from the photos' labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from maskcls import labels
from maskcls.config.recipe import Recipe
from maskcls.data import coverage, folds, pseudo, sampling
from maskcls.labels import LABEL_COLUMNS
from maskcls.learning import heads
from maskcls.learning.learner import options
from ray_jobs.data import source


def tables(
    photos: pd.DataFrame, task: labels.Task, fold: int, recipe: Recipe, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What a fold trains on and what it validates on, of the photos that have a label for the task;
    see ``folds`` and ``pseudo``. The latter also has the keys of its photos, as ``photo``. Where
    some fold has no photo with all three labels, the joint class is ``MISSING`` everywhere, so that
    all folds of a job are scored alike."""
    keys_N, further = photos["key"].to_numpy(), pseudo.items(photos, fold, task)
    photos = pseudo.plain(photos)
    photos = coverage.for_task(
        photos, task, years=task is labels.Task.AGE and heads.learns_years(recipe)
    )
    fold_of = photos.drop_duplicates("person").set_index("person")["fold"]
    people = recipe.people.model_dump()
    training = folds.training_table(
        photos, fold_of, fold, seed=seed, age_limits=recipe.labels.age_limits, **people
    )
    if len(further):
        training = pd.concat([training, further], ignore_index=True)
    validation = folds.validation_table(photos, fold_of, fold)
    validation["photo"] = keys_N[validation["row"]]
    if not coverage.joint_everywhere(photos):
        validation["joint"] = labels.MISSING
    return training, validation


def epoch_plan(
    task: labels.Task, recipe: Recipe, seed: int, training: pd.DataFrame, rank: int, world: int
) -> source.EpochPlan:
    """What every epoch shows, in which steps. Raises ValueError for shares that cannot be had."""
    labels_N, shares = _shares(task, recipe, training)
    weights_N = training["weight"].to_numpy(float)
    if not weights_N.any():
        raise ValueError("weight: every photo of the training side has 0, so none would be shown")
    return source.EpochPlan(
        rows=source.training_rows(training),
        labels_N=labels_N,
        shares=shares,
        batch_size=recipe.train.batch_size,
        seed=seed,
        rank=rank,
        world=world,
        weights_N=None if (weights_N == weights_N[0]).all() else weights_N,
    )


def _shares(
    task: labels.Task, recipe: Recipe, training: pd.DataFrame
) -> tuple[labels.IntArray, npt.NDArray[np.float64] | None]:
    """The class of each item that the sampler goes by, and the share of an epoch of each class."""
    head, classes = next(iter(labels.HEADS[task].items()))
    if task is labels.Task.MULTI:
        head, classes = "joint", labels.NUM_JOINT
    labels_N = training[LABEL_COLUMNS[head]].to_numpy()
    incomplete = task is labels.Task.MULTI and (labels_N == labels.MISSING).any()
    if incomplete and recipe.sampler.name == "class_balanced":
        columns = [LABEL_COLUMNS[name] for name in labels.HEADS[task]]
        return sampling.balanced_combinations(training[columns].to_numpy())
    shares = sampling.class_shares(
        labels_N=labels_N, num_classes=classes, **options(recipe.sampler)
    )
    return labels_N, shares
