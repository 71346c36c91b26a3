"""Ray Data: parts of photos -> decoded and preprocessed in tasks -> answered by a pool of actors.

A part is one block all the way. An actor writes the answers of a part as one file, whole, before it
takes the next, so a run that was killed goes on with the parts that have no file. No prepared
photo is written anywhere; Ray Data holds back the tasks while the actors are busy.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cloudpickle
import cv2
import numpy as np
import ray.data
from ray.data import ActorPoolStrategy, DataContext

from maskcls.data.preprocess import Preprocessing
from maskcls.data.status import OK
from maskcls.inference import loading, table
from maskcls.inference.inputs import GivenPhoto
from maskcls.inference.model import BATCH
from maskcls.inference.prepared_photo import PixelBox, PreparedPhoto, prepare
from maskcls.storage import files
from maskcls.storage.place import Place
from ray_jobs.batch.parts import Part
from ray_jobs.run.folder import for_driver

Columns = dict[str, Any]

PART_BYTES: Final = 48e6
"""Prepared photos in one part, at most: Ray Data would cut larger blocks."""

CPUS_A_TASK: Final = 0.5
"""Of those that Ray counts: an actor and a task beside it fill one."""


@dataclass(frozen=True)
class Work:
    """What actors need: the model, where it lives, and where answers go."""

    model: Place
    out: Place
    device: str
    threads: int


def part_name(number: int) -> str:
    """The file of a part's answers."""
    return f"part-{number:06}.parquet"


def part_size(recipes: Sequence[Preprocessing], wanted: int) -> int:
    """Photos a part: as many as wanted, and no more than fit ``PART_BYTES``."""
    photo_bytes = sum(recipe.height * recipe.width * 3 for recipe in recipes)
    return max(1, min(wanted, int(PART_BYTES / photo_bytes)))


def run(
    parts: Sequence[Part],
    recipes: Sequence[Preprocessing],
    work: Work,
    *,
    actors: int,
    gpus: float,
) -> Iterator[tuple[int, int]]:
    """Answer for these parts; yields, as each is written, its photos and those unreadable."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it has a terminal handler of its own
    items = [{"part": cloudpickle.dumps(part)} for part in parts]
    data = ray.data.from_items(items, override_num_blocks=len(items))
    # Not less than one task: a fraction of a CPU lets tasks and actors share it.
    data = data.map_batches(
        _Decode(tuple(recipes)), batch_size=None, num_cpus=CPUS_A_TASK, zero_copy_batch=True
    )
    data = data.map_batches(
        Answer,
        fn_constructor_args=(work,),
        compute=ActorPoolStrategy(size=min(actors, len(parts))),
        batch_size=None,
        num_cpus=CPUS_A_TASK,
        num_gpus=gpus or None,
        zero_copy_batch=True,
    )
    for row in data.iter_rows():
        yield int(row["photos"]), int(row["unreadable"])


@dataclass(frozen=True)
class _Decode:
    """The task: a part -> its photos, preprocessed; zeros where one cannot be read."""

    recipes: tuple[Preprocessing, ...]

    def __call__(self, batch: Columns) -> Columns:
        cv2.setNumThreads(0)  # tasks run side by side already
        (pickled,) = batch["part"]
        part: Part = cloudpickle.loads(pickled)
        made = [self._prepare(photo) for photo in part.read()]
        columns: Columns = {
            "part": np.full(len(made), part.number),
            "of": np.full(len(made), len(made)),
            "name": np.array([photo.name for photo in made], object),
            "status": np.array([photo.status for photo in made], object),
            "box": np.array([photo.box or (-1,) * 4 for photo in made], np.int64),
        }
        for k, recipe in enumerate(self.recipes):
            nothing = np.zeros((recipe.height, recipe.width, 3), np.uint8)
            columns[f"image{k}"] = np.stack([p.images[k] if p.images else nothing for p in made])
        return columns

    def _prepare(self, photo: tuple[str, bytes, str]) -> PreparedPhoto:
        name, data, status = photo
        if status != OK:
            return PreparedPhoto(name, status, [], None, (0, 0))
        return prepare(GivenPhoto(name, data), self.recipes)


class Answer:
    """The actor: holds the models, answers for a part and writes its file."""

    def __init__(self, work: Work) -> None:
        work.model.pull(for_driver)
        self._work = work
        self._model = loading.load(work.model.local, device=work.device, threads=work.threads)

    def __call__(self, batch: Columns) -> Columns:
        number, count = int(batch["part"][0]), len(batch["part"])
        if set(batch["part"]) != {number} or count != batch["of"][0]:
            raise RuntimeError(f"part {number}: came with {count} of {batch['of'][0]} photos")
        recipes = self._model.recipes
        rows: list[dict[str, Any]] = []
        for start in range(0, count, BATCH):
            photos = [
                PreparedPhoto(
                    name=str(batch["name"][n]),
                    status=str(batch["status"][n]),
                    images=[batch[f"image{k}"][n] for k in range(len(recipes))],
                    box=_box(batch["box"][n]),
                    size=(0, 0),
                )
                for n in range(start, min(start + BATCH, count))
            ]
            answers = self._model.answer(photos)
            types = table.columns(answers, self._model.age_limits)
            rows += table.records(photos, answers, self._model.age_limits)
        self._write(number, rows, types)
        unreadable = sum(row["status"] != OK for row in rows)
        return {"photos": np.array([count]), "unreadable": np.array([unreadable])}

    def _write(self, number: int, rows: list[dict[str, Any]], types: dict[str, str]) -> None:
        name = part_name(number)
        made = table.of_records(rows, types)
        files.write_table(self._work.out.local / name, made)
        self._work.out.push(lambda file: file == name)


def unwritten(out: Path, parts: Sequence[Part]) -> list[Part]:
    """Those parts whose answers are not there yet."""
    return [part for part in parts if not (out / part_name(part.number)).is_file()]


def _box(numbers_4: Any) -> PixelBox | None:
    """A face's box from a column of numbers; negative ones stand for none."""
    left, top, right, bottom = (int(number) for number in numbers_4)
    return None if left < 0 else (left, top, right, bottom)
