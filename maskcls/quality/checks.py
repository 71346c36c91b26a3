"""What is wrong with a data set, before anything is trained on it.

python -m maskcls check DATA_ROOT --out FOLDER --fixes configs/label_fixes.yaml

Ends with status 1 where a run with the same settings would stop, and 0 where it would not. Every
photo is decoded once; about a kilobyte of each stays in memory.
"""

from __future__ import annotations

import csv
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from maskcls.data import folds as folding
from maskcls.data.coverage import absent_classes
from maskcls.data.label_fixes import STEMS, LabelFixes
from maskcls.data.manifest import Manifest
from maskcls.data.source import Source
from maskcls.data.status import OK
from maskcls.labels import AgeLimits, Gender
from maskcls.progress import OnProgress
from maskcls.quality import appearance
from maskcls.quality.appearance import Fingerprint
from maskcls.quality.copies import sets
from maskcls.quality.faceless import faceless
from maskcls.quality.findings import KINDS, Checked, Finding


def check(
    source: Source,
    *,
    fixes: LabelFixes | None = None,
    folds: int = 5,
    max_bad_share: float = 0.02,
    threads: int = 1,
    progress: OnProgress = lambda done, total: None,
    faces: Callable[[pd.DataFrame], pd.DataFrame] | None = None,
) -> Checked:
    """Check the data set as a run with these settings would meet it.

    ``faces`` looks for the faces in a table of photos, as ``faceless.locate`` does.

    Findings do not depend on ``threads``. ``progress`` is called with ``(done, total)`` after
    each photo.
    """
    findings: list[Finding] = []
    train = _listed(source.train, findings)
    evaluation = None
    if train or source.tables is None:
        evaluation = _listed(source.evaluation, findings)
    photos = _table({"train": train, "eval": evaluation})
    if fixes:  # whom a run leaves out cannot harm it
        photos = photos[~photos["person"].isin(fixes.leave_out)].reset_index(drop=True)
    fingerprints = appearance.fingerprints(photos["path"].tolist(), threads, progress)
    photos = photos.assign(status=[one if isinstance(one, str) else OK for one in fingerprints])
    findings += _unreadable(photos, max_bad_share)
    findings += _of_photos(
        photos[photos["status"] == OK],
        [one for one in fingerprints if isinstance(one, Fingerprint)],
    )
    if faces is not None:
        photos = faces(photos)
        findings += faceless(photos)
    if train:
        if source.tables is None:
            findings += _of_people(source.root, train.photos)
        findings += _of_fixes(train.photos, fixes or LabelFixes())
        fixed = source.train(fixes).photos
        findings += _thin(fixed, folds)
        findings += _empty(fixed, photos, source.age_limits)
    place = list(KINDS)
    findings.sort(key=lambda finding: (place.index(finding.kind), -(finding.score or 0)))
    return Checked(source.name, photos, findings)


def _listed(read: Callable[[], Manifest | None], findings: list[Finding]) -> Manifest | None:
    try:
        manifest = read()
    except (ValueError, OSError) as error:
        findings.append(Finding("layout", str(error)))
        return None
    findings += [Finding("note", note) for note in manifest.notes] if manifest else []
    return manifest


def _table(sides: Mapping[str, Manifest | None]) -> pd.DataFrame:
    """``Checked.photos`` without ``status``."""
    columns = ["key", "path", "side", "person", "stem", "variant"]
    tables = [
        manifest.photos.assign(side=side).reindex(columns=columns, fill_value="")
        for side, manifest in sides.items()
        if manifest
    ]
    return pd.concat(tables or [pd.DataFrame(columns=columns)], ignore_index=True)


def _unreadable(photos: pd.DataFrame, max_bad_share: float) -> Iterator[Finding]:
    bad = photos[photos["status"] != OK]
    for photo in bad.itertuples():
        kind = "unreadable" if photo.side == "train" else "unreadable to predict"
        yield Finding(kind, str(photo.status), _names(photo.person), (str(photo.key),))
    total, count = (photos["side"] == "train").sum(), (bad["side"] == "train").sum()
    if count > max_bad_share * total:
        yield Finding(
            "too many unreadable",
            f"{count:,} of {total:,} photos to train on cannot be read, the limit is "
            f"{max_bad_share:.1%}",
            score=count / total,
        )


def _of_photos(photos: pd.DataFrame, fingerprints: Sequence[Fingerprint]) -> Iterator[Finding]:
    """What can be seen in readable photos. Blank ones are like each other and like nobody."""
    if not fingerprints:
        return
    yield from _sizes(photos, fingerprints)
    visible = np.array([one.contrast >= appearance.FLAT for one in fingerprints])
    for photo in photos[~visible].itertuples():
        yield Finding("blank", "shows nothing", _names(photo.person), (str(photo.key),))
    if visible.any():
        photos = photos[visible].reset_index(drop=True)
        fingerprints = [one for one, kept in zip(fingerprints, visible, strict=True) if kept]
        yield from _doubles(photos, fingerprints)
        yield from _outliers(photos, fingerprints)


def _sizes(photos: pd.DataFrame, fingerprints: Sequence[Fingerprint]) -> Iterator[Finding]:
    """One finding for each size that is not the most frequent one."""
    sizes = Counter(one.size for one in fingerprints)
    (height, width), most = min(sizes.items(), key=lambda item: (-item[1], item[0]))
    if 2 * most < len(fingerprints):
        yield Finding(
            "size",
            f"{len(sizes):,} sizes; the most frequent one, {height} × {width}, is that of "
            f"{most:,} of {len(fingerprints):,} photos",
        )
        return
    size_N = [one.size for one in fingerprints]
    for size in sorted(sizes.keys() - {(height, width)}):
        keys = photos["key"][[found == size for found in size_N]]
        yield Finding(
            "size",
            f"{size[0]} × {size[1]} pixels (height × width), where most have {height} × {width}",
            photos=tuple(keys),
        )


