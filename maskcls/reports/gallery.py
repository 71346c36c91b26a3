"""Photos of a run as small pictures, with what each model said and what it looked at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd

from maskcls import labels
from maskcls.data import photos as images
from maskcls.data.photos import PhotoError
from maskcls.data.preprocess import Preprocessing, preprocess
from maskcls.labels import Task, UInt8Array
from maskcls.reports import analysis, page
from maskcls.reports.finished_run import FinishedRun, named, readable
from maskcls.reports.page import Picture, Table

WIDTH: Final = 120
"""Of a picture, in pixels."""

HEAT_SHARE: Final = 0.45
"""Of the colours of a heat map in the picture under it."""

Explain = Callable[[FinishedRun, pd.DataFrame, Mapping[str, UInt8Array]], "Explained"]
"""Of the shape of ``explain``."""

Key = tuple[str, str]
"""(photo, attribute)."""


@dataclass(frozen=True)
class Explained:
    """Photos with heat maps over them, and why others have none."""

    pictures: dict[Key, UInt8Array]
    notes: list[str]


def read_photos(run: FinishedRun, keys: Sequence[str]) -> tuple[dict[str, UInt8Array], list[str]]:
    """The decoded photos, and what is wrong with those that cannot be shown."""
    photos: dict[str, UInt8Array] = {}
    problems = []
    for key in dict.fromkeys(keys):
        try:
            photos[key] = images.decode(Path(run.photos["path"][key]).read_bytes())
        except OSError as error:
            problems.append(f"{key}: {error.strerror}")
        except PhotoError as error:
            problems.append(f"{key}: {error}")
    return photos, problems


def explain(
    run: FinishedRun, mistakes: pd.DataFrame, photos: Mapping[str, UInt8Array]
) -> Explained:
    """Heat maps of what led to each wrong answer (a row of ``analysis.worst``) in the fold's
    model that gave it, which sees the photo as it did then. What cannot be explained is noted.
    """
    import torch

    from maskcls.learning import predict, saliency

    wanted: defaultdict[tuple[Task, int, str], list[tuple[Key, int]]] = defaultdict(list)
    fold_of = run.photos["fold"].to_dict()
    for row in mistakes[mistakes["photo"].isin(list(photos))].to_dict("records"):
        task, head, answer = _speaker(run, row["photo"], row["attribute"], row["predicted"])
        fold = fold_of[row["photo"]]
        wanted[task, fold, head].append(((row["photo"], row["attribute"]), answer))
    pictures: dict[Key, UInt8Array] = {}
    notes = []
    for (task, fold, head), items in wanted.items():
        try:
            predictor, info = predict.load(run.job(task, fold), torch.device("cpu"))
            form = Preprocessing.of(info.recipe.image)
            seen = np.stack([preprocess(photos[photo], form) for (photo, _), _ in items])
            heat_NHW = saliency.heat_maps(predictor, seen, head, [answer for _, answer in items])
        except (ValueError, OSError, RuntimeError) as error:  # such as weights of another timm
            notes.append(f"{task} {fold}: {error}")
            continue
        for (key, _), image_HWC, heat_HW in zip(items, seen, heat_NHW, strict=True):
            pictures[key] = overlaid(image_HWC, heat_HW)
    return Explained(pictures, notes)


def _speaker(run: FinishedRun, photo: str, attribute: str, answer: int) -> tuple[Task, str, int]:
    """The task whose model gave this answer on its own (else the first that speaks of the
    attribute), the head it spoke with, and what that head answered."""
    rows = run.out_of_fold[run.out_of_fold["photo"] == photo]
    answers = rows.set_index(["task", "head"])["predicted"].to_dict()
    speakers = []
    for task in analysis.tasks_of(run, attribute):
        head = "joint" if task is Task.JOINT else attribute
        answered = answers[str(task), head]
        agrees = (labels.decode(answered)[attribute] if head == "joint" else answered) == answer
        speakers.append((not agrees, task, head, answered))
    _, task, head, answered = min(speakers, key=lambda speaker: speaker[0])
    return task, head, answered


def overlaid(image_HWC: UInt8Array, heat_HW: npt.NDArray[np.float32]) -> UInt8Array:
    """A photo under a heat map [H, W] from 0 to 1: yellow did most for the answer."""
    colours = (matplotlib.colormaps["cividis"](heat_HW)[..., :3] * 255).astype(np.uint8)
    return np.asarray(
        cv2.addWeighted(image_HWC, 1 - HEAT_SHARE, colours, HEAT_SHARE, 0.0), np.uint8
    )


def thumbnail(image_HWC: UInt8Array, alt: str) -> Picture:
    """A photo as a small JPEG."""
    height = max(1, round(image_HWC.shape[0] * WIDTH / image_HWC.shape[1]))
    return page.jpeg(image_HWC, alt, width=WIDTH, height=height)


def cards(
    run: FinishedRun,
    chosen: pd.DataFrame,
    photos: Mapping[str, UInt8Array],
    explained: Mapping[Key, UInt8Array],
) -> list[dict[str, Any]]:
    """What is shown of each chosen answer: photo, heat map, truth, and what each model said."""
    probabilities = {
        (task, attribute): analysis.probabilities_of(run, task, attribute)
        for attribute in chosen["attribute"].unique()
        for task in analysis.tasks_of(run, attribute)
    }
    found = []
    for row in chosen.to_dict("records"):
        photo, attribute = row["photo"], row["attribute"]
        person, names = run.photos.loc[photo], readable(attribute, run.age_limits)
        answer = names[row["predicted"]]
        pictures = []
        if photo in photos:
            pictures.append(thumbnail(photos[photo], f"{photo}: {_labels(person, run.age_limits)}"))
        if (photo, attribute) in explained:
            pictures.append(
                thumbnail(explained[photo, attribute], f"what led to {answer} in {photo}")
            )
        models = [
            [
                f"{task} {person['fold']}",
                *(f"{p:.2f}" for p in probabilities[task, attribute].loc[photo]),
            ]
            for task in analysis.tasks_of(run, attribute)
        ]
        found.append(
            {
                "pictures": pictures,
                "attribute": attribute,
                "answer": answer,
                "sure": row["sure"],
                "label": "" if row["truth"] == row["predicted"] else names[row["truth"]],
                "photo": f"{person['person']} {page.plain(person['stem'])}",
                "labels": _labels(person, run.age_limits),
                "models": Table("", ["", *names], models),
            }
        )
    return found


def _labels(person: pd.Series, limits: labels.AgeLimits) -> str:
    mask, gender = (named(name, person[name]) for name in ("mask", "gender"))
    age = f"{person['age']} years" if person["age"] != labels.MISSING else "age unknown"
    if person["age"] == labels.MISSING and person["age_band"] != labels.MISSING:
        age = named("age", person["age_band"], limits)
    return f"{gender}, {age}, mask {mask}"
