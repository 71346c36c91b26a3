"""The photos of a table: where their files are, and the manifests that they make."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
import pandas as pd
from pyarrow.fs import FileInfo, LocalFileSystem

from maskcls.data import coverage
from maskcls.data.label_fixes import STEMS, LabelFixes
from maskcls.data.manifest import Manifest, labelled
from maskcls.data.status import MISSING_FILE, OK
from maskcls.data.table import Parsed, Tables
from maskcls.labels import MISSING, Mask, joint_class
from maskcls.storage.names import some

LABELS: Final = ("mask", "gender", "age", "age_band")
_SAMPLE: Final = 100
"""Relative paths of a table by which it is decided what they are relative to."""

_THREADS: Final = 8
_PART: Final = 2_000  # files


def located(
    parsed: Parsed, tables: Tables, root: Path | None, stores: Mapping[str, Path]
) -> tuple[pd.DataFrame, list[str]]:
    """The rows with ``key``, ``path`` and ``status``, one a file; and notes.

    Keys seed the augmentation: they do not depend on where the folder of all photos lies. A
    relative path is looked up in ``root``, or else in the folder of its table: whichever has more
    of them. ``stores`` are local copies of what URIs begin with. Rows of one file become one, with
    what each of them knows. Raises FileNotFoundError where no file is there, and ValueError for
    rows of one file that contradict each other.
    """
    rows, notes = parsed.rows, []
    keys, paths = rows["location"].copy(), rows["location"].copy()
    absolute = rows["location"].str.startswith("/")
    uri = rows["location"].str.contains("://", regex=False)
    relative = ~absolute & ~uri
    first: Path | None = None
    for number, table in enumerate(tables.paths):
        mine = relative & (rows["table"] == number)
        if not mine.any():
            continue
        base = _base(rows.loc[mine, "location"], table, root)
        first = first or base
        notes.append(f"{table}: {mine.sum():,} paths relative to {base}")
        paths = paths.mask(mine, f"{base}/" + rows["location"])
        if base != first:
            keys = keys.mask(mine, f"{base.name}/" + rows["location"])
    if absolute.any():
        common = _common(rows.loc[absolute, "location"])
        bases = [base for base in (first, root) if base and f"{common}/".startswith(f"{base}/")]
        inside = bases[0] if bases else common
        keys = keys.mask(absolute, keys.str.removeprefix(f"{inside}/"))
    for prefix, local in stores.items():
        mine = uri & rows["location"].str.startswith(prefix + "/")
        paths = paths.mask(mine, str(local) + rows["location"].str.removeprefix(prefix))
    if root is not None:  # however it is written: names seed augmentation and match runs
        below = f"{root.absolute()}/"
        keys = keys.mask(paths.str.startswith(below), paths.str.removeprefix(below))
    rows = _one_a_file(rows.assign(key=keys, path=paths), tables)
    rows["status"] = _statuses(rows["path"].tolist())
    notes += _require(rows, tables)
    return rows, notes


def _common(paths: pd.Series) -> str:
    """The deepest folder that holds all of these absolute paths."""
    # What the first and the last in order have in common, all between them have.
    return os.path.commonpath([path.rpartition("/")[0] for path in (paths.min(), paths.max())])


def _require(rows: pd.DataFrame, tables: Tables) -> list[str]:
    """Refuse names that stand for several photos, and photos of which none is there; notes."""
    twice = rows["key"].duplicated(keep=False)
    if twice.any():
        raise ValueError(
            f"tables in different folders name different photos alike: {some(rows['key'][twice])}; "
            "set data.root to a folder that holds all of them, and write paths from there"
        )
    missing = rows["status"] == MISSING_FILE
    if missing.all():
        raise FileNotFoundError(
            f"{tables.paths[0]}: none of the {len(rows):,} photos is there, such as "
            f"{rows['path'].iloc[0]}; paths are relative to data.root or to the table's folder"
        )
    if not missing.any():
        return []
    return [f"photos of the table that are not there: {some(rows['key'][missing])}"]


def train(
    rows: pd.DataFrame, tables: Tables, notes: Sequence[str], fixes: LabelFixes | None
) -> Manifest:
    """The manifest of the rows to train on. A photo without a person is its own.

    Raises ValueError where there is no such row, and what ``labelled`` raises.
    """
    frame = rows[rows["split"] == 0].sort_values("key", ignore_index=True)
    if frame.empty:
        raise ValueError(f"{tables.paths[0]}: no row to train on: all have the split eval")
    alone = frame["person"] == ""
    frame["person"] = frame["person"].mask(alone, frame["key"])
    frame["group"] = frame["group"].mask(frame["group"] == "", frame["person"])
    frame["stem"], frame["variant"] = _stems(frame)
    notes = [*notes]
    if alone.any():
        notes.append(f"{alone.sum():,} photos have no person: each stands for its own")
    known = set(frame["person"][~alone])
    both = sorted(known & set(rows["person"][rows["split"] == 1]))
    if both:
        notes.append(f"people to train on who are also to be predicted: {some(both)}")
    found = labelled(frame, notes, fixes=fixes, age_limits=tables.age_limits)
    found.notes.extend(coverage.summary(found.photos))
    return found


def evaluation(rows: pd.DataFrame) -> Manifest | None:
    """The manifest of the rows to predict, in the order of the table; None where there is none.

    ``image_id`` is the name of the file, or the key where names repeat.
    """
    frame = rows[rows["split"] == 1]
    if frame.empty:
        return None
    frame = frame.reset_index(drop=True)
    names = frame["key"].map(lambda key: PurePosixPath(key).name)
    return Manifest(
        frame[["key", "path", "status", "mask", "gender", "age_band"]].assign(
            image_id=frame["key"] if names.duplicated().any() else names,
            joint=joint_class(frame["mask"], frame["gender"], frame["age_band"]),
        ),
        [],
    )


def _base(locations: pd.Series, table: Path, root: Path | None) -> Path:
    """What the relative paths of a table are relative to."""
    own = table.absolute().parent
    if root is None or root.absolute() == own:
        return own
    sample = locations.iloc[:: max(1, len(locations) // _SAMPLE)].tolist()
    there = {
        base: sum((base / name).exists() for name in sample) for base in (root.absolute(), own)
    }
    return max(there, key=lambda base: there[base])  # the first one, root, where they tie


def _statuses(paths: Sequence[str]) -> list[str]:
    """Of every file, whether it is there: several at once, since each waits for a disk, and by
    Arrow, whose threads need not wait for Python's lock (8 s for 19 s in a million files)."""
    parts = [list(paths[start : start + _PART]) for start in range(0, len(paths), _PART)]
    with ThreadPoolExecutor(_THREADS) as pool:
        return [status for part in pool.map(_of_part, parts) for status in part]


