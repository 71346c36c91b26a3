"""Time AutoAugment (CIFAR-10 policy) on one CPU thread: this package beside torchvision.

    python benchmarks/augmentation_speed.py [--size 128 96] [--photos FOLDER]

The usual path augments a photo at full size and then resizes it, every epoch. The others start
from photos that were resized once, before the clock runs. Decoding is never counted. The clock is
CPU time and the paths take turns, so that a busy machine hits them alike; the table has medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from maskcls.augment import augmentations
from maskcls.augment.operations import ImageArray
from maskcls.data.photos import decode

NUM_PHOTOS: Final = 64
NUM_ROUNDS: Final = 15
SUFFIXES: Final = (".jpg", ".jpeg", ".png")
DRAWN_SIZE: Final = (512, 384)
"""Height and width of the data set's photos."""


def main() -> None:
    """Time all paths and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--size", type=int, nargs=2, default=(128, 96), metavar=("H", "W"))
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help="default: drawn photos")
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    photos = read_photos(arguments.photos) if arguments.photos else draw_photos()
    height, width = arguments.size
    print(f"{len(photos)} photos to {height} x {width}, {NUM_ROUNDS} rounds, one thread")
    print_table(time_paths(make_paths(photos, height, width), len(photos)))


def draw_photos() -> list[ImageArray]:
    """Smooth colours, an ellipse for a face, film grain."""
    rng, (height, width) = np.random.default_rng(0), DRAWN_SIZE
    photos = []
    for _ in range(NUM_PHOTOS):
        photo = cv2.resize(rng.integers(0, 256, (4, 3, 3)).astype(np.uint8), (width, height))
        skin = rng.integers(0, 256, 3).tolist()
        cv2.ellipse(
            photo, (width // 2, height // 2), (width // 3, height // 3), 0, 0, 360, skin, -1
        )
        photos.append(np.clip(photo + rng.normal(0, 8, photo.shape), 0, 255).astype(np.uint8))
    return photos


def read_photos(folder: Path) -> list[ImageArray]:
    """The first photos under ``folder``. Raises ValueError where there are none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise ValueError(f"{folder}: no photo in it (looked for {', '.join(SUFFIXES)})")
    return [decode(path.read_bytes()) for path in found[:NUM_PHOTOS]]


def make_paths(
    photos: list[ImageArray], height: int, width: int
) -> dict[str, Callable[[], list[Any]]]:
    """Name of a path -> a function that augments every photo once."""
    small = [cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA) for photo in photos]
    policy = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)
    augment, rng = augmentations.build("autoaugment"), np.random.default_rng(0)
    tensors = [torch.from_numpy(photo).permute(2, 0, 1).contiguous() for photo in small]
    return {
        "maskcls, uint8 arrays": lambda: [augment(photo, rng) for photo in small],
        "torchvision v2, uint8 tensors": partial(run, policy, tensors),
        "torchvision v2, PIL": partial(run, policy, [Image.fromarray(photo) for photo in small]),
        "torchvision v2, PIL at full size, then resize": partial(
            run,
            v2.Compose([policy, v2.Resize((height, width))]),
            [Image.fromarray(photo) for photo in photos],
        ),
    }


def run(transform: Callable[[Any], Any], photos: list[Any]) -> list[Any]:
    return [transform(photo) for photo in photos]


def time_paths(paths: dict[str, Callable[[], list[Any]]], num_photos: int) -> dict[str, float]:
    """Name of a path -> median CPU microseconds a photo. The first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(1 + NUM_ROUNDS):
        for name, path in paths.items():
            began = time.process_time()
            path()
            times[name].append((time.process_time() - began) / num_photos * 1e6)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def print_table(medians: dict[str, float]) -> None:
    """One line a path; ratios are to the first."""
    first = next(iter(medians.values()))
    print(f"{'path':48}{'CPU us/photo':>14}{'photos/s':>10}{'ratio':>8}")
    for name, micros in medians.items():
        print(f"{name:48}{micros:14.0f}{1e6 / micros:10.0f}{micros / first:8.1f}")


if __name__ == "__main__":
    main()
