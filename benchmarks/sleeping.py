"""Jobs that sleep instead of training: real driver, queue, lanes and events, and known times."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import ray

from maskcls.config.recipe import Recipe
from maskcls.config.schema import Tracking
from maskcls.labels import Task
from maskcls.learning import tracking
from ray_jobs.lanes import pool, worker_loop
from ray_jobs.lanes.pool import Lanes
from ray_jobs.training import fit
from ray_jobs.training.job import Job
from ray_jobs.training.session import Session

EPOCHS = 3
"""Told to the queue by every job."""


@dataclass(frozen=True)
class SleepingJob(Job):
    """A job that takes ``sleep_s`` seconds."""

    sleep_s: float = 0.0


@contextmanager
def asleep() -> Iterator[None]:
    """Lanes that are started inside run sleeping jobs."""
    with mock.patch.object(pool, "lane_loop", _lane_loop):
        yield


def _lane_loop(config: dict[str, Any]) -> None:
    # In the worker's own process, which runs the jobs of one lane and nothing else.
    with mock.patch.object(fit, "run", _sleep):
        worker_loop.lane_loop(config)


def _sleep(job: SleepingJob, session: Session) -> dict[str, Any]:
    began = time.monotonic()
    scores = {"macro_f1": 0.5}
    for epoch in range(1, EPOCHS + 1):
        time.sleep(max(0.0, began + job.sleep_s * epoch / EPOCHS - time.monotonic()))
        session.beat()
        values = dict.fromkeys(tracking.COLUMNS, 0.5)
        session.epoch(epoch, {**values, "epoch": epoch, "epochs": EPOCHS})
    return {
        "identity": job.identity, "task": job.task, "fold": job.fold, "best_epoch": EPOCHS,
        "epochs": EPOCHS, "scores": scores, "views": ["plain"], "seconds": time.monotonic() - began,
        "training_seconds": job.sleep_s,
    }  # fmt: skip


def named(name: str, sleep_s: float = 0.0, recipe: Recipe | None = None) -> SleepingJob:
    """A job of this name that belongs to nothing."""
    return SleepingJob(
        name=name, task=Task.AGE, fold=0, recipe=recipe or Recipe(), seed=0, identity="0" * 16,
        folder=Path("/nowhere"), train=None, evaluation=None, group="", tracking=Tracking(),
        sleep_s=sleep_s,
    )  # fmt: skip


def wake(lanes: Lanes, timeout_s: float = 300.0) -> None:
    """Wait until every lane is up: each has taken a job at the same time as the others.

    Raises TimeoutError where that takes longer than ``timeout_s``.
    """
    deadline, number, up = time.monotonic() + timeout_s, 0, set[int | None]()
    seen = ray.get(lanes.queue.events_so_far.remote())
    while len(up) < len(lanes.threads):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(up)} of {len(lanes.threads)} lanes in {timeout_s:g} s")
        # One job of a second at a time for each lane, until the last has had one.
        batch = [named(f"wake{number + i}", 1.0) for i in range(len(lanes.threads))]
        number += len(batch)
        lanes.run(batch)
        seen, events = ray.get(lanes.queue.events.remote(seen))
        up |= {event.lane for event in events if event.kind == "started"}
