"""What `maskcls check` finds and misses: copies, and photos in another person's folder.

    python -m benchmarks.data_checks DATA [DATA ...]

Copies: photos are changed as copies are (encoded again, resized, ...) and compared with their
originals; beside it stand the nearest photos of different people, and of one person. Strangers: in
each of ten draws one person in ten (in pairs) swaps one photo with another person's, and photos are
judged as in the check. Neither writes anything.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from maskcls.data.manifest import read_train
from maskcls.quality import appearance
from maskcls.quality.appearance import Fingerprint

Image = npt.NDArray[np.uint8]
SAMPLE = 150
DRAWS = 10
SWAPPED = 0.1

CHANGES: dict[str, Callable[[Image], Image]] = {
    "quality 50": lambda image: image,
    "half the size": lambda image: resized(image, 0.5),
    "10 % brighter": lambda image: scaled(image, 1.1),
    "20 % darker": lambda image: scaled(image, 0.8),
    "1 % cut off each side": lambda image: cut(image, 0.01),
    "2 % cut off each side": lambda image: cut(image, 0.02),
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+")
    for root in parser.parse_args().data:
        photos = read_train(root).photos
        began = time.monotonic()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            fingerprints = list(pool.map(appearance.fingerprint, photos["path"]))
        rate = len(photos) / (time.monotonic() - began)
        print(f"{root.name}: {len(photos)} photos, {rate:.0f} a second on {os.cpu_count()} cores")
        print(copies(photos, fingerprints).to_string(index=False))
        print(neighbours(photos, fingerprints))
        print(strangers(photos, fingerprints))


def copies(photos: pd.DataFrame, fingerprints: list[Fingerprint]) -> pd.DataFrame:
    rows = np.random.default_rng(0).choice(len(photos), min(SAMPLE, len(photos)), replace=False)
    table = []
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "copy.jpg")
        for name, change in CHANGES.items():
            bits, apart = [], []
            for row in rows:
                image = np.asarray(cv2.imread(photos["path"][row]), np.uint8)
                cv2.imwrite(path, change(image), [cv2.IMWRITE_JPEG_QUALITY, 50])
                copy = appearance.fingerprint(path)
                bits.append(int(np.bitwise_count(copy.hash_W ^ fingerprints[row].hash_W).sum()))
                apart.append(
                    np.abs(copy.colours_D.astype(int) - fingerprints[row].colours_D).mean()
                )
            same = (np.array(bits) <= appearance.SAME_BITS) & (
                np.array(apart) <= appearance.SAME_COLOURS
            )
            table.append(
                {
                    "copy": name,
                    "bits, median": int(np.median(bits)),
                    "bits, most": max(bits),
                    "found among people": f"{np.mean(np.array(bits) <= appearance.COPY_BITS):.0%}",
                    "found in one person": f"{same.mean():.0%}",
                }
            )
    return pd.DataFrame(table)


def neighbours(photos: pd.DataFrame, fingerprints: list[Fingerprint]) -> str:
    """How near photos come that are no copies."""
    person_N = photos["person"].to_numpy()
    pairs = list(appearance.near_pairs(np.stack([one.hash_W for one in fingerprints]), 256))
    first, second, bits = (np.concatenate(part) for part in zip(*pairs, strict=True))
    own = person_N[first] == person_N[second]
    told = []
    for name, chosen, limit in (
        ("of two people", ~own, appearance.COPY_BITS),
        ("of one person", own, appearance.SAME_BITS),
    ):
        within = int((bits[chosen] <= limit).sum())
        told.append(
            f"pairs {name}: {chosen.sum():,}, the nearest {bits[chosen].min()} bits, "
            f"{within} within {limit}"
        )
    return "\n".join(told)


def strangers(photos: pd.DataFrame, fingerprints: list[Fingerprint]) -> str:
    heads_ND = np.stack([one.head_D for one in fingerprints])
    person_N = photos["person"].to_numpy()
    people = np.unique(person_N)
    hits = called = swapped = 0
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        chosen = rng.permutation(people)[: int(SWAPPED * len(people)) // 2 * 2]
        places = [rng.choice(np.flatnonzero(person_N == person)) for person in chosen]
        order = np.arange(len(photos))
        order[places] = np.array(places).reshape(-1, 2)[:, ::-1].ravel()
        strange = appearance.outlier_scores(heads_ND[order], person_N) > appearance.OUTLIER
        hits += int(strange[places].sum())
        called += int(strange.sum())
        swapped += len(places)
    unswapped = appearance.outlier_scores(heads_ND, person_N) > appearance.OUTLIER
    return (
        f"photos of another person: {swapped} swapped in {DRAWS} draws, precision "
        f"{hits / max(called, 1):.2f}, recall {hits / swapped:.2f}; "
        f"without any swap {unswapped.sum()} of {len(photos)} are called strange"
    )


def resized(image: Image, factor: float) -> Image:
    small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def scaled(image: Image, factor: float) -> Image:
    return np.asarray(cv2.convertScaleAbs(image, alpha=factor), np.uint8)


def cut(image: Image, share: float) -> Image:
    height, width = image.shape[:2]
    rows, columns = round(share * height), round(share * width)
    return np.ascontiguousarray(image[rows : height - rows, columns : width - columns])


if __name__ == "__main__":
    main()
