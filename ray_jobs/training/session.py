"""What a job needs of the process that runs it."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from maskcls.labels import Float32Array
from ray_jobs.training.job import Job


class Session(Protocol):
    """What a job needs of the process that runs it.

    Only the first worker of a job (``rank`` 0) reads what a job wrote: the others may be on other
    nodes, and may come before it is written.
    """

    rank: int
    world: int
    node: str
    device: torch.device

    def beat(self, done: int = 0, total: int = 0) -> None:
        """Say that the job is alive, and how many steps of an epoch, or batches of a prediction,
        are done; raises Cancelled when nobody wants it any more."""

    def wait_for_cpu(self) -> None:
        """Say that the job is alive, and that its batches wait for a CPU of its node."""

    def epoch(self, number: int, values: dict[str, float]) -> None:
        """Tell the driver of an epoch."""

    def streams(self) -> int:
        """How many streams of batches share the cluster at the moment."""

    def shared(self, value: Any) -> Any:
        """The first worker's value, on every worker of the job: what it alone knows, or read."""

    def go_on(self, number: int) -> bool:
        """Whether a supervised job shall train on after this epoch."""

    def vote(self, job: Job, keys: list[str], probabilities: dict[str, Float32Array]) -> None:
        """Hand the ensemble what this model says of the photos to predict."""

    def has_voted(self, job: Job) -> bool:
        """Whether the ensemble has this model's votes already."""


class Cancelled(Exception):  # noqa: N818 -- not an error: somebody decided so
    """Nobody wants the job any more."""
