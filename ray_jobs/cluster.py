"""The cluster: connect to it, and what nodes it has or may get."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray._private.worker
import yaml
from ray._private.authentication.authentication_token_setup import (
    maybe_enable_token_auth_if_token_available,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from maskcls.storage import StorageError, Store

log = logging.getLogger(__name__)

_HEAD = "node:__internal_head__"
_QUIET = {
    # Ray's own progress and warnings stay out of the user's terminal; its logs keep them.
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Notices a finished or dead worker within 0.2 s instead of 2 s.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # A lane waits for its worker, or for a node, as long as other lanes work: the queue ends a run
    # in which none does.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "1000000",
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
    """A node and what it has in all: a live one, or, without an ``id``, one that may be started."""

    id: str | None
    cpus: float
    gpus: float
    accelerator: bool = False
    """Whether Ray detected a GPU, rather than being told of one (`num_gpus=2` on any machine)."""
    type: str = ""
    """Its name in the cluster's YAML, or `head`; empty where nobody named it."""
    head: bool = False


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
    live = live_nodes()
    several = len(live) > 1 or len(nodes()) > 1
    if several and not os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
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
        sum(node.cpus for node in live),
        sum(node.gpus for node in live),
        len(live),
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
    live = [
        Node(
            n["NodeID"],
            n["Resources"].get("CPU", 0.0),
            n["Resources"].get("GPU", 0.0),
            _has_accelerator(n["Resources"]),
            (n.get("Labels") or {}).get("ray.io/node-group", ""),
            _HEAD in n["Resources"],
        )
        for n in ray.nodes()
        if n["Alive"]
    ]
    return sorted(live, key=lambda node: str(node.id))


def nodes(timeout_s: float = 60.0) -> list[Node]:
    """The live nodes, then those that the autoscaler may start beside them.

    Ray 2.60 tells nobody how far its autoscaler goes (only hosted platforms report that). What it
    goes by is the file that `ray start --head --autoscaling-config` named, as `ray up` does; it is
    read on the head node.
    """
    live = live_nodes()
    here = ray.get_runtime_context().get_node_id()
    address = ray.get_runtime_context().gcs_address
    if any(node.head and node.id == here for node in live):
        config = autoscaling_config(address)
    else:
        read = ray.remote(num_cpus=0, resources={_HEAD: 0.001})(autoscaling_config)
        config = ray.get(read.remote(address), timeout=timeout_s)
    return [*live, *startable(config, live)]


def autoscaling_config(gcs_address: str) -> dict[str, Any] | None:
    """The autoscaler's configuration, where its process runs on this machine; else None."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it has ended meanwhile
        named = [word for word in words if word.startswith("--autoscaling-config=")]
        # By the port: of one cluster, one may say 127.0.0.1 and the other the address of the host.
        ports = [w.rpartition(":")[2] for w in words if w.startswith("--gcs-address=")]
        if named and gcs_address.rpartition(":")[2] in ports:
            file = Path(named[0].partition("=")[2]).expanduser()
            config: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
            return config
    return None


def startable(config: Mapping[str, Any] | None, live: Sequence[Node]) -> list[Node]:
    """The nodes that an autoscaler with this configuration may start beside the live ones.

    Most GPUs first: where ``max_workers`` of the whole cluster is less than that of its node types
    together, those with GPUs are the ones that jobs wait for.
    """
    if config is None:
        return []
    head_type, limit = config["head_node_type"], config["max_workers"]
    types = {
        name: Node(
            None,
            settings["resources"].get("CPU", 0.0),
            settings["resources"].get("GPU", 0.0),
            _has_accelerator(settings["resources"]),
            name,
        )
        for name, settings in config["available_node_types"].items()
    }
    there = [_type_of(node, types, head_type) for node in live if not node.head]
    found: list[Node] = []
    for name, node in sorted(types.items(), key=lambda item: -item[1].gpus):
        most = config["available_node_types"][name].get(
            "max_workers", 0 if name == head_type else limit
        )
        room = min(most - there.count(name), limit - len(there) - len(found))
        found += [node] * max(0, room)
    return found


def _type_of(node: Node, types: Mapping[str, Node], head_type: str) -> str:
    """The type of a live worker node. The first autoscaler labels none: those go by what they
    have."""
    alike = (t.type for t in types.values()
             if t.type != head_type and (t.cpus, t.gpus) == (node.cpus, node.gpus))  # fmt: skip
    return node.type if node.type in types else next(alike, "")


def _has_accelerator(resources: Mapping[str, float]) -> bool:
    return any(name.startswith("accelerator_type:") for name in resources)


def shown(name: str) -> str:
    """``name`` as Ray can show it: its metrics end a run whose name is not ASCII (2.60)."""
    return "".join(letter if letter.isascii() else "_" for letter in name)


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
    """Refuse a path, or the URI of a folder, that some live node does not see: workers there could
    not use it.

    Raises Refused naming the nodes. A lane on a node that starts later looks for itself.
    """
    live = live_nodes()
    if len(live) == 1:
        return
    asked = {
        str(node.id): _sees.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(str(node.id), soft=False)
        ).remote(place)
        for node in live
    }
    ready, _ = ray.wait(list(asked.values()), num_returns=len(live), timeout=timeout_s)
    told = {
        name: ray.get(ref) if ref in ready else f"no answer within {timeout_s:g} s"
        for name, ref in asked.items()
    }
    blind = [f"{name}: {reason}" for name, reason in told.items() if reason]
    if blind:
        raise Refused(
            f"{place} is not seen by {len(blind)} of {len(live)} nodes: put data and run.dir on "
            "storage that every node mounts at the same path, or on an object store whose "
            "credentials are in the environment that each node's Ray was started in:\n  "
            + "\n  ".join(blind)
        )


def why_blind(place: Path | str) -> str | None:
    """Why this node does not see a path, or the URI of a folder; None where it does."""
    if isinstance(place, Path):
        return None if place.exists() else "no such path"
    try:
        Store(place).listing()
    except StorageError as error:
        return str(error)
    return None


_sees = ray.remote(num_cpus=0)(why_blind)
