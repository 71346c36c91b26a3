"""What is wrong with a data set, before anything is trained on it.

python -m maskcls.check_data DATA_ROOT --out FOLDER --fixes configs/label_fixes.yaml

Ends with status 1 where a run with the same settings would stop, and 0 where it would not. Every
photo is decoded once; about a kilobyte of each stays in memory.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from maskcls import appearance, check_page, files
from maskcls import folds as folding
from maskcls.appearance import Look
from maskcls.config import Data, Folds
from maskcls.images import PhotoError, ahead
from maskcls.labels import FloatArray, Gender, IntArray
from maskcls.manifest import OK, STEMS, LabelFixes, Manifest, load_fixes, read_eval, read_train
from maskcls.storage import on_this_machine


class Kind(NamedTuple):
    """A kind of finding: whether it would stop a run, and what it means."""

    level: Literal["error", "warning"]
    title: str
    meaning: str


KINDS: Final[dict[str, Kind]] = {
    "layout": Kind(
        "error", "Folders and lists", "What cannot be listed is not checked any further either."
    ),
    "too many unreadable": Kind(
        "error", "Too many unreadable photos", "More than <code>data.max_bad_share</code> allows."
    ),
    "unreadable to predict": Kind(
        "error",
        "Unreadable photos to predict",
        "A run stops at them, unless <code>data.bad_eval=most_frequent</code>.",
    ),
    "thin classes": Kind(
        "error",
        "Classes too small for the folds",
        "Fewer folds, or <code>folds.allow_thin=true</code>, which leaves some folds without them.",
    ),
    "unreadable": Kind("warning", "Unreadable photos", "A run trains without them."),
    "in train and eval": Kind(
        "warning",
        "In train and in eval",
        "The same or nearly the same photo on both sides: scores on eval would be too good.",
    ),
    "in several people": Kind(
        "warning",
        "In several people",
        "The same or nearly the same photo in folders of several people. Folds part people, so it "
        "may be trained on and validated on; where their labels differ, one is wrong.",
    ),
    "twice in one person": Kind(
        "warning", "Twice in one person", "Two names for one photo: one of the labels may be wrong."
    ),
    "twice in eval": Kind("warning", "Twice in eval", "Two names for one photo to predict."),
    "another person": Kind(
        "warning",
        "Photos that may show another person",
        "Hair, forehead and eyes look unlike the person's other photos, much more than usual here. "
        "Only a hint: light and hats do the same, and people who look alike are not noticed.",
    ),
    "blank": Kind("warning", "Blank photos", "Of one grey or nearly so."),
    "size": Kind("warning", "Odd sizes", "Photos of another size than most."),
    "missing photos": Kind(
        "warning",
        "People with missing photos",
        "Each should have seven; a run takes what is there.",
    ),
    "label fix": Kind(
        "warning", "Label fixes that change nothing", "Misspelled, or meant for another data set."
    ),
    "train.csv": Kind(
        "warning",
        "Folder names against train.csv",
        "A run goes by the folders and ignores the file.",
    ),
    "note": Kind("warning", "Other notes", "Told by a run, too."),
}
"""In the order of the page."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: its kind in ``KINDS``, in words, and whom and what it is about.

    ``photos`` are keys of photos. ``score`` says how far beyond the usual, where that is a number.
    """

    kind: str
    message: str
    people: tuple[str, ...] = ()
    photos: tuple[str, ...] = ()
    score: float | None = None


@dataclass(frozen=True)
class Checked:
    """All findings, in the order of ``KINDS``, and the photos that were looked at.

    ``photos`` has a row a photo to train on or to predict: ``key``, ``path``, ``side`` (``train``
    or ``eval``), ``person``, ``stem`` and ``variant`` (empty in eval) and ``status``.
    """

    name: str
    photos: pd.DataFrame
    findings: list[Finding]

    @property
    def would_stop(self) -> bool:
        """Whether any finding is an error."""
        return any(KINDS[finding.kind].level == "error" for finding in self.findings)


def check(
    root: Path,
    *,
    variants: Sequence[str] = ("original",),
    fixes: LabelFixes | None = None,
    folds: int = 5,
    max_bad_share: float = 0.02,
    threads: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Checked:
    """Check the data set under ``root`` as a run with these settings would meet it.

    Findings do not depend on ``threads``. ``progress`` is told ``(done, total)`` after each photo.
    Raises ValueError for fewer than one thread.
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
    looks = _looks(photos["path"], threads, progress)
    photos = photos.assign(status=[one if isinstance(one, str) else OK for one in looks])
    findings += _unreadable(photos, max_bad_share)
    findings += _of_photos(
        photos[photos["status"] == OK], [one for one in looks if isinstance(one, Look)]
    )
    if train:
        findings += _of_people(root, train.photos, fixes or LabelFixes())
        findings += _thin(read_train(root, variants=variants, fixes=fixes).photos, folds)
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


