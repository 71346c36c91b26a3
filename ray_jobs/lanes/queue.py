"""The queue actor: who trains what, how far it is, and what became of it.

Lanes take jobs and report; the driver submits, listens and decides. Everything a lane reports is
keyed by job, so that a message sent twice counts once. The workers of a lane have an incarnation, a
number that changes when they are lost: what a lost one still asks for is not given to it.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any, Literal

import ray

from maskcls.config.schema import Resources
from ray_jobs.lanes.failures import Blame
from ray_jobs.lanes.patience import Patience
from ray_jobs.lanes.records import Entry, Event, LaneState, State
from ray_jobs.training.job import Assignment, Job

MACHINE_FAILURES = 2
"""Failures of its machine, with no finished job in between, after which a lane is closed."""

WAIT_S = 60.0
"""Seconds after which it is said what a job waits for: processes that start have CPUs, too."""

POLL_S = 5.0
"""Longest time that a call waits for news before it answers that there is none."""


class _JobQueue:
    """See the module. ``attempts``: how often a job may start before it counts as failed.
    ``keep``: how many lanes stay when the driver has said that no more jobs will come."""

    def __init__(self, attempts: int, keep: int = 1) -> None:
        self._attempts, self._keep = attempts, keep
        self._entries: dict[str, Entry] = {}
        # Those that wait their turn (and some that ended meanwhile): to look through all entries
        # for each job would cost as the square of their number.
        self._waiting: deque[Entry] = deque()
        self._lanes: defaultdict[int, LaneState] = defaultdict(LaneState)
        self._events: list[Event] = []
        self._closed = self._ended = self._last = False
        self._aborted: str | None = None
        self._patience = Patience()
        self._news = asyncio.Event()

    async def submit(self, jobs: Sequence[Assignment], of: int | None = None) -> None:
        """Add jobs, first come first served. A job that is known and not ended stays as it is.

        When all ``of`` jobs have come, lanes that find nothing to do leave, all but ``keep``.
        """
        for job in jobs:
            known = self._entries.get(job.name)
            if known is None or known.state in ("failed", "cancelled", "done"):
                entry = self._entries[job.name] = Entry(job)
                self._waiting.append(entry)
                if self._aborted:
                    self._end(entry, "failed", {"reason": self._aborted})
        self._last = of is not None and len(self._entries) >= of
        self._notify()

    async def close(self) -> set[int]:
        """No more jobs will come: lanes end when nothing is left. Those that have a worker."""
        self._closed = True
        self._notify()
        return self._at_work()

    async def enter(self, lane: int, worker: Any = None) -> int:
        """A lane has new workers, the first of them the actor ``worker``; their incarnation."""
        state = self._lanes[lane]
        self._lose(state, "its worker was replaced")
        state.worker = worker
        return state.incarnation

    async def take(self, lane: int, incarnation: int) -> Assignment | Literal["wait"] | None:
        """The next job of a lane; None when it is to end; "wait" to ask again."""
        state = self._lanes[lane]
        deadline = time.monotonic() + POLL_S
        if incarnation == state.incarnation:
            state.at_work = True
            # It would not ask if it knew of that job: the answer with it was lost.
            self._give_back(state, "its lane does not know of it")
        while incarnation == state.incarnation and state.closed is None:
            if entry := self._next(lane):
                return self._start(entry, lane)
            if self._closed or (self._last and len(self._at_work()) > self._keep):
                state.at_work = False
                return None
            if not await self._wait(deadline):
                return "wait"
        return None

    async def lane_started(self, lane: int, controller: Any) -> bool:
        """Keep the handle of a lane's controller actor; False where no lane is wanted any more."""
        self._lanes[lane].controller = controller
        return not self._ended

    async def end(self) -> tuple[dict[int, Any], set[int]]:
        """No lane is wanted any more; the controllers of those that have started, and which lanes
        have a worker."""
        self._ended = True
        controllers = {number: lane.controller for number, lane in self._lanes.items()
                       if lane.controller is not None}  # fmt: skip
        return controllers, self._at_work()

    async def beat(self, name: str, done: int = 0, total: int = 0) -> bool:
        """A sign of life, with the steps that are done; False asks the worker to stop."""
        entry = self._entries[name]
        entry.last_sign, entry.waits = time.monotonic(), None
        if entry.is_news(done, total):
            self._emit("steps", entry, {"done": done, "total": total})
        return entry.state == "running"

    async def wait_for(self, name: str, what: str) -> None:
        """A sign of life of a job that waits for what others have."""
        entry = self._entries[name]
        entry.last_sign = now = time.monotonic()
        entry.waits = entry.waits or (what, now)

    async def waits_for(self) -> str | None:
        """What some job has waited for at least ``WAIT_S`` seconds."""
        now = time.monotonic()
        waits = [entry.waits for entry in self._running() if entry.waits]
        return next((what for what, since in waits if now - since >= WAIT_S), None)

    async def folds_in_training(self) -> int:
        """Those of all jobs that run at the moment."""
        jobs = [entry.job for entry in self._running()]
        return sum(1 + len(job.companions) for job in jobs if isinstance(job, Job))

    async def epoch(self, name: str, number: int, values: dict[str, Any]) -> None:
        """An epoch ended. Reported again after a restart, it is an event again too."""
        entry = self._entries[name]
        entry.last_sign = time.monotonic()
        # A job that gets on has all its attempts again: nodes may be taken back again and again.
        # The last epoch is reported again after each restart, which is no progress.
        if number > entry.furthest:
            entry.furthest, entry.starts = number, 1
        self._emit("epoch", entry, {"epoch": number, **values})

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
        entry = self._entries[name]
        if entry.lane is not None:
            self._lanes[entry.lane].machine_failures = 0
        self._end(entry, "done", values)

    async def report_failure(
        self, lane: int, incarnation: int, name: str, blame: Blame, reason: str, trace: str
    ) -> None:
        """A worker could not go on with a job. If that is the job's own fault, the job ends; else
        the worker ends next, and ``release`` gives the job back."""
        state = self._lanes[lane]
        entry = state.running
        if incarnation != state.incarnation or entry is None or entry.job.name != name:
            return
        if blame is Blame.JOB:
            values = {"reason": reason, "traceback": trace, "attempt": entry.starts}
            self._end(entry, "failed", values)
            return
        if blame is Blame.MACHINE:
            entry.avoid.add(lane)
            entry.cause = (reason, trace)
            await self.machine_failed(lane, reason)

    async def machine_failed(self, lane: int, reason: str) -> None:
        """The machine of a lane failed; after ``MACHINE_FAILURES`` the lane gets no more jobs."""
        state = self._lanes[lane]
        state.machine_failures += 1
        if state.machine_failures >= MACHINE_FAILURES:
            state.closed = f"closed after {MACHINE_FAILURES} failures of its machine: {reason}"

    async def why_failed(self, name: str) -> str | None:
        """The reason of a failed job, or None where it did not fail."""
        failures = (e for e in self._events if e.job == name and e.kind == "failed")
        return next((event.values["reason"] for event in failures), None)

    async def cancel(self, name: str) -> None:
        """Nobody wants this job any more."""
        entry = self._entries.get(name)
        if entry is not None:
            self._end(entry, "cancelled", {})

    async def release(self, lane: int, reason: str, trace: str = "") -> tuple[bool, str | None]:
        """A lane has lost its worker: its job goes back, for this lane or another, or fails when it
        has had its attempts. Whether that worker had ever asked for a job, and why the lane is
        closed, if it is."""
        state = self._lanes[lane]
        asked = state.at_work
        self._lose(state, reason, trace)
        return asked, state.closed

    async def close_lane(self, lane: int, reason: str) -> None:
        """A lane has ended and will have no other worker."""
        state = self._lanes[lane]
        state.closed = state.closed or reason
        self._lose(state, reason)

    async def abort(self, reason: str) -> None:
        """Nothing can go on: every job, also one that is submitted later, fails for this reason."""
        self._aborted = reason
        for entry in self._entries.values():
            self._end(entry, "failed", {"reason": reason})

    async def why_aborted(self) -> str | None:
        """The reason of ``abort``, or None where nobody called it."""
        return self._aborted

    async def silent(self, timeout_s: float) -> dict[int, tuple[str, Any]]:
        """Lanes whose job gave no sign of life for ``timeout_s`` seconds: the job, and the actor
        to kill, which is the worker, or the controller where killing the worker did not help."""
        now, found = time.monotonic(), {}
        for number, lane in self._lanes.items():
            entry = lane.running
            if entry is None or now - entry.last_sign <= timeout_s:
                continue
            entry.last_sign = now
            entry.cause = (f"no sign of life for {timeout_s:g} s (resources.stall_timeout_s)", "")
            in_vain = lane.killed == lane.incarnation or lane.worker is None
            found[number] = entry.job.name, lane.controller if in_vain else lane.worker
            lane.killed = lane.incarnation
        return found

    async def waiting(self) -> int:
        """How many jobs wait for a lane."""
        return sum(entry.state == "pending" for entry in self._waiting)

    async def trouble(self, limits: Resources, has_node: bool, busy: bool = False) -> str | None:
        """Why no job can go on, as no worker takes one; see ``Patience``."""
        waiting, works = await self.waiting(), bool(self._running())
        return self._patience.over(limits, waiting, works=works, has_node=has_node, busy=busy)

    async def events(
        self, after: int, name: str | None = None, wait: bool = True
    ) -> tuple[int, list[Event]]:
        """Events from number ``after`` on, of one job or of all, and the number to go on from."""
        deadline = time.monotonic() + POLL_S
        while True:
            news = [e for e in self._events[after:] if name is None or e.job == name]
            if news or not wait or not await self._wait(deadline):
                return len(self._events), news

    async def events_so_far(self) -> int:
        """The number to ask ``events`` with for what is still to come."""
        return len(self._events)

    def _running(self) -> list[Entry]:
        return [lane.running for lane in self._lanes.values() if lane.running is not None]

    def _at_work(self) -> set[int]:
        return {number for number, lane in self._lanes.items() if lane.at_work}

    def _next(self, lane: int) -> Entry | None:
        """The first job that waits. One that this lane's machine failed under is left to others
        as long as another lane is at work."""
        others, left = self._at_work() - {lane}, []
        try:
            while self._waiting:
                entry = self._waiting.popleft()
                if entry.state == "pending" and not (lane in entry.avoid and others):
                    return entry
                if entry.state == "pending":
                    left.append(entry)
            return None
        finally:
            self._waiting.extendleft(reversed(left))

    def _start(self, entry: Entry, lane: int) -> Assignment:
        entry.state, entry.lane, entry.cause, entry.share = "running", lane, None, 0
        entry.waits = None
        self._lanes[lane].running = entry
        entry.starts += 1
        entry.last_sign = time.monotonic()
        self._emit("started", entry, {"attempt": entry.starts})
        return entry.job

    def _lose(self, lane: LaneState, reason: str, trace: str = "") -> None:
        """The workers of a lane are gone, whatever they still ask."""
        lane.incarnation += 1
        lane.at_work, lane.worker = False, None
        self._give_back(lane, reason, trace)
        self._notify()

    def _give_back(self, lane: LaneState, reason: str, trace: str = "") -> None:
        """The job of a lane waits again, unless it has had its attempts."""
        entry = lane.running
        if entry is None:
            return
        if entry.cause is not None:
            reason, trace = entry.cause
        values = {"reason": reason, "traceback": trace, "attempt": entry.starts}
        if entry.starts >= self._attempts:
            self._end(entry, "failed", values)
            return
        self._emit("lost", entry, values)
        lane.running = None
        entry.state, entry.lane = "pending", None
        self._waiting.appendleft(entry)
        self._notify()

    def _end(self, entry: Entry, state: State, values: dict[str, Any]) -> None:
        if entry.state in ("pending", "running"):
            if entry.lane is not None:
                self._lanes[entry.lane].running = None
            entry.state = state
            self._emit(state, entry, values)

    def _emit(self, kind: str, entry: Entry, values: dict[str, Any]) -> None:
        place = entry.job.place if isinstance(entry.job, Job) else None
        self._events.append(Event(kind, entry.job.name, entry.lane, values, place))
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
