"""The doctor's table and conclusion."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich.table import Table
from rich.text import Text

from ray_jobs.health.diagnosis import Cluster, Finding, Node, size
from ray_jobs.health.facts import NodeFacts, PathFacts


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
    state = facts.error or f"{size(facts.free)} free of {size(facts.total)}"
    return f"{facts.path}: {state}"


def _gpus(node: Node, facts: NodeFacts) -> str:
    gpus = facts.gpus
    names = ", ".join(dict.fromkeys(gpus.names)) or "none listed"
    driver = f", driver {gpus.driver}" if gpus.driver else ""
    return f"{names}{driver}; {gpus.usable} usable, {node.gpus_declared:g} known to Ray"


def _clock(node: Node, facts: NodeFacts) -> str:
    if node.clock is None:
        return "not known"
    if abs(node.clock.offset_s) <= node.clock.give_or_take + 0.1:
        return "the driver's"
    return f"{node.clock.offset_s:+.1f} s"


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
    "clock": _clock,
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