def _of_part(paths: list[str]) -> list[str]:
    try:
        found = LocalFileSystem().get_file_info(paths)
    except (OSError, ValueError):  # one of them: a folder that may not be read, a NUL in its name
        return [MISSING_FILE] if len(paths) == 1 else [_of_part([path])[0] for path in paths]
    return [_status(info) for info in found]


def _status(found: FileInfo) -> str:
    if not found.is_file:
        return MISSING_FILE
    return OK if found.size else "empty file"


def _one_a_file(rows: pd.DataFrame, tables: Tables) -> pd.DataFrame:
    """Rows of one file as one, with what each of them knows."""
    twice = rows["path"].duplicated(keep=False)
    if not twice.any():
        return rows
    some_rows = rows[twice]
    by_file = some_rows.groupby("path", sort=False)
    merged = rows[~rows["path"].duplicated()].set_index("path")
    for column in (*LABELS, "split", "weight", "person", "group"):
        empty = "" if isinstance(some_rows[column].iloc[0], str) else MISSING
        known = some_rows[some_rows[column] != empty].groupby("path", sort=False)[column]
        differ = known.nunique() > 1
        if differ.any():
            places = [
                f"{path} ({_where(part, tables)})"
                for path, part in by_file
                if path in differ.index[differ]
            ]
            raise ValueError(f"one photo with two values of {column}: {some(places)}")
        first = known.first()
        merged.loc[first.index, column] = first
    return merged.reset_index()


def _where(rows: pd.DataFrame, tables: Tables) -> str:
    return ", ".join(
        f"{tables.paths[table].name} line {line}"
        for table, line in zip(rows["table"], rows["line"], strict=True)
    )


def _stems(frame: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """What to call a photo among those of its person, and whether it is cut out.

    Files named as in the competition keep their names, since label fixes and blends go by them.
    Others are numbered by what is known of the mask: worn1, worn2, photo1.
    """
    files = [key.rpartition("/")[2] for key in frame["key"]]
    without = [file.rpartition(".")[0] if "." in file else file for file in files]
    stems = pd.Series([name.removesuffix("_rembg") for name in without], frame.index)
    cut_out = np.array([name.endswith("_rembg") for name in without], bool)
    as_there = stems.isin(list(STEMS))
    variant = pd.Series(np.where(as_there & cut_out, "rembg", "original"), frame.index)
    as_there &= ~pd.DataFrame(
        {"person": frame["person"], "stem": stems, "variant": variant}
    ).duplicated(keep=False)
    kinds = frame["mask"].map({int(one): one.name.lower() for one in Mask}).fillna("photo")
    number = frame.assign(kind=kinds)[~as_there].groupby(["person", "kind"]).cumcount() + 1
    numbered = kinds + number.reindex(frame.index, fill_value=0).astype(str)
    return stems.where(as_there, numbered), variant