def _doubles(photos: pd.DataFrame, fingerprints: Sequence[Fingerprint]) -> Iterator[Finding]:
    """Photos that are the same or nearly so, one finding for each set of them."""
    digests = [one.digest for one in fingerprints]
    set_N = sets(photos, fingerprints)
    for number in np.flatnonzero(np.bincount(set_N) > 1):
        rows = np.flatnonzero(set_N == number)
        among = photos.iloc[rows]
        people = tuple(sorted(set(among["person"]) - {""}))
        sides = set(among["side"])
        if len(sides) == 2:
            kind = "in train and eval"
        elif sides == {"eval"}:
            kind = "twice in eval"
        else:
            kind = "in several people" if len(people) > 1 else "twice in one person"
        exact = len({digests[row] for row in rows}) == 1
        message = "the same file" if exact else "nearly the same"
        yield Finding(kind, message, people, tuple(among["key"]))


def _outliers(photos: pd.DataFrame, fingerprints: Sequence[Fingerprint]) -> Iterator[Finding]:
    """One finding for each person with photos that look like another's."""
    mine = photos["side"] == "train"
    if not mine.any():
        return
    heads_ND = np.stack([one.head_D for one in fingerprints])[mine]
    photos = photos[mine]
    album = photos["person"] + "/" + photos["variant"]
    photos = photos.assign(outlier=appearance.outlier_scores(heads_ND, album))
    odd = photos[photos["outlier"] > appearance.OUTLIER]
    for person, rows in odd.groupby("person"):
        rows = rows.sort_values("outlier", ascending=False)
        farthest = float(rows["outlier"].iloc[0])
        yield Finding(
            "another person",
            f"{', '.join(rows['stem'])}: {farthest:.1f} times as far from the others as usual",
            (str(person),),
            tuple(rows["key"]),
            score=farthest,
        )


def _of_people(root: Path, photos: pd.DataFrame) -> Iterator[Finding]:
    """What the competition's folders and train.csv say of people."""
    for (person, variant), rows in photos.groupby(["person", "variant"]):
        missing = [stem for stem in STEMS if stem not in set(rows["stem"])]
        if missing:
            what = f"without {', '.join(missing)}" + (
                f" ({variant})" if variant != "original" else ""
            )
            yield Finding("missing photos", what, (str(person),))
    if (root / "train" / "train.csv").is_file():
        yield from _train_csv(root / "train" / "train.csv", photos)


def _of_fixes(photos: pd.DataFrame, fixes: LabelFixes) -> Iterator[Finding]:
    """Label fixes that change nothing."""
    everybody = set(photos["person"])
    for key, ids in fixes.by_person():
        for person in ids:
            if person not in everybody:
                yield Finding("label fix", f"{key}: nobody here has this id", (person,))
    here = set(zip(photos["person"], photos["stem"], strict=True))
    for person, stems in fixes.set_mask.items():
        for stem in stems:
            if person in everybody and (person, stem) not in here:
                yield Finding("label fix", f"set_mask: has no photo {stem}", (person,))


def _train_csv(path: Path, photos: pd.DataFrame) -> Iterator[Finding]:
    folder = photos["key"].map(lambda key: unicodedata.normalize("NFC", Path(key).parent.name))
    rows = photos.assign(folder=folder).drop_duplicates("folder").to_dict("records")
    people = {str(row["folder"]): row for row in rows}
    named: set[str] = set()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            # Folders and ids are in this Unicode form, too.
            reader = csv.DictReader(unicodedata.normalize("NFC", line) for line in file)
            if missing := {"id", "gender", "race", "age", "path"} - set(reader.fieldnames or ()):
                yield Finding("train.csv", f"without the column(s) {', '.join(sorted(missing))}")
                return
            for row in reader:
                yield from _train_row(row, people, named)
    except (OSError, ValueError, csv.Error) as error:
        yield Finding("train.csv", f"cannot be read: {error}")
        return
    for name in sorted(people.keys() - named):
        yield Finding("train.csv", f"no row for {name}", (people[name]["person"],))


def _train_row(
    row: Mapping[str, str | None], people: Mapping[str, Mapping[Any, Any]], named: set[str]
) -> Iterator[Finding]:
    name = row["path"] or ""
    if name in named:
        yield Finding("train.csv", f"two rows for {name}", _names(row["id"]))
    elif name not in people:
        yield Finding("train.csv", f"no such folder with photos: {name!r}", _names(row["id"]))
    else:
        named.add(name)
        person = people[name]
        expected = {
            "id": person["person"],
            "gender": Gender(person["gender"]).name.lower(),
            "race": person["race"],
            "age": str(person["age"]),
        }
        for column, value in expected.items():
            if row[column] != value:
                message = f"{column} is {row[column]!r}, its folder {name} says {value!r}"
                yield Finding("train.csv", message, (person["person"],))


def _thin(photos: pd.DataFrame, folds: int) -> Iterator[Finding]:
    try:
        folding.assign(photos, folds, seed=0)
    except ValueError as error:
        yield Finding("thin classes", str(error))


def _empty(fixed: pd.DataFrame, seen: pd.DataFrame, age_limits: AgeLimits) -> Iterator[Finding]:
    status = seen.drop_duplicates("key").set_index("key")["status"]
    fixed = fixed.assign(status=fixed["key"].map(status))
    if (fixed["status"] != OK).all():  # which is another finding
        return
    for name in absent_classes(fixed, age_limits):
        yield Finding("empty classes", f"no photo to train on of {name}")


def _names(person: object) -> tuple[str, ...]:
    return (str(person),) if person else ()
