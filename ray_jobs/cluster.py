"""The cluster: connect to it, plan what runs where, refuse in words what cannot run."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import Any

import ray
import ray._private.worker
from ray._private.authentication.authentication_token_setup import (
    maybe_enable_token_auth_if_token_available,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from maskcls.config import Resources
from maskcls.storage import StorageError, Store

log = logging.getLogger(__name__)

_QUIET = {
    # Ray's own progress and warnings stay out of the user's terminal; its logs keep them.
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Notices a finished or dead worker within 0.2 s instead of 2 s.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # Workers of many lanes import torch at the same time on few cores.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "180",
    # One process less a lane; a preempted node ends its jobs, which then go on elsewhere.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Workers keep the working directory, so that relative paths mean what they say.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Under `uv run` every worker would otherwise enter uv again.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class Refused(ValueError):  # noqa: N818 -- an answer to the user, not a bug
    """What was asked for cannot run on this cluster; says why and what would."""


@dataclass(frozen=True)
class Node:
    """One live node and what it has in all."""

    id: str
    cpus: float
    gpus: float
    accelerator: bool = False
    """Whether Ray detected a GPU, rather than being told of one (`num_gpus=2` on any machine)."""


@dataclass(frozen=True)
class Lane:
    """A place where one job at a time runs. ``node`` pins it, where Ray could not spread lanes."""

    number: int
    node: str | None = None


@dataclass(frozen=True)
class Plan:
    """How jobs use the cluster, and why so."""

    lanes: list[Lane]
    workers_per_job: int
    threads: int
    gpus_per_worker: float
    backend: str
    reason: str

    def worker_resources(self) -> dict[str, float]:
        """What one worker reserves.

        No CPU: Ray Data's tasks need those, and a worker that held them would make them wait for
        ever. Memory stands in, since Ray wants at least one resource above 0.
        """
        if self.gpus_per_worker:
            return {"GPU": self.gpus_per_worker, "memory": 1}
        return {"memory": 1}


def quiet() -> None:
    """Keep Ray's chatter from the terminal and its waits short; to be called before it starts."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.ERROR)


def connect() -> None:
    """Connect to the cluster that RAY_ADDRESS or a running `ray start` names, else start one here.

    Raises ConnectionError where the named cluster cannot be reached: a second one is never
    started beside it.
    """
    quiet()
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    if address and not _answers(address):
        raise ConnectionError(
            f"RAY_ADDRESS={address}: nothing answers there; start that cluster, or unset "
            "RAY_ADDRESS to run on this machine alone"
        )
    # A cluster that another program of this user started wants the user's token, which Ray itself
    # only thinks of for a cluster that it starts.
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": False,
    }
    try:
        # Not address="auto": that joins whatever another program started for itself alone.
        # The dashboard costs seconds to start, and nothing here asks it.
        context = ray.init(include_dashboard=False, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConnectionError(
            f"cannot use the Ray cluster at {address or 'the last `ray start`'}: {error}"
        ) from None
    nodes = live_nodes()
    if len(nodes) > 1 and not os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        # The other nodes need this code; a submitted job has brought it along already.
        ray.shutdown()
        packages = [str(Path(__file__).parents[1] / name) for name in ("maskcls", "ray_jobs")]
        ray.init(address=context.address_info["gcs_address"],
                 runtime_env={"py_modules": packages}, **options)  # fmt: skip
    # log_to_driver=False still lets the raylet's warnings through, and Ray has no public switch.
    ray._private.worker._worker_logs_enabled = False
    if ray._private.worker.get_dashboard_url():
        # It lists Train runs too, by an actor that stays for as long as the cluster does.
        os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "1")
    if threading.current_thread() is threading.main_thread():
        # As Ctrl-C. Ray's own handler prints a native stack trace, and aborts where a thread gets
        # the signal; a SystemExit inside ``ray.get`` loses its code.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    log.info(
        "Ray: %s, %g CPUs, %g GPUs on %d node(s)",
        "cluster at RAY_ADDRESS" if address else "this machine",
        sum(node.cpus for node in nodes),
        sum(node.gpus for node in nodes),
        len(nodes),
    )


