"""The parts of the GPU check: each in processes of its own, which end when their time does."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from benchmarks.gpu import backbones, compiled, correctness, speed, together
from benchmarks.gpu import findings as found
from benchmarks.gpu.findings import MEASURED, PASSED, UNMEASURED, Crew, Finding, Rows
from benchmarks.gpu.setting import Setting

TURN_S = 30.0
OUT_OF_TIME = "out of time"
RESULTS = "findings.jsonl"

Context = ForkServerContext | SpawnContext


@dataclass(frozen=True)
class Part:
    """Rows, the word for a row that is done, and a limit in seconds. A part that is ``early``
    starts before its turn and prepares what takes long, for which it has the limit; for its turn it
    has ``TURN_S``."""

    rows: Callable[[Setting, Crew], Rows]
    done: str
    limit_s: float
    world: int = 1
    early: bool = False


def _compiled(size: str, name: str) -> Part:
    return Part(
        lambda setting, crew: compiled.rows(setting, crew, getattr(setting, size), name),
        MEASURED, 230, early=True,
    )  # fmt: skip


PARTS = {
    "card": Part(speed.card, MEASURED, 90),
    "correctness": Part(correctness.rows, PASSED, 180),
    "backbones": Part(backbones.rows, PASSED, 120),
    "workers": Part(together.workers, PASSED, 90, world=2),
    "compiled, small": _compiled("small", speed.COMPILE),
    "compiled with graphs, small": _compiled("small", speed.COMPILE_GRAPH),
    "compiled, large": _compiled("large", speed.COMPILE),
    "compiled with graphs, large": _compiled("large", speed.COMPILE_GRAPH),
    "two jobs": Part(together.jobs, MEASURED, 90, world=2),
    "step, small": Part(lambda setting, crew: speed.rows(setting, crew, setting.small),
                        MEASURED, 90),
    "step, large": Part(lambda setting, crew: speed.rows(setting, crew, setting.large),
                        MEASURED, 110),
}  # fmt: skip


@dataclass
class Running:
    """A part under way."""

    name: str
    part: Part
    crews: list[Crew]
    processes: list[BaseProcess]
    ends: float
    stopped: bool = False

    def alive(self) -> bool:
        return any(process.is_alive() for process in self.processes)


def run_all(names: Iterable[str], setting: Setting, context: Context) -> None:
    """Run these parts in their order; what they find is in the file ``RESULTS``."""
    early: dict[str, Running] = {}
    for name in names:
        if name != "card" and not early:  # the card's own rate is measured before all else
            waiting = [other for other in names if PARTS[other].early]
            early = {other: start(other, setting, context) for other in waiting}
        if name in early:
            _all_ready(early.values())
        finish(early.get(name) or start(name, setting, context), setting)


def start(name: str, setting: Setting, context: Context) -> Running:
    """Start the processes of a part."""
    part, now = PARTS[name], time.monotonic()
    ready, go = context.Event(), context.Event()
    meet, values = (
        context.Barrier(part.world, timeout=60 * setting.patience),
        context.Array("d", part.world),
    )
    crews = [Crew(rank, part.world, ready, go, meet, values) for rank in range(part.world)]
    running = Running(
        name, part, crews, [], min(now + part.limit_s * setting.patience, setting.ends)
    )
    if now < setting.ends:
        running.processes = [
            context.Process(target=_child, args=(name, setting, crew)) for crew in crews
        ]
        for process in running.processes:
            process.start()
    return running


def _all_ready(early: Iterable[Running]) -> None:
    """Wait until nobody compiles any more, or may: who measures shall be alone."""
    for running in early:
        while running.alive() and not running.crews[0].ready.is_set():
            if time.monotonic() > running.ends:
                stop(running)
            time.sleep(0.1)


def finish(running: Running, setting: Setting) -> None:
    """Give a part its turn, end it when its time is over, and say which rows are missing."""
    crew, ends = running.crews[0], running.ends
    if running.part.early and running.alive():
        ends = min(time.monotonic() + TURN_S * setting.patience, setting.ends)
    crew.go.set()
    for process in running.processes:
        process.join(max(0.0, ends - time.monotonic()))
    stop(running)
    path = setting.folder / RESULTS
    there = {finding.name for finding in found.of(found.read(path), running.name)}
    for name in running.part.rows(setting, crew):
        if name not in there:
            reason = _reason(running, setting)
            found.add(path, Finding(running.name, name, *reason), setting.began)


def stop(running: Running) -> None:
    """End what is still under way, with the helpers that compile."""
    for process in running.processes:
        if process.is_alive() and process.pid is not None:
            running.stopped = True
            with suppress(ProcessLookupError):  # it has no group of its own yet
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.join()


def _reason(running: Running, setting: Setting) -> tuple[str, str]:
    """Status and text of a row that a part left out."""
    codes = [process.exitcode for process in running.processes]
    if not running.stopped and any(codes):
        return found.FAILED, f"its process ended with {codes}"
    if not codes or time.monotonic() > setting.ends:
        return UNMEASURED, OUT_OF_TIME
    return UNMEASURED, f"{OUT_OF_TIME}: the part took longer than {running.part.limit_s:.0f} s"


def _child(name: str, setting: Setting, crew: Crew) -> None:
    os.setsid()
    torch.set_num_threads(1 if setting.tiny else 4)
    part = PARTS[name]
    path: Path = setting.folder / RESULTS
    rows = part.rows(setting, crew)
    found.work_off(name, rows, part.done, path, setting.began, setting.ends, crew)
