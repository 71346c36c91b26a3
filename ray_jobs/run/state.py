"""state.json: how far a run is, kept by its driver for those who look from outside.

The thread that hears of jobs writes the file, at most once a second. Nothing here imports Ray:
``python -m ray_jobs.status`` reads it on any machine that sees the folder.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from maskcls.storage import files
from maskcls.storage.place import Place
from maskcls.storage.remote import StorageError, Store

if TYPE_CHECKING:
    from ray_jobs.lanes.records import Event
    from ray_jobs.training.job import Job


log = logging.getLogger(__name__)
FILE = "state.json"
WRITE_S = 1.0
"""Shortest time between two writes while jobs run."""

SEND_S = 20.0
"""Seconds between two times that the file is sent to an object store."""


class JobState(BaseModel):
    """One job. ``pixels`` is what an epoch costs, up to a factor; ``None`` where jobs differ."""

    model_config = ConfigDict(extra="forbid")

    name: str
    task: str
    epochs: int
    state: Literal["waiting", "running", "done", "failed", "stopped"] = "waiting"
    attempt: int = 0
    epoch: int = 0
    score: float | None = None
    """Best macro F1 so far."""
    pixels: float | None = None
    timed_epochs: int = 0
    timed_s: float = 0.0
    """Seconds of the epochs that this program heard of."""
    news: float | None = None
    """When the job was last heard of; seconds since 1970, as all times here."""
    reason: str | None = None


class RunState(BaseModel):
    """A run. ``to_come``: trials of a search that have no job yet."""

    model_config = ConfigDict(extra="forbid")

    program: str
    phase: str
    began: float
    written: float
    lanes: int = 1
    to_come: int = 0
    ended: Literal["done", "failed", "interrupted"] | None = None
    reason: str | None = None
    waits_for: str | None = None
    """What the run cannot have yet because other programs do."""
    jobs: list[JobState] = []

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state, those that are still to come among the waiting."""
        counts = {state: sum(job.state == state for job in self.jobs)
                for state in ("done", "running", "waiting", "failed", "stopped")}  # fmt: skip
        counts["waiting"] += self.to_come
        return counts


class Board:
    """Writes down what the driver tells it. A disk that is full never ends a run because of it."""

    def __init__(self, folder: Path, program: str) -> None:
        now = time.time()
        self._path = folder / FILE
        self._written = 0.0
        self.state = RunState(program=program, phase="starting", began=now, written=now)
        self._by_name: dict[str, JobState] = {}
        self._write()

    def phase(self, name: str) -> None:
        """What the program does now, with a line on the terminal."""
        log.info("%s ...", name)
        self.state.phase = name
        self._write()

    def expect(self, jobs: Sequence[JobState], lanes: int = 1, to_come: int = 0) -> None:
        """The jobs of the run, in the order of the queue, and how many run side by side."""
        self.state.jobs, self.state.lanes, self.state.to_come = list(jobs), lanes, to_come
        self._by_name = {job.name: job for job in jobs}
        self._write()

    def begin(self, job: JobState) -> None:
        """A trial that was to come has become a job."""
        if job.name not in self._by_name:
            self.state.jobs.append(job)
            self._by_name[job.name] = job
            self.state.to_come = max(0, self.state.to_come - 1)

    def hear(self, events: Sequence[Event]) -> None:
        """What happened to jobs; to be called every few seconds, also when nothing did."""
        for event in events:
            self._apply(event)
        if time.monotonic() - self._written >= WRITE_S:
            self._write()

    def wait_for(self, what: str | None) -> None:
        """What the run waits for; None where it waits for nothing."""
        self.state.waits_for = what

    def time_left(self) -> float | None:
        """About how many seconds the run lasts yet; None where that is not known."""
        return time_left(self.state, time.time()).total

    def end(self, how: Literal["done", "failed", "interrupted"], reason: str | None = None) -> None:
        """The last word."""
        self.state.ended, self.state.reason = how, reason
        self._write()

    def _apply(self, event: Event) -> None:
        job, values = self._by_name[event.job], event.values
        if event.kind == "steps":
            return
        job.news = time.time()
        if event.kind == "started":
            job.state, job.attempt = "running", values["attempt"]
        elif event.kind == "lost":
            job.state = "waiting"
        elif event.kind == "epoch":
            job.epoch, job.epochs = round(values["epoch"]), round(values["epochs"])
            job.timed_epochs += 1
            job.timed_s += values["seconds"]
            job.score = max(job.score or 0.0, values["val/macro_f1"])
        elif event.kind == "done":
            job.state = "done"
            job.score = values["scores"]["macro_f1"] if "scores" in values else job.score
        elif event.kind in ("failed", "cancelled"):
            job.state = "failed" if event.kind == "failed" else "stopped"
            job.reason = values.get("reason")

    def _write(self) -> None:
        self.state.written, self._written = time.time(), time.monotonic()
        try:
            files.write_json(self._path, self.state.model_dump())
        except OSError as error:
            log.debug("%s", error)


