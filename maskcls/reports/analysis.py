"""What a finished run's answers show beside its scores: where they come from and where they fail.

All of it is about photos of people whom the answering model never saw, except ``agreement``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from maskcls import labels
from maskcls.labels import ATTRIBUTES, FloatArray, IntArray, Task, tells
from maskcls.reports import finished_run
from maskcls.reports.finished_run import FinishedRun
from maskcls.scoring import ensemble, metrics
from maskcls.scoring.ensemble import ModelVotes
from maskcls.scoring.metrics import confusion, macro_f1
from maskcls.scoring.voting import FittedVote

BINS: Final = 10
"""Of a reliability curve, equally wide."""


def size(target: str) -> int:
    """The number of classes of a target."""
    return len(labels.class_names(target))


def chance(truth_N: npt.ArrayLike) -> float:
    """The macro F1 to expect of answers drawn at random as often as each class occurs.

    Of class k, with share p, both precision and recall are then p, and so is F1: the mean over the
    K classes that occur is 1 / K. (Always answering the most frequent class may do better or
    worse; it is no better than 1 / K times that class's F1.)
    """
    return 1 / len(np.unique(np.asarray(truth_N)))


@dataclass(frozen=True)
class Difference:
    """How much macro F1 one set of answers has over another on the same photos."""

    value: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the 95 % interval leaves 0 out."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def difference(
    truth_N: IntArray, first_N: IntArray, second_N: IntArray, people_N: npt.NDArray, *,
    classes: int, seed: int
) -> Difference:  # fmt: skip
    """Macro F1 of ``second_N`` minus that of ``first_N``, paired, with its interval over people."""
    low, high = metrics.bootstrap_difference(
        truth_N, first_N, second_N, people_N, classes, seed=seed
    )
    value = macro_f1(confusion(truth_N, second_N, classes)) - macro_f1(
        confusion(truth_N, first_N, classes)
    )
    return Difference(value, low, high)


@dataclass(frozen=True)
class Single:
    """The best of the models that answer a target, alone, against all of them together."""

    name: str
    macro_f1: float
    gain: Difference | None
    """Of the ensemble over it; None where their answers are the same."""


def best_single(run: FinishedRun, target: str) -> Single:
    """The best single model of ``target``: one model answers each photo (for the joint class, by
    one a task), out of fold, on the same photos as the ensemble's.

    Fold models of one task are pooled, not compared: each was scored on other people. Where
    several routes exist, the best is selected on the photos that score it, so its score is a little
    better than it is.
    """
    routes = run.routes() if target == "joint" else {str(t): [t] for t in tasks_of(run, target)}
    ours = run.labelled(target).set_index("photo")
    truth, voted = (ours[f"{target}_{kind}"].to_numpy() for kind in ("truth", "predicted"))
    alone = {
        # Soft: of one model that is its plain answer, whatever the ensemble learns.
        name: run.answers_of(tasks, "soft").set_index("photo").loc[ours.index]
        for name, tasks in routes.items()
    }
    answers = {name: table[f"{target}_predicted"].to_numpy() for name, table in alone.items()}
    f1 = {
        name: macro_f1(confusion(truth, predicted, size(target)))
        for name, predicted in answers.items()
    }
    best = max(f1, key=lambda name: f1[name])
    if (answers[best] == voted).all():
        return Single(best, f1[best], None)
    gain = difference(
        truth, answers[best], voted, ours["person"].to_numpy(), classes=size(target), seed=run.seed
    )
    return Single(best, f1[best], gain)


def without_each(run: FinishedRun) -> dict[str, Difference]:
    """What joint macro F1 loses or wins where the models of one task do not vote, for each task
    that the others can do without."""
    table: dict[str, Difference] = {}
    for task in run.tasks:
        others = [other for other in run.tasks if other is not task]
        if not others or "joint" not in run.targets:
            continue
        answers = run.answers_of(others, run.ensemble, offsets=run.offsets)
        if "joint_predicted" not in answers:
            continue
        both = run.labelled("joint").merge(answers, on="photo", suffixes=("", "_left"))
        both = both[both["joint_predicted_left"] != labels.MISSING]
        if both.empty:
            continue
        table[str(task)] = difference(
            both["joint_truth"].to_numpy(),
            both["joint_predicted_left"].to_numpy(),
            both["joint_predicted"].to_numpy(),
            both["person"].to_numpy(),
            classes=labels.NUM_JOINT,
            seed=run.seed,
        )
    return table


def if_perfect(answers: pd.DataFrame) -> dict[str, float]:
    """Joint macro F1 if one attribute were always right and the others as they are."""
    answers = answers[answers["joint_truth"] != labels.MISSING]
    found = {}
    for attribute in ATTRIBUTES:
        parts = {
            a: answers[f"{a}_{'truth' if a == attribute else 'predicted'}"].to_numpy()
            for a in ATTRIBUTES
        }
        truth = answers["joint_truth"].to_numpy()
        found[attribute] = macro_f1(confusion(truth, labels.encode(**parts), labels.NUM_JOINT))
    return found


@dataclass(frozen=True)
class Calibration:
    """How often answers are right, by the probability that the model gave them.

    ``bins`` has a row for each of ``BINS`` that has photos: ``confidence`` (mean probability of the
    answered class), ``right`` (share) and ``photos``. ``error`` is the expected calibration error,
    the mean gap between the two, weighted by photos (Guo et al., ICML 2017).
    """

    bins: pd.DataFrame
    error: float
    surplus: float
    """Mean confidence minus share right: positive where the model is overconfident."""


def calibration(rows: pd.DataFrame) -> Calibration:
    """The calibration of out-of-fold rows of one task and head."""
    confidence_N = np.stack(rows["probabilities"].tolist()).max(axis=1)
    right_N = (rows["truth"] == rows["predicted"]).to_numpy(float)
    place_N = np.minimum((confidence_N * BINS).astype(int), BINS - 1)
    bins = (
        pd.DataFrame({"bin": place_N, "confidence": confidence_N, "right": right_N, "photos": 1})
        .groupby("bin")
        .agg({"confidence": "mean", "right": "mean", "photos": "sum"})
    )
    gaps = (bins["confidence"] - bins["right"]).abs() * bins["photos"]
    return Calibration(
        bins, float(gaps.sum() / len(rows)), float(confidence_N.mean() - right_N.mean())
    )


@dataclass(frozen=True)
class Agreement:
    """How often models give the same answers on the photos to predict.

    ``shares_MM`` [M, M] are the shares of photos with the same answer of two models, ``unanimous``
    of all. ``changed`` is the share of votes that would be others without a model, by its name.
    """

    names: list[str]
    shares_MM: FloatArray
    unanimous: float
    changed: dict[str, float]


def agreement(
    votes: list[ModelVotes], fitted: Mapping[str, FittedVote], target: str
) -> Agreement | None:
    """The agreement of the models that vote on ``target``; None for fewer than two."""
    answers = finished_run.answers_by_model(votes, target)
    if len(answers) < 2:
        return None
    answers_MN = np.stack(list(answers.values()))
    voting = [vote for vote in votes if f"{vote.task} {vote.fold}" in answers]
    voted = ensemble.vote(fitted, votes)[target]
    changed = {}
    for vote in voting:
        others = [other for other in votes if other is not vote]
        # A task that loses its only model changes the ensemble itself: nothing to compare.
        if any(other.task is vote.task for other in others):
            again = ensemble.vote(fitted, others)[target]
            changed[f"{vote.task} {vote.fold}"] = float((again != voted).mean())
    return Agreement(
        list(answers),
        (answers_MN[:, None] == answers_MN[None]).mean(axis=2),
        float((answers_MN == answers_MN[:1]).all(axis=0).mean()),
        changed,
    )


def opinions(run: FinishedRun) -> pd.DataFrame:
    """What is said of each photo in each attribute: a row a photo and attribute with ``photo``,
    ``attribute``, ``person``, ``truth``, ``predicted`` (the ensemble's answer), ``sure`` (the
    probability of that answer, the mean over tasks), ``uncertainty`` (entropy of those
    probabilities, 0 sure to 1 no idea)."""
    tables = []
    for attribute in ATTRIBUTES:
        if attribute not in run.targets:
            continue
        answers = run.labelled(attribute).set_index("photo")
        by_task = [
            probabilities_of(run, task, attribute).loc[answers.index]
            for task in tasks_of(run, attribute)
        ]
        mean_NK = np.mean([np.stack(values.tolist()) for values in by_task], axis=0)
        predicted = answers[f"{attribute}_predicted"].to_numpy()
        logs_NK = np.log(mean_NK.clip(1e-12))
        tables.append(
            pd.DataFrame(
                {
                    "photo": answers.index,
                    "attribute": attribute,
                    "person": answers["person"].to_numpy(),
                    "truth": answers[f"{attribute}_truth"].to_numpy(),
                    "predicted": predicted,
                    "sure": mean_NK[np.arange(len(mean_NK)), predicted],
                    "uncertainty": -(mean_NK * logs_NK).sum(axis=1) / np.log(mean_NK.shape[1]),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def probabilities_of(run: FinishedRun, task: Task, attribute: str) -> pd.Series:
    """The probabilities that the models of ``task`` give ``attribute``, out of fold, by photo."""
    return ensemble.rows_of(run.out_of_fold, attribute, ("", task))["probabilities"]


def worst(opinions: pd.DataFrame, count: int) -> pd.DataFrame:
    """The most confident wrong answers, evenly over attributes, and one a person and attribute: a
    wrong label makes all photos of a person wrong."""
    wrong = opinions[opinions["truth"] != opinions["predicted"]]
    return _spread(wrong.sort_values("sure", ascending=False, kind="stable"), count)


def most_uncertain(opinions: pd.DataFrame, count: int) -> pd.DataFrame:
    """The answers that the models are least sure of; spread as in ``worst``."""
    order = opinions.sort_values("uncertainty", ascending=False, kind="stable")
    return _spread(order, count)


def _spread(ordered: pd.DataFrame, count: int) -> pd.DataFrame:
    once = ordered.drop_duplicates(["attribute", "person"])
    turn = once.groupby("attribute").cumcount()
    kept = once.assign(turn=turn).sort_values("turn", kind="stable").head(count)
    return kept.sort_values(["attribute", "turn"], kind="stable", ignore_index=True)


def doubtful_labels(opinions: pd.DataFrame, *, sure: float = 0.8) -> dict[str, list[str]]:
    """People whose gender or age band every photo contradicts, at a mean probability of ``sure`` or
    more: attribute -> people, the most confident first."""
    found: dict[str, list[str]] = {}
    for attribute in ("gender", "age"):
        rows = opinions[opinions["attribute"] == attribute]
        people = rows.assign(wrong=rows["truth"] != rows["predicted"]).groupby("person")
        means = people[["wrong", "sure"]].mean()
        doubted = means[(means["wrong"] == 1) & (means["sure"] >= sure)]
        found[attribute] = doubted.sort_values("sure", ascending=False).index.tolist()
    return found


def tasks_of(run: FinishedRun, target: str) -> list[Task]:
    """The tasks whose models answer an attribute."""
    return [task for task in run.tasks if tells(task, target)]
