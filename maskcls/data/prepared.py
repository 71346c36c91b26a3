"""Photos decoded and resized once, and shared by every process through the page cache.

A prepared folder belongs to the content of the photos and to a recipe: ``images.npy`` [N, H, W, 3]
uint8 RGB to be memory-mapped, and ``index.parquet``, one row a photo in the same order.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from maskcls.data.contents import digests_of, name_of, one_opencv_thread, read_unchanged
from maskcls.data.face_table import boxes_of, fallback_of, locate
from maskcls.data.faces import Box
from maskcls.data.photos import PhotoError, decode
from maskcls.data.preprocess import Preprocessing, preprocess_each
from maskcls.data.status import OK
from maskcls.labels import UInt8Array
from maskcls.progress import OnProgress
from maskcls.storage import files

_FORMAT: Final = 3  # Raise it whenever the same photo and recipe would give other pixels.


@dataclass(frozen=True)
class Prepared:
    """A prepared folder. Cheap to pickle: processes on one machine share its pages."""

    folder: Path

    def open(self) -> np.memmap:
        """All images, [N, H, W, 3] uint8 RGB, read-only; zeros where a photo cannot be used.

        Opened once a process. Raises FileNotFoundError where there is no such folder and
        ValueError where it is incomplete.
        """
        return _open(self.folder)

    @property
    def index(self) -> pd.DataFrame:
        """One row a photo: ``key``, ``status``, ``height`` and ``width`` of the original (0 where
        it could not be decoded)."""
        return pd.read_parquet(self.folder / "index.parquet")

    def check(self, max_bad_share: float) -> None:
        """Raise ValueError, naming photos and reasons, where too many cannot be used."""
        index = self.index
        bad = index[index["status"] != OK]
        if len(bad) > max_bad_share * len(index):
            reasons = [
                f"  {key}: {why}" for key, why in zip(bad["key"], bad["status"], strict=True)
            ]
            more = [f"  and {len(bad) - 10} more, see {self.folder / 'index.parquet'}"]
            raise ValueError(
                f"{len(bad)} of {len(index)} photos cannot be used, the limit is "
                f"{max_bad_share:.1%}; replace them or raise the limit:\n"
                + "\n".join(reasons[:10] + (more if len(bad) > 10 else []))
            )


def prepare(
    photos: pd.DataFrame,
    recipes: Sequence[Preprocessing],
    cache: Path,
    *,
    threads: int,
    progress: OnProgress = lambda done, total: None,
    wait_s: float = files.LOCK_WAIT_S,
) -> list[Prepared]:
    """Decode and resize ``photos`` (columns ``key`` and ``path``): one folder a recipe, in order.

    Where a recipe needs faces, they are taken from the columns of ``face_table.locate``, and looked
    for where there are none.
    Folders that ``cache`` already holds for these keys and bytes are used as they are, unless a
    file of theirs is lost or cut short. Otherwise each photo is decoded once for all missing
    recipes, and ``progress`` is called with ``(done, total)`` after each. Photos that cannot be
    used become zeros with a reason in the index. One process prepares at a time: another waits up
    to ``wait_s`` seconds and then finds the work done. A killed preparation leaves a ``.tmp``
    folder that the next one removes.

    Raises OSError where ``cache`` cannot be written or is too full, TimeoutError after ``wait_s``
    and ValueError where there are no photos or one changes meanwhile.
    """
    if photos.empty:
        raise ValueError("no photos to prepare")
    keys, paths, cache = photos["key"].tolist(), photos["path"].tolist(), cache.absolute()
    digests = digests_of(paths, threads)
    folders = _folders(keys, digests, recipes, cache)
    if not all(map(_intact, folders)):
        with _writable(cache), files.lock(cache / "prepare.lock", wait_s, "preparing images"):
            wanted = zip(folders, recipes, strict=True)
            missing = {folder: recipe for folder, recipe in wanted if not _intact(folder)}
            if missing:  # Whoever had the lock before may have built them.
                boxes = _boxes(photos, list(missing.values()), cache, threads, wait_s)
                _build(missing, keys, paths, digests, boxes, cache, threads, progress)
    return [Prepared(folder) for folder in folders]


def unprepared(
    photos: pd.DataFrame, recipes: Sequence[Preprocessing], cache: Path, *, threads: int
) -> list[Preprocessing]:
    """Those recipes that ``prepare`` would have to decode the photos for; reads every file, unless
    ``cache`` has nothing of that many photos."""
    if not any(
        _count(folder) == len(photos)
        for recipe in recipes
        for folder in cache.absolute().glob(f"*-{recipe.name}")
    ):
        return list(recipes)
    digests = digests_of(photos["path"].tolist(), threads)
    folders = _folders(photos["key"].tolist(), digests, recipes, cache.absolute())
    return [r for r, folder in zip(recipes, folders, strict=True) if not _intact(folder)]


def _count(folder: Path) -> int | None:
    """How many images a folder claims to have; None where it does not say."""
    try:
        return len(np.load(folder / "images.npy", mmap_mode="r"))
    except (OSError, ValueError):
        return None


def _folders(
    keys: Sequence[str], digests: Sequence[bytes], recipes: Sequence[Preprocessing], cache: Path
) -> list[Path]:
    content = name_of(keys, digests, _FORMAT)
    return [cache / f"{content}-{recipe.name}" for recipe in recipes]


def _boxes(
    photos: pd.DataFrame,
    recipes: Sequence[Preprocessing],
    cache: Path,
    threads: int,
    wait_s: float,
) -> list[list[Box]]:
    """Where the face of each photo is for each recipe; nothing for recipes that need none."""
    boxes = []
    for recipe in recipes:
        if recipe.needs_face:
            located = locate(photos, recipe.detector, cache, threads=threads, wait_s=wait_s)
            boxes.append(boxes_of(located, recipe.fallback or fallback_of(located)))
        else:
            boxes.append([])
    return boxes


def _build(
    wanted: Mapping[Path, Preprocessing],
    keys: Sequence[str],
    paths: Sequence[str],
    digests: Sequence[bytes],
    boxes: Sequence[Sequence[Box]],
    cache: Path,
    threads: int,
    progress: OnProgress,
) -> None:
    """Build the wanted folders aside, then rename them. Only for who holds the lock."""
    for stale in cache.glob(f"{'[0-9a-f]' * 16}-*.tmp"):
        shutil.rmtree(stale)
    recipes = list(wanted.values())
    needed = sum(len(keys) * recipe.height * recipe.width * 3 for recipe in recipes)
    free = shutil.disk_usage(cache).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free")
    with ExitStack() as stack:
        asides = {folder: folder.with_name(f"{folder.name}.tmp") for folder in wanted}
        stack.enter_context(one_opencv_thread())
        arrays = []
        for folder, recipe in wanted.items():
            stack.callback(shutil.rmtree, asides[folder], ignore_errors=True)
            shape_NHWC = (len(keys), recipe.height, recipe.width, 3)
            arrays.append(stack.enter_context(_ImageFile(asides[folder], shape_NHWC)))

        def one(position: int) -> dict[str, Any]:
            faces = [of_recipe[position] if of_recipe else None for of_recipe in boxes]
            row, images = _prepare_one(paths[position], digests[position], recipes, faces)
            for array, image_HWC in zip(arrays, images, strict=False):  # none of a bad photo
                array.put(position, image_HWC)
            return {"key": keys[position], **row}

        pool = ThreadPoolExecutor(threads)
        # Threads must have ended before the files are closed, at once where something failed.
        stack.callback(pool.shutdown, cancel_futures=True)
        rows = []
        for row in pool.map(one, range(len(keys))):
            rows.append(row)
            progress(len(rows), len(keys))
        index = pd.DataFrame(rows)
        for array, folder in zip(arrays, wanted, strict=True):
            array.sync()
            index.to_parquet(asides[folder] / "index.parquet")
            shutil.rmtree(folder, ignore_errors=True)  # what is left of a damaged one
            asides[folder].rename(folder)


def _prepare_one(
    path: str,
    digest: bytes,
    recipes: Sequence[Preprocessing],
    faces: Sequence[Box | None],
) -> tuple[dict[str, Any], list[UInt8Array]]:
    """The index row of a photo without its key, and its image under each recipe."""
    data, status = read_unchanged(path, digest)
    try:
        if status != OK:
            raise PhotoError(status)
        image_HWC = decode(data)
    except PhotoError as error:
        return {"status": str(error), "height": 0, "width": 0}, []
    images = preprocess_each(image_HWC, recipes, faces)
    height, width = image_HWC.shape[:2]
    return {"status": OK, "height": height, "width": width}, images


class _ImageFile:
    """An ``images.npy`` under construction; threads put images in any order.

    Written by pwrite, since a full disk kills a process that writes through a memory map.
    """

    def __init__(self, folder: Path, shape_NHWC: tuple[int, int, int, int]) -> None:
        folder.mkdir()
        self.file = (folder / "images.npy").open("wb")
        header = {"descr": "|u1", "fortran_order": False, "shape": shape_NHWC}
        np.lib.format.write_array_header_1_0(self.file, header)
        self.file.flush()
        self.start, self.stride = self.file.tell(), int(np.prod(shape_NHWC[1:]))
        self.file.truncate(self.start + shape_NHWC[0] * self.stride)

    def put(self, position: int, image_HWC: UInt8Array) -> None:
        offset = self.start + position * self.stride
        if os.pwrite(self.file.fileno(), image_HWC.tobytes(), offset) != self.stride:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self) -> None:
        os.fsync(self.file.fileno())

    def __enter__(self) -> _ImageFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


@contextmanager
def _writable(cache: Path) -> Iterator[None]:
    """Say of every failure to write that it is about the cache, and what to do."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        yield
    except TimeoutError:
        raise
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot prepare images in {cache}: {error.strerror}; "
            "free space there or set data.cache to another folder",
        ) from error


def _intact(folder: Path) -> bool:
    try:
        _open.cache_clear()  # an open map outlives its file
        _open(folder)
    except (FileNotFoundError, ValueError):
        return False
    return True


@lru_cache(maxsize=64)
def _open(folder: Path) -> np.memmap:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no prepared images here; run again, or prepare them on this machine"
        )
    try:
        images = np.load(folder / "images.npy", mmap_mode="r")
        count = len(pd.read_parquet(folder / "index.parquet", columns=["status"]))
        if len(images) != count:
            raise ValueError(f"{len(images)} images, {count} index rows")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder}: prepared images are incomplete ({error}); run again: they are then "
            "prepared anew"
        ) from error
    return images