def _answers(address: str, timeout_s: float = 5.0) -> bool:
    """Whether something listens at ``host:port``: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return True  # such as "auto": Ray's own business
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()
    except OSError:
        return False
    return True


def live_nodes() -> list[Node]:
    """The live nodes of the cluster, in a stable order."""
    nodes = [
        Node(
            n["NodeID"],
            n["Resources"].get("CPU", 0.0),
            n["Resources"].get("GPU", 0.0),
            any(name.startswith("accelerator_type:") for name in n["Resources"]),
        )
        for n in ray.nodes()
        if n["Alive"]
    ]
    return sorted(nodes, key=lambda node: node.id)


def on_this_node() -> dict[str, str]:
    """The label selector of the driver's node: what a run cannot do without stays with its driver.

    Ray puts an actor that reserves nothing on any node, also on one that may be taken away.
    """
    return {"ray.io/node-id": ray.get_runtime_context().get_node_id()}


def node_name() -> str:
    """The name of the node of this process: its address, unless `ray start --node-name` said so."""
    here = ray.get_runtime_context().get_node_id()
    name: str = next(node["NodeName"] for node in ray.nodes() if node["NodeID"] == here)
    return name


def check_shared(place: Path | str, timeout_s: float = 60.0) -> None:
    """Refuse a folder, or the URI of one, that some node of the cluster does not see: workers
    there could not use it.

    Raises Refused naming the nodes.
    """
    nodes = live_nodes()
    if len(nodes) == 1:
        return
    asked = {
        node.id: _sees.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        ).remote(place)
        for node in nodes
    }
    ready, _ = ray.wait(list(asked.values()), num_returns=len(nodes), timeout=timeout_s)
    told = {
        name: ray.get(ref) if ref in ready else f"no answer within {timeout_s:g} s"
        for name, ref in asked.items()
    }
    blind = [f"{name}: {reason}" for name, reason in told.items() if reason]
    if blind:
        raise Refused(
            f"{place} is not seen by {len(blind)} of {len(nodes)} nodes: put data and run.dir on "
            "storage that every node mounts at the same path, or on an object store whose "
            "credentials are in the environment that each node's Ray was started in:\n  "
            + "\n  ".join(blind)
        )


def _why_blind(place: Path | str) -> str | None:
    """Why this node does not see a folder; None where it does."""
    if isinstance(place, Path):
        return None if place.exists() else "no such folder"
    try:
        Store(place).listing()
    except StorageError as error:
        return str(error)
    return None


_sees = ray.remote(num_cpus=0)(_why_blind)


def plan(resources: Resources, jobs: int, nodes: Sequence[Node]) -> Plan:
    """Place ``jobs`` jobs on ``nodes``.

    Raises Refused where a job cannot be scheduled at all. ``jobs_at_once`` above what the cluster
    carries is lowered, and the reason says so.
    """
    assert jobs > 0
    if sum(node.cpus for node in nodes) < 1:
        raise Refused("the cluster has no CPU: Ray Data needs at least one to augment photos")
    workers = resources.workers_per_job
    gpus = resources.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if any(node.gpus >= 1 for node in nodes) else 0.0
    if gpus:
        capacity = _gpu_workers(gpus, nodes)
        what = f"{capacity} worker(s) of {gpus:g} GPU"
    else:
        capacity = max(workers, floor(sum(node.cpus for node in nodes)))
        what = f"{capacity} CPU(s)"
    if workers > capacity:
        raise Refused(
            f"resources.workers_per_job={workers} with {gpus:g} GPU each: the cluster carries "
            f"{what}; lower workers_per_job or gpus_per_worker"
        )
    carried = capacity // workers
    wanted = resources.jobs_at_once or carried
    lanes = max(1, min(jobs, wanted, carried))
    reason = f"{lanes} job(s) at once: {jobs} to do, the cluster carries {what}"
    if wanted > carried:
        reason += f", so resources.jobs_at_once={wanted} is lowered"
    share = _threads(lanes * workers, nodes)
    threads = resources.threads_per_worker or share
    if threads < share:
        reason += f" (resources.threads_per_worker would let each compute with {share} threads)"
    return Plan(
        lanes=_placed(lanes, nodes) if not gpus and workers == 1 else list(map(Lane, range(lanes))),
        workers_per_job=workers,
        threads=threads,
        gpus_per_worker=gpus,
        # Objects travel over gloo also where gradients travel over NCCL.
        backend="cpu:gloo,cuda:nccl" if gpus and any(n.accelerator for n in nodes) else "gloo",
        reason=f"{reason}; {threads} thread(s) a worker",
    )


def _gpu_workers(gpus: float, nodes: Sequence[Node]) -> int:
    """How many workers of ``gpus`` GPUs fit: a fraction never spans two GPUs, nor a worker two
    nodes."""
    if gpus > 1 and gpus != floor(gpus):
        raise Refused(f"resources.gpus_per_worker={gpus:g}: above 1 only whole GPUs can be asked")
    most = max(node.gpus for node in nodes)
    if gpus > most:
        raise Refused(
            f"resources.gpus_per_worker={gpus:g}: the largest node has {most:g} GPU(s); "
            "lower it, or set 0 to train on CPUs"
        )
    if gpus <= 1:
        # Rounding up a little: three workers of 0.3333 are meant to share a GPU.
        return sum(floor(node.gpus) * floor(1 / gpus + 1e-3) for node in nodes)
    return sum(floor(node.gpus / gpus) for node in nodes)


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


def _threads(workers: int, nodes: Sequence[Node]) -> int:
    """A worker's share of the CPUs, so that all workers together do not ask for more."""
    return max(1, floor(sum(node.cpus for node in nodes) / workers))
