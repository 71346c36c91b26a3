"""What is wrong with a data set, before anything is trained on it.

python -m maskcls check DATA_ROOT --out FOLDER --fixes configs/label_fixes.yaml

Ends with status 1 where a run with the same settings would stop, and 0 where it would not. Every
photo is decoded once; about a kilobyte of each stays in memory.
"""

from __future__ import annotations

import csv
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from maskcls.data import folds as folding
from maskcls.data.label_fixes import STEMS, LabelFixes
from maskcls.data.manifest import Manifest, absent_classes, read_eval, read_train
from maskcls.data.photos import PhotoError, prefetch
from maskcls.data.status import OK
from maskcls.labels import FloatArray, Gender, IntArray
from maskcls.quality import appearance
from maskcls.quality.appearance import Fingerprint
from maskcls.quality.faceless import faceless
from maskcls.quality.findings import KINDS, Checked, Finding


def check(
    root: Path,
    *,
    variants: Sequence[str] = ("original",),
    fixes: LabelFixes | None = None,
    folds: int = 5,
    max_bad_share: float = 0.02,
    threads: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
    faces: Callable[[pd.DataFrame], pd.DataFrame] | None = None,
) -> Checked:
    """Check the data set under ``root`` as a run with these settings would meet it.

    ``faces`` looks for the faces in a table of photos, as ``faceless.locate`` does.

    Findings do not depend on ``threads``. ``progress`` is called with ``(done, total)`` after
    each photo. Raises ValueError for fewer than one thread.
    """
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    findings: list[Finding] = []
    train = _listed(lambda: read_train(root, variants=variants), findings)
    evaluation = None
    if (root / "eval").is_dir():
        evaluation = _listed(lambda: read_eval(root), findings)
    photos = _table({"train": train, "eval": evaluation})
    if fixes:  # whom a run leaves out cannot harm it
        photos = photos[~photos["person"].isin(fixes.leave_out)].reset_index(drop=True)
    fingerprints = _fingerprints(photos["path"], threads, progress)
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
        findings += _of_people(root, train.photos, fixes or LabelFixes())
        fixed = read_train(root, variants=variants, fixes=fixes).photos
        findings += _thin(fixed, folds)
        findings += _empty(fixed, photos)
    place = list(KINDS)
    findings.sort(key=lambda finding: (place.index(finding.kind), -(finding.score or 0)))
    return Checked(root.absolute().name, photos, findings)


def _listed(read: Callable[[], Manifest], findings: list[Finding]) -> Manifest | None:
    try:
        manifest = read()
    except (ValueError, OSError) as error:
        findings.append(Finding("layout", str(error)))
        return None
    findings += [Finding("note", note) for note in manifest.notes]
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


def _fingerprints(
    paths: Iterable[str], threads: int, progress: Callable[[int, int], None]
) -> list[Fingerprint | str]:
    """What each photo looks like, or why it cannot be read."""
    fingerprints: list[Fingerprint | str] = []
    every = list(paths)
    with ThreadPoolExecutor(threads) as pool:
        for photo in prefetch(pool, appearance.fingerprint, every, window=4 * threads):
            try:
                fingerprints.append(photo.result())
            except PhotoError as error:
                fingerprints.append(str(error))
            progress(len(fingerprints), len(every))
    return fingerprints


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
    set_N = _sets(photos, fingerprints)
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


def _sets(photos: pd.DataFrame, fingerprints: Sequence[Fingerprint]) -> IntArray:
    """The number of the set that each photo is in, [N]: copies of one picture are a set."""
    # Whose seven photos are alike by nature: in eval that may be any two photos.
    owner_N = pd.factorize(photos["side"] + "/" + photos["person"])[0]
    stem_N = pd.factorize(photos["stem"].where(photos["stem"] != "", photos["key"]))[0]
    colours_ND = np.stack([one.colours_D for one in fingerprints]).astype(np.int16)
    set_N = np.arange(len(photos))
    pairs = appearance.near_pairs(
        np.stack([one.hash_W for one in fingerprints]), appearance.COPY_BITS
    )
    for first, second, bits in pairs:
        own = owner_N[first] == owner_N[second]
        # A cut-out copy is meant to look like its original.
        same = own & (bits <= appearance.SAME_BITS) & (stem_N[first] != stem_N[second])
        # What is linked already need not be compared: a data set of one picture has many pairs.
        same &= set_N[first] != set_N[second]
        same[same] = _apart(colours_ND, first[same], second[same]) <= appearance.SAME_COLOURS
        linked = ~own | same
        if linked.any():
            # All links so far, as one to each member of a set.
            rows = np.concatenate([np.arange(len(set_N)), first[linked]])
            columns = np.concatenate([set_N, second[linked]])
            graph = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(len(set_N),) * 2)
            labels = connected_components(graph, directed=False)[1]
            set_N = np.unique(labels, return_index=True)[1][labels]
    return set_N


def _apart(colours_ND: npt.NDArray[np.int16], first: IntArray, second: IntArray) -> FloatArray:
    """Mean difference of two thumbnails in grey levels, for each pair."""
    parts = [
        np.abs(
            colours_ND[first[start : start + 10_000]] - colours_ND[second[start : start + 10_000]]
        ).mean(axis=1)
        for start in range(0, len(first), 10_000)
    ]
    return np.concatenate([np.zeros(0), *parts])


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


def _of_people(root: Path, photos: pd.DataFrame, fixes: LabelFixes) -> Iterator[Finding]:
    """What the lists say of people: missing photos, label fixes and train.csv."""
    for (person, variant), rows in photos.groupby(["person", "variant"]):
        missing = [stem for stem in STEMS if stem not in set(rows["stem"])]
        if missing:
            what = f"without {', '.join(missing)}" + (
                f" ({variant})" if variant != "original" else ""
            )
            yield Finding("missing photos", what, (str(person),))
    everybody = set(photos["person"])
    for key, ids in fixes:
        for person in ids:
            if person not in everybody:
                yield Finding("label fix", f"{key}: nobody here has this id", (person,))
    here = set(zip(photos["person"], photos["stem"], strict=True))
    for person, stems in fixes.set_mask.items():
        for stem in stems:
            if person in everybody and (person, stem) not in here:
                yield Finding("label fix", f"set_mask: has no photo {stem}", (person,))
    if (root / "train" / "train.csv").is_file():
        yield from _train_csv(root / "train" / "train.csv", photos)


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


def _empty(fixed: pd.DataFrame, seen: pd.DataFrame) -> Iterator[Finding]:
    status = seen.drop_duplicates("key").set_index("key")["status"]
    fixed = fixed.assign(status=fixed["key"].map(status))
    if (fixed["status"] != OK).all():  # which is another finding
        return
    for name in absent_classes(fixed):
        yield Finding("empty classes", f"no photo to train on of {name}")


def _names(person: object) -> tuple[str, ...]:
    return (str(person),) if person else ()
