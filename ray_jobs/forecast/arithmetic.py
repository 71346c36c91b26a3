"""The arithmetic of a plan: what was measured -> when each job runs, how long, for how much."""

from __future__ import annotations

import heapq
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from maskcls.config.schema import Config
from maskcls.labels import Task
from ray_jobs.cluster.nodes import Node
from ray_jobs.cluster.packing import Plan

THREADS_ELSEWHERE = 2
"""Threads that prepare photos on a node which has none (``ImageSource.open``)."""

END_S, END_PHOTO_S = 6.0, 0.003
"""Vote, scores and report: seconds, and seconds a photo. Assumed, and marked so."""


@dataclass(frozen=True)
class JobSize:
    """One job: what it trains on, in photos and steps of an epoch, and what it predicts.

    ``kind`` is the same for jobs whose steps cost the same.
    """

    name: str
    task: Task
    fold: int
    kind: str
    training: int
    steps: int
    validation: int
    epochs: int
    predicted: int
    views: int = 1
    """Of each photo, that the finished model sees."""
    answers_again: bool = False
    """Whether it answers for the validation photos once more."""


@dataclass
class Measured:
    """Seconds. ``costs`` are those of ``rehearsal.run``, by kind of job; ``starts`` one a lane."""

    lookup: float = 0.0
    decode: float = 0.0
    missing: int = 0
    costs: dict[str, dict[str, float]] = field(default_factory=dict)
    starts: list[float] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    took: float = 0.0


@dataclass(frozen=True)
class Slot:
    """When a job runs, in which lane; seconds from the start of the lanes."""

    name: str
    lane: int
    begins: float
    ends: float


@dataclass
class Forecast:
    """All that is known before a sweep. ``phases`` are seconds, empty where they are not known."""

    nodes: Sequence[Node]
    plan: Plan | None
    work: list[JobSize]
    done: int
    problems: dict[str, str]
    measured: Measured
    seconds: dict[str, float] = field(default_factory=dict)
    slots: list[Slot] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        return sum(self.phases.values())


def job_seconds(work: JobSize, costs: Mapping[str, float], workers: int) -> float:
    """How long a job takes in a lane that is up, at most: patience may end it sooner."""
    epoch = work.steps * costs["step"] + work.validation / workers * costs["photo"] + costs["save"]
    again = work.validation if work.answers_again else 0
    answers = (work.predicted + again) * work.views * costs["photo"]
    loads = (work.predicted > 0) + (again > 0)
    return costs["build"] + work.epochs * epoch + loads * costs["load"] + answers


def packed(seconds: Mapping[str, float], ready: Sequence[float]) -> list[Slot]:
    """Jobs, in this order, each to the lane that is free first; ``ready``: when each lane is."""
    free = [(moment, lane) for lane, moment in enumerate(ready)]
    heapq.heapify(free)
    slots = []
    for name, length in seconds.items():
        begins, lane = heapq.heappop(free)
        slots.append(Slot(name, lane, begins, begins + length))
        heapq.heappush(free, (begins + length, lane))
    return slots


def foresee(config: Config, forecast: Forecast, startup: float, photos: int) -> None:
    """Fill in when each job runs, and how long everything takes."""
    plan, measured = forecast.plan, forecast.measured
    work = [job for job in forecast.work if job.name not in forecast.problems]
    if plan is None or any(job.kind not in measured.costs for job in work):
        return
    forecast.seconds = {
        job.name: job_seconds(job, measured.costs[job.kind], plan.workers_per_job) for job in work
    }
    phases = {"start": startup, "prepare photos": measured.lookup}
    phases["prepare photos"] += measured.missing * measured.decode
    if work:
        forecast.slots = packed(forecast.seconds, _ready(config, forecast, photos))
        phases["lanes and jobs"] = max(slot.ends for slot in forecast.slots)
    phases["vote and report"] = END_S + photos * END_PHOTO_S
    forecast.phases = phases


def _ready(config: Config, forecast: Forecast, photos: int) -> list[float]:
    """When each lane takes its first job: seconds after its start was asked for."""
    plan, measured = forecast.plan, forecast.measured
    assert plan is not None
    live = [node for node in forecast.nodes if node.id]
    # What the first job of a process pays for itself: imports, kernels, worker processes.
    cold = max(costs["cold"] for costs in measured.costs.values())
    start = max(measured.starts) + cold
    copies = _copies(forecast, photos)
    heads = [node for node in live if node.head]
    beside, up = plan.lanes_on(heads), plan.lanes_on(live)
    ready = []
    for lane in plan.lanes:
        elsewhere = lane.number >= beside or (lane.node and lane.node not in {n.id for n in heads})
        late = lane.number >= up
        ready.append(
            start + (copies if elsewhere else 0.0) + (config.plan.node_start_s if late else 0.0)
        )
    return ready


def _copies(forecast: Forecast, photos: int) -> float:
    """Seconds in which a node other than the driver's prepares all photos for itself."""
    return photos * forecast.measured.decode * (os.cpu_count() or 1) / THREADS_ELSEWHERE


def cost_of(
    nodes: Sequence[Node], prices: float | Mapping[str, float] | None, hours: float
) -> tuple[float | None, list[str]]:
    """What the nodes cost in these hours, and the node types without a price; None for no price at
    all."""
    if prices is None:
        return None, []
    if isinstance(prices, Mapping):
        unpriced = sorted({kind_of(node) for node in nodes} - set(prices))
        return sum(prices.get(kind_of(node), 0.0) for node in nodes) * hours, unpriced
    return len(nodes) * prices * hours, []


def kind_of(node: Node) -> str:
    """The name that a price goes by."""
    return node.type or ("head" if node.head else "worker")
