"""A training step compiled, and compiled with CUDA graphs.

Compiling takes minutes for a large model. So this part starts early, beside the checks of results,
and times nothing until it gets its turn, when nothing else runs.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import torch

from benchmarks.gpu import speed
from benchmarks.gpu.findings import Crew, Found, Rows, require
from benchmarks.gpu.setting import Model, Setting

FIRST = "first steps of "


def rows(setting: Setting, crew: Crew, model: Model) -> Rows:
    """First every compilation, then every timing."""
    made: dict[str, tuple[speed.Work, dict[str, Any]]] = {}
    return {
        **{FIRST + name: functools.partial(compile_, setting, model, name, made)
           for name in speed.COMPILED},
        **{name: functools.partial(timed, setting, crew, name, made) for name in speed.COMPILED},
    }  # fmt: skip


def compile_(
    setting: Setting, model: Model, name: str, made: dict[str, tuple[speed.Work, dict[str, Any]]]
) -> Found:
    """Seconds until the third step is done, and the memory that this takes."""
    choice = speed.COMPILED[name]
    if not setting.gpu:
        choice = speed.Choice("float32", fused=True, compile=choice.compile)
    speed.clean(setting)
    before = held(setting)
    began = time.monotonic()
    work = speed.Work(setting, model, choice)
    work.steps(3)
    seconds = time.monotonic() - began
    after = speed.peak_memory(setting)
    memory = {kind: after[kind] - before[kind] for kind in after}
    made[name] = work, memory
    return f"{seconds:.0f} s, beside other checks", {"seconds": seconds}


def held(setting: Setting) -> dict[str, float]:
    """What is taken already, by the work of the rows before."""
    if not setting.gpu:
        return {}
    return {
        "allocated_gb": torch.cuda.memory_allocated() / 1e9,
        "reserved_gb": torch.cuda.memory_reserved() / 1e9,
    }


def timed(
    setting: Setting, crew: Crew, name: str, made: dict[str, tuple[speed.Work, dict[str, Any]]]
) -> Found:
    """Images a second, once it is this part's turn."""
    crew.ready.set()
    crew.go.wait()
    require(name in made, "it was not compiled, see above")
    work, memory = made[name]
    text, figures = speed.measured(work.rounds, setting)
    text = text.partition(", ")[0]
    if memory:
        text += f", {memory['allocated_gb']:.1f} GB allocated, {memory['reserved_gb']:.1f} kept"
    return text, {**figures, **memory}
