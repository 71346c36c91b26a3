"""Several models on one set of photos the usual way: a pass of a DataLoader a model.

    python -m benchmarks.conventional_predict LISTING --size 384 288 --models 15

Prints the seconds from the first photo to the last probability, imports aside. Weights are random:
what the models say does not matter here.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd
import timm

from benchmarks.conventional import Photos, loader, predict, transform


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("listing", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--size", type=int, nargs=2, required=True)
    parser.add_argument("--models", type=int, required=True)
    parser.add_argument("--batch-size", type=int, default=32)
    arguments = parser.parse_args()
    photos = Photos(
        pd.read_parquet(arguments.listing).assign(none=0), "none",
        transform(arguments.size, augment=False),
    )  # fmt: skip
    began = time.monotonic()
    batches = loader(photos, train=False, batch_size=arguments.batch_size, workers=2)
    for _ in range(arguments.models):
        predict(timm.create_model(arguments.model, num_classes=3), batches)
    print(time.monotonic() - began)


if __name__ == "__main__":
    main()