def _looks(
    paths: Iterable[str], threads: int, progress: Callable[[int, int], None]
) -> list[Look | str]:
    """What each photo looks like, or why it cannot be read."""
    looks: list[Look | str] = []
    every = list(paths)
    with ThreadPoolExecutor(threads) as pool:
        for photo in ahead(pool, appearance.look, every, window=4 * threads):
            try:
                looks.append(photo.result())
            except PhotoError as error:
                looks.append(str(error))
            progress(len(looks), len(every))
    return looks


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


def _of_photos(photos: pd.DataFrame, looks: Sequence[Look]) -> Iterator[Finding]:
    """What can be seen in readable photos. Blank ones are like each other and like nobody."""
    if not looks:
        return
    yield from _sizes(photos, looks)
    shown = np.array([one.contrast >= appearance.FLAT for one in looks])
    for photo in photos[~shown].itertuples():
        yield Finding("blank", "shows nothing", _names(photo.person), (str(photo.key),))
    if shown.any():
        photos = photos[shown].reset_index(drop=True)
        looks = [one for one, kept in zip(looks, shown, strict=True) if kept]
        yield from _doubles(photos, looks)
        yield from _strangers(photos, looks)


def _sizes(photos: pd.DataFrame, looks: Sequence[Look]) -> Iterator[Finding]:
    """One finding for each size that is not the most frequent one."""
    sizes = Counter(look.size for look in looks)
    (height, width), most = min(sizes.items(), key=lambda item: (-item[1], item[0]))
    if 2 * most < len(looks):
        yield Finding(
            "size",
            f"{len(sizes):,} sizes; the most frequent one, {height} × {width}, is that of "
            f"{most:,} of {len(looks):,} photos",
        )
        return
    size_N = [look.size for look in looks]
    for size in sorted(sizes.keys() - {(height, width)}):
        keys = photos["key"][[one == size for one in size_N]]
        yield Finding(
            "size",
            f"{size[0]} × {size[1]} pixels (height × width), where most have {height} × {width}",
            photos=tuple(keys),
        )


def _doubles(photos: pd.DataFrame, looks: Sequence[Look]) -> Iterator[Finding]:
    """Photos that are the same or nearly so, one finding for each set of them."""
    digests = [look.digest for look in looks]
    set_N = _sets(photos, looks)
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


def _sets(photos: pd.DataFrame, looks: Sequence[Look]) -> IntArray:
    """Photos that are linked, by pairs that count as one photo, get the same number, [N]."""
    # Whose seven photos are alike by nature: in eval that may be any two photos.
    owner_N = pd.factorize(photos["side"] + "/" + photos["person"])[0]
    stem_N = pd.factorize(photos["stem"].where(photos["stem"] != "", photos["key"]))[0]
    colours_ND = np.stack([look.colours_D for look in looks]).astype(np.int16)
    set_N = np.arange(len(photos))
    pairs = appearance.alike(np.stack([look.hash_W for look in looks]), appearance.ALIKE)
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


