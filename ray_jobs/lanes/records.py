"""What the queue knows of a job and of a lane, and what it tells of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from maskcls.storage.place import Place
from ray_jobs.training.job import Assignment

STEP_EVENTS = 50
"""Most events about the first epoch of a job."""

State = Literal["pending", "running", "done", "failed", "cancelled"]


@dataclass
class Event:
    """One thing that happened to a job: ``started``, ``steps`` (of its first epoch), ``epoch``,
    ``lost`` (its worker), ``done``, ``failed`` or ``cancelled``. ``place`` is the folder of the
    job, if it has one."""

    kind: str
    job: str
    lane: int | None = None
    values: dict[str, Any] = field(default_factory=dict)
    place: Place | None = None


@dataclass
class Entry:
    job: Assignment
    state: State = "pending"
    lane: int | None = None
    starts: int = 0
    furthest: int = 0
    last_sign: float = 0.0
    verdicts: dict[int, bool] = field(default_factory=dict)
    avoid: set[int] = field(default_factory=set)
    """Lanes whose machine failed under this job."""
    cause: tuple[str, str] | None = None
    """Why its worker is about to be lost, if that is known, and the traceback."""
    waits: tuple[str, float] | None = None
    """What it waits for, and since when."""
    share: int = 0
    """How much of the first epoch it has reported, in parts of ``STEP_EVENTS``."""

    def is_news(self, done: int, total: int) -> bool:
        """Whether so many steps of the first epoch are worth an event."""
        before, self.share = self.share, STEP_EVENTS * done // total if total else self.share
        return self.share > before and not self.furthest and self.state == "running"


@dataclass
class LaneState:
    incarnation: int = 0
    at_work: bool = False
    """Whether its present worker has asked for a job."""
    running: Entry | None = None
    worker: Any = None
    controller: Any = None
    machine_failures: int = 0
    closed: str | None = None
    killed: int | None = None
    """The incarnation whose worker was killed because it was silent."""
