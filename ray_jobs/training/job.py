"""A job: one model to train, on one fold of one task, with everything that its worker needs.

And the other kind of work that lanes do, a call of a function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from maskcls.config import layers
from maskcls.config.recipe import Recipe
from maskcls.config.schema import Tracking
from maskcls.labels import Task
from maskcls.storage import files
from maskcls.storage.place import Place
from ray_jobs.cluster.names import ascii_name
from ray_jobs.data.source import ImageSource


@dataclass(frozen=True)
class Job:
    """One (task, fold). ``folder`` keeps all it leaves; ``identity`` changes when its result would.

    Where the run lives on an object store, ``uri`` is that of ``folder``, which then is this
    node's copy.

    ``train`` are the training photos, whose table has their folds; a job that is done needs none.
    ``evaluation`` are the photos that the finished model predicts, where there are any. A
    ``supervised`` job asks after each epoch whether it should go on; its ``companions`` are the
    same recipe on other folds, trained epoch by epoch beside it and scored together with it.
    What is not trained but tried is told by ``purpose``: see ``rehearsal`` and ``range_test``.
    """

    name: str
    task: Task
    fold: int
    recipe: Recipe
    seed: int
    identity: str
    folder: Path
    train: ImageSource | None
    evaluation: ImageSource | None
    group: str
    tracking: Tracking
    supervised: bool = False
    purpose: Literal["train", "rehearse", "find lr"] = "train"
    companions: tuple[Job, ...] = ()
    uri: str | None = None

    @property
    def place(self) -> Place:
        """The folder, and where it lives."""
        return Place(self.folder, self.uri)

    @property
    def title(self) -> str:
        """What Ray's dashboard shows of it: run, trial where it is one, task and fold."""
        own = f"{self.task}-fold{self.fold}"
        return ascii_name(":".join(dict.fromkeys((self.group, self.name, own))))

    def done(self) -> dict[str, Any] | None:
        """What the finished job reported, or None while it is not finished."""
        path = self.folder / "job.json"
        if not path.is_file():
            return None
        report: dict[str, Any] = files.read_json(path)
        if report["identity"] != self.identity:
            raise ValueError(
                f"{self.folder} belongs to another configuration or other photos: "
                "choose another run.dir, or delete it to train anew"
            )
        stopped_early = self.supervised and report["epochs"] < self.recipe.train.epochs
        # A trial that was stopped may be asked to go on: it still has what it needs for that.
        return None if stopped_early else report


@dataclass(frozen=True)
class Call:
    """A call of a function on a lane, whose process has imported what it needs.

    Its report is ``{"answer": function()}``.
    """

    name: str
    function: Callable[[], Any]


Assignment = Job | Call
"""What a lane takes from the queue."""


def identity(recipe: Recipe, *, task: Task, fold: int, seed: int, data: str) -> str:
    """Sixteen digits that change when anything that shapes the trained model changes."""
    return layers.digest(recipe.model_dump(mode="json"), task, fold, seed, data)
