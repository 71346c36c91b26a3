"""Public sets of faces, from the layout in which they are published to a table of photos.

Nothing here opens a photo. What a set does not say of a photo stays empty.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd

from maskcls.data import manifest
from maskcls.labels import Gender, Mask
from maskcls.storage.names import is_text, some

Rows = tuple[list[dict[str, object]], list[str]]
"""A row a photo, with its ``path`` from the root, and notes."""

_PHOTOS: Final = (".jpg", ".jpeg", ".png")
_UTKFACE: Final = re.compile(r"(?P<age>[0-9]{1,3})_(?P<gender>[01])_(?:[0-4]_)?[0-9]{8,}.*")
_ALL_AGE: Final = re.compile(r"(?P<person>[0-9]{5})A(?P<age>[0-9]{2})")
_MASKED: Final = re.compile(r"(?P<person>[0-9]{5})_Mask(?P<wrong>(_Nose|_Mouth|_Chin)*)")
_FIRST_MAN: Final = 7381
"""In All-Age-Faces the individuals with lower numbers are women."""


@dataclass(frozen=True)
class PublicSet:
    """A set: what may be done with it, what to cite, and how to read its folder."""

    title: str
    licence: str
    citation: str
    read: Callable[[Path], Rows]


def table_of(name: str, folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """The table of the set ``name`` in ``folder``, with whole paths, sorted; and notes.

    Raises FileNotFoundError where there is no photo of that layout.
    """
    folder = folder.absolute()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    rows, notes = SETS[name].read(folder)
    if not rows:
        raise FileNotFoundError(f"{folder}: no photo in the layout of {SETS[name].title}")
    table = pd.DataFrame(rows)
    if "split" not in table:
        table = table.sort_values("path", ignore_index=True)
    return table.dropna(axis=1, how="all"), notes


def _photos(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name.lower().endswith(_PHOTOS) and not name.startswith(".") and is_text(name):
                yield Path(parent, name)


def _left_out(names: list[str], why: str) -> list[str]:
    return [f"left out, {why}: {some(names)}"] if names else []


def _utkface(folder: Path) -> Rows:
    rows: list[dict[str, object]] = []
    odd, again, seen = [], [], set()
    for path in _photos(folder):
        # The cropped faces carry the name of the whole photo, and .chip.jpg behind it.
        name = path.name.split(".")[0]
        match = _UTKFACE.fullmatch(name)
        if match is None or int(match["age"]) > 120:
            odd.append(path.name)
        elif name in seen:
            again.append(path.name)
        else:
            seen.add(name)
            gender = Gender(int(match["gender"])).name.lower()
            rows.append({"path": str(path), "gender": gender, "age": int(match["age"])})
    return rows, [
        *_left_out(odd, "names that are not [age]_[gender]_[race]_[date&time]"),
        *_left_out(again, "the same photo in another folder"),
    ]


def _fairface(folder: Path) -> Rows:
    rows: list[dict[str, object]] = []
    gone = []
    for split in ("train", "val"):
        path = folder / f"fairface_label_{split}.csv"
        if not path.is_file():
            continue
        labels = pd.read_csv(path, dtype=str, na_filter=False)
        if missing := {"file", "age", "gender"} - set(labels):
            raise ValueError(f"{path}: without the columns {', '.join(sorted(missing))}")
        for file, age, gender in labels[["file", "age", "gender"]].itertuples(index=False):
            if not (folder / file).is_file():
                gone.append(file)
            else:
                rows.append({"path": str(folder / file), "gender": gender.lower(), "age": age})
    return rows, _left_out(gone, "listed, but not there")


def _all_age_faces(folder: Path) -> Rows:
    rows: list[dict[str, object]] = []
    originals = [path for path in _photos(folder) if path.parent.name == "original images"]
    odd = []
    for path in originals or _photos(folder):
        match = _ALL_AGE.fullmatch(path.stem)
        if match is None:
            odd.append(path.name)
            continue
        gender = "male" if int(match["person"]) >= _FIRST_MAN else "female"
        rows.append(
            {
                "path": str(path),
                "person": match["person"],
                "gender": gender,
                "age": int(match["age"]),
            }
        )
    notes = _left_out(odd, "names that are not [serial number]A[age]")
    if originals:
        notes.append("of the originals and the aligned faces, the originals are taken")
    return rows, notes


def _maskedface_net(folder: Path) -> Rows:
    rows: list[dict[str, object]] = []
    odd = []
    for path in _photos(folder):
        match = _MASKED.fullmatch(path.stem)
        if match is None:
            odd.append(path.name)
            continue
        mask = Mask.INCORRECT if match["wrong"] else Mask.WORN
        rows.append({"path": str(path), "person": match["person"], "mask": mask.name.lower()})
    return rows, [
        *_left_out(odd, "names that are not [number]_Mask[_Nose][_Mouth][_Chin]"),
        "the set has no face without a mask: add some, such as its originals (FFHQ), by a second "
        "table",
    ]


def _competition(folder: Path) -> Rows:
    train = manifest.read_train(folder)
    rows: list[dict[str, object]] = [
        {
            "path": row["path"],
            "person": row["person"],
            "group": row["group"],
            "mask": Mask(row["mask"]).name.lower(),
            "gender": Gender(row["gender"]).name.lower(),
            "age": row["age"],
            "split": "train",
        }
        for row in train.photos.to_dict("records")
    ]
    if (folder / "eval").is_dir():
        paths = manifest.read_eval(folder).photos["path"]
        rows += [{"path": path, "split": "eval"} for path in paths]
    return rows, train.notes


SETS: Final[dict[str, PublicSet]] = {
    "utkface": PublicSet(
        "UTKFace",
        "non-commercial research only; the photos belong to their owners",
        "Zhang, Song, Qi: Age Progression/Regression by Conditional Adversarial Autoencoder, "
        "CVPR 2017",
        _utkface,
    ),
    "fairface": PublicSet(
        "FairFace",
        "CC BY 4.0",
        "Karkkainen, Joo: FairFace: Face Attribute Dataset for Balanced Race, Gender, and Age for "
        "Bias Measurement and Mitigation, WACV 2021",
        _fairface,
    ),
    "all-age-faces": PublicSet(
        "All-Age-Faces",
        "its page names none: ask its authors before you use it for more than research",
        "Cheng, Li, Wang, Yu, Wang: Exploiting effective facial patches for robust gender "
        "recognition, Tsinghua Science and Technology 24(3), 2019",
        _all_age_faces,
    ),
    "maskedface-net": PublicSet(
        "MaskedFace-Net",
        "CC BY-NC-SA 4.0; made from FFHQ, whose photos have licences of their own",
        "Cabani, Hammoudi, Benhabiles, Melkemi: MaskedFace-Net - A dataset of "
        "correctly/incorrectly masked face images in the context of COVID-19, arXiv:2008.08016, "
        "2020; and Hammoudi, Cabani, Benhabiles, Melkemi: Validating the correct wearing of "
        "protection mask by taking a selfie, CMES 124(3), 2020",
        _maskedface_net,
    ),
    "competition": PublicSet(
        "the competition's folders",
        "that of the competition; the data are closed",
        "none",
        _competition,
    ),
}
"""Name -> set."""
