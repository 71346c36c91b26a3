"""How fast a training step is: what each choice adds, and how near it comes to the card's limit.

Each rung of the ladder adds something to the one before, all of it to the project's own learner.
Batches lie on the device already; ``fed`` compares that with the learner's own way from uint8.
"""

from __future__ import annotations

import functools
import gc
import itertools
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu import setting as shared
from benchmarks.gpu.agreement import contiguous
from benchmarks.gpu.findings import Crew, Found, NotHere, Rows
from benchmarks.gpu.setting import IntArray, Model, Setting, UInt8Array
from maskcls.learning import backbones, checkpoint, predict
from maskcls.learning.learner import Learner

ROUNDS = 7
ROUND_S = 0.4
"""Seconds of a round, about."""


@dataclass(frozen=True)
class Choice:
    """What a rung of the ladder asks for."""

    precision: str = "bfloat16"
    tf32: bool = True
    channels_last: bool = True
    fused: bool = False
    benchmark: bool = False
    graph: bool = False
    compile: str | None = None


OURS = "channels_last (the project's step)"
GRAPH = "not compiled, CUDA graph of the model (make_graphed_callables)"
LADDER = {
    "float32, contiguous, no TF32": Choice("float32", tf32=False, channels_last=False),
    "TF32 in convolutions (PyTorch's default)": Choice("float32", channels_last=False),
    "bfloat16 mixed precision": Choice(channels_last=False),
    OURS: Choice(),
    "fused AdamW": Choice(fused=True),
    "cudnn.benchmark": Choice(fused=True, benchmark=True),
    GRAPH: Choice(fused=True, benchmark=True, graph=True),
}  # fmt: skip
COMPILE = "torch.compile"
COMPILE_GRAPH = "torch.compile with CUDA graphs (mode reduce-overhead)"
COMPILED = {
    COMPILE: Choice(fused=True, benchmark=True, compile="default"),
    COMPILE_GRAPH: Choice(fused=True, benchmark=True, compile="reduce-overhead"),
}  # fmt: skip
ARITHMETIC, KERNELS = "arithmetic", "kernels of a step"
FED, FED_GRAPH = "fed from uint8", "fed from uint8, with that CUDA graph"
MACHINE, PRODUCT = "machine", "bfloat16 matrix product"


def ours(setting: Setting) -> Choice:
    """What the project does by itself on the device at hand."""
    return LADDER[OURS] if setting.gpu else Choice("float32")


class Work:
    """A learner as a choice wants it, with batches to train on."""

    def __init__(self, setting: Setting, model: Model, choice: Choice) -> None:
        if choice.precision == "float32":
            shared.plain_float32(choice.tf32)
        torch.backends.cudnn.benchmark = choice.benchmark
        self._setting = setting
        self.batches = uint8_batches(model)
        labels = {name: np.arange(model.batch_size) % 2
                  for name in ("mask", "gender", "age_band", "age", "joint")}  # fmt: skip
        recipe = shared.recipe(model, choice.precision)
        self.learner = shared.learner(recipe, labels, setting.device)
        self.learner.start_epoch(1)
        if not choice.channels_last:
            contiguous(self.learner)
        if choice.fused:
            self.learner._optimizer = torch.optim.AdamW(
                self.learner.model.parameters(), recipe.train.lr,
                weight_decay=recipe.optimizer.weight_decay, fused=True,
            )  # fmt: skip
        self.fed = self.learner.normalize
        self.resident = Resident([self.fed(photos) for photos, _ in self.batches])
        self.learner.normalize = self.resident  # type: ignore[assignment]
        if choice.graph:
            graphed(self.learner, self.resident.inputs[0])
        if choice.compile:
            self.learner._replica = compiled(self.learner, choice.compile, setting)
        self._next = itertools.cycle(self.batches)

    def step(self) -> None:
        photos, items = next(self._next)
        self.learner.step(photos, items, epoch=1, number=0)

    def steps(self, count: int) -> float:
        """Seconds of ``count`` steps, with the device idle before and after."""
        self._setting.wait()
        began = time.perf_counter()
        for _ in range(count):
            self.step()
        self._setting.wait()
        return time.perf_counter() - began

    def rounds(self) -> list[float]:
        """Images a second of each round, after steps that choose kernels."""
        count = self.steps_of_a_round()
        images = len(self.batches[0][1]) * count
        return [images / self.steps(count) for _ in range(2 if self._setting.tiny else ROUNDS)]

    def steps_of_a_round(self) -> int:
        """How many steps take about ``ROUND_S``."""
        if self._setting.tiny:
            return 1
        self.steps(5)
        return min(300, max(3, round(5 * ROUND_S / self.steps(5))))


