"""A trial of Ray Tune: one configuration, trained by a lane, judged epoch by epoch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune

from maskcls.config import search_space
from maskcls.config.schema import Config
from maskcls.labels import Task
from maskcls.learning import tracking
from ray_jobs.data.photos import Dataset
from ray_jobs.lanes.records import Event
from ray_jobs.training import job as jobs
from ray_jobs.training.job import Job

log = logging.getLogger(__name__)

SCORE = "score"
"""The metric that Tune maximises: out-of-fold macro F1 of the trial's folds after an epoch."""


class TrialFailed(RuntimeError):  # noqa: N818 -- an answer to the user, not a bug
    """The trial's configuration cannot be trained; says why."""


@dataclass(frozen=True)
class TrialPlan:
    """What all trials of a search share."""

    config: Config
    task: Task
    data: Dataset
    folder: Path

    def trial_folder(self, name: str) -> Path:
        return self.folder / name

    def job(self, name: str, values: Mapping[str, Any]) -> Job:
        """The job of a trial: its first fold, with the others as companions."""
        recipe = search_space.apply(self.config.recipe(self.task), values)
        if "train.epochs" not in values:
            recipe = search_space.apply(recipe, {"train.epochs": self.config.tune.max_epochs})
        recipe = self.data.complete(recipe)
        seed = self.config.run.seed
        first, *others = (
            Job(
                name=name,
                task=self.task,
                fold=fold,
                recipe=recipe,
                seed=seed,
                identity=jobs.identity(
                    recipe, task=self.task, fold=fold, seed=seed, data=self.data.digest
                ),
                folder=self.trial_folder(name) / f"fold{fold}",
                train=self.data.train.images[recipe.image],
                evaluation=None,
                group=self.folder.parent.name,
                tracking=self.config.tracking,
                supervised=True,
            )
            for fold in self.config.tune.folds
        )
        return replace(first, companions=tuple(others))


class Trial(tune.Trainable):
    """Hands its job to a lane and passes its epochs on to Tune.

    Its configuration is what ``LedgerSearcher`` suggests: a name that outlives the driver, which
    Tune's own id does not, and the values of the keys that are searched.

    That Tune asks for another step is the verdict to go on; the end of a trial is told to the
    lane by the ledger, which hears of it first.
    """

    def setup(
        self, config: dict[str, Any], queue: Any = None, plan: TrialPlan | None = None, of: int = 1
    ) -> None:
        """``of``: how many trials this program has, after which idle lanes leave."""
        assert queue is not None
        assert plan is not None
        self._queue, self._plan, self._of = queue, plan, of
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._job = self._plan.job(config["name"], config["values"])
        self._seen, self._unread = ray.get(self._queue.events_so_far.remote()), list[Event]()
        of = self._job.recipe.train.epochs
        # A resumed trial has epochs behind it, and may have nothing left to do.
        behind = history(self._plan.trial_folder(self._job.name))
        self._last: dict[str, Any] = {**behind[-1], "of": of} if behind else {}
        self._unjudged: int | None = None
        ray.get(self._queue.submit.remote([self._job], self._of))

    def step(self) -> dict[str, Any]:
        if self._unjudged is not None:
            ray.get(self._queue.decide.remote(self._job.name, self._unjudged, True))
        while True:
            for event in self._news():
                if event.kind == "failed":
                    raise TrialFailed(event.values["reason"])
                if event.kind in ("done", "cancelled"):
                    return {**self._last, "done": True, "done_early": event.kind == "done"}
                if event.kind == "epoch":
                    of = self._job.recipe.train.epochs
                    self._last = {**_report(event.values), "of": of}
                    self._unjudged = self._last["epoch"]
                    return {**self._last, "done": self._unjudged >= of}

    def _news(self) -> Iterator[Event]:
        """Events of this trial, each once."""
        while not self._unread:
            self._seen, self._unread = ray.get(
                self._queue.events.remote(self._seen, self._job.name)
            )
        while self._unread:
            yield self._unread.pop(0)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the trial's folder has its checkpoint, which a resumed trial goes on from."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing; see ``save_checkpoint``."""


def history(trial_folder: Path) -> list[dict[str, Any]]:
    """The reports of a trial so far, from its folder."""
    paths = sorted(trial_folder.glob("fold*/metrics.jsonl"))
    if not paths:
        return []
    return [_report(row) for _, row in tracking.read_metrics(paths[0].parent).iterrows()]


def _report(values: Any) -> dict[str, Any]:
    return {
        "epoch": int(values["epoch"]),
        SCORE: values["val/macro_f1"],
        "loss": values["val/loss"],
        "epoch_seconds": values["seconds"],
    }