def _strangers(photos: pd.DataFrame, looks: Sequence[Look]) -> Iterator[Finding]:
    """One finding for each person with photos that look like another's."""
    mine = photos["side"] == "train"
    if not mine.any():
        return
    heads_ND = np.stack([look.head_D for look in looks])[mine]
    photos = photos[mine]
    album = photos["person"] + "/" + photos["variant"]
    photos = photos.assign(strangeness=appearance.strangeness(heads_ND, album))
    odd = photos[photos["strangeness"] > appearance.STRANGE]
    for person, rows in odd.groupby("person"):
        rows = rows.sort_values("strangeness", ascending=False)
        farthest = float(rows["strangeness"].iloc[0])
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
    folder = photos["key"].map(lambda key: Path(key).parent.name)
    rows = photos.assign(folder=folder).drop_duplicates("folder").to_dict("records")
    people = {str(row["folder"]): row for row in rows}
    named: set[str] = set()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
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
        told = {
            "id": person["person"],
            "gender": Gender(person["gender"]).name.lower(),
            "race": person["race"],
            "age": str(person["age"]),
        }
        for column, value in told.items():
            if row[column] != value:
                message = f"{column} is {row[column]!r}, its folder {name} says {value!r}"
                yield Finding("train.csv", message, (person["person"],))


def _thin(photos: pd.DataFrame, folds: int) -> Iterator[Finding]:
    try:
        folding.assign(photos, folds, seed=0)
    except ValueError as error:
        yield Finding("thin classes", str(error))


def _names(person: object) -> tuple[str, ...]:
    return (str(person),) if person else ()


def write(folder: Path, checked: Checked) -> Path:
    """Write ``findings.csv`` and ``index.html`` to ``folder``; return the path of the page.

    Raises OSError naming the file that cannot be written.
    """
    table = pd.DataFrame(
        [
            {
                "level": KINDS[finding.kind].level,
                "kind": finding.kind,
                "people": " ".join(finding.people),
                "photos": ";".join(finding.photos),
                "score": "" if finding.score is None else f"{finding.score:.3f}",
                "message": finding.message,
            }
            for finding in checked.findings
        ],
        columns=["level", "kind", "people", "photos", "score", "message"],
    )
    with files.replacing(folder / "findings.csv") as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    path = folder / "index.html"
    files.write_text(path, check_page.render(checked, KINDS))
    return path


class _Progress:
    """Says how far it is: in place on a terminal, else a line every ten seconds."""

    def __init__(self) -> None:
        self.began = self.told = time.monotonic()
        self.live = sys.stderr.isatty()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done < total and now - self.told < (0.2 if self.live else 10):
            return
        self.told = now
        left = (total - done) * (now - self.began) / done
        line = f"{done:,} of {total:,} photos, {left:.0f} s left"
        # Spaces wipe out what a longer line left, a line end keeps the last one.
        end = "\r" if self.live and done < total else "\n"
        print(f"{line:40}", end=end, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Check a data set from the command line; the status of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m maskcls.check_data",
        description="What is wrong with a data set: a page with thumbnails and findings.csv. "
        "Status 1 where a run would stop, else 0.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "root", type=on_this_machine, metavar="DATA_ROOT", help="holds train/ and eval/"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="to write to")
    parser.add_argument("--fixes", type=Path, metavar="YAML", help="known label errors")
    parser.add_argument(
        "--variants", nargs="+", choices=["original", "rembg"], default=["original"],
        help="of the photos to train on, as in data.variants",
    )  # fmt: skip
    parser.add_argument("--folds", type=int, default=_default(Folds, "count"), help="folds.count")
    parser.add_argument(
        "--max-bad-share", type=float, default=_default(Data, "max_bad_share"),
        metavar="SHARE", help="data.max_bad_share",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="that decode photos")
    arguments = parser.parse_args(argv)
    try:
        checked = check(
            arguments.root,
            variants=arguments.variants,
            fixes=load_fixes(arguments.fixes) if arguments.fixes else None,
            folds=arguments.folds,
            max_bad_share=arguments.max_bad_share,
            threads=arguments.threads,
            progress=_Progress(),
        )
        page = write(arguments.out, checked)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    _tell(checked)
    print(f"{len(checked.photos):,} photos checked, see {page}")
    return int(checked.would_stop)


def _default(section: type[Data] | type[Folds], key: str) -> Any:
    return section.model_fields[key].default


def _tell(checked: Checked) -> None:
    counts = Counter(finding.kind for finding in checked.findings)
    for kind, (level, title, _) in KINDS.items():
        if counts[kind]:
            print(f"{level:8} {title}: {counts[kind]:,}")
    for finding in checked.findings:
        if KINDS[finding.kind].level == "error":
            about = finding.photos[0] + ": " if finding.photos else ""
            print(f"error    {about}{finding.message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