class Resident:
    """Gives batches that lie on the device already, in the place of ``Normalize``."""

    def __init__(self, inputs: list[torch.Tensor]) -> None:
        self.inputs = inputs
        self._next = itertools.cycle(inputs)

    def __call__(self, images_BHWC: UInt8Array) -> torch.Tensor:
        return next(self._next)


def uint8_batches(model: Model, count: int = 4) -> list[tuple[UInt8Array, IntArray]]:
    """Different batches of random pixels, as the pipeline hands them over."""
    rng = np.random.default_rng(0)
    shape = (model.batch_size, *model.size, 3)
    return [(rng.integers(0, 256, shape, np.uint8), np.arange(model.batch_size))
            for _ in range(count)]  # fmt: skip


def graphed(learner: Learner, inputs_BCHW: torch.Tensor) -> None:
    """Record the model's forward and backward pass once, to be replayed in each step."""
    if learner.device.type != "cuda":
        raise NotHere("no GPU")
    with torch.autocast("cuda", learner.dtype, cache_enabled=False):
        torch.cuda.make_graphed_callables(learner.model, (inputs_BCHW.clone(),))


def compiled(learner: Learner, mode: str, setting: Setting) -> Any:
    """The model compiled; on a CPU only traced, since compiling for it takes long."""
    if setting.gpu:
        return torch.compile(learner.model, mode=mode)
    return torch.compile(learner.model, backend="eager")


def rows(setting: Setting, crew: Crew, model: Model) -> Rows:
    """The rungs without compiling, and what they are measured against."""
    return {
        ARITHMETIC: functools.partial(arithmetic, model),
        KERNELS: functools.partial(kernels, setting, model),
        **{name: functools.partial(rung, setting, model, choice)
           for name, choice in LADDER.items()},
        FED: functools.partial(fed, setting, model, ours(setting)),
        FED_GRAPH: functools.partial(fed, setting, model, LADDER[GRAPH]),
    }  # fmt: skip


