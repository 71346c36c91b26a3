"""How jobs are packed onto nodes: lanes, workers, threads; or, in words, why they cannot run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

from maskcls.config.schema import Resources
from ray_jobs.cluster.errors import Refused
from ray_jobs.cluster.nodes import Node


@dataclass(frozen=True)
class Lane:
    """A place where one job at a time runs. ``node`` pins it, where Ray could not spread lanes."""

    number: int
    node: str | None = None


@dataclass(frozen=True)
class Plan:
    """How jobs use the cluster, and why so. ``starts`` are nodes that the autoscaler must start."""

    lanes: list[Lane]
    workers_per_job: int
    threads: int
    gpus_per_worker: float
    backend: str
    reason: str
    starts: tuple[Node, ...] = ()

    def worker_resources(self) -> dict[str, float]:
        """What one worker reserves.

        No CPU: Ray Data's tasks need those, and a worker that held them would make them wait for
        ever. Without a GPU memory stands in, since Ray wants at least one resource above 0; beside
        a GPU it would keep the autoscaler from node types that do not state their memory.
        """
        return {"GPU": self.gpus_per_worker} if self.gpus_per_worker else {"memory": 1}

    def lanes_on(self, nodes: Sequence[Node]) -> int:
        """How many of the lanes these nodes carry."""
        if not self.gpus_per_worker:
            return len(self.lanes)
        workers = sum(_gpu_workers(self.gpus_per_worker, node) for node in nodes)
        return min(len(self.lanes), workers // self.workers_per_job)


def plan(resources: Resources, jobs: int, nodes: Sequence[Node]) -> Plan:
    """Place ``jobs`` jobs on ``nodes``, live ones and such as the autoscaler may start.

    Workers with GPUs may have to wait for their node: what they reserve makes the autoscaler start
    one. Workers without reserve nothing that would, so they go to live nodes only. Raises Refused
    where a job cannot be scheduled at all. ``jobs_at_once`` above what the cluster carries is
    lowered, and the reason says so.
    """
    assert jobs > 0
    nodes = with_promised(resources, nodes)
    live = [node for node in nodes if node.id]
    workers = resources.workers_per_job
    gpus = resources.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if any(node.gpus >= 1 for node in nodes) else 0.0
    _check(gpus, workers, nodes)
    capacity, now, what = _capacity(gpus, workers, nodes)
    if workers > capacity:
        raise Refused(
            f"resources.workers_per_job={workers} with {gpus:g} GPU each: the cluster carries "
            f"{what}; lower workers_per_job or gpus_per_worker"
        )
    carried = capacity // workers
    wanted = resources.jobs_at_once or carried
    lanes = max(1, min(jobs, wanted, carried))
    reason = f"{lanes} job(s) at once: {jobs} to do on {what}"
    if wanted > carried:
        reason += f", so resources.jobs_at_once={wanted} is lowered"
    starts = _starts(gpus, lanes * workers - now, nodes)
    if starts:
        reason += f"; waiting for the autoscaler to start {_counted(starts)}"
    spread = not gpus and workers == 1
    placed = _placed(lanes, live) if spread else [Lane(number) for number in range(lanes)]
    share = _threads(gpus, lanes * workers, placed, [*live, *starts])
    threads = resources.threads_per_worker or share
    if threads < share:
        reason += f" (resources.threads_per_worker would let each compute with {share} threads)"
    return Plan(
        lanes=placed,
        workers_per_job=workers,
        threads=threads,
        gpus_per_worker=gpus,
        # Objects travel over gloo also where gradients travel over NCCL.
        backend="cpu:gloo,cuda:nccl" if gpus and any(n.accelerator for n in nodes) else "gloo",
        reason=f"{reason}; {threads} thread(s) a worker",
        starts=starts,
    )


def with_promised(resources: Resources, nodes: Sequence[Node]) -> list[Node]:
    """``nodes``, and those with a GPU each that bring the GPUs of all to ``resources.max_gpus``.

    For an autoscaler whose limits nobody tells Ray, such as KubeRay's. What CPUs such a node has is
    not known: they count as those of the smallest live node.
    """
    missing = int((resources.max_gpus or 0) - sum(node.gpus for node in nodes))
    cpus = min((node.cpus for node in nodes if node.cpus >= 1), default=1.0)
    return [*nodes, *missing * [Node(None, cpus, 1.0, accelerator=True, type="GPU node")]]


def _check(gpus: float, workers: int, nodes: Sequence[Node]) -> None:
    """Raises Refused for a shape in which no job could train."""
    if sum(node.cpus for node in nodes) < 1:
        raise Refused("the cluster has no CPU: Ray Data needs at least one to augment photos")
    if gpus > 1:
        raise Refused(
            f"resources.gpus_per_worker={gpus:g}: a worker computes on one GPU, the others would "
            f"idle; for {gpus:g} GPUs a job set resources.workers_per_job={ceil(gpus)} "
            "resources.gpus_per_worker=1"
        )
    if 0 < gpus < 1 and workers > 1:
        raise Refused(
            f"resources.gpus_per_worker={gpus:g} with resources.workers_per_job={workers}: workers "
            "of a job need a GPU each, since NCCL refuses two on one; set gpus_per_worker=1, or "
            "workers_per_job=1 to let several jobs share a GPU"
        )
    most = max(node.gpus for node in nodes)
    if gpus > most:
        where = "node" if all(node.id for node in nodes) else "node that is up or may be started"
        raise Refused(
            f"resources.gpus_per_worker={gpus:g}: the largest {where} has {most:g} GPU(s); lower "
            "it, set 0 to train on CPUs, or, where an autoscaler starts nodes with GPUs that Ray "
            "does not know of (KubeRay), set resources.max_gpus"
        )


def _capacity(gpus: float, workers: int, nodes: Sequence[Node]) -> tuple[int, int, str]:
    """How many workers all nodes carry, and those that are up; and the same in words."""
    live = [node for node in nodes if node.id]
    if not gpus:
        cpus = max(workers, floor(sum(node.cpus for node in live)))
        return cpus, cpus, f"{cpus} CPU(s)"
    capacity, now = (sum(_gpu_workers(gpus, node) for node in some) for some in (nodes, live))
    what = f"{capacity} worker(s) of {gpus:g} GPU"
    if now < capacity:
        what += f", {now} of them on nodes that are up"
    return capacity, now, what


def _gpu_workers(gpus: float, node: Node) -> int:
    """How many workers of ``gpus`` GPUs, at most 1, fit: a fraction never spans two GPUs."""
    # Rounding up a little: three workers of 0.3333 are meant to share a GPU.
    return floor(node.gpus) * floor(1 / gpus + 1e-3)


def _starts(gpus: float, workers: int, nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The nodes to start so that ``workers`` more fit."""
    found = []
    # The smallest first: the autoscaler takes the type that is used best.
    for node in sorted(nodes, key=lambda node: node.gpus):
        if workers > 0 and not node.id and (fitting := _gpu_workers(gpus, node) if gpus else 0):
            found.append(node)
            workers -= fitting
    return tuple(found)


