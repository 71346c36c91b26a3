"""The arithmetic of a plan: what was measured -> when each job runs, how long, for how much."""

from __future__ import annotations

import heapq
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from maskcls.config import Config
from maskcls.labels import Task
from ray_jobs.cluster import Node
from ray_jobs.packing import Plan

THREADS_ELSEWHERE = 2
"""Threads that prepare photos on a node which has none (``ImageSource.open``)."""

END_S, END_PHOTO_S = 6.0, 0.003
"""Vote, scores and report: seconds, and seconds a photo. Assumed, and told as such."""


@dataclass(frozen=True)
class Work:
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
    work: list[Work]
    done: int
    problems: dict[str, str]
    measured: Measured
    seconds: dict[str, float] = field(default_factory=dict)
    slots: list[Slot] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        return sum(self.phases.values())


def job_seconds(work: Work, costs: Mapping[str, float], workers: int) -> float:
    """How long a job takes in a lane that is up, at most: patience may end it sooner."""
    epoch = work.steps * costs["step"] + work.validation / workers * costs["photo"] + costs["save"]
    prediction = costs["load"] + work.predicted * costs["photo"] if work.predicted else 0.0
    return costs["build"] + work.epochs * epoch + prediction


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


def told(config: Config, forecast: Forecast) -> list[str]:
    """The forecast in lines."""
    plan, measured = forecast.plan, forecast.measured
    live = [node for node in forecast.nodes if node.id]
    lines = ["", f"cluster now   {_summed(live)}"]
    most = _summed(forecast.nodes)
    lines.append(f"at most       {most if len(forecast.nodes) > len(live) else 'the same'}")
    if plan:
        gpus = f"{plan.gpus_per_worker:g} GPU, " if plan.gpus_per_worker else ""
        lines.append(
            f"a job needs   {plan.workers_per_job} worker(s) of {gpus}{plan.threads} thread(s)"
        )
        lines.append(f"lanes         {plan.reason}")
    if forecast.done:
        lines.append(f"done          {forecast.done} job(s): they are not run again")
    if forecast.work:
        lines += ["", *_table(forecast).to_string(index=False).splitlines(), ""]
    if forecast.phases:
        parts = ", ".join(f"{name} {_time(value)}" for name, value in forecast.phases.items())
        lines.append(f"time          {_time(forecast.total)}: {parts}")
        lines += _cost_lines(config, forecast)
    elif forecast.work and plan and not measured.failed:
        lines.append("time          not known: no node that could run a job is up to measure on "
                     "(start one, or set plan.start_node=true), or run.dir is on an object store "
                     "and there are several nodes")  # fmt: skip
    if measured.costs:
        lines.append(
            f"measured      in {measured.took:.0f} s: steps, validation and checkpoints of "
            f"{len(measured.costs)} kind(s) of job, in {len(measured.starts)} lane(s) at the same "
            "time; reading and decoding photos; the start of this program and of the lanes"
        )
        lines += [f"assumed       {text}" for text in _assumed(config, forecast)]
    for name, reason in forecast.problems.items():
        lines.append(f"CANNOT RUN    {name}: {reason}")
    return lines


def _summed(nodes: Sequence[Node]) -> str:
    kinds = Counter(f"{kind_of(n)} ({n.cpus:g} CPUs, {n.gpus:g} GPUs)" for n in nodes)
    return ", ".join(f"{count} x {kind}" for kind, count in kinds.items())


def _table(forecast: Forecast) -> pd.DataFrame:
    slots = {slot.name: slot for slot in forecast.slots}
    rows = []
    for job in forecast.work:
        slot, seconds = slots.get(job.name), forecast.seconds.get(job.name)
        rows.append(
            {
                "job": job.name,
                "trains on": job.training,
                "steps": job.steps,
                "validates": job.validation,
                "predicts": job.predicted,
                "epochs": job.epochs,
                "takes": _time(seconds) if seconds is not None else "?",
                "lane": slot.lane if slot else "?",
                "begins": _time(slot.begins) if slot else "?",
            }
        )
    return pd.DataFrame(rows)


def _cost_lines(config: Config, forecast: Forecast) -> list[str]:
    assert forecast.plan is not None
    nodes = [*(node for node in forecast.nodes if node.id), *forecast.plan.starts]
    hours = forecast.total / 3600
    cost, unpriced = cost_of(nodes, config.plan.price_per_hour, hours)
    if cost is None:
        return [f"cost          {hours * len(nodes):.2f} node hours; for a price set "
                "plan.price_per_hour"]  # fmt: skip
    without = f", without {', '.join(unpriced)}: no price" if unpriced else ""
    return [f"cost          {cost:.2f} for {hours * len(nodes):.2f} node hours{without}"]


def _assumed(config: Config, forecast: Forecast) -> list[str]:
    plan = forecast.plan
    assert plan is not None
    assumed = [
        "every epoch is trained"
        + (" (train.patience may end jobs sooner)" if _patient(config) else ""),
        "all lanes compute all the time: the last jobs, with fewer beside them, may be faster",
        f"vote, scores and report take {END_S:g} s and {1000 * END_PHOTO_S:g} ms a photo",
        "every photo can be read, and other programs take as much as they took now",
    ]
    if len(forecast.measured.starts) < len(plan.lanes):
        assumed.append(f"a lane that is not up yet is as fast as the "
                       f"{len(forecast.measured.starts)} that were measured")  # fmt: skip
    if plan.starts:
        assumed.append(f"a node is up {config.plan.node_start_s:g} s after it was asked for "
                       "(plan.node_start_s), and all that are asked for come")  # fmt: skip
    if len(forecast.nodes) > 1:
        assumed.append("each further node prepares the photos for itself: data.cache is its own")
        assumed.append("all nodes are paid for from the first second to the last")
    if plan.workers_per_job > 1:
        assumed.append("only the first worker of a job predicts")
    return assumed


def _patient(config: Config) -> bool:
    return any(config.recipe(task).train.patience is not None for task in config.tasks)


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def content(forecast: Forecast) -> dict[str, Any]:
    """What plan.json keeps."""
    return {
        "seconds": round(forecast.total, 1) if forecast.phases else None,
        "phases": {name: round(value, 1) for name, value in forecast.phases.items()},
        "jobs": {name: round(value, 1) for name, value in forecast.seconds.items()},
        "lanes": len(forecast.plan.lanes) if forecast.plan else 0,
        "measured": {
            "lookup": forecast.measured.lookup,
            "decode": forecast.measured.decode,
            "starts": forecast.measured.starts,
            "costs": list(forecast.measured.costs.values()),
        },
        "cannot_run": forecast.problems,
    }
