"""Photos on disk -> one row a photo: who is on it, what is true of it, what is wrong with it.

    train/images/<id>_<gender>_<race>_<age>/<photo>.<ext>
    eval/images/<ImageID>      eval/info.csv

The folders decide; train/train.csv is not read. Nothing here opens a photo.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from maskcls.data.file_formats import EXTENSIONS
from maskcls.data.label_fixes import STEMS, LabelFixes, apply_fixes
from maskcls.data.status import MISSING_FILE, OK
from maskcls.labels import (
    AGE_BAND_STARTS,
    MISSING,
    AgeLimits,
    Gender,
    age_band,
    joint_class,
)
from maskcls.scoring.submission import read_info
from maskcls.storage.names import is_text, printable, some

_FOLDER: Final = re.compile(
    r"(?P<person>(?P<group>[^_]+?)(?:-[0-9]+)?)"
    r"_(?P<gender>male|female)_(?P<race>[^_]+)_(?P<age>1[01][0-9]|[0-9]{1,2})"
)


_COLUMNS: Final = [
    "key", "path", "status", "person", "group", "stem", "variant", "race", "mask", "gender", "age",
    "age_band", "joint", "weight", "fix",
]  # fmt: skip


@dataclass(frozen=True)
class Manifest:
    """Photos, one a row, numbered from 0, and notes on what a user should know about them."""

    photos: pd.DataFrame
    notes: list[str]


def read_train(
    root: Path,
    *,
    variants: Sequence[str] = ("original",),
    fixes: LabelFixes | None = None,
    age_limits: AgeLimits = AGE_BAND_STARTS,
) -> Manifest:
    """List the photos to train on, under ``root/train/images``; see ``labelled`` for the columns.

    ``variants`` selects ``original`` photos, ``rembg`` copies or both. A key is the path relative
    to ``root``, a group the id without ``-suffix``.

    Raises FileNotFoundError where there is no folder or no photo, and ValueError for folder names
    that do not parse, two folders of one id, two photos of one name, and ``fixes`` that are for
    another data set.
    """
    images = root.absolute() / "train" / "images"
    people, others = _people(images)
    rows: list[dict[str, Any]] = []
    doubled: list[str] = []
    for folder, person in people.items():
        photos, rest = _photos_of(images / folder)
        others += rest
        for (stem, variant), entries in photos.items():
            if len(entries) > 1:
                doubled.append(f"{folder}: {' and '.join(entry.name for entry in entries)}")
            if variant in variants:
                labels = {"stem": stem, "variant": variant, "mask": int(STEMS[stem])}
                rows.append(_row(root, entries[0]) | person | labels)
    if doubled:
        raise ValueError(f"{images}: photos that stand twice, keep one each: {some(doubled)}")
    if not rows:
        raise FileNotFoundError(
            f"{images}: no photo of the variants {list(variants)}; expected "
            "<id>_<gender>_<race>_<age>/ with mask1.jpg ... mask5.jpg, incorrect_mask.jpg, "
            "normal.jpg in each"
        )
    frame = pd.DataFrame(rows)
    notes = _short_people(frame, [person["person"] for person in people.values()], variants)
    notes += _ignored(images, others)
    return labelled(frame, notes, fixes=fixes, age_limits=age_limits)


def labelled(
    frame: pd.DataFrame,
    notes: list[str],
    *,
    fixes: LabelFixes | None = None,
    age_limits: AgeLimits = AGE_BAND_STARTS,
) -> Manifest:
    """The manifest of photos to train on, sorted by key: where folders and tables meet.

    ``frame`` has a row a photo. Columns of the manifest: ``key`` (its name, unique), ``path``,
    ``status`` (``ok``, or what is wrong), ``person`` (id), ``group`` (what stays on one side of a
    split), ``stem``, ``variant``, ``race``, ``mask``, ``gender``, ``age`` (years), ``age_band``,
    ``joint``, ``weight`` and ``fix`` (label fixes applied, or ""). Labels that nobody knows are
    ``MISSING``; a band may be known where the years are not. People that ``fixes`` leaves out have
    no rows. Raises ValueError for fixes that are for another data set.
    """
    defaults: dict[str, Any] = {"race": "", "age_band": MISSING, "weight": 1.0}
    for name in defaults.keys() - set(frame):
        frame[name] = defaults[name]
    frame = frame.sort_values("key", ignore_index=True)
    frame, fix_notes = apply_fixes(frame, fixes or LabelFixes())
    band = age_band(frame["age"], age_limits)
    frame["age_band"] = np.where(band == MISSING, frame["age_band"], band)
    frame["joint"] = joint_class(frame["mask"], frame["gender"], frame["age_band"])
    return Manifest(frame[_COLUMNS], notes + fix_notes)


def of_variants(variants: Sequence[str]) -> Callable[[str], bool]:
    """Whether a file below ``train`` is of use where these variants are asked for, by its name."""
    chosen = {{"original": False, "rembg": True}[variant] for variant in variants}
    return lambda name: Path(name).stem.endswith("_rembg") in chosen


def read_eval(root: Path) -> Manifest:
    """List the photos to predict, in the order of ``root/eval/info.csv``.

    Names are matched in any Unicode form. Without that file: all photos under
    ``root/eval/images``, sorted by name. Files that are not taken are named. Columns: ``key``
    (path relative to ``root``), ``path``, ``image_id`` and ``status`` (``ok``, ``empty file`` or
    ``missing file``).

    Raises FileNotFoundError where there is no folder or no photo, ValueError for an ImageID that
    is a path, and what ``read_info`` raises.
    """
    images, info = root.absolute() / "eval" / "images", root / "eval" / "info.csv"
    on_disk, others = {}, []
    for entry in _listing(images):
        if _is_file(entry) and is_text(entry.name):
            on_disk[entry.name] = entry
        else:
            others.append(entry.name)
    photos = [name for name in on_disk if Path(name).suffix.lower() in EXTENSIONS]
    notes = []
    if info.is_file():
        image_ids = _image_ids(info)
        file_of, matched = _files_of(image_ids, on_disk)
        if matched:
            notes.append(
                f"{images}: names that differ from those in {info.name} in their Unicode form "
                f"alone (NFC, NFD) are taken as the same: {some(matched)}"
            )
    else:
        image_ids, file_of = photos, {name: name for name in photos}
        notes.append(f"{info}: not there, so all {len(photos)} photos of {images} are taken")
    if not file_of:
        raise FileNotFoundError(f"{images}: no photo to predict ({len(image_ids)} are listed)")
    rows = [
        _row(root, on_disk[file_of[name]])
        if name in file_of
        else {"key": f"eval/images/{name}", "path": str(images / name), "status": MISSING_FILE}
        for name in image_ids
    ]
    missing = [name for name in image_ids if name not in file_of]
    if missing:
        notes.append(f"{images}: photos of {info.name} that are not there: {some(missing)}")
    taken = set(file_of.values())
    extra = [name for name in photos if name not in taken]
    if extra:
        notes.append(f"{images}: photos that {info.name} does not list: {some(extra)}")
    others += [name for name in on_disk if name not in taken and name not in photos]
    notes += _ignored(images, others)
    return Manifest(pd.DataFrame(rows).assign(image_id=image_ids), notes)


def _image_ids(info: Path) -> list[str]:
    image_ids: list[str] = read_info(info)["ImageID"].tolist()
    outside = [name for name in image_ids if Path(name).name != name or name == ".."]
    if outside:
        raise ValueError(
            f"{info}: an ImageID is the name of a file in eval/images, not a path: {some(outside)}"
        )
    return image_ids


def _files_of(
    image_ids: Collection[str], names: Collection[str]
) -> tuple[dict[str, str], list[str]]:
    """ImageID -> the name of its file; and the ids that match in another Unicode form only.

    macOS stores "é" as two characters, most editors write one:
    equal to the eye, not to the machine.
    """
    file_of = {name: name for name in image_ids if name in names}
    by_form: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if name not in file_of:
            by_form[unicodedata.normalize("NFC", name)].append(name)
    matched = []
    for name in image_ids:
        candidates = by_form[unicodedata.normalize("NFC", name)]
        if name not in file_of and len(candidates) == 1:
            file_of[name] = candidates.pop()
            matched.append(name)
    return file_of, matched


def _people(images: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Folder name -> the person it names; and the names of what is no folder."""
    people: dict[str, dict[str, Any]] = {}
    folders_of: dict[str, list[str]] = defaultdict(list)
    bad, others = [], []
    for entry in _listing(images):
        # Ids are compared with those of other files, which may have another Unicode form.
        name = unicodedata.normalize("NFC", entry.name)
        if not entry.is_dir() or not is_text(entry.name):
            others.append(entry.name)
        elif match := _FOLDER.fullmatch(name):
            gender = int(Gender[match["gender"].upper()])
            people[entry.name] = match.groupdict() | {"gender": gender, "age": int(match["age"])}
            folders_of[match["person"]].append(entry.name)
        else:
            bad.append(entry.name)
    if bad:
        raise ValueError(
            f"{images}: folder names must read <id>_<male|female>_<race>_<age>, as in "
            f"000001_female_Asian_45; rename or remove: {some(bad)}"
        )
    twice = [" and ".join(folders) for folders in folders_of.values() if len(folders) > 1]
    if twice:
        raise ValueError(f"{images}: one id must have one folder, but there are: {some(twice)}")
    return people, others