def arithmetic(model: Model) -> Found:
    """Floating-point operations of a training step for one image: three times the forward pass."""
    with torch.device("meta"):
        built = backbones.build(model.name, {"mask": 3}, weights=None, image_size=model.size).eval()
        image = torch.empty(1, 3, *model.size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        built(image)
    flops = 3 * counter.get_total_flops()
    return f"{flops / 1e9:.2f} GFLOP an image, three times the forward pass", {"flops": flops}


def rung(setting: Setting, model: Model, choice: Choice) -> Found:
    """Images a second of one rung, and the memory it takes."""
    if choice.graph and not setting.gpu:
        raise NotHere("no GPU")
    clean(setting)
    return measured(Work(setting, model, choice).rounds, setting)


def measured(rounds: Callable[[], list[float]], setting: Setting) -> Found:
    """The median and the spread of images a second, and the peak of memory in GB."""
    speeds = rounds()
    median = statistics.median(speeds)
    figures: dict[str, Any] = {"images_s": median, "rounds": speeds, **peak_memory(setting)}
    text = f"{median:.0f} images/s ({min(speeds):.0f} to {max(speeds):.0f})"
    if setting.gpu:
        text += f", {figures['allocated_gb']:.1f} GB allocated, {figures['reserved_gb']:.1f} kept"
    return text, figures


def clean(setting: Setting) -> None:
    """Free what the last row left on the device, and count its memory anew."""
    gc.collect()
    if setting.gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory(setting: Setting) -> dict[str, float]:
    """Peaks of what tensors take, and of what PyTorch keeps for them, in GB of 10^9 bytes."""
    if not setting.gpu:
        return {}
    return {
        "allocated_gb": torch.cuda.max_memory_allocated() / 1e9,
        "reserved_gb": torch.cuda.max_memory_reserved() / 1e9,
    }


def fed(setting: Setting, model: Model, choice: Choice) -> Found:
    """A step fed from uint8 arrays in memory, against batches on the device already; the two take
    turns."""
    if choice.graph and not setting.gpu:
        raise NotHere("no GPU")
    clean(setting)
    work = Work(setting, model, choice)
    speeds: dict[str, list[float]] = {"resident": [], "uint8": []}
    ways = {"resident": work.resident, "uint8": work.fed}
    count = work.steps_of_a_round()
    for number in range(-1, 2 if setting.tiny else ROUNDS):
        for name, way in ways.items():
            work.learner.normalize = way  # type: ignore[assignment]
            speed = count * model.batch_size / work.steps(count)
            if number >= 0:
                speeds[name].append(speed)
    ratios = [a / b for a, b in zip(speeds["uint8"], speeds["resident"], strict=True)]
    ratio = statistics.median(ratios)
    return (
        f"{statistics.median(speeds['uint8']):.0f} images/s, {ratio:.3f} of batches on the device "
        f"({min(ratios):.3f} to {max(ratios):.3f})",
        {**speeds, "ratio": ratio, "ratios": ratios},
    )


def kernels(setting: Setting, model: Model) -> Found:
    """How long the GPU works in one of the project's steps, by PyTorch's profiler; the rest of the
    step it waits for the program to start the next kernel."""
    if not setting.gpu:
        raise NotHere("no GPU")
    clean(setting)
    work = Work(setting, model, LADDER[OURS])
    work.learner.normalize = work.fed
    work.steps(5)
    step_s = work.steps(10) / 10
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work.steps(3)
    events = [event for event in profile.events()
              if event.device_type.name == "CUDA"
              and not event.is_user_annotation]  # fmt: skip
    busy_s = sum(event.self_device_time_total for event in events) / 3e6
    return (
        f"{len(events) / 3:.0f} kernels and copies take {busy_s * 1e3:.1f} ms of a step's "
        f"{step_s * 1e3:.1f} ms: the GPU is busy {busy_s / step_s:.0%} of it",
        {"busy_ms": busy_s * 1e3, "step_ms": step_s * 1e3, "kernels": len(events) / 3},
    )


def card(setting: Setting, crew: Crew) -> Rows:
    """What the card can do at most."""
    return {
        MACHINE: functools.partial(machine, setting),
        PRODUCT: functools.partial(matrix_product, setting),
    }


def machine(setting: Setting) -> Found:
    """The card and the versions that figures belong to."""
    versions = {**checkpoint.versions(), "torch": torch.__version__}
    figures: dict[str, Any] = {"versions": versions, "cores": os.cpu_count(), "gpu": "no GPU"}
    if setting.gpu:
        card = torch.cuda.get_device_properties(0)
        figures.update(gpu=card.name, memory_gb=card.total_memory / 1e9,
                       cuda=torch.version.cuda, cudnn=torch.backends.cudnn.version())  # fmt: skip
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{figures['gpu']}, {figures['cores']} cores; {told}", figures


def matrix_product(setting: Setting) -> Found:
    """The rate of a large product of random bfloat16 matrices; float32 on a CPU."""
    size, dtype = (8192, torch.bfloat16) if setting.gpu else (256, torch.float32)
    a, b = (torch.randn(size, size, device=setting.device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    seconds = []
    for _ in range(8):
        setting.wait()
        began = time.perf_counter()
        for _ in range(10):
            torch.mm(a, b, out=out)
        setting.wait()
        seconds.append((time.perf_counter() - began) / 10)
    rate = 2 * size**3 / statistics.median(seconds[2:])
    kind = predict.precision_dtype("auto", setting.device)
    return (f"{rate / 1e12:.3g} TFLOP/s at {size} x {size} x {size}, {dtype}; precision=auto is "
            f"{kind} here"), {"flops_s": rate}  # fmt: skip
