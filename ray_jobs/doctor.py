"""python -m ray_jobs.doctor run.dir=RUN data.root=DATA: whether a run could work on this cluster.

Asks every node, one task on each, and ends with what to fix. Exit code 1 where something would
break a run; what only may spoil one is told and does not count.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray._private.worker
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console
from rich.table import Table
from rich.text import Text

from maskcls import files
from maskcls.config import Config
from maskcls.config_load import from_command_line
from maskcls.storage import Store
from ray_jobs import cluster, console, diagnosis, node_facts
from ray_jobs.diagnosis import Clock, Cluster, Finding, Node, size
from ray_jobs.node_facts import Asked, Mark, NodeFacts, PathFacts, Port

ANSWER_S = 180.0
"""How long all nodes together may take; each starts a worker and imports torch."""

CLOCK_S = 10.0
"""How long a question for the time may take."""

PLAIN_WIDTH = 120
"""Columns where there is no terminal."""


def main() -> None:
    config = from_command_line(__doc__ or "")
    console.setup()
    with console.answering_in_words("doctor"):
        cluster.connect()
        examined = examine(config)
        found = diagnosis.findings(examined)
        screen = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)
        screen.print(table(examined))
        screen.print("\n".join(conclusion(found)), markup=False, soft_wrap=True)
        sys.exit(any(finding.severity == "error" for finding in found))


def examine(config: Config) -> Cluster:
    """The facts of every node of the cluster that this program is connected to."""
    told = [node for node in ray.nodes() if node["Alive"]]
    told.sort(key=lambda node: ("node:__internal_head__" not in node["Resources"], node["NodeID"]))
    with _marked(config.run.dir) as (run_dir, mark):
        asked = Asked(
            run_dir=config.run.dir,
            mark=mark,
            data_root=config.data.root,
            cache=config.data.cache,
            ports=tuple(_ports(told)),
        )
        facts, silences = _ask([node["NodeID"] for node in told], asked)
    return Cluster(
        driver=node_facts.environment(),
        run_dir=run_dir,
        data_root=node_facts.check_path(config.data.root, listing=True),
        nodes=[
            Node(
                name=_name(node),
                gpus_told=node["Resources"].get("GPU", 0.0),
                object_store=node["Resources"].get("object_store_memory", 0.0),
                facts=facts.get(node["NodeID"]),
                clock=_clock(node["NodeID"]) if node["NodeID"] in facts else None,
                silence=silences.get(node["NodeID"]),
            )
            for node in told
        ],
        dashboard=ray._private.worker.get_dashboard_url() or None,
        refused=_refused(config),
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


def _ports(told: Sequence[Mapping[str, Any]]) -> Iterator[Port]:
    """What every node must reach: the head's GCS, and each node's two managers."""
    host, _, number = ray.get_runtime_context().gcs_address.rpartition(":")
    yield Port("the head (GCS)", host.strip("[]"), int(number))
    for node in told:
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
    """How far a node's clock is ahead; the quickest of three answers tells it best."""
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
        cluster.plan(config.resources, 1, cluster.live_nodes())
    except cluster.Refused as error:
        return str(error)
    return None


def table(examined: Cluster) -> Table:
    """One fact a row; where nodes differ, each value with its nodes."""
    grid = Table(box=None, pad_edge=False, show_header=False)
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    known = [(node, node.facts) for node in examined.nodes if node.facts]
    grid.add_row("nodes", Text(", ".join(node.name for node in examined.nodes)))
    for label, tell in ROWS.items():
        groups: dict[str, list[str]] = {}
        for node, facts in known:
            groups.setdefault(tell(node, facts), []).append(node.name)
        lines = list(groups)
        if len(groups) > 1:
            lines = [f"{value}: {', '.join(names)}" for value, names in groups.items()]
        grid.add_row(label, Text("\n".join(lines)))  # not markup: paths may hold brackets
    grid.add_row("dashboard", Text(examined.dashboard or "none"))
    return grid


def _place(facts: PathFacts) -> str:
    if not facts.total and not facts.error:
        return f"{facts.path}: reached"
    told = facts.error or f"{size(facts.free)} free of {size(facts.total)}"
    return f"{facts.path}: {told}"


def _gpus(node: Node, facts: NodeFacts) -> str:
    gpus = facts.gpus
    names = ", ".join(dict.fromkeys(gpus.names)) or "none listed"
    driver = f", driver {gpus.driver}" if gpus.driver else ""
    return f"{names}{driver}; {gpus.usable} usable, {node.gpus_told:g} told"


def _clock_told(node: Node, facts: NodeFacts) -> str:
    if node.clock is None:
        return "not known"
    if abs(node.clock.ahead) <= node.clock.give_or_take + 0.1:
        return "the driver's"
    return f"{node.clock.ahead:+.1f} s"


def _limit(limit: int | None) -> str:
    return "no limit" if limit is None else str(limit)


ROWS: dict[str, Callable[[Node, NodeFacts], str]] = {
    "Python": lambda node, facts: facts.environment.python,
    "Ray": lambda node, facts: facts.environment.packages["ray"] or "none",
    "torch": lambda node, facts: (
        f"{facts.environment.packages['torch'] or 'none'}, CUDA {facts.gpus.cuda or 'none'}"
    ),
    "this program": lambda node, facts: facts.environment.code,
    "tokens": lambda node, facts: "on" if facts.environment.token else "off",
    "CPU": lambda node, facts: facts.cpu,
    "GPUs": _gpus,
    "memory": lambda node, facts: f"{size(facts.memory_used)} used of {size(facts.memory)}",
    "/dev/shm": lambda node, facts: (
        f"{size(facts.shm)}, the object store wants {size(node.object_store)}"
    ),
    "run.dir": lambda node, facts: _place(facts.run_dir),
    "data.root": lambda node, facts: _place(facts.data_root),
    "data.cache": lambda node, facts: _place(facts.cache),
    "Ray's files": lambda node, facts: _place(facts.ray_temp),
    "open files": lambda node, facts: _limit(facts.open_files),
    "processes": lambda node, facts: _limit(facts.processes),
    "clock": _clock_told,
    "ports": lambda node, facts: (
        f"cannot reach {', '.join(facts.unreachable)}" if facts.unreachable else "all reached"
    ),
}


def conclusion(found: Sequence[Finding]) -> Iterator[str]:
    """What to fix, in lines."""
    if not found:
        yield "\nNothing to fix."
        return
    titles = {"error": "To fix, or a run will break:", "warning": "May spoil a run:"}
    for severity, title in titles.items():
        those = [finding for finding in found if finding.severity == severity]
        if those:
            yield f"\n{title}"
        for number, finding in enumerate(those, 1):
            where = f"{', '.join(finding.nodes)}: " if finding.nodes else ""
            yield f"{number}. {where}{finding.what}"
            yield f"   -> {finding.fix}"


if __name__ == "__main__":
    main()