def _counted(nodes: Sequence[Node]) -> str:
    counts = Counter(node.type for node in nodes)
    return ", ".join(f"{count} x {name}" for name, count in counts.items())


def _placed(lanes: int, nodes: Sequence[Node]) -> list[Lane]:
    """Lanes over CPU nodes, each to the one with the most CPUs a lane: workers reserve no CPU, so
    Ray itself would put all of them on one node."""
    if len(nodes) == 1:
        return [Lane(number) for number in range(lanes)]
    load = {node.id: 0 for node in nodes if node.cpus >= 1}
    cpus = {node.id: node.cpus for node in nodes}
    placed = []
    for number in range(lanes):
        freest = max(load, key=lambda name: cpus[name] / (load[name] + 1))
        load[freest] += 1
        placed.append(Lane(number, freest))
    return placed


def _threads(gpus: float, workers: int, lanes: Sequence[Lane], nodes: Sequence[Node]) -> int:
    """A worker's share of the CPUs of its node, on the node where that is least: workers together
    must not ask for more than there are."""
    if gpus:
        at_once = {id(node): min(workers, _gpu_workers(gpus, node)) for node in nodes}
        shares = [node.cpus / at_once[id(node)] for node in nodes if at_once[id(node)]]
    elif lanes[0].node:
        counts = Counter(lane.node for lane in lanes)
        shares = [node.cpus / counts[node.id] for node in nodes if counts[node.id]]
    else:
        shares = [sum(node.cpus for node in nodes) / workers]
    return max(1, floor(min(shares)))
