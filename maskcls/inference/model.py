"""An ensemble ready to answer: preprocessing, models and vote as one thing.

The same for models of PyTorch (a run, a job) and of onnxruntime (a bundle). Here only NumPy and
OpenCV are needed; ``predict`` makes a table, which takes pandas.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from maskcls.data.photos import prefetch
from maskcls.data.preprocess import Preprocessing
from maskcls.data.status import OK
from maskcls.inference import table
from maskcls.inference.inputs import GivenPhoto, sources
from maskcls.inference.prepared_photo import PreparedPhoto, prepare
from maskcls.labels import AGE_BAND_STARTS, AgeLimits, Float32Array, Task, UInt8Array
from maskcls.scoring import ensemble
from maskcls.scoring.ensemble import Answer
from maskcls.scoring.voting import FittedVote

if TYPE_CHECKING:
    import pandas as pd

BATCH: Final = 32
"""Photos that go through the models together, unless asked otherwise."""


class Member(Protocol):
    """One model of an ensemble."""

    @property
    def task(self) -> Task: ...
    @property
    def preprocessing(self) -> Preprocessing: ...
    def __call__(self, images_NHWC: UInt8Array) -> dict[str, Float32Array]:
        """Prepared photos [N, H, W, 3] -> probabilities [N, K] of each head."""


@dataclass(frozen=True)
class Model:
    """An ensemble of ``members`` and its vote. ``source`` says where it was loaded from, ``on``
    loads the same on another device; the bands of age begin at ``age_limits``."""

    source: str
    members: Sequence[Member]
    fitted: Mapping[str, FittedVote]
    on: Callable[[str], Model]
    age_limits: AgeLimits = AGE_BAND_STARTS

    def __repr__(self) -> str:
        return f"<{self.source}: {len(self.members)} models for {', '.join(self.fitted)}>"

    @property
    def recipes(self) -> list[Preprocessing]:
        """The kinds of preprocessing that the members want, each once."""
        return list(dict.fromkeys(member.preprocessing for member in self.members))

    def predict(
        self,
        photos: Any,
        *,
        batch_size: int = BATCH,
        device: str | None = None,
        threads: int | None = None,
        boxes: bool = False,
        progress: Callable[[int], None] = lambda done: None,
    ) -> pd.DataFrame:
        """The answers, one row a photo, in order; see ``table.COLUMNS`` for what is in a row.

        ``photos``: paths, folders, bytes, images of Pillow's or arrays; see ``inputs.sources``. A
        photo that cannot be read is a row with the reason in ``status``. ``threads`` decode
        meanwhile. With ``device`` the models are loaded there for this call. With ``boxes`` faces
        are looked for also where the models need none. ``progress`` is called with the number of
        photos done after each batch.
        """
        import pandas as pd

        if batch_size < 1:
            raise ValueError(f"batch_size: 1 or more is expected, got {batch_size}")
        if device is not None:
            return self.on(device).predict(
                photos, batch_size=batch_size, threads=threads, boxes=boxes, progress=progress
            )
        parts, done = [], 0
        for prepared in batched(self.prepared(sources(photos), threads, boxes), batch_size):
            parts.append(table.rows(prepared, self.answer(prepared), self.age_limits))
            done += len(prepared)
            progress(done)
        if not parts:
            return table.rows([], self.answer([]), self.age_limits)
        return pd.concat(parts, ignore_index=True)

    def records(self, photos: Any) -> list[dict[str, Any]]:
        """The same rows as plain values, without pandas: one dict a photo, None for no value."""
        made = []
        for prepared in batched(self.prepared(sources(photos)), BATCH):
            made += table.records(prepared, self.answer(prepared), self.age_limits)
        return made

    def prepared(
        self, given: Iterable[GivenPhoto], threads: int | None = None, boxes: bool = False
    ) -> Iterator[PreparedPhoto]:
        """Each photo decoded and preprocessed in ``threads``, in order, a few ahead of use."""
        one = partial(prepare, recipes=self.recipes, boxes=boxes)
        count = threads or min(4, os.cpu_count() or 1)
        with ThreadPoolExecutor(count) as pool:
            for photo in prefetch(pool, one, given, window=2 * BATCH + 1):
                yield photo.result()

    def answer(self, photos: Sequence[PreparedPhoto]) -> dict[str, Answer]:
        """The vote on those photos that could be read, in order: target -> answer."""
        readable = [photo.images for photo in photos if photo.status == OK]
        by_recipe = {
            recipe: np.stack([images[k] for images in readable])
            if readable
            else np.empty((0, recipe.height, recipe.width, 3), np.uint8)
            for k, recipe in enumerate(self.recipes)
        }
        return self.answer_images(by_recipe)

    def answer_images(self, by_recipe: Mapping[Preprocessing, UInt8Array]) -> dict[str, Answer]:
        """The vote on prepared photos: [N, H, W, 3] of each kind of preprocessing."""
        return ensemble.answers(
            self.fitted,
            [("", member.task) for member in self.members],
            [member(by_recipe[member.preprocessing]) for member in self.members],
        )


def batched(items: Iterator[PreparedPhoto], size: int) -> Iterator[list[PreparedPhoto]]:
    """Lists of ``size``, and a last one of what is left."""
    while batch := list(islice(items, size)):
        yield batch