def _photos_of(
    folder: Path,
) -> tuple[dict[tuple[str, str], list[os.DirEntry[str]]], list[str]]:
    """(stem, variant) -> its files, which should be one; and what is no photo by its name."""
    photos: dict[tuple[str, str], list[os.DirEntry[str]]] = defaultdict(list)
    others = []
    for entry in _listing(folder):
        name = Path(entry.name)
        stem = name.stem.removesuffix("_rembg")
        if stem in STEMS and name.suffix.lower() in EXTENSIONS and _is_file(entry):
            photos[stem, "original" if stem == name.stem else "rembg"].append(entry)
        else:
            others.append(f"{folder.name}/{entry.name}")
    return photos, others


def _listing(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, by name, without hidden files."""
    if not is_text(str(folder)):
        raise ValueError(f"{printable(str(folder))}: this path is not UTF-8; rename the folder")
    if not folder.is_dir():
        raise FileNotFoundError(no_such(folder))
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    return sorted(visible, key=lambda entry: entry.name)


def no_such(folder: Path, otherwise: str = "") -> str:
    """That a folder is missing; where its root seems to be one too deep, the right one, and
    else what to do ``otherwise``."""
    root = folder.parents[1]
    above = (root / "images").is_dir() and (root.parent / "train" / "images").is_dir()
    hint = f": did you mean {root.parent}?" if above else otherwise
    holds = "train/images, and eval/images to predict"
    return f"{folder}: no such folder; data.root must hold {holds}{hint}"


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # links in a circle
        return False


def _ignored(images: Path, others: Iterable[str]) -> list[str]:
    """Notes on what is no photo by its name."""
    names = list(others)
    garbled = [name for name in names if not is_text(name)]
    notes = []
    if garbled:
        notes.append(
            f"{images}: ignored, names that are not UTF-8: {some(garbled)}; an archive made on "
            "Korean Windows is unpacked by `unzip -O cp949 FILE.zip`, and names are repaired by "
            "`convmv -f cp949 -t utf8 -r --notest FOLDER`"
        )
    if len(garbled) < len(names):
        rest = [name for name in names if is_text(name)]
        notes.append(f"{images}: ignored, no photo by name: {some(rest)}")
    return notes


def _row(root: Path, entry: os.DirEntry[str]) -> dict[str, Any]:
    return {
        "key": Path(entry.path).relative_to(root.absolute()).as_posix(),
        "path": entry.path,
        "status": OK if entry.stat().st_size else "empty file",
    }


def _short_people(frame: pd.DataFrame, people: list[str], variants: Sequence[str]) -> list[str]:
    notes = []
    for variant in variants:
        counts = frame.loc[frame["variant"] == variant, "person"].value_counts()
        short = [f"{p} ({counts.get(p, 0)})" for p in people if counts.get(p, 0) < len(STEMS)]
        if short:
            notes.append(f"people with fewer than {len(STEMS)} {variant} photos: {some(short)}")
    return notes
