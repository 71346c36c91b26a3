"""What `--plan` prints and writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from maskcls.config.schema import Config
from ray_jobs.cluster.nodes import Node
from ray_jobs.forecast.arithmetic import END_PHOTO_S, END_S, Forecast, cost_of, kind_of


def lines_of(config: Config, forecast: Forecast) -> list[str]:
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
