"""A training step compiled, and compiled with CUDA graphs.

Compiling takes minutes for a large model. So these parts start early, beside the checks of results,
and time nothing until they get their turn, when nothing else runs.
"""

from __future__ import annotations

import functools
import time

from benchmarks.gpu import speed
from benchmarks.gpu.findings import Crew, Found, Rows, require
from benchmarks.gpu.setting import Model, Setting

FIRST = "first steps of "


def rows(setting: Setting, crew: Crew, model: Model, name: str) -> Rows:
    """First the compilation, then the timing."""
    made: list[speed.Work] = []
    return {
        FIRST + name: functools.partial(first, setting, model, speed.COMPILED[name], made),
        name: functools.partial(timed, setting, crew, made),
    }


def first(setting: Setting, model: Model, choice: speed.Choice, made: list[speed.Work]) -> Found:
    """Seconds until the third step is done."""
    if not setting.gpu:
        choice = speed.Choice("float32", fused=True, compile=choice.compile)
    began = time.monotonic()
    work = speed.Work(setting, model, choice)
    work.steps(3)
    made.append(work)
    seconds = time.monotonic() - began
    return f"{seconds:.0f} s, beside other parts", {"seconds": seconds}


def timed(setting: Setting, crew: Crew, made: list[speed.Work]) -> Found:
    """Images a second, once it is this part's turn."""
    crew.ready.set()
    crew.go.wait()
    require(bool(made), "it was not compiled, see above")
    return speed.measured(made[0].rounds, setting)
