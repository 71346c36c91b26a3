"""What is in a data set: counts, sizes and colours.

Photos stream through a few threads, so any number of them takes the same memory.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import pandas as pd

from maskcls.data.label_fixes import LabelFixes
from maskcls.data.photos import PhotoError, decode, prefetch
from maskcls.data.source import Source
from maskcls.labels import AGE_BAND_STARTS, MISSING, AgeLimits, IntArray, class_names
from maskcls.progress import OnProgress

CHANNELS: Final = ("red", "green", "blue")
VALUES: Final = np.arange(256)

RARE_SIZE: Final = 0.05
"""A size that fewer than this share of the photos have is odd."""

ODD: Final = 3.5
"""Standard deviations of the mean value from which on a photo is very dark or very bright."""
COUNTED: Final = ("gender", "age_band", "mask", "race", "age", "joint")
"""Columns of the manifest by which people and photos are counted, in the order of the page."""


@dataclass
class Pixels:
    """Sizes and colours of photos as whole numbers: the same sums in whatever order they add up.

    ``sizes`` maps (height, width) to photos, ``histogram_CV`` [3, 256] counts the pixels of each
    value in each RGB channel, ``unreadable`` maps the key of a photo to what is wrong with it.
    ``seen`` maps the key of each other photo to its (height, width) and its mean value, 0 to 255.
    """

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    histogram_CV: IntArray = field(default_factory=lambda: np.zeros((3, 256), np.int64))
    unreadable: dict[str, str] = field(default_factory=dict)
    seen: dict[str, tuple[tuple[int, int], float]] = field(default_factory=dict)

    def odd(self) -> dict[str, str]:
        """The key of each photo unlike the others -> why, the strangest first."""
        if not self.seen:
            return dict(self.unreadable)
        usual_size = self.sizes.most_common(1)[0][0]
        values = np.array([value for _, value in self.seen.values()])
        middle = float(np.median(values))
        # The median distance, which odd photos do not move; 1.48 makes it a standard deviation.
        spread = max(1.48 * float(np.median(abs(values - middle))), 1.0)
        scored = []
        for key, (size, value) in self.seen.items():
            distance = (value - middle) / spread
            if self.sizes[size] < RARE_SIZE * len(self.seen):
                scored.append((np.inf, key, f"{size[0]} x {size[1]}, most are "
                               f"{usual_size[0]} x {usual_size[1]}"))  # fmt: skip
            elif abs(distance) > ODD:
                scored.append((abs(distance), key, "very bright" if distance > 0 else "very dark"))
        scored.sort(key=lambda entry: (-entry[0], entry[1]))
        return dict(self.unreadable) | {key: why for _, key, why in scored}

    def mean_std(self) -> tuple[list[float], list[float]] | None:
        """Mean and (population) standard deviation of each channel over all pixels, 0 to 1.

        Exact up to the last rounding. None where no photo could be read.
        """
        if not self.sizes:
            return None
        mean, std = [], []
        for counts in self.histogram_CV.tolist():  # Python's integers do not overflow
            pixels = sum(counts)
            total = sum(value * n for value, n in enumerate(counts))
            squares = sum(value**2 * n for value, n in enumerate(counts))
            mean.append(total / (255 * pixels))
            std.append(math.sqrt((pixels * squares - total**2) / (255 * pixels) ** 2))
        return mean, std


@dataclass(frozen=True)
class Findings:
    """All that the page shows of the data set ``name``.

    ``people``, ``photos`` and ``counts``, a table of both for each of ``COUNTED``, are of the train
    folder; ``pixels`` are of ``train`` and, where there is such a folder, ``eval``. ``table`` has
    the photos of the train folder with their labels.
    """

    name: str
    people: int
    photos: int
    counts: dict[str, pd.DataFrame]
    pixels: dict[str, Pixels]
    notes: list[str]
    table: pd.DataFrame
    age_limits: AgeLimits = AGE_BAND_STARTS


def explore(
    source: Source,
    *,
    fixes: LabelFixes | None = None,
    threads: int = 1,
    progress: OnProgress = lambda done, total: None,
) -> Findings:
    """Count, measure and decode every photo; findings do not depend on ``threads``.

    ``progress`` is called with ``(done, total)`` after each photo. Photos that cannot be read
    still count as photos. Raises what ``read_train`` and ``read_eval`` raise.
    """
    manifests = {"train": source.train(fixes)}
    if (evaluation := source.evaluation()) is not None:
        manifests["eval"] = evaluation
    train = manifests["train"].photos
    done, total = itertools.count(1), sum(len(manifest.photos) for manifest in manifests.values())
    return Findings(
        name=source.name,
        people=train["person"].nunique(),
        photos=len(train),
        counts={
            column: count(train, column, source.age_limits)
            for column in COUNTED
            if (train[column] != ("" if column == "race" else MISSING)).any()
        },
        pixels={
            name: measure(
                manifest.photos, threads=threads, progress=lambda: progress(next(done), total)
            )
            for name, manifest in manifests.items()
        },
        notes=[note for manifest in manifests.values() for note in manifest.notes],
        table=train,
        age_limits=source.age_limits,
    )


def count(
    photos: pd.DataFrame, column: str, age_limits: AgeLimits = AGE_BAND_STARTS
) -> pd.DataFrame:
    """``people`` and ``photos`` for each value of one of the columns ``COUNTED``.

    Classes have a row each, named, even where nobody is in them; so has each year of age from the
    youngest to the oldest. Races come the most frequent first. Photos without the label are one
    more row, "unknown", where there are any; not so for years.
    """
    groups = photos.groupby(column)["person"]
    table = pd.DataFrame({"people": groups.nunique(), "photos": groups.size()})
    if column == "race":
        return table.sort_values("photos", ascending=False, kind="stable")
    if column == "age":
        years = table.index[table.index != MISSING]
        return table.reindex(range(years.min(), years.max() + 1), fill_value=0)
    names = class_names("age" if column == "age_band" else column, age_limits)
    values = [*range(len(names)), *([MISSING] if MISSING in table.index else [])]
    return table.reindex(values, fill_value=0).set_axis([*names, "unknown"][: len(values)])


def measure(
    photos: pd.DataFrame, *, threads: int, progress: Callable[[], None] = lambda: None
) -> Pixels:
    """Decode ``photos`` (columns ``key`` and ``path``) and add up their sizes and colours.

    ``progress`` is called after each.
    """
    pixels = Pixels()
    with ThreadPoolExecutor(threads) as pool:
        measured = prefetch(pool, _size_and_histogram, photos["path"], window=4 * threads)
        for key, photo in zip(photos["key"], measured, strict=True):
            try:
                size, histogram_CV = photo.result()
                pixels.sizes[size] += 1
                pixels.histogram_CV += histogram_CV
                mean = float((histogram_CV @ VALUES).sum() / histogram_CV.sum())
                pixels.seen[key] = size, mean
            except PhotoError as error:
                pixels.unreadable[key] = str(error)
            progress()
    return pixels


def _size_and_histogram(path: str) -> tuple[tuple[int, int], IntArray]:
    """Raises PhotoError where a photo cannot be read."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise PhotoError(f"cannot be read: {error.strerror}") from error
    image_HWC = decode(data)
    histogram_CV = np.zeros((3, 256), np.int64)
    pixels = image_HWC.reshape(-1, 1, 3)
    # OpenCV hands counts back as float32, which is exact up to 2**24.
    for start in range(0, len(pixels), 2**24):
        for channel in range(3):
            counts = cv2.calcHist([pixels[start : start + 2**24]], [channel], None, [256], [0, 256])
            histogram_CV[channel] += counts[:, 0].astype(np.int64)
    return image_HWC.shape[:2], histogram_CV
