"""A finished run, read from its folder alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from maskcls.config.recipe import Recipe
from maskcls.labels import (
    AGE_BAND_STARTS,
    ATTRIBUTES,
    MISSING,
    AgeLimits,
    IntArray,
    Task,
    class_names,
    tells,
)
from maskcls.learning import checkpoint, tracking
from maskcls.scoring import ensemble as results
from maskcls.scoring.ensemble import ModelVotes
from maskcls.storage import files

TARGETS = ("joint", *ATTRIBUTES)
"""What is answered and scored."""

ROUTES = {
    "three models": [Task.MASK, Task.GENDER, Task.AGE],
    "joint": [Task.JOINT],
    "multi": [Task.MULTI],
}
"""Models that tell all three attributes, without any other."""


@dataclass(frozen=True)
class FinishedRun:
    """What a sweep left behind.

    ``photos`` is manifest.parquet indexed by the photo's key. ``answers`` has a row a photo with
    its person and, for each of ``TARGETS`` that the models tell, ``{target}_truth`` and
    ``{target}_predicted`` by models that never saw the person; ``MISSING`` without that label.
    """

    folder: Path
    scores: dict[str, Any]
    photos: pd.DataFrame
    out_of_fold: pd.DataFrame
    answers: pd.DataFrame

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def seed(self) -> int:
        return int(self.scores["seed"])

    @cached_property
    def targets(self) -> list[str]:
        """What was answered and can be scored."""
        return [
            target
            for target in TARGETS
            if f"{target}_predicted" in self.answers and len(self.labelled(target))
        ]

    def labelled(self, target: str) -> pd.DataFrame:
        """The ``answers`` about photos that have this label."""
        return self.answers[self.answers[f"{target}_truth"] != MISSING]

    @cached_property
    def age_limits(self) -> AgeLimits:
        """Where the age bands begin."""
        return next(iter(self.recipes.values())).labels.age_limits

    @property
    def tasks(self) -> list[Task]:
        present = {job["task"] for job in self.scores["jobs"]}
        return [task for task in Task if task in present]

    def job(self, task: Task, fold: int) -> Path:
        return self.folder / "jobs" / f"{task}-fold{fold}"

    def only(self, keys: Sequence[str]) -> FinishedRun:
        """The same run with no more than what it says of these training photos."""
        return replace(
            self,
            photos=self.photos.loc[self.photos.index.isin(keys)],
            out_of_fold=self.out_of_fold[self.out_of_fold["photo"].isin(keys)],
            answers=self.answers[self.answers["photo"].isin(keys)],
        )

    @cached_property
    def recipes(self) -> dict[Task, Recipe]:
        """What the models of each task were trained with."""
        first = {Task(job["task"]): job["fold"] for job in reversed(self.scores["jobs"])}
        return {
            task: checkpoint.read_info(self.job(task, first[task])).recipe for task in self.tasks
        }

    @cached_property
    def histories(self) -> dict[tuple[Task, int], pd.DataFrame]:
        """The epochs of each job that told any."""
        jobs = [(Task(job["task"]), job["fold"]) for job in self.scores["jobs"]]
        read = {job: tracking.read_metrics(self.job(*job)) for job in sorted(jobs)}
        return {job: table for job, table in read.items() if len(table)}

    def routes(self) -> dict[str, list[Task]]:
        """Those of ``ROUTES`` that this run has."""
        return {name: tasks for name, tasks in ROUTES.items() if set(tasks) <= set(self.tasks)}

    @property
    def ensemble(self) -> str:
        return str(self.scores["ensemble"]["name"])

    @property
    def offsets(self) -> bool:
        """Whether decision offsets were tried."""
        return bool(self.scores["ensemble"]["offsets"])

    def answers_of(
        self, tasks: Sequence[Task], ensemble: str, *, offsets: bool = False
    ) -> pd.DataFrame:
        """``answers``, had only the models of these tasks voted, in this kind of ensemble."""
        rows = self.out_of_fold[self.out_of_fold["task"].isin(tasks)]
        return results.out_of_fold_answers(ensemble, rows, seed=self.seed, offsets=offsets)

    @cached_property
    def votes(self) -> list[ModelVotes]:
        """What each model says of the photos to predict; none where there are none."""
        if not self.scores["votes"]:
            return []
        folder = self.folder / "votes" / self.scores["votes"]
        return [
            read_votes(path, Task(job["task"]), job["fold"])
            for job in self.scores["jobs"]
            if (path := folder / f"{job['task']}-fold{job['fold']}.parquet").is_file()
        ]


def read(folder: Path) -> FinishedRun:
    """The run in ``folder``. Raises FileNotFoundError where a sweep has not come to its end."""
    for name in ("scores.json", "out_of_fold.parquet", "manifest.parquet"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder}: no finished run here (no {name}); a sweep with run.dir={folder} makes "
                "or completes it"
            )
    scores = files.read_json(folder / "scores.json")
    out_of_fold = files.read_parquet(folder / "out_of_fold.parquet")
    try:
        answers = results.out_of_fold_answers(
            scores["ensemble"]["name"],
            out_of_fold,
            seed=scores["seed"],
            offsets=scores["ensemble"]["offsets"],
        )
    except ValueError as error:
        raise ValueError(f"{folder / 'out_of_fold.parquet'}: {error}") from None
    return FinishedRun(
        folder=folder,
        scores=scores,
        photos=files.read_parquet(folder / "manifest.parquet").set_index("key"),
        out_of_fold=out_of_fold,
        answers=answers,
    )


def read_votes(path: Path, task: Task, fold: int) -> ModelVotes:
    """What a model says of the photos to predict, from its file in ``votes``."""
    table = files.read_parquet(path)
    by_head = {str(head): rows.set_index("image_id") for head, rows in table.groupby("head")}
    image_ids = sorted(table["image_id"].unique())
    return ModelVotes(
        task,
        fold,
        image_ids,
        {
            head: np.stack(rows.loc[image_ids, "probabilities"].tolist())
            for head, rows in by_head.items()
        },
    )


def readable(target: str, age_limits: AgeLimits = AGE_BAND_STARTS) -> list[str]:
    """The class names of ``target`` as a reader wants them."""
    return [name.replace("_", " ") for name in class_names(target, age_limits)]


def named(target: str, number: int, age_limits: AgeLimits = AGE_BAND_STARTS) -> str:
    """The name of a class as a reader wants it, also where nobody knows it."""
    return "unknown" if number == MISSING else readable(target, age_limits)[number]


def answers_by_model(votes: Sequence[ModelVotes], target: str) -> dict[str, IntArray]:
    """What each model that speaks of ``target`` answers on the photos to predict, by its name."""
    return {
        f"{vote.task} {vote.fold}": results.for_target(
            vote.probabilities, vote.task, target
        ).argmax(axis=1)
        for vote in votes
        if tells(vote.task, target)
    }
