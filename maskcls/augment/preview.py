"""A picture of what each augmentation does to a photo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from maskcls.augment.augmentations import AUGMENTATIONS, Augmentation, build
from maskcls.augment.operations import ImageArray
from maskcls.storage import files

_TILE_HEIGHT: Final = 160
_MARGIN: Final = ((2, 2), (2, 2), (0, 0))
_GAP: Final = ((0, 0), (0, 12), (0, 0))


def preview(
    photos: Sequence[ImageArray], path: Path, *, seed: int = 0, per_augmentation: int = 4
) -> None:
    """Write a PNG with one row an augmentation: ``per_augmentation`` draws of each photo.

    ``photos`` may be of any sizes; they are scaled to one height before they are augmented. Raises
    ValueError without photos and OSError where ``path`` cannot be written.
    """
    from matplotlib.figure import Figure

    if not photos:
        raise ValueError("the preview needs at least one photo, got none")
    tiles = [_tile(photo) for photo in photos]
    names = [name for name in AUGMENTATIONS if name != "albumentations"]  # that one needs a file
    rows = [
        _row(build(name), tiles, np.random.default_rng(seed), per_augmentation) for name in names
    ]
    sheet = np.vstack(rows)
    height, width, label_width, dpi = *sheet.shape[:2], 170, 100
    figure = Figure(figsize=((label_width + width) / dpi, height / dpi), dpi=dpi)
    left = label_width / (label_width + width)
    axes = figure.add_axes((left, 0, 1 - left, 1))
    axes.imshow(sheet, interpolation="nearest", aspect="auto")
    centres = (np.arange(len(rows)) + 0.5) * height / len(rows)
    axes.set_yticks(centres, labels=names, fontsize=15)
    axes.tick_params(length=0, pad=8)
    axes.set_xticks([])
    axes.set_frame_on(False)
    with files.replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _tile(photo: ImageArray) -> ImageArray:
    width = max(1, round(photo.shape[1] * _TILE_HEIGHT / photo.shape[0]))
    return cv2.resize(photo, (width, _TILE_HEIGHT), interpolation=cv2.INTER_AREA)


def _row(
    augment: Augmentation, tiles: Sequence[ImageArray], rng: np.random.Generator, draws: int
) -> ImageArray:
    blocks = []
    for tile in tiles:
        drawn = [np.pad(augment(tile, rng), _MARGIN, constant_values=255) for _ in range(draws)]
        blocks.append(np.pad(np.hstack(drawn), _GAP, constant_values=255))
    return np.hstack(blocks)