@contextmanager
def keeping(place: Place, program: str) -> Iterator[Board]:
    """A board in ``place`` for as long as ``program`` works there, and how that ended."""
    board = Board(place.local, program)
    ended = threading.Event()
    if place.uri:
        threading.Thread(target=_send, args=(place, ended), daemon=True).start()
    try:
        yield board
    except KeyboardInterrupt:
        board.end("interrupted")
        raise
    except BaseException as error:
        board.end("failed", str(error))
        raise
    else:
        board.end("done")
    finally:
        ended.set()


def _send(place: Place, ended: threading.Event) -> None:
    """Send the file to its object store now and then; it asks nothing of Ray."""
    while not ended.wait(SEND_S):
        with suppress(OSError, StorageError):
            Store(str(place.uri)).send(place.local / FILE, FILE)


def of_jobs(jobs: Sequence[Job]) -> list[JobState]:
    """The jobs of a run as they stand on disk: waiting, or done by an earlier program."""
    states = []
    for job in jobs:
        height, width = job.recipe.image.size
        state = JobState(
            name=job.name,
            task=str(job.task),
            epochs=job.recipe.train.epochs,
            pixels=float(height * width),
        )
        if (report := job.done()) is not None:
            state.state, state.epoch = "done", report["epochs"]
            state.score = report["scores"]["macro_f1"]
        states.append(state)
    return states


def read(folder: Path) -> RunState:
    """The state of the run in ``folder``.

    Raises FileNotFoundError where there is none and ValueError where the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"run.dir={folder}: no {FILE}, so no run was started here (or by an older version)"
        )
    try:
        return RunState.model_validate(files.read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path}: not the state of a run ({where}: {first['msg']})") from None


@dataclass(frozen=True)
class Left:
    """Seconds that are left, of each job and of all; None where nothing tells."""

    jobs: dict[str, float | None]
    total: float | None


def time_left(state: RunState, now: float) -> Left:
    """What the measured epochs let expect, if no job ends early.

    A job without epochs of its own goes by those of its task, then by the pixels that all jobs
    computed on. The total deals waiting jobs to lanes in their order.
    """
    jobs = {job.name: _job_left(job, state, now) for job in state.jobs}
    running = [job.name for job in state.jobs if job.state == "running"]
    waiting = [jobs[job.name] for job in state.jobs if job.state == "waiting"]
    waiting += [_mean_job_s(state)] * state.to_come
    times = [*(jobs[name] for name in running), *waiting]
    if state.ended or any(seconds is None for seconds in times):
        return Left(jobs, None)
    free = [jobs[name] or 0.0 for name in running]
    free += [0.0] * (state.lanes - len(free))
    heapq.heapify(free)
    for seconds in waiting:
        heapq.heappush(free, heapq.heappop(free) + (seconds or 0.0))
    return Left(jobs, max(free, default=0.0))


def _job_left(job: JobState, state: RunState, now: float) -> float | None:
    if job.state not in ("waiting", "running"):
        return None
    if job.epoch >= job.epochs:
        return 0.0
    epoch_s = _epoch_s(job, state)
    if epoch_s is None:
        return None
    since = max(0.0, now - job.news) if job.state == "running" and job.news else 0.0
    return (job.epochs - job.epoch) * epoch_s - min(since, epoch_s)


def _epoch_s(job: JobState, state: RunState) -> float | None:
    if job.timed_epochs:
        return job.timed_s / job.timed_epochs
    for alike in (
        [other for other in state.jobs if (other.task, other.pixels) == (job.task, job.pixels)],
        state.jobs,
    ):
        epochs = sum(other.timed_epochs for other in alike)
        if not epochs:
            continue
        seconds = sum(other.timed_s for other in alike)
        if job.pixels is None or any(other.pixels is None for other in alike):
            return seconds / epochs
        pixels = sum(other.timed_epochs * (other.pixels or 0.0) for other in alike)
        return job.pixels * seconds / pixels
    return None


def _mean_job_s(state: RunState) -> float | None:
    """What a trial takes that nobody knows yet: as those that ended did."""
    ended = [job.timed_s for job in state.jobs
             if job.state in ("done", "stopped") and job.timed_epochs]  # fmt: skip
    return sum(ended) / len(ended) if ended else None
