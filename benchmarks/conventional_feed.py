"""A DataLoader alone, as `benchmarks.conventional` has it: seconds of each epoch, as JSON.

    python -m benchmarks.conventional_feed LISTING --size 384 288 [--uint8]

A batch counts when it is a normalised float tensor. By default the worker processes make it one;
with --uint8 they hand over bytes, a quarter as many, and the consumer normalises the whole batch.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import pandas as pd
import torch
from torchvision.transforms import v2

from benchmarks.conventional import Photos, loader, transform


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("listing", type=Path)
    parser.add_argument("--size", type=int, nargs=2, required=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--uint8", action="store_true")
    arguments = parser.parse_args()
    photos = pd.read_parquet(arguments.listing)
    changed = transform(arguments.size, augment=True)
    on_batches = v2.Identity()
    if arguments.uint8:
        *in_workers, to_float, normalize = changed.transforms
        changed, on_batches = v2.Compose(in_workers), v2.Compose([to_float, normalize])
    began = time.monotonic()
    batches = loader(
        Photos(photos, "gender", changed),
        train=True,
        batch_size=arguments.batch_size,
        workers=arguments.workers,
    )
    seconds = []
    for _ in range(arguments.epochs):
        for images, _ in batches:
            assert on_batches(images).dtype == torch.float32
        seconds.append(time.monotonic() - began)
        began = time.monotonic()
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
