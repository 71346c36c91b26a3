"""Photos on disk to augmented, normalised batches: ours, a DataLoader, and a loop without Ray.

    python -m benchmarks.pipeline_speed DATA [--rounds 5] [--photos 1680]

AutoAugment at 384 x 288, two cores, the ways taking turns. The DataLoader decodes and augments in
two workers that live on; of its two forms (see `benchmarks.conventional_feed`) the one that is
faster in the first round is the baseline. Ours begins with nothing prepared, on a running cluster.
The loop without Ray is the project's own operations on prepared images, in two processes that hand
nothing over.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch

from benchmarks import rows
from maskcls.augment import augmentations
from maskcls.data import manifest
from maskcls.data import prepared as images
from maskcls.data.preprocess import Preprocessing
from maskcls.learning.predict import Normalize
from ray_jobs.cluster import connect
from ray_jobs.data import stream as pipeline
from ray_jobs.data.source import EpochPlan, ImageSource

SIZE, BATCH, WORKERS = (384, 288), 32, 2
LATER = range(2, 5)
"""Epochs of ours and of the bare loop that count as the second and later ones."""

AUGMENT: dict[str, Any] = {"name": "autoaugment"}
CPU = torch.device("cpu")
FORMS = {"floats from the workers": (), "bytes from the workers": ("--uint8",)}
"""The DataLoader's forms, and their words."""


@dataclass
class Bench:
    """A listing of photos, and the seconds of every way, round by round."""

    folder: Path
    listing: Path
    size: tuple[int, int]
    loops: list[ProcessPoolExecutor]
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def conventional(self, name: str) -> None:
        """A form of the DataLoader, in a process of its own: first and second epoch."""
        command = [sys.executable, "-m", "benchmarks.conventional_feed", str(self.listing),
                   "--size", *map(str, self.size), "--batch-size", str(BATCH),
                   "--workers", str(WORKERS), *FORMS[name]]  # fmt: skip
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=600)
        first, second = json.loads(done.stdout)
        self.note(f"{name}, first", first)
        self.note(f"{name}, second", second)

    def ours(self, number: int) -> tuple[ImageSource, EpochPlan]:
        """Prepare, then the first and later epochs; returns what the bare loop needs."""
        normalize = Normalize((0.5,) * 3, (0.5,) * 3, CPU)
        began = time.monotonic()
        photos, form = pd.read_parquet(self.listing), Preprocessing(*self.size)
        cache = self.folder / f"cache{number}"
        (prepared,) = images.prepare(photos, [form], cache, threads=WORKERS)
        source = ImageSource(prepared.folder, self.listing, form)
        count = np.arange(len(photos))
        plan = EpochPlan(
            rows={"row": count, "row2": np.full_like(count, -1), "weight2": count * 0.0,
                  "key": count},
            labels_N=np.zeros_like(count), shares=None, batch_size=BATCH, seed=number,
        )  # fmt: skip
        # The last epoch only keeps the tasks busy until the one before it has been taken.
        stream = pipeline.batches(
            source, plan, AUGMENT, first_epoch=1, last_epoch=LATER.stop, title="speed"
        )
        for name, epochs in (("first", 1), ("later", len(LATER))):
            for _ in range(epochs * plan.steps):
                normalize(next(stream).images_BHWC)
            self.note(f"ours, {name}", (time.monotonic() - began) / epochs)
            began = time.monotonic()
        stream.close()  # type: ignore[attr-defined]
        return source, plan

    def bare(self, source: ImageSource, plan: EpochPlan) -> None:
        began = time.monotonic()
        shares = [replace(plan, rank=rank, world=WORKERS) for rank in range(WORKERS)]
        running = [
            loop.submit(bare_loop, source, share)
            for loop, share in zip(self.loops, shares, strict=True)
        ]
        for share in running:
            share.result()
        self.note("bare loop", (time.monotonic() - began) / len(LATER))

    def faster(self) -> str:
        return min(FORMS, key=lambda name: self.seconds[f"{name}, second"][0])

    def note(self, name: str, seconds: float) -> None:
        self.seconds.setdefault(name, []).append(seconds)
        print(f"  {name:28} {seconds:7.2f} s", flush=True)

    def ratio(self, there: str, here: str) -> list[float]:
        return [a / b for a, b in zip(self.seconds[there], self.seconds[here], strict=True)]


def bare_loop(source: ImageSource, plan: EpochPlan) -> None:
    """One process's share of the later epochs: augment and normalise, and nothing else."""
    photos_NHWC, apply = source.open(), augmentations.build(**AUGMENT)
    normalize = Normalize((0.5,) * 3, (0.5,) * 3, CPU)
    for number, step in itertools.product(LATER, range(plan.steps)):
        epoch = plan.epoch(number)
        items = epoch.items_N[epoch.step(step, plan.rank, plan.world)]
        batch = np.empty((len(items), *photos_NHWC.shape[1:]), np.uint8)
        for place, item in enumerate(items):
            rng = np.random.default_rng((plan.seed, number, int(item), 0))
            batch[place] = apply(np.ascontiguousarray(photos_NHWC[item]), rng)
        normalize(batch)


def calm() -> None:
    """What a lane's process does at its start, and Ray Data's tasks with OpenCV."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def listing(root: Path, count: int, path: Path) -> Path:
    """A table of ``count`` photos, beginning anew where the data set has fewer."""
    photos = manifest.read_train(root).photos[["key", "path", "gender"]]
    times = -(-count // len(photos))
    again = [photos.assign(key=f"{n}/" + photos["key"]) for n in range(times)]
    pd.concat(again, ignore_index=True).head(count).to_parquet(path)
    return path


def table(bench: Bench, photos: int) -> list[rows.Row]:
    best = bench.faster()
    (other,) = FORMS.keys() - {best}
    slower = bench.seconds[f"{other}, second"][0] / bench.seconds[f"{best}, second"][0]
    return [
        rows.Row("training pipeline, second epoch on, images/s",
                 f"torchvision, DataLoader(num_workers={WORKERS})",
                 bench.ratio(f"{best}, second", "ours, later"), 4, 6,
                 note=f"{photos} photos to {bench.size[0]} x {bench.size[1]}; {best}, since "
                      f"{other} took {slower:.2f} times as long"),
        rows.Row("the same", "a bare loop of our operations, 2 processes",
                 bench.ratio("bare loop", "ours, later"), 0.9, 0.97),
        rows.Row("first epoch, nothing prepared", "first epoch of the DataLoader",
                 bench.ratio(f"{best}, first", "ours, first"), 1, 1.5,
                 note="cluster and imports are up on both sides"),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--photos", type=int, default=1680)
    parser.add_argument("--size", type=int, nargs=2, default=SIZE, metavar=("H", "W"))
    parser.add_argument("--rows", type=Path)
    arguments = parser.parse_args()
    calm()
    connect.connect()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = listing(arguments.data, arguments.photos, folder / "listing.parquet")
        loops: Sequence[Any] = [
            ProcessPoolExecutor(1, get_context("spawn"), initializer=calm) for _ in range(WORKERS)
        ]
        bench = Bench(folder, path, tuple(arguments.size), list(loops))
        for loop in loops:
            loop.submit(time.monotonic).result()  # imports
        for number in range(arguments.rounds):
            print(f"round {number + 1} of {arguments.rounds}", flush=True)
            for name in [bench.faster()] if number else FORMS:
                bench.conventional(name)
            bench.bare(*bench.ours(number))
        for loop in loops:
            loop.shutdown()
        rows.add(arguments.rows, table(bench, arguments.photos))


if __name__ == "__main__":
    main()
