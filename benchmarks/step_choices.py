"""What each choice about a training step on CPUs is worth, and where a step's time goes.

    python -m benchmarks.step_choices [--rounds 5] [--steps 3] [--compile]

EfficientNet-Lite0 at 128 x 96, batches of 32 (64 to predict), one thread. The choices take turns,
in two processes: one gives freed memory back, as the C library does by itself, one keeps it.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import timm
import torch

from benchmarks import rows
from ray_jobs.lanes import pool

MODEL, SIZE, BATCH = "tf_efficientnet_lite0", (128, 96), 32
BFLOAT16 = torch.cpu._is_avx512_bf16_supported()
"""Whether the processor has the instructions; without, a step takes ten times as long and more."""

PARTS = {
    "convolution, backward": ("convolution_backward",),
    "convolution, forward": ("mkldnn_convolution", "thnn_conv", "_slow_conv"),
    "batch norm": ("batch_norm",),
    "copies": ("copy_", "clone", "contiguous"),
}
"""Operations by parts of their names; what fits none is the rest."""


def start() -> None:
    torch.set_num_threads(1)


@cache
def made(choice: str) -> tuple[Any, torch.optim.Optimizer, torch.Tensor, torch.Tensor]:
    """Model, optimiser, images and labels: ``contiguous`` as it says, all others channels_last."""
    torch.manual_seed(0)
    layout = torch.contiguous_format if choice == "contiguous" else torch.channels_last
    model: Any = timm.create_model(MODEL, num_classes=3).to(memory_format=layout)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=choice == "fused")
    if choice == "compile":
        model = torch.compile(model)
    images_BCHW = (torch.rand(2 * BATCH, 3, *SIZE) * 2 - 1).contiguous(memory_format=layout)
    return model, optimizer, images_BCHW, torch.arange(2 * BATCH) % 3


def train(choice: str, steps: int) -> float:
    """Seconds of a training step; the first time, one more that does not count comes before."""
    model, optimizer, images_BCHW, labels_B = made(choice)
    mixed: Any = torch.autocast("cpu", torch.bfloat16) if choice == "bfloat16" else nullcontext()
    model.train()
    began = time.process_time()
    for _ in range(steps):
        with mixed:
            loss = torch.nn.functional.cross_entropy(model(images_BCHW[:BATCH]), labels_B[:BATCH])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return (time.process_time() - began) / steps


def predict(choice: str, steps: int) -> float:
    """Seconds of a forward pass without gradients."""
    model, _, images_BCHW, _ = made(choice)
    mixed: Any = torch.autocast("cpu", torch.bfloat16) if choice == "bfloat16" else nullcontext()
    model.eval()
    began = time.process_time()
    with torch.inference_mode(), mixed:
        for _ in range(steps):
            model(images_BCHW)
    return (time.process_time() - began) / steps


def difference() -> float:
    """The largest difference that bfloat16 makes to a probability."""
    model, _, images_BCHW, _ = made("channels_last")
    model.eval()
    with torch.inference_mode():
        exact = model(images_BCHW).softmax(dim=1)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(images_BCHW).float().softmax(dim=1)
    return float((exact - rough).abs().max())


def where() -> str:
    """The shares of a training step, by PyTorch's profiler."""
    train("channels_last", 1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        train("channels_last", 2)
    shares = dict.fromkeys([*PARTS, "rest"], 0.0)
    for event in profile.key_averages():
        part = next((part for part, names in PARTS.items() if any(n in event.key for n in names)),
                    "rest")  # fmt: skip
        shares[part] += event.self_cpu_time_total
    total = sum(shares.values())
    return ", ".join(f"{part} {value / total:.0%}" for part, value in shares.items())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="compiling takes minutes")
    parser.add_argument("--rows", type=Path)
    arguments = parser.parse_args()
    spawn = get_context("spawn")
    with (
        ProcessPoolExecutor(1, spawn, initializer=start) as gives,
        ProcessPoolExecutor(1, spawn, initializer=start) as keeps,
    ):
        gives.submit(int).result()  # its process starts here, without this environment
        os.environ.update(pool.KEEP_FREED)
        keeps.submit(int).result()
        measures = {
            "contiguous": (keeps, train, "contiguous"),
            "channels_last": (keeps, train, "channels_last"),
            "given back": (gives, train, "channels_last"),
            "fused": (keeps, train, "fused"),
            "predict": (keeps, predict, "channels_last"),
        }
        if BFLOAT16:
            measures["bfloat16"] = (keeps, train, "bfloat16")
            measures["predict, bfloat16"] = (keeps, predict, "bfloat16")
        if arguments.compile:
            measures["compile"] = (keeps, train, "compile")
        seconds: dict[str, list[float]] = {name: [] for name in measures}
        for number in range(arguments.rounds + 1):
            for name, (process, function, choice) in measures.items():
                took = process.submit(function, choice, arguments.steps).result()
                if number:  # the first round chooses kernels, and compiles
                    seconds[name].append(took)
        told = keeps.submit(where).result()
        apart = keeps.submit(difference).result() if BFLOAT16 else 0.0
    print(f"a step: {told}")

    def ratio(slow: str, fast: str) -> list[float]:
        return [a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)]

    found = [
        rows.Row("training step, channels_last", "contiguous", ratio("contiguous", "channels_last"),
                 note=f"of a step: {told}"),
        rows.Row("training step, freed memory kept", "given back, as glibc does",
                 ratio("given back", "channels_last")),
        rows.Row("training step, fused AdamW", "AdamW", ratio("channels_last", "fused")),
    ]  # fmt: skip
    if BFLOAT16:
        found += [
            rows.Row("training step, bfloat16 autocast", "float32",
                     ratio("channels_last", "bfloat16")),
            rows.Row("prediction, bfloat16 autocast", "float32",
                     ratio("predict", "predict, bfloat16"),
                     note=f"probabilities differ by up to {apart:.3f}"),
        ]  # fmt: skip
    if arguments.compile:
        compiled = ratio("channels_last", "compile")
        found.append(rows.Row("training step, torch.compile", "eager", compiled))
    rows.add(arguments.rows, found)


if __name__ == "__main__":
    main()
