"""Asks every node what it has and sees, with time limits."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from maskcls.config.schema import Config
from maskcls.storage import files
from maskcls.storage.remote import Store
from ray_jobs.cluster import errors, nodes, packing
from ray_jobs.cluster.ray_internals import dashboard_url
from ray_jobs.health import facts as node_facts
from ray_jobs.health.diagnosis import Clock, Cluster, Node
from ray_jobs.health.facts import Asked, Mark, NodeFacts, PathFacts, Port

ANSWER_S = 180.0
"""How long all nodes together may take; each starts a worker and imports torch."""

CLOCK_S = 10.0
"""How long a question for the time may take."""


def examine(config: Config) -> Cluster:
    """The facts of every node of the cluster that this program is connected to."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    alive.sort(key=lambda node: ("node:__internal_head__" not in node["Resources"], node["NodeID"]))
    with _marked(config.run.dir) as (run_dir, mark):
        asked = Asked(
            run_dir=config.run.dir,
            mark=mark,
            data_root=config.data.root,
            cache=config.data.cache,
            ports=tuple(_ports(alive)),
        )
        facts, silences = _ask([node["NodeID"] for node in alive], asked)
    return Cluster(
        driver=node_facts.environment(),
        run_dir=run_dir,
        data_root=node_facts.check_path(config.data.root, listing=True),
        nodes=[
            Node(
                name=_name(node),
                gpus_declared=node["Resources"].get("GPU", 0.0),
                object_store=node["Resources"].get("object_store_memory", 0.0),
                facts=facts.get(node["NodeID"]),
                clock=_clock(node["NodeID"]) if node["NodeID"] in facts else None,
                silence=silences.get(node["NodeID"]),
            )
            for node in alive
        ],
        dashboard=dashboard_url(),
        refused=_refused(config),
        gpus_in_use=nodes.gpus_in_use()[0],
    )


@contextmanager
def _marked(run_dir: Path | str) -> Iterator[tuple[PathFacts, Mark | None]]:
    """How the driver finds run.dir, and a file that it wrote there; gone again afterwards."""
    mark = Mark(f".doctor-{uuid.uuid4().hex}", uuid.uuid4().hex)
    facts = node_facts.check_path(run_dir, write=True)
    if facts.error:
        yield facts, None
        return
    if isinstance(run_dir, str):
        store = Store(run_dir)
        store.write(mark.file, mark.text.encode())
        try:
            yield facts, mark
        finally:
            store.remove(mark.file)
        return
    with node_facts.made(run_dir):
        try:
            files.write_text(run_dir / mark.file, mark.text)
            yield facts, mark
        finally:
            (run_dir / mark.file).unlink(missing_ok=True)


def _ports(alive: Sequence[Mapping[str, Any]]) -> Iterator[Port]:
    """What every node must reach: the head's GCS, and each node's two managers."""
    host, _, number = ray.get_runtime_context().gcs_address.rpartition(":")
    yield Port("the head (GCS)", host.strip("[]"), int(number))
    for node in alive:
        address = node["NodeManagerAddress"]
        yield Port(f"{_name(node)}'s node manager", address, node["NodeManagerPort"])
        yield Port(f"{_name(node)}'s object manager", address, node["ObjectManagerPort"])


def _name(node: Mapping[str, Any]) -> str:
    """A node as people know it, with a little of its id: names need not be unique."""
    head = "head " if "node:__internal_head__" in node["Resources"] else ""
    return f"{head}{node['NodeName']} ({node['NodeID'][:6]})"


# No retries: what a node does to a worker is what is asked for.
_gather = ray.remote(num_cpus=0, max_retries=0)(node_facts.gather)
_time = ray.remote(num_cpus=0, max_retries=0)(node_facts.clock)


def _on(task: Any, node_id: str) -> Any:
    return task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False))


def _ask(node_ids: Sequence[str], asked: Asked) -> tuple[dict[str, NodeFacts], dict[str, str]]:
    """The facts of the nodes that answer, and why the others do not."""
    refs = {node_id: _on(_gather, node_id).remote(asked) for node_id in node_ids}
    ready, _ = ray.wait(list(refs.values()), num_returns=len(refs), timeout=ANSWER_S)
    facts, silences = {}, {}
    for node_id, ref in refs.items():
        if ref not in ready:
            ray.cancel(ref, force=True)
            silences[node_id] = f"no word within {ANSWER_S:g} s"
            continue
        try:
            facts[node_id] = ray.get(ref)
        except RayError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            silences[node_id] = f"{type(error).__name__}: {lines[-1].strip() if lines else ''}"
    return facts, silences


def _clock(node_id: str) -> Clock | None:
    """How far a node's clock is ahead; by the quickest of three answers."""
    best = None
    for _ in range(3):
        began = time.time()
        try:
            there = ray.get(_on(_time, node_id).remote(), timeout=CLOCK_S)
        except (GetTimeoutError, RayError):
            return best
        ended = time.time()
        clock = Clock(there - (began + ended) / 2, (ended - began) / 2)
        best = min(filter(None, (best, clock)), key=lambda one: one.give_or_take)
    return best


def _refused(config: Config) -> str | None:
    try:
        packing.plan(config.resources, 1, nodes.nodes())
    except errors.Refused as error:
        return str(error)
    return None
