"""What the learning curves of a task say: overfitting, underfitting, or too short training.

The validation loss is the negative log-likelihood of a photo, summed over heads. The training loss
is that of the recipe, so it is compared only where it is on that scale or can be brought to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd

from maskcls.config.recipe import Recipe
from maskcls.labels import HEADS, Task
from maskcls.reports.finished_run import FinishedRun

RISE: Final = 1.1
SMALL_RISE: Final = 0.02
"""A validation loss this many times its lowest has risen, if the difference is also above this
share of the loss of guessing: one that is next to nothing doubles by chance."""

GAP: Final = 0.25
"""Of the loss of guessing: a validation loss this far above the training loss, and more than twice
as high, is overfitting."""

UNLEARNED: Final = 0.6
"""Of the loss of guessing: a training loss above it is underfitting."""

FOCAL: Final = ("focal", "focal_smoothing")
LIKELIHOODS: Final = ("cross_entropy", "label_smoothing", *FOCAL)
"""Losses that can be compared with a negative log-likelihood; so none that weighs classes."""


@dataclass(frozen=True)
class Fit:
    """A verdict on most jobs of a task and the figures that it rests on."""

    verdict: Literal["overfitting", "underfitting", "too short", "good"]
    reason: str


def fits(run: FinishedRun) -> dict[Task, Fit]:
    """The verdict on each task that has learning curves."""
    found = {}
    for task in run.tasks:
        histories = [history for (owner, _), history in run.histories.items() if owner is task]
        jobs = [job for job in run.scores["jobs"] if job["task"] == task]
        last = sum(job["best_epoch"] == job["epochs"] for job in jobs)
        if histories:
            found[task] = judge(task, run.recipes[task], histories, 2 * last > len(jobs))
    return found


def judge(task: Task, recipe: Recipe, histories: Sequence[pd.DataFrame], best_at_end: bool) -> Fit:
    """The verdict on ``histories``, one for each job; ``best_at_end``: most kept the last epoch."""
    guessing = sum(map(math.log, HEADS[task].values()))
    every = [_ends(task, recipe, history) for history in histories]
    ends = [end for end in every if end is not None]
    if not ends:
        return Fit("good", "no losses were recorded")
    train, last, lowest = (float(np.median(values)) for values in zip(*ends, strict=True))
    rose = sum(end[1] > RISE * end[2] and end[1] - end[2] > SMALL_RISE * guessing for end in ends)
    losses = f"validation loss {last:.2f}"
    if not math.isnan(train):
        losses = f"training loss {train:.2f}, {losses}"
    if last - train > GAP * guessing and last > 2 * train:
        return Fit("overfitting", f"{losses} at the end")
    if 2 * rose > len(ends):
        return Fit("overfitting", f"validation loss rose from {lowest:.2f} to {last:.2f}")
    if train > UNLEARNED * guessing:
        return Fit("underfitting", f"{losses}; guessing has {guessing:.2f}")
    if best_at_end:
        return Fit("too short", "the last epoch was the best one")
    if rose:
        return Fit("good", f"validation loss rose in {rose} of {len(ends)} folds")
    return Fit("good", f"{losses} at the end")


def _ends(task: Task, recipe: Recipe, history: pd.DataFrame) -> tuple[float, float, float] | None:
    """The training and validation loss at the end, and the lowest validation loss.

    The training loss is missing where it cannot be compared: mixed batches have soft targets.
    """
    validation = history["val/loss"].dropna()
    if validation.empty:
        return None
    train = float(history["train/loss"].iloc[-1])
    weighted = getattr(recipe.loss, "class_weights", None)
    if recipe.loss.name not in LIKELIHOODS or weighted or recipe.augment.mix.name != "none":
        train = math.nan
    elif recipe.loss.name in FOCAL:
        heads = len(HEADS[task])
        train = heads * _likelihood(train / heads, getattr(recipe.loss, "gamma", None) or 2.0)
    return train, float(validation.iloc[-1]), float(validation.min())


def _likelihood(focal: float, gamma: float) -> float:
    """The negative log-likelihood of a photo whose focal loss (1 - p)^gamma * -log(p) is this."""
    p = np.exp(-np.linspace(0, 20, 4001))
    return float(np.interp(focal, (1 - p) ** gamma * -np.log(p), -np.log(p)))
