"""A training step on a GPU: ours against float32 eager, and fed by the pipeline against synthetic.

    python -m benchmarks.gpu_step [--rounds 5] [--steps 30]

EfficientNetV2-M at 384 x 288. Ours is the product's `Learner` with all that it decides for the
device at hand; the baseline is float32 without TF32, contiguous, AdamW, batches from pageable
memory. Where there is no GPU it says so and measures nothing, unless --device cpu.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch

from benchmarks import rows
from benchmarks.pipeline_speed import AUGMENT, listing
from examples.drawn_faces import draw
from maskcls.config.recipe import Recipe
from maskcls.data.prepared import prepare
from maskcls.data.preprocess import Preprocessing
from maskcls.labels import Task
from maskcls.learning.learner import Learner
from ray_jobs.cluster import connect
from ray_jobs.data import stream as pipeline
from ray_jobs.data.source import Batch, EpochPlan, ImageSource

ROWS = (
    ("GPU: step of {model} {size}", "float32 eager", 3.0, 4.0),
    ("GPU: the same, fed by the pipeline", "the same step on synthetic data", 0.97, 0.97),
)


def eager(recipe: Recipe, device: torch.device) -> Callable[[Batch], None]:
    model = timm.create_model(recipe.model.name, num_classes=3).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.train.lr)

    def step(batch: Batch) -> None:
        images = torch.from_numpy(batch.images_BHWC).to(device).permute(0, 3, 1, 2).contiguous()
        targets = torch.zeros(len(images), dtype=torch.long, device=device)
        loss = torch.nn.functional.cross_entropy(model(images / 127.5 - 1), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def ours(recipe: Recipe, plan: EpochPlan, device: torch.device) -> Callable[[Batch], None]:
    table = dict.fromkeys(("mask", "age"), plan.labels_N)
    learner = Learner(Task.MASK, recipe, table, steps_per_epoch=plan.steps, device=device, seed=0)
    learner.start_epoch(1)

    def step(batch: Batch) -> None:
        learner.step(batch.images_BHWC, batch.items_B, epoch=1, number=0)

    return step


def seconds(step: Callable[[Batch], None], batches: Iterator[Batch], count: int) -> float:
    """Seconds of ``count`` steps, with the device idle before and after."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(count):
        step(next(batches))
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def synthetic(recipe: Recipe) -> Iterator[Batch]:
    size = (recipe.train.batch_size, *recipe.image.size, 3)
    pixels = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    while True:
        yield Batch(1, 0, np.arange(len(pixels)), pixels)


def fed(source: ImageSource, plan: EpochPlan, steps: int) -> Iterator[Batch]:
    # A little more than is taken: the pipeline is at work until the end.
    epochs = 2 + steps // plan.steps
    return pipeline.batches(source, plan, AUGMENT, first_epoch=1, last_epoch=epochs, title="step")


def prepared(folder: Path, recipe: Recipe) -> tuple[ImageSource, EpochPlan]:
    root = draw.draw(folder / "data", people=42, eval_people=6)
    table = listing(root, 4 * recipe.train.batch_size, folder / "listing.parquet")
    form = Preprocessing(*recipe.image.size)
    photos = pd.read_parquet(table)
    (images_,) = prepare(photos, [form], folder / "cache", threads=2)
    count = np.arange(len(photos))
    plan = EpochPlan(
        rows={"row": count, "row2": np.full_like(count, -1), "weight2": count * 0.0, "key": count},
        labels_N=np.zeros_like(count), shares=None, batch_size=recipe.train.batch_size, seed=0,
    )  # fmt: skip
    return ImageSource(images_.folder, table, form), plan


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--model", default="tf_efficientnetv2_m")
    parser.add_argument("--size", type=int, nargs=2, default=(384, 288), metavar=("H", "W"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=Path)
    arguments = parser.parse_args()
    height, width = arguments.size
    names = {"model": arguments.model, "size": f"{height} x {width}"}
    if arguments.device == "cuda" and not torch.cuda.is_available():
        rows.add(arguments.rows, [
            rows.Row(what.format(**names), baseline, [], must, aim, note="no GPU on this machine")
            for what, baseline, must, aim in ROWS
        ])  # fmt: skip
        return
    # The baseline is plain float32; ours asks for what it wants by itself.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device = torch.device(arguments.device)
    recipe = Recipe.model_validate({
        "model": {"name": arguments.model, "pretrained": False},
        "image": {"size": (height, width), "mean": (0.5,) * 3, "std": (0.5,) * 3},
        "train": {"batch_size": arguments.batch_size},
    })  # fmt: skip
    connect.connect()
    with tempfile.TemporaryDirectory() as name:
        source, plan = prepared(Path(name), recipe)
        steps = {"eager": eager(recipe, device), "ours": ours(recipe, plan, device)}
        made = synthetic(recipe)
        stream = fed(source, plan, arguments.steps * (arguments.rounds + 1))
        ratios: list[list[float]] = [[], []]
        for number in range(-1, arguments.rounds):
            base = seconds(steps["eager"], made, arguments.steps)
            alone = seconds(steps["ours"], made, arguments.steps)
            with_pipeline = seconds(steps["ours"], stream, arguments.steps)
            if number >= 0:  # the round before chooses kernels
                ratios[0].append(base / alone)
                ratios[1].append(alone / with_pipeline)
        stream.close()  # type: ignore[attr-defined]
    rows.add(arguments.rows, [
        rows.Row(what.format(**names), baseline, ratio, must, aim, note=str(device))
        for (what, baseline, must, aim), ratio in zip(ROWS, ratios, strict=True)
    ])  # fmt: skip


if __name__ == "__main__":
    main()
