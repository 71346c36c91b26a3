"""Where the face is in every photo of a data set: looked for once, kept by content.

A photo in which none is found gets a box all the same: a photo kept whole would tell that its face
is hard to see, which is to say masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from maskcls.data import detectors
from maskcls.data.contents import digests_of, name_of, one_opencv_thread, read_unchanged
from maskcls.data.faces import CENTRE, Box, find_face, median_box
from maskcls.data.photos import PhotoError, decode
from maskcls.data.status import OK
from maskcls.progress import OnProgress
from maskcls.storage import files

BOX: Final = ["face_left", "face_top", "face_width", "face_height"]
COLUMNS: Final = [*BOX, "face_score", "face_detector"]
"""Of a table of photos: the box that was found, as shares of the photo, and its score, NaN where
no face was found or the photo cannot be used; and what looked for it."""

_PART: Final = 500
"""Photos after which what was found is kept: some ten seconds."""

_FORMAT: Final = 3  # Raise it whenever the same photo and detector would give another box.


def locate(
    photos: pd.DataFrame,
    detector: str,
    cache: Path,
    *,
    threads: int,
    progress: OnProgress = lambda done, total: None,
    wait_s: float = files.LOCK_WAIT_S,
) -> pd.DataFrame:
    """The table of photos (columns ``key`` and ``path``) with ``COLUMNS``.

    Boxes that ``cache`` holds for these keys and bytes are used as they are. Else every photo is
    decoded, by ``threads`` at once, and ``progress`` is called with ``(done, total)`` after each.
    One process looks at a time: another waits up to ``wait_s`` seconds and finds the work done.

    Raises FileNotFoundError or ValueError where the detector's file cannot be used, OSError where
    ``cache`` cannot be written, TimeoutError after ``wait_s``, and ValueError where a photo changes
    meanwhile.
    """
    key = detectors.key_of(detector)
    if looked_for(photos, detector):
        return photos
    paths = photos["path"].tolist()
    digests = digests_of(paths, threads)
    path = _file(photos, digests, key, cache)
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with files.lock(cache / "faces.lock", wait_s, "looking for faces"):
            if not path.is_file():  # Whoever had the lock before may have looked.
                found = _look(paths, digests, detector, threads, progress, path)
                files.write_table(path, found)
                for part in path.parent.glob(f"{path.name}.part*"):
                    part.unlink()
    boxes = files.read_parquet(path)
    columns = {column: boxes[column].to_numpy() for column in COLUMNS[:-1]}
    return photos.assign(**columns, face_detector=key)


def looked_for(photos: pd.DataFrame, detector: str) -> bool:
    """Whether the table has the boxes of this detector already."""
    key = detectors.key_of(detector)
    return "face_detector" in photos and bool((photos["face_detector"] == key).all())


def is_cached(photos: pd.DataFrame, detector: str, cache: Path, threads: int) -> bool:
    """Whether ``locate`` would only look up the boxes; reads every file."""
    digests = digests_of(photos["path"].tolist(), threads)
    return _file(photos, digests, detectors.key_of(detector), cache).is_file()


def _file(photos: pd.DataFrame, digests: Sequence[bytes], key: str, cache: Path) -> Path:
    content = name_of(photos["key"].tolist(), digests, _FORMAT)
    return cache / f"{content}-faces-{key}.parquet"


def _look(
    paths: Sequence[str],
    digests: Sequence[bytes],
    detector: str,
    threads: int,
    progress: OnProgress,
    keep: Path,
) -> pd.DataFrame:
    """The boxes of all photos. Each ``_PART`` of them is kept beside ``keep``, so that a search
    that was stopped goes on from there."""
    detectors.network(detectors.file_of(detector))  # a file that is no network fails at once

    def one(position: int) -> tuple[float, ...]:
        data, status = read_unchanged(paths[position], digests[position])
        try:
            face = find_face(decode(data), detector) if status == OK else None
        except PhotoError:
            face = None
        return (*face.box, face.score) if face else (np.nan,) * 5

    parts = []
    with one_opencv_thread(), ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(paths), _PART):
            part = keep.with_name(f"{keep.name}.part{start}")
            if not part.is_file():
                rows = []
                try:
                    for row in pool.map(one, range(start, min(start + _PART, len(paths)))):
                        rows.append(row)
                        progress(start + len(rows), len(paths))
                except BaseException:  # Ctrl-C too: what is queued would be looked at to its end
                    pool.shutdown(cancel_futures=True)
                    raise
                frame = pd.DataFrame(rows, columns=[*BOX, "face_score"], dtype=np.float64)
                files.write_table(part, frame)
            parts.append(files.read_parquet(part))
    return pd.concat(parts, ignore_index=True)


def missed(photos: pd.DataFrame) -> pd.Series:
    """Which photos of a located table can be used and show no face that was found."""
    return photos["face_left"].isna() & (photos["status"] == OK)


def fallback_of(photos: pd.DataFrame) -> Box:
    """The median box of the photos of a located table; the middle where none has a face."""
    return median_box(_found(photos)) or CENTRE


def boxes_of(photos: pd.DataFrame, fallback: Box) -> list[Box]:
    """The box to take for the face of each photo of a located table: the one that was found, else
    the median of the same person's (column ``person``, if there is one), else ``fallback``."""
    own: dict[str, Box | None] = {}
    if "person" in photos:
        groups = photos[photos["face_left"].isna()]["person"].unique()
        alike = photos[photos["person"].isin(groups)].groupby("person")
        own = {str(person): median_box(_found(rows)) for person, rows in alike}
    people = photos["person"] if "person" in photos else [""] * len(photos)
    boxes_N4 = photos[BOX].to_numpy(np.float64)
    return [
        own.get(str(person)) or fallback if np.isnan(left) else (left, top, width, height)
        for person, (left, top, width, height) in zip(people, boxes_N4.tolist(), strict=True)
    ]


def _found(photos: pd.DataFrame) -> npt.NDArray[np.float64]:
    return photos.loc[photos["face_left"].notna(), BOX].to_numpy(np.float64)
