"""Likely label errors of a finished run, as a table and a page to decide on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pandas as pd

from maskcls.config.layers import digest
from maskcls.config.schema import Config
from maskcls.data.label_fixes import STEMS, LabelFixes, folder_names, load_fixes, renamed
from maskcls.labels import ATTRIBUTES, AgeLimits, age_band, class_names
from maskcls.quality.label_errors import Suspects, ranked, with_fix
from maskcls.reports import finished_run, page
from maskcls.storage import files, yaml_files

_FROM_BARE_FACE: Final = {stem: place for place, stem in enumerate(reversed(STEMS))}


SHOWN_OF_A_PERSON: Final = 14
"""Photos beside a doubtful label of a person, of whom a table may have a thousand."""


def find(run: Path, *, data: Path | None = None, fixes: Path | None = None) -> Suspects:
    """Rank the labels of the run in folder ``run``.

    ``data`` is where the photos lie now, ``fixes`` the label fixes of the run, for a run that was
    moved. Raises FileNotFoundError where one of them is not there.
    """
    finished = finished_run.read(run)
    photos = finished.photos.reset_index()
    if data is not None:
        photos["path"] = [str(data / key) for key in photos["key"]]
    if not any(Path(path).is_file() for path in photos["path"]):
        raise FileNotFoundError(
            f"{photos['path'][0]}: no photo is there; name their root by --data"
        )
    limits = finished.age_limits
    tables = [ranked(finished.out_of_fold, attribute, limits) for attribute in ATTRIBUTES]
    table = pd.concat([table for table in tables if len(table)], ignore_index=True)
    return Suspects(
        name=finished.name,
        identity=digest(finished.name, table.to_csv(index=False)),
        table=with_fix(table, photos),
        photos=photos,
        fixes=_fixes_of(run, fixes),
        age_limits=limits,
    )


def _fixes_of(run: Path, fixes: Path | None) -> LabelFixes:
    if fixes is None:
        fixes = Config.model_validate(yaml_files.read(run / "config.yaml")).data.label_fixes
    if fixes is None:
        return LabelFixes()
    try:
        return load_fixes(fixes)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{fixes}: the label fixes of the run are not there; name the file by --fixes"
        ) from None


def write(folder: Path, suspects: Suspects, *, top: int) -> tuple[Path, Path]:
    """Write ``label_errors.csv`` with all labels and ``label_errors.html`` with the first ``top``
    of each task to ``folder``; return their paths.

    Decisions that a reader makes on the page stay in the browser's storage, under the identity of
    the run. Raises OSError naming the file that cannot be written.
    """
    table = folder / "label_errors.csv"
    files.write_table(table, suspects.table, float_format="%.5f")
    listed = _top(suspects, top)
    photos = suspects.photos[suspects.photos["person"].isin(listed["person"])]
    albums = {
        str(person): rows.sort_values("stem", key=lambda stems: stems.map(_FROM_BARE_FACE))
        for person, rows in photos.groupby("person")
    }
    years = _usual_years(suspects.photos, suspects.age_limits)
    # Who has no photo in the run, such as those left out, keeps the name that the fixes gave.
    folders = folder_names(suspects.photos)
    known = {
        name: folders.get(name, name) for _, people in suspects.fixes.by_person() for name in people
    }
    path = page.write(
        folder / "label_errors.html",
        "label_errors.html.j2",
        name=suspects.name,
        tasks=list(listed["task"].unique()),
        facts=[
            _facts(task, rows, top) for task, rows in suspects.table.groupby("task", sort=False)
        ],
        items=[
            _item(row, albums[row["person"]], years) | {"folder": folders[row["person"]]}
            for row in listed.to_dict("records")
        ],
        data={
            "run": suspects.name,
            "identity": suspects.identity,
            "fixes": renamed(suspects.fixes, known).model_dump(exclude={"people"}),
        },
    )
    return table, path


def _top(suspects: Suspects, top: int) -> pd.DataFrame:
    """The first ``top`` of each task. A fix is about a stem: of a photo and its copy with the
    background removed, the likelier error stands for both."""
    listed = suspects.table[suspects.table["rank"] <= top]
    stem = listed["photo"].map(suspects.photos.set_index("key")["stem"]).fillna("")
    return listed[~listed.assign(stem=stem).duplicated(["task", "person", "stem"])]


def _usual_years(photos: pd.DataFrame, limits: AgeLimits) -> dict[str, int]:
    """The median age in years of the people of each band; its first year where there are none."""
    ages = photos.drop_duplicates("person")["age"]
    medians = ages.groupby(age_band(ages, limits)).median()
    usual = dict(enumerate((0, *limits))) | medians.to_dict()
    return {name: int(usual[band]) for band, name in enumerate(class_names("age", limits))}


def _facts(task: object, rows: pd.DataFrame, top: int) -> dict[str, Any]:
    return {
        "task": task,
        "shown": min(top, len(rows)),
        "all": len(rows),
        "what": "photos" if rows["photo"].any() else "people",
        "agreed": ((rows["score"] >= rows["likely_probability"]) & ~rows["flagged"]).mean(),
        "flagged": int(rows["flagged"].sum()),
    }


def _item(row: Mapping[Any, Any], album: pd.DataFrame, years: Mapping[str, int]) -> dict[str, Any]:
    """A doubtful label with its photo, or with all photos of its person."""
    key = row["photo"]
    photos = album[album["key"] == key] if key else album.head(SHOWN_OF_A_PERSON)
    return {
        **row,
        "stem": str(photos["stem"].iloc[0]) if key else "",
        "flipped": "gender flipped" in row["fix"],
        "years": years[row["likely"]] if row["task"] == "age" else None,
        "pictures": [
            page.thumbnail(path, f"{row['person']} {page.plain(stem)}", 224 if key else 112)
            for path, stem in zip(photos["path"], photos["stem"], strict=True)
        ],
    }
