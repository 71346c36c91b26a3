"""The nodes of the cluster, those that it may start, and what they see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.util
import yaml
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from maskcls.storage.remote import StorageError, Store
from ray_jobs.cluster.errors import Refused

_HEAD = "node:__internal_head__"


@dataclass(frozen=True)
class Node:
    """A node and what it has in all: a live one, or, without an ``id``, one that may be started."""

    id: str | None
    cpus: float
    gpus: float
    accelerator: bool = False
    """Whether Ray detected a GPU, rather than being started with `--num-gpus`."""
    type: str = ""
    """Its name in the cluster's YAML, or `head`; empty where nobody named it."""
    head: bool = False


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


def gpus_in_use() -> tuple[float, float]:
    """GPUs that are reserved at the moment, by whichever program, and all that are up."""
    total = ray.cluster_resources().get("GPU", 0.0)
    return total - ray.available_resources().get("GPU", 0.0), total


def busy(gpus: float) -> str | None:
    """What a reservation of ``gpus`` GPUs waits for, where the nodes that are up have as many and
    all are in use; else None, also where nothing is waiting."""
    if not gpus:
        return None
    used, total = gpus_in_use()
    states = {group["state"] for group in ray.util.placement_group_table().values()}
    if total < gpus or total - used >= gpus or not states & {"PENDING", "RESCHEDULING"}:
        return None
    return f"{gpus:g} GPU(s): {used:g} of {total:g} are in use"


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
    reasons = {
        name: ray.get(ref) if ref in ready else f"no answer within {timeout_s:g} s"
        for name, ref in asked.items()
    }
    blind = [f"{name}: {reason}" for name, reason in reasons.items() if reason]
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
