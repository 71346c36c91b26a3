"""What an epoch shows: prepared photos, in an order that depends on the seed alone."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from maskcls.data import prepared as images
from maskcls.data import sampling
from maskcls.data.prepared import Prepared
from maskcls.data.preprocess import Preprocessing
from maskcls.labels import UInt8Array
from maskcls.storage import files
from maskcls.storage.place import Place

EPOCHS_KEPT = 8
"""Epochs whose order a process keeps: jobs side by side share Ray's processes."""


_epochs: dict[tuple[str, int], sampling.Epoch] = {}


@dataclass(frozen=True)
class ImageSource:
    """Prepared images that any node can open; where they are missing or damaged, it
    prepares them.

    ``table`` is the parquet of the photos, one a row in the order of the images. ``tables`` is the
    folder of it, and ``roots`` those of the photos, where they lie on an object store: a node that
    lacks the images fetches photos, which are smaller.
    """

    folder: Path
    table: Path
    preprocessing: Preprocessing
    tables: Place | None = None
    roots: tuple[Place, ...] = ()

    def open(self) -> UInt8Array:
        """Images [N, H, W, 3], memory-mapped."""
        try:
            return Prepared(self.folder).open()
        except (FileNotFoundError, ValueError):
            return self._prepare()

    def _prepare(self) -> UInt8Array:
        """Prepare the images here. One process of a node does, with all its CPUs: the others wait,
        and do not even read the photos."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        lock = self.folder.parent / "open.lock"  # `prepare` has one of its own
        with files.lock(lock, files.LOCK_WAIT_S, "preparing images on this node"):
            with suppress(FileNotFoundError, ValueError):  # whoever had the lock before did it
                return Prepared(self.folder).open()
            for root in self.roots:
                root.pull(names_below(self.photos()["path"], root.local).__contains__)
            cpus = len(os.sched_getaffinity(0))
            images.prepare(self.photos(), [self.preprocessing], self.folder.parent, threads=cpus)
            return Prepared(self.folder).open()

    def photos(self) -> pd.DataFrame:
        """The table."""
        if self.tables is not None:
            self.tables.fetch(self.table.name)
        return pd.read_parquet(self.table)


def names_below(paths: Iterable[str], folder: Path) -> set[str]:
    """The paths that lie in ``folder``, seen from there."""
    start = f"{folder}/"
    return {path.removeprefix(start) for path in paths if path.startswith(start)}


@dataclass(frozen=True)
class EpochPlan:
    """What every task of a stream needs to work out any step of any epoch."""

    rows: Mapping[str, npt.NDArray[Any]]
    labels_N: npt.NDArray[np.int64]
    shares: npt.NDArray[np.float64] | None
    batch_size: int
    seed: int
    rank: int = 0
    world: int = 1
    weights_N: npt.NDArray[np.float64] | None = None
    name: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def steps(self) -> int:
        return sampling.steps(len(self.labels_N), self.batch_size, self.world)

    def epoch(self, number: int) -> sampling.Epoch:
        """Worked out once a process: every task of an epoch asks for it, and to shuffle all its
        items for 64 of them would cost as the square of their number."""
        key = (self.name, number)
        if key not in _epochs:
            while len(_epochs) >= EPOCHS_KEPT:
                del _epochs[next(iter(_epochs))]
            _epochs[key] = sampling.epoch(
                self.labels_N,
                shares=self.shares,
                batch_size=self.batch_size,
                seed=self.seed,
                number=number,
                workers=self.world,
                weights_N=self.weights_N,
            )
        return _epochs[key]


@dataclass(frozen=True)
class Batch:
    """A training step's share of one process: ``items_B`` index the training table."""

    epoch: int
    step: int
    items_B: npt.NDArray[np.int64]
    images_BHWC: UInt8Array


def training_rows(table: pd.DataFrame) -> dict[str, npt.NDArray[Any]]:
    """The columns of a training table that say where pixels come from."""
    return {name: table[name].to_numpy() for name in ("row", "row2", "weight2", "key")}
