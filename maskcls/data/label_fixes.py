"""Known label errors: a YAML file that a user can edit."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import pandas as pd
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from maskcls.labels import MISSING, Mask
from maskcls.storage import yaml_files
from maskcls.storage.names import some

STEMS: Final[dict[str, Mask]] = {
    **{f"mask{number}": Mask.WORN for number in range(1, 6)},
    "incorrect_mask": Mask.INCORRECT,
    "normal": Mask.NOT_WORN,
}
"""The photos of a person, and what each shows."""


def _quoted(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError('write ids in quotes, as in "000020", or YAML makes numbers of them')
    return unicodedata.normalize("NFC", value)  # as the manifest has ids


Id = Annotated[str, BeforeValidator(_quoted)]
Ids = list[Id]
_NUMBERED: Final = re.compile(r"(worn|incorrect|not_worn|photo)[1-9][0-9]*")


def _of_a_photo(stem: str) -> str:
    if stem not in STEMS and not _NUMBERED.fullmatch(stem):
        known = ", ".join(map(repr, STEMS))
        raise ValueError(f"expected one of {known}, or, for a table, worn1, incorrect1, ...")
    return stem


Stem = Annotated[str, AfterValidator(_of_a_photo)]
"""A photo of a person: by its file in the competition's folders, or as a table numbers it."""

MaskName = Literal["worn", "incorrect", "not_worn"]


class LabelFixes(BaseModel):
    """Known label errors by person: an id, or the name of the folder. See configs/label_fixes.yaml.

    Where two speak of one label, ``set_mask`` wins. ``people`` is how many the set has whose ids
    these are: an id means somebody else in another set.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    swap_incorrect_and_normal: Ids = []
    incorrect_is_worn: Ids = []
    set_mask: dict[Id, dict[Stem, MaskName]] = {}
    flip_gender: Ids = []
    set_age: dict[Id, Annotated[int, Field(ge=0, le=119, strict=True)]] = {}
    leave_out: Ids = []
    people: Annotated[int, Field(ge=1, strict=True)] | None = None

    def by_person(self) -> Iterator[tuple[str, Any]]:
        """Key and people of each kind of fix."""
        return ((key, value) for key, value in self if key != "people")


def load_fixes(path: Path) -> LabelFixes:
    """Read label fixes from YAML.

    Raises FileNotFoundError where there is no such file, and ValueError that lists everything
    wrong with it: unknown keys, ids that are not quoted.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; correct data.label_fixes or set it to null")
    try:
        return LabelFixes.model_validate(yaml_files.read(path) or {})
    except ValidationError as error:
        problems = [
            f"{path}: {'.'.join(map(str, e['loc'])) or 'file'}: "
            f"{e['msg'].removeprefix('Value error, ')}, got {e['input']!r}"
            for e in error.errors()
        ]
        known = f"known keys: {', '.join(LabelFixes.model_fields)}"
        raise ValueError("\n".join([*problems, known])) from None


def folder_names(photos: pd.DataFrame) -> dict[str, str]:
    """Person -> the name of their folder, which says enough of them that it names nobody in another
    data set. The id itself where a photo (by its ``key``) does not lie in a folder of its person.
    """
    people = photos.drop_duplicates("person")
    folders = [unicodedata.normalize("NFC", Path(key).parent.name) for key in people["key"]]
    return {
        person: folder if folder.startswith(f"{person}_") else person
        for person, folder in zip(people["person"], folders, strict=True)
    }


def renamed(fixes: LabelFixes, name_of: Mapping[str, str]) -> LabelFixes:
    """The fixes with people under other names, and without people whom ``name_of`` lacks. What is
    said of one person under two names is put together."""

    def under_new_names(people: Any) -> Any:
        if not isinstance(people, dict):
            return list(dict.fromkeys(name_of[name] for name in people if name in name_of))
        values: dict[str, Any] = {}
        for name, value in people.items():
            if name not in name_of:
                continue
            known = values.get(name_of[name], {})
            values[name_of[name]] = {**known, **value} if isinstance(value, dict) else value
        return values

    return LabelFixes.model_construct(
        **{key: under_new_names(people) for key, people in fixes.by_person()}
    )


