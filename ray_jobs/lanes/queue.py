"""The queue actor: who trains what, how far it is, and what became of it.

Lanes take jobs and report; the driver submits, listens and decides. Everything a lane says is
keyed by job, so that a message sent twice counts once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import ray

from maskcls.config.schema import Resources
from ray_jobs.training.job import Assignment, Job

POLL_S = 5.0
"""Longest time that a call waits for news before it answers that there is none."""

State = Literal["pending", "running", "done", "failed", "cancelled"]


@dataclass
class Event:
    """One thing that happened to a job: ``started``, ``epoch``, ``done``, ``failed``, ..."""

    kind: str
    job: str
    lane: int | None = None
    values: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Entry:
    job: Assignment
    state: State = "pending"
    lane: int | None = None
    starts: int = 0
    furthest: int = 0
    last_sign: float = 0.0
    verdicts: dict[int, bool] = field(default_factory=dict)


class _JobQueue:
    """See the module. ``attempts``: how often a job may start before it counts as failed."""

    def __init__(self, attempts: int) -> None:
        self._attempts = attempts
        self._entries: dict[str, _Entry] = {}
        # Those that wait their turn (and some that ended meanwhile), and those that run: to look
        # through all entries for each job would cost as the square of their number.
        self._waiting: deque[_Entry] = deque()
        self._running: dict[int, _Entry] = {}
        self._events: list[Event] = []
        self._controllers: dict[int, Any] = {}
        self._closed = self._ended = False
        self._aborted: str | None = None
        self._at_work: set[int] = set()
        self._last_work = self._last_without_node = time.monotonic()
        self._news = asyncio.Event()

    async def submit(self, jobs: Sequence[Assignment]) -> None:
        """Add jobs, first come first served. A job that is known and not ended stays as it is."""
        for job in jobs:
            known = self._entries.get(job.name)
            if known is None or known.state in ("failed", "cancelled", "done"):
                entry = self._entries[job.name] = _Entry(job)
                self._waiting.append(entry)
                if self._aborted:
                    self._end(entry, "failed", {"reason": self._aborted})
        self._notify()

    async def close(self) -> set[int]:
        """No more jobs will come: lanes end when nothing is left. Those that have a worker."""
        self._closed = True
        self._notify()
        return self._at_work

    async def take(self, lane: int) -> Assignment | Literal["wait"] | None:
        """The next job of a lane; None when there will be none; "wait" to ask again."""
        self._at_work.add(lane)
        deadline = time.monotonic() + POLL_S
        while True:
            while self._waiting:
                entry = self._waiting.popleft()
                if entry.state == "pending":
                    return self._start(entry, lane)
            if self._closed:
                return None
            if not await self._wait(deadline):
                return "wait"

    async def lane_started(self, lane: int, controller: Any) -> bool:
        """Keep the handle of a lane's controller actor; False where no lane is wanted any more."""
        self._controllers[lane] = controller
        return not self._ended

    async def end(self) -> tuple[dict[int, Any], set[int]]:
        """No lane is wanted any more; the controllers of those that have started, and which lanes
        have a worker."""
        self._ended = True
        return self._controllers, self._at_work

    async def beat(self, name: str) -> bool:
        """A sign of life; False asks the worker to stop."""
        entry = self._entries[name]
        entry.last_sign = time.monotonic()
        return entry.state == "running"

    async def folds_in_training(self) -> int:
        """Those of all jobs that run at the moment."""
        running = [entry.job for entry in self._running.values()]
        return sum(1 + len(job.companions) for job in running if isinstance(job, Job))

    async def epoch(self, name: str, number: int, values: dict[str, Any]) -> None:
        """An epoch ended. Told again after a restart, it is told to the driver again too."""
        entry = self._entries[name]
        entry.last_sign = time.monotonic()
        # A job that gets on has all its attempts again: nodes may be taken back again and again.
        # The last epoch is told again after each restart, and that is no getting on.
        if number > entry.furthest:
            entry.furthest, entry.starts = number, 1
        self._emit(Event("epoch", name, entry.lane, {"epoch": number, **values}))

    async def verdict(self, name: str, number: int) -> bool | Literal["wait"]:
        """Whether to go on after an epoch of a supervised job; "wait" to ask again."""
        entry = self._entries[name]
        deadline = time.monotonic() + POLL_S
        while entry.state == "running" and number not in entry.verdicts:
            if not await self._wait(deadline):
                entry.last_sign = time.monotonic()
                return "wait"
        return entry.state == "running" and entry.verdicts[number]

    async def decide(self, name: str, number: int, go_on: bool) -> None:
        """The supervisor's answer to ``verdict``."""
        self._entries[name].verdicts[number] = go_on
        self._notify()

    async def finish(self, name: str, values: dict[str, Any]) -> None:
        """A job reached its end."""
        self._end(self._entries[name], "done", values)

    async def fail(self, name: str, reason: str) -> None:
        """A job cannot be done; others go on."""
        self._end(self._entries[name], "failed", {"reason": reason})

    async def why_failed(self, name: str) -> str | None:
        """The reason of a failed job, or None where it did not fail."""
        failures = (e for e in self._events if e.job == name and e.kind == "failed")
        return next((event.values["reason"] for event in failures), None)

    async def cancel(self, name: str) -> None:
        """Nobody wants this job any more."""
        entry = self._entries.get(name)
        if entry is not None:
            self._end(entry, "cancelled", {})

    async def release(self, lane: int, reason: str) -> bool:
        """A lane has lost its worker: its job goes back, for this lane or another, or fails when it
        has had its attempts. Whether that worker had ever asked for a job."""
        asked = lane in self._at_work
        self._at_work.discard(lane)
        entry = self._running.get(lane)
        if entry is None:
            return asked
        if entry.starts >= self._attempts:
            self._end(entry, "failed", {"reason": reason})
        else:
            del self._running[lane]
            entry.state, entry.lane = "pending", None
            self._waiting.appendleft(entry)
            self._notify()
        return asked

    async def abort(self, reason: str) -> None:
        """Nothing can go on: every job, also one that is submitted later, fails for this reason."""
        self._aborted = reason
        for entry in self._entries.values():
            self._end(entry, "failed", {"reason": reason})

    async def why_aborted(self) -> str | None:
        """The reason of ``abort``, or None where nobody called it."""
        return self._aborted

    async def trouble(self, limits: Resources, has_node: bool) -> str | None:
        """Why waiting is in vain: a running job gives no sign of life, or nobody takes one.

        ``has_node``: whether there is a node that a worker could start on.
        """
        now = time.monotonic()
        running = list(self._running.values())
        waiting = sum(entry.state == "pending" for entry in self._waiting)
        if running or not waiting:
            self._last_work = now
        if not has_node:
            self._last_without_node = now
        stalled = [e.job.name for e in running if now - e.last_sign > limits.stall_timeout_s]
        if stalled:
            return (
                f"no sign of life from {', '.join(stalled)} for {limits.stall_timeout_s:g} s "
                "(resources.stall_timeout_s)"
            )
        if not has_node and now - self._last_work > limits.node_timeout_s:
            return (
                f"{waiting} job(s) wait and no node for them came within {limits.node_timeout_s:g} "
                "s (resources.node_timeout_s): `ray status` tells what the autoscaler waits for"
            )
        if now - max(self._last_work, self._last_without_node) > limits.start_timeout_s:
            return (
                f"{waiting} job(s) wait and no worker took one within {limits.start_timeout_s:g} s "
                "(resources.start_timeout_s): is the cluster busy, or do workers die as they start?"
            )
        return None

    async def events(self, after: int, name: str | None = None) -> tuple[int, list[Event]]:
        """Events from number ``after`` on, of one job or of all, and the number to go on from."""
        deadline = time.monotonic() + POLL_S
        while True:
            news = [e for e in self._events[after:] if name is None or e.job == name]
            if news or not await self._wait(deadline):
                return len(self._events), news

    async def events_so_far(self) -> int:
        """The number to ask ``events`` with for what is still to come."""
        return len(self._events)

    def _start(self, entry: _Entry, lane: int) -> Assignment:
        entry.state, entry.lane = "running", lane
        self._running[lane] = entry
        entry.starts += 1
        entry.last_sign = time.monotonic()
        self._emit(Event("started", entry.job.name, lane, {"attempt": entry.starts}))
        return entry.job

    def _end(self, entry: _Entry, state: State, values: dict[str, Any]) -> None:
        if entry.state in ("pending", "running"):
            if entry.state == "running":
                assert entry.lane is not None
                del self._running[entry.lane]
            entry.state = state
            self._emit(Event(state, entry.job.name, entry.lane, values))

    def _emit(self, event: Event) -> None:
        self._events.append(event)
        self._notify()

    def _notify(self) -> None:
        """Wake everyone who waits; whoever comes later waits for the next news."""
        self._news.set()
        self._news = asyncio.Event()

    async def _wait(self, deadline: float) -> bool:
        """Wait for news until ``deadline``; False when the time is up."""
        try:
            await asyncio.wait_for(self._news.wait(), deadline - time.monotonic())
        except TimeoutError:
            return False
        return True


# max_concurrency: every lane, trial and the driver may wait in a call at the same time.
JobQueue = ray.remote(num_cpus=0, max_concurrency=1000)(_JobQueue)
