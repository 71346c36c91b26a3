"""What is wrong with a cluster: facts of its nodes -> findings. Asks nobody anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ray_jobs.health.facts import Environment, NodeFacts, PathFacts

GB = 10**9
FREE_ERROR, FREE_WARNING = 1 * GB, 10 * GB
"""Bytes on a disk."""

RAY_DISK_FULL = 0.95
"""Ray writes no more objects to a disk that is fuller (its local_fs_capacity_threshold)."""

MEMORY_ERROR, MEMORY_WARNING = 0.95, 0.85
"""Share in use; Ray kills workers above the first (its memory_usage_threshold)."""

FILES_ERROR, FILES_WARNING = 1024, 4096
PROCESSES_ERROR, PROCESSES_WARNING = 512, 2048
CLOCK_ERROR_S, CLOCK_WARNING_S = 900.0, 2.0
"""Object storage refuses signed requests that are 15 minutes off."""

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Clock:
    """How far a node's clock is ahead of the driver's, and how wrong that may be, in seconds."""

    offset_s: float
    give_or_take: float


@dataclass(frozen=True)
class Node:
    """A node: what Ray knows of it, and what it answered; ``silence`` is why it did not."""

    name: str
    gpus_declared: float = 0.0
    object_store: float = 0.0
    """Bytes."""
    facts: NodeFacts | None = None
    clock: Clock | None = None
    silence: str | None = None


@dataclass(frozen=True)
class Cluster:
    """All that is known. ``refused`` says why no job can be placed, where that is so."""

    driver: Environment
    run_dir: PathFacts
    data_root: PathFacts
    nodes: Sequence[Node]
    dashboard: str | None = None
    """host:port that it listens on."""
    refused: str | None = None
    gpus_in_use: float = 0.0
    """By other programs, at the moment."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, the nodes where it is so (none: everywhere), and what mends it.

    An error breaks a run; a warning may spoil one.
    """

    severity: Severity
    what: str
    fix: str
    nodes: list[str] = field(default_factory=list)


def findings(cluster: Cluster) -> list[Finding]:
    """Everything that is wrong, errors first; what several nodes share is one finding."""
    merged: dict[tuple[Severity, str, str], list[str]] = {}
    for found in _all(cluster):
        merged.setdefault((found.severity, found.what, found.fix), []).extend(found.nodes)
    unique = [Finding(*key, nodes) for key, nodes in merged.items()]
    return sorted(unique, key=lambda found: found.severity)  # "error" before "warning"


def _all(cluster: Cluster) -> Iterator[Finding]:
    if cluster.refused:
        yield Finding("error", cluster.refused, "change resources.*, or add nodes")
    if cluster.gpus_in_use:
        total = sum(node.gpus_declared for node in cluster.nodes)
        yield Finding(
            "warning",
            f"{cluster.gpus_in_use:g} of {total:g} GPUs are in use by other programs",
            "a run waits for them as long as it takes; or wait, or end those programs",
        )
    yield from _driver_paths(cluster)
    yield from _cluster_ports(cluster)
    for node in cluster.nodes:
        if node.facts is None:
            fix = "look at the raylet's log there; end the node, or start it again"
            yield Finding("error", f"does not answer: {node.silence}", fix, [node.name])
        else:
            for judge in JUDGES:
                yield from judge(cluster, node, node.facts)
    yield from _mixture(cluster)


def _driver_paths(cluster: Cluster) -> Iterator[Finding]:
    if cluster.run_dir.error:
        yield Finding(
            "error",
            f"run.dir={cluster.run_dir.path} cannot be written by the driver: "
            f"{cluster.run_dir.error}",
            "make it writable, or choose another run.dir",
        )
    if cluster.data_root.error:
        yield Finding(
            "error",
            f"data.root={cluster.data_root.path} cannot be read by the driver: "
            f"{cluster.data_root.error}",
            "name the folder that holds train/ and eval/ as data.root",
        )


def _cluster_ports(cluster: Cluster) -> Iterator[Finding]:
    if cluster.dashboard is None and len(cluster.nodes) > 1:
        yield Finding(
            "warning",
            "no dashboard runs: `ray job submit` cannot work, and a lost node is noticed late",
            "start the head without --include-dashboard=false",
        )
    if not cluster.driver.token:
        everyone = (cluster.dashboard or "").startswith("0.0.0.0")
        reach = "the dashboard listens on every address, and " if everyone else ""
        yield Finding(
            "warning",
            f"token authentication is off: {reach}anyone who reaches the ports can run anything "
            "here",
            "export RAY_AUTH_MODE=token before `ray start` on every node and before this program",
        )


def _versions(cluster: Cluster, node: Node, facts: NodeFacts) -> Iterator[Finding]:
    mine, theirs = cluster.driver, facts.environment
    if _minor(mine.python) != _minor(theirs.python):
        yield Finding(
            "error",
            f"Python {theirs.python}, the driver has {mine.python}",
            "start Ray there from an environment with the driver's Python",
            [node.name],
        )
    fix = "install requirements.txt there, in the environment that Ray was started from"
    for name, version in mine.packages.items():
        other = theirs.packages.get(name)
        if other is None:
            yield Finding("error", f"{name} is not installed", fix, [node.name])
        elif other != version:
            severity: Severity = "error" if name in ("ray", "torch") else "warning"
            odd = f"{name} {other}, the driver has {version}"
            yield Finding(severity, odd, fix, [node.name])
    if mine.code != theirs.code:
        yield Finding(
            "error",
            f"this program's code is another there ({theirs.code}, the driver's is {mine.code})",
            "uninstall the copy of maskcls there, or bring it to the driver's state",
            [node.name],
        )
    if mine.token != theirs.token:
        yield Finding(
            "error",
            f"token authentication is {_on(theirs.token)}, the driver has it {_on(mine.token)}",
            "set RAY_AUTH_MODE=token for `ray start` on every node and for the driver",
            [node.name],
        )


def _gpus(cluster: Cluster, node: Node, facts: NodeFacts) -> Iterator[Finding]:
    gpus = facts.gpus
    if node.gpus_declared > gpus.usable:
        why = gpus.error or ("torch is built without CUDA" if gpus.cuda is None else "")
        driver = f"driver {gpus.driver}" if gpus.driver else "no NVIDIA driver"
        yield Finding(
            "error",
            f"Ray was started with {node.gpus_declared:g} GPU(s), torch can use {gpus.usable} "
            f"({driver}{f'; {why}' if why else ''})",
            "mend the driver or install a torch built for it; "
            "or start Ray there with the GPUs that it has (--num-gpus)",
            [node.name],
        )
    elif gpus.usable > node.gpus_declared:
        yield Finding(
            "warning",
            f"torch can use {gpus.usable} GPU(s), Ray was started with {node.gpus_declared:g}",
            "start Ray there without --num-gpus, or use them for something else",
            [node.name],
        )


def _paths(cluster: Cluster, node: Node, facts: NodeFacts) -> Iterator[Finding]:
    if facts.run_dir.error and not cluster.run_dir.error:
        yield Finding(
            "error",
            f"run.dir={facts.run_dir.path} is not shared with the driver: {facts.run_dir.error}",
            "put run.dir on storage that every node mounts at the same path, and may write to",
            [node.name],
        )
    if not cluster.data_root.error:
        fault = facts.data_root.error
        if not fault and facts.data_root.listing != cluster.data_root.listing:
            fault = "holds other files than the driver's"
        if fault:
            yield Finding(
                "error",
                f"data.root={facts.data_root.path}: {fault}",
                "put the photos on storage that every node mounts at the same path, "
                "or the same copy on every node",
                [node.name],
            )
    if facts.cache.error:
        yield Finding(
            "error",
            f"data.cache={facts.cache.path} cannot be written: {facts.cache.error}",
            "make it writable, or choose another data.cache",
            [node.name],
        )


def _disks(cluster: Cluster, node: Node, facts: NodeFacts) -> Iterator[Finding]:
    places = {"run.dir": facts.run_dir, "data.cache": facts.cache, "Ray's files": facts.ray_temp}
    for name, place in places.items():
        if place.error or not place.total:
            continue
        if name == "Ray's files" and place.free < (1 - RAY_DISK_FULL) * place.total:
            full = 1 - place.free / place.total
            yield Finding(
                "error",
                f"the disk of Ray's files ({place.path}) is {full:.0%} full: "
                f"Ray writes no objects there above {RAY_DISK_FULL:.0%}",
                "free space there, or start Ray with RAY_TMPDIR on a larger disk",
                [node.name],
            )
        elif place.free < FREE_WARNING:
            yield Finding(
                "error" if place.free < FREE_ERROR else "warning",
                f"{size(place.free)} free where {name} lies ({place.path})",
                "free space there, or choose a larger disk",
                [node.name],
            )


def _memory(cluster: Cluster, node: Node, facts: NodeFacts) -> Iterator[Finding]:
    used = facts.memory_used / facts.memory
    if used > MEMORY_WARNING:
        yield Finding(
            "error" if used > MEMORY_ERROR else "warning",
            f"{used:.0%} of {size(facts.memory)} memory are in use: Ray kills workers above "
            f"{MEMORY_ERROR:.0%}",
            "end what else runs there, or lower resources.jobs_at_once",
            [node.name],
        )
    if facts.shm < node.object_store:
        yield Finding(
            "warning",
            f"/dev/shm holds {size(facts.shm)}, Ray's object store wants "
            f"{size(node.object_store)}: it lies on disk then, which is slow",
            "give the container more (docker run --shm-size), or Ray less (--object-store-memory)",
            [node.name],
        )


def _limits(cluster: Cluster, node: Node, facts: NodeFacts) -> Iterator[Finding]:
    for what, limit, lowest, low, fix in (
        ("open files", facts.open_files, FILES_ERROR, FILES_WARNING, "ulimit -n 65536"),
        ("processes", facts.processes, PROCESSES_ERROR, PROCESSES_WARNING, "ulimit -u 65536"),
    ):
        if limit is not None and limit < low:
            yield Finding(
                "error" if limit < lowest else "warning",
                f"a process may have {limit} {what}; Ray wants {low} and more",
                f"`{fix}` (or the container's limit) before `ray start` there",
                [node.name],
            )


def _clock(cluster: Cluster, node: Node, facts: NodeFacts) -> Iterator[Finding]:
    if node.clock is None:
        return
    off = abs(node.clock.offset_s) - node.clock.give_or_take
    if off > CLOCK_WARNING_S:
        way = "ahead of" if node.clock.offset_s > 0 else "behind"
        yield Finding(
            "error" if off > CLOCK_ERROR_S else "warning",
            f"its clock is {abs(node.clock.offset_s):.0f} s {way} the driver's",
            "let chrony or ntpd set the clock there",
            [node.name],
        )


def _ports(cluster: Cluster, node: Node, facts: NodeFacts) -> Iterator[Finding]:
    if facts.unreachable:
        yield Finding(
            "error",
            f"cannot reach {', '.join(facts.unreachable)}",
            "open all ports between the nodes of the cluster to each other",
            [node.name],
        )


JUDGES: Sequence[Callable[[Cluster, Node, NodeFacts], Iterator[Finding]]] = (
    _versions, _gpus, _paths, _disks, _memory, _limits, _clock, _ports,
)  # fmt: skip


def _mixture(cluster: Cluster) -> Iterator[Finding]:
    known = [node.facts for node in cluster.nodes if node.facts]
    for what, kinds in (
        ("CPU", sorted({facts.cpu for facts in known})),
        ("GPU", sorted({name for facts in known for name in facts.gpus.names})),
    ):
        if len(kinds) > 1:
            yield Finding(
                "warning",
                f"the nodes have different {what}s ({', '.join(kinds)}): the same seed may give "
                "other results, by where its jobs happen to run",
                f"use nodes with one kind of {what} where results must repeat byte for byte",
            )


def size(number: float) -> str:
    """Bytes as people say them."""
    return f"{number / GB:.1f} GB" if number < 100 * GB else f"{number / GB:.0f} GB"


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def _on(token: bool) -> str:
    return "on" if token else "off"
