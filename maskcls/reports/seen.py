"""What a model sees of a photo: the face's box, and what crop and background make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import pandas as pd

from maskcls.data import face_table
from maskcls.data.face_table import boxes_of, fallback_of
from maskcls.data.faces import Box
from maskcls.data.photos import PhotoError, decode
from maskcls.data.preprocess import Preprocessing, preprocess_each
from maskcls.data.status import OK
from maskcls.labels import UInt8Array
from maskcls.reports import page
from maskcls.reports.finished_run import FinishedRun, readable
from maskcls.reports.page import Picture

SHOWN: Final = 8
"""Photos that are shown, each of another person; those without a face found come first."""

SIZE: Final = (160, 120)

_GREEN, _RED = (0, 158, 115), (213, 94, 0)


def settings_shown() -> dict[str, Preprocessing]:
    """What is shown beside the photo, by the words that choose it."""
    plain = Preprocessing(*SIZE)
    crop = replace(plain, crop="face")
    return {
        "image.crop=face": crop,
        "image.background=black": replace(plain, background="black"),
        "image.background=blur": replace(plain, background="blur"),
        "image.crop=face image.background=black": replace(crop, background="black"),
    }


def of_run(run: FinishedRun) -> dict[str, Any]:
    """How many photos to train on show no face that was found, and some photos as the models of the
    run see them; nothing where no faces were looked for."""
    if "face_detector" not in run.photos:
        return {}
    tasks_of: dict[Preprocessing, list[str]] = {}
    for task, recipe in run.recipes.items():
        tasks_of.setdefault(Preprocessing.of(recipe.image), []).append(str(task))
    photos = run.photos.reset_index().assign(side="train")
    missed = face_table.missed(photos)
    masks = zip(readable("mask"), range(len(readable("mask"))), strict=True)
    by_mask = [f"{missed[photos['mask'] == k].sum():,} {name}" for name, k in masks]
    return {
        "missed": f"{missed.sum():,} of {(photos['status'] == OK).sum():,} ({', '.join(by_mask)})",
        "views": views(photos, {", ".join(tasks): form for form, tasks in tasks_of.items()}),
    }


def views(
    photos: pd.DataFrame, settings: Mapping[str, Preprocessing] | None = None, count: int = SHOWN
) -> list[dict[str, Any]]:
    """Some photos of a located table (``Checked.photos``), of both sides, each with its pictures
    with each of the settings; nothing where no faces were looked for."""
    if "face_detector" not in photos:
        return []
    settings = settings_shown() if settings is None else settings
    usable = photos[photos["status"] == OK]
    boxes = pd.Series(boxes_of(usable, fallback_of(usable)), index=usable.index, dtype=object)
    missed = usable[usable["face_left"].isna()].head(count // 2)
    people = usable[usable["face_left"].notna()].groupby(["side", "person"], sort=False)
    # Another kind of photo of each next person, so that all mask states are there.
    others = [rows.iloc[place % len(rows)].name for place, (_, rows) in enumerate(people)]
    step = max(1, len(others) // max(1, count - len(missed)))
    chosen = [*missed.index, *others[::step][: count - len(missed)]]
    rows = []
    for number in chosen:
        photo = usable.loc[number]
        try:
            image_HWC = decode(Path(photo["path"]).read_bytes())
        except (OSError, PhotoError):  # gone since it was checked
            continue
        rows.append(_view(photo, image_HWC, boxes[number], settings))
    return rows


def _view(
    photo: pd.Series, image_HWC: UInt8Array, box: Box, settings: Mapping[str, Preprocessing]
) -> dict[str, Any]:
    found = bool(np.isfinite(photo["face_left"]))
    name = f"{photo['person']} {page.plain(Path(photo['key']).stem)}".strip()
    caption = f"score {photo['face_score']:.2f}" if found else "no face found: usual place"
    images = preprocess_each(image_HWC, list(settings.values()), [box] * len(settings))
    pictures = [(caption, _jpeg(_with_box(image_HWC, box, found), f"{name}: {caption}"))]
    pictures += [
        (words, _jpeg(image, f"{name} with {words}"))
        for words, image in zip(settings, images, strict=True)
    ]
    return {"name": name, "missed": not found, "pictures": pictures}


def _with_box(image_HWC: UInt8Array, box: Box, found: bool) -> UInt8Array:
    drawn = image_HWC.copy()
    height, width = drawn.shape[:2]
    left, top, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
    start = round(left * width), round(top * height)
    end = round(right * width), round(bottom * height)
    cv2.rectangle(drawn, start, end, _GREEN if found else _RED, max(2, width // 60))
    return drawn


def _jpeg(image_HWC: UInt8Array, alt: str) -> Picture:
    height = SIZE[0]
    width = min(max(1, round(image_HWC.shape[1] * height / image_HWC.shape[0])), 2 * height)
    return page.jpeg(image_HWC, alt, width=width, height=height)