def apply_fixes(frame: pd.DataFrame, fixes: LabelFixes) -> tuple[pd.DataFrame, list[str]]:
    """The photos with corrected labels, and notes: each change, and what matched nobody.

    ``frame`` has a row a photo with ``key``, ``person``, ``stem``, ``mask``, ``gender`` and
    ``age``. Raises ValueError for fixes of another data set; see ``_for_people``.
    """
    # What follows takes seconds for a million photos.
    if not any(people for _, people in fixes.by_person()):
        return frame.assign(fix=""), []
    fixes, notes = _for_people(fixes, frame)

    def of(ids: Collection[str]) -> pd.Series:
        return frame["person"].isin(ids)

    incorrect, normal = frame["stem"] == "incorrect_mask", frame["stem"] == "normal"
    swapped = of(fixes.swap_incorrect_and_normal)
    corrections: list[tuple[pd.Series, str, Any, str]] = [
        (swapped & incorrect, "mask", int(Mask.NOT_WORN), "incorrect and normal swapped"),
        (swapped & normal, "mask", int(Mask.INCORRECT), "incorrect and normal swapped"),
        (of(fixes.incorrect_is_worn) & incorrect, "mask", int(Mask.WORN), "incorrect is worn"),
        *(
            (of([person]) & (frame["stem"] == stem), "mask", int(Mask[name.upper()]), "mask set")
            for person, photos in fixes.set_mask.items()
            for stem, name in photos.items()
        ),
        (
            of(fixes.flip_gender) & (frame["gender"] != MISSING),
            "gender",
            1 - frame["gender"],
            "gender flipped",
        ),
        (of(fixes.set_age), "age", frame["person"].map(fixes.set_age), "age set"),
    ]
    frame = frame.assign(fix="")
    for rows, column, value, name in corrections:
        frame[column] = frame[column].mask(rows, value).astype("int64")
        frame["fix"] = frame["fix"].mask(rows, (frame["fix"] + ", " + name).str.removeprefix(", "))

    changed = frame[frame["fix"] != ""].drop_duplicates(["person", "fix"])
    for person, fix in changed.groupby("person")["fix"].agg(lambda fix: max(fix, key=len)).items():
        notes.append(f"label fix of {person}: {fix}")
    notes += _gone(frame, fixes)
    left_out = of(fixes.leave_out)
    if left_out.any():
        people = frame.loc[left_out, "person"].unique()
        notes.append(f"left out by the label fixes: {some(people)}")
    return frame[~left_out].reset_index(drop=True), notes


def _gone(frame: pd.DataFrame, fixes: LabelFixes) -> list[str]:
    here = set(zip(frame["person"], frame["stem"], strict=True))
    gone = [
        f"{person}/{stem}"
        for person in sorted(fixes.set_mask)
        for stem in fixes.set_mask[person]
        if (person, stem) not in here
    ]
    return [f"label fixes for photos that are not here: {some(gone)}"] if gone else []


def _for_people(fixes: LabelFixes, frame: pd.DataFrame) -> tuple[LabelFixes, list[str]]:
    """The fixes of people who are here, by their ids, and a note on the others.

    A person is named by id or, which cannot hit anybody else, by the name of the folder. Ids of
    another data set belong to other people here: where most ids match nobody, the few that match
    somebody do so by chance. Raises ValueError then, and where an id matches in a set of another
    number of people than the fixes say.
    """
    folders = folder_names(frame)
    id_of = {person: person for person in folders}
    id_of |= {folder: person for person, folder in folders.items()}
    listed = {name for _, names in fixes.by_person() for name in names}
    unknown = listed - id_of.keys()
    by_id = {name for name in listed if "_" not in name}
    strangers = by_id & unknown
    if strangers != by_id and 2 * len(strangers) > len(by_id):
        raise ValueError(
            f"{len(strangers)} of {len(by_id)} ids in the label fixes match nobody here, so they "
            f"are for another data set, and {some(sorted(by_id - unknown))} would change somebody "
            "else's labels: leave data.label_fixes (or --fixes) out, or name people by their "
            "folders, as in 000020_female_Asian_50"
        )

    here = len(folders)
    if fixes.people not in (None, here) and strangers != by_id:
        raise ValueError(
            f"the label fixes are for a set of {fixes.people:,} people (their key `people`), and "
            f"here are {here:,}: {some(sorted(by_id - unknown))} may be somebody else. Leave "
            "data.label_fixes (or --fixes) out; if this is a part of that set, delete the key"
        )

    notes = []
    if unknown:
        notes.append(f"label fixes for people who are not here: {some(sorted(unknown))}")
    return renamed(fixes, id_of), notes
