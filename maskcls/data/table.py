"""Tables of photos: one row a photo, with what is known of it.

A table has a column ``path`` and any of ``COLUMNS``; what a photo has no label for stays empty.
``parse`` understands what is written; ``table_photos`` finds the files. Nothing here opens a photo.
"""

from __future__ import annotations

import difflib
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import pandas as pd

from maskcls.config.photo_tables import COLUMNS, WORDS
from maskcls.data import ages
from maskcls.labels import AGE_BAND_STARTS, MISSING, AgeLimits, class_names
from maskcls.storage.names import printable, some
from maskcls.storage.uri import is_uri

NOTHING: Final = frozenset(("", "na", "n/a", "nan", "null", "none", "<na>"))
"""Words, in small letters, for a label that nobody knows."""

_NAMED: Final = 10


@dataclass(frozen=True)
class Tables:
    """Table files, and what their columns and words are called.

    ``columns`` maps our names of columns to those of the files, ``values`` the words of a column
    to ours.
    """

    paths: tuple[Path, ...]
    columns: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    age_limits: AgeLimits = AGE_BAND_STARTS


@dataclass(frozen=True)
class Parsed:
    """All rows: ``table`` (which file), ``line`` (in it), ``location`` (the path as written, in
    plain form), ``person`` and ``group`` ("" where not given), ``mask``, ``gender``, ``age``,
    ``age_band`` (``MISSING`` where not known), ``split`` (0 train, 1 eval) and ``weight``.
    """

    rows: pd.DataFrame
    notes: list[str]


def parse(tables: Tables) -> Parsed:
    """Read the tables and understand every value.

    Raises FileNotFoundError for a table that is not there, and ValueError, naming file, line and
    the nearest name, for unknown columns and words, impossible ages, and paths that are empty or
    lead outside.
    """
    parts, notes = [], []
    for number, path in enumerate(tables.paths):
        raw = _read(path)
        raw, unused = _named(path, raw, tables.columns)
        if unused:
            notes.append(f"{path}: columns that are not used: {some(unused)}")
        part, part_notes = _understood(path, raw, tables)
        parts.append(part.assign(table=number))
        notes += part_notes
    return Parsed(pd.concat(parts, ignore_index=True), notes)


def _read(path: Path) -> pd.DataFrame:
    """The cells of a file as text, "" where there is nothing."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; correct data.table")
    try:
        if path.suffix.lower() == ".parquet":
            frame = pd.read_parquet(path)
            for name in frame:
                frame[name] = frame[name].astype("string").fillna("").astype("str")
        else:
            with path.open(encoding="utf-8-sig", newline="") as file:
                head = file.readline()
            separator = max(",;\t", key=head.count)
            frame = pd.read_csv(
                path, sep=separator, dtype=str, na_filter=False, encoding="utf-8-sig",
                index_col=False, on_bad_lines="error",
            )  # fmt: skip
    except UnicodeDecodeError:
        raise ValueError(
            f"{path}: not UTF-8, but in an encoding of Windows or Excel; save it as "
            '"CSV UTF-8", or convert it, for instance by `iconv -f cp949 -t utf-8 FILE`'
        ) from None
    except pd.errors.EmptyDataError:
        frame = pd.DataFrame()
    except (pd.errors.ParserError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as a table: {error}") from None
    if frame.empty:
        raise ValueError(f"{path}: an empty table; expected a row a photo, with a column path")
    return frame.rename(columns=lambda name: str(name).strip())


def _named(
    path: Path, raw: pd.DataFrame, columns: Mapping[str, str]
) -> tuple[pd.DataFrame, list[str]]:
    """The columns under our names, and those of the file that are not used."""
    here = {str(name).lower(): str(name) for name in reversed(raw.columns)}
    found: dict[str, str] = {}
    for ours in COLUMNS:
        theirs = columns.get(ours, ours)
        if theirs in raw.columns:
            found[ours] = theirs
        elif theirs.lower() in here:
            found[ours] = here[theirs.lower()]
        elif ours in columns:
            raise ValueError(
                f"{path}: no column {theirs!r}, which data.columns names for {ours}"
                f"{_nearest(theirs, raw.columns)}"
            )
    if "path" not in found:
        raise ValueError(
            f"{path}: no column path; name the one that holds the photos' paths by "
            f"data.columns={{path: NAME}}. There are: {some(map(str, raw.columns))}"
        )
    unused = [str(name) for name in raw.columns if name not in found.values()]
    for name in unused:
        # A typing error would silently cost all labels of a column.
        close = difflib.get_close_matches(name.lower(), set(COLUMNS) - found.keys(), 1, 0.75)
        if close:
            raise ValueError(
                f"{path}: unknown column {name!r}; if it is {close[0]}, say "
                f"data.columns={{{close[0]}: {name}}}, and else rename it"
            )
    return pd.DataFrame({ours: raw[theirs] for ours, theirs in found.items()}), unused


def _nearest(name: str, known: Iterable[Any]) -> str:
    every = list(map(str, known))
    lower = {one.lower(): one for one in reversed(every)}
    close = difflib.get_close_matches(name.lower(), lower, n=1)
    return f"; did you mean {lower[close[0]]!r}?" if close else f"; there are: {some(every)}"


def _understood(path: Path, raw: pd.DataFrame, tables: Tables) -> tuple[pd.DataFrame, list[str]]:
    empty = pd.Series("", index=raw.index)
    rows = pd.DataFrame(
        {"line": np.arange(2, len(raw) + 2), "location": _locations(path, raw["path"])}
    )
    for name in ("person", "group"):
        rows[name] = raw.get(name, empty).str.strip().str.normalize("NFC")
    for name in ("mask", "gender", "split"):
        rows[name] = _classes(path, name, raw.get(name, empty), tables.values.get(name, {}))
    rows["split"] = rows["split"].clip(lower=0)
    rows["weight"] = _weights(path, raw.get("weight", empty))
    years, bands, notes = _ages(path, raw, tables)
    return rows.assign(age=years, age_band=bands), notes


def _locations(path: Path, texts: pd.Series) -> pd.Series:
    """Paths in plain form: slashes, and no way out of the folder that they are relative to."""
    texts = texts.str.strip()
    if (nowhere := texts == "").any():
        raise ValueError(f"{path}: rows without a path, in lines {_lines(nowhere)}")
    odd = texts.str.contains(r"\\|//|(?:^|/)\.\.?(?:/|$)", regex=True) & ~texts.str.contains("://")
    if odd.any():
        plain = texts[odd].map(lambda text: posixpath.normpath(text.replace("\\", "/")))
        texts = texts.mask(odd, plain)
    outside = texts.str.startswith("../") | (texts == "..")
    if outside.any():
        raise ValueError(
            f"{path}: paths that lead out of their folder, in lines {_lines(outside)}, such as "
            f"{printable(texts[outside].iloc[0])}: write them from the root (/...), or set "
            "data.root to the folder that holds all photos"
        )
    return texts


def _classes(path: Path, name: str, texts: pd.Series, values: Mapping[str, str]) -> pd.Series:
    """The class of each word, ``MISSING`` for none."""
    words = WORDS[name]
    numbers = {} if name == "split" else {str(number): number for number in words.values()}
    given = {str(theirs): ours for theirs, ours in values.items()}
    small = {theirs.strip().lower(): ours for theirs, ours in given.items()}

    def understand(text: str) -> int:
        word = given.get(text.strip(), small.get(text.strip().lower(), text.strip().lower()))
        if word in NOTHING:
            return MISSING
        if (found := words.get(word, numbers.get(word.removesuffix(".0")))) is None:
            close = difflib.get_close_matches(word, words, n=1)
            meant = f"; did you mean {close[0]}?" if close else "."
            raise ValueError(
                f"{name} is {', '.join(words)} or nothing{meant} If the word is yours, say what "
                f"it means by data.values={{{name}: {{{text.strip()}: {next(iter(words))}}}}}"
            )
        return found

    return _by_value(path, name, texts, understand).astype(np.int64)


def _by_value(path: Path, name: str, texts: pd.Series, understand: Any) -> pd.Series:
    """``understand`` of each different text, so that a million rows cost what their words do."""
    codes, uniques = pd.factorize(texts)
    results, problems = [], []
    for number, text in enumerate(uniques):
        try:
            results.append(understand(str(text)))
        except ValueError as error:
            results.append(None)
            problems.append((number, text, error))
    if problems:
        lines = [
            f"{path}: {name} {printable(str(text))!r} in lines {_lines(codes == number)}: {error}"
            for number, text, error in problems[:_NAMED]
        ]
        more = [f"and {len(problems) - _NAMED} more"] if len(problems) > _NAMED else []
        raise ValueError("\n".join(lines + more))
    return pd.Series(pd.array(results, dtype=object).take(codes), index=texts.index)


def _weights(path: Path, texts: pd.Series) -> pd.Series:
    def understand(text: str) -> float:
        if text.strip().lower() in NOTHING:
            return 1.0
        weight = float(text)  # its message names the text
        if not 0 <= weight < float("inf"):
            raise ValueError("a weight is a number from 0")
        return weight

    return _by_value(path, "weight", texts, understand).astype(float)


def _ages(path: Path, raw: pd.DataFrame, tables: Tables) -> tuple[pd.Series, pd.Series, list[str]]:
    """Years, bands, and a note on what is neither."""
    years = pd.Series(MISSING, index=raw.index)
    bands = years.copy()
    notes = []
    for name, understood in (("age_band", ages.of_band), ("age", ages.of_years)):
        if name not in raw:
            continue
        given = {str(t).strip().lower(): ours for t, ours in tables.values.get(name, {}).items()}

        def understand(text: str, given: Any = given, understood: Any = understood) -> ages.Age:
            word = str(given.get(text.strip().lower(), text))
            missing = word.strip().lower() in NOTHING
            return ages.UNKNOWN if missing else understood(word, tables.age_limits)

        texts = raw[name].astype(str)
        found = _by_value(path, name, texts, understand)
        own_years, own_bands = (found.map(lambda a, k=k: a[k]).astype(np.int64) for k in (0, 1))
        has_age = ~texts.str.strip().str.lower().isin(NOTHING)
        lost = has_age & (own_bands == MISSING)
        if lost.any():
            limits = " and ".join(map(str, tables.age_limits))
            notes.append(
                f"{path}: {lost.sum():,} ages are left out of the task age, since their interval "
                f"goes across a limit of the age bands ({limits}): "
                f"{some(texts[lost].drop_duplicates())}"
            )
        if name == "age":
            differ = (own_bands != MISSING) & (bands != MISSING) & (own_bands != bands)
            if differ.any():
                names = class_names("age", tables.age_limits)
                raise ValueError(
                    f"{path}: age and age_band contradict each other in lines {_lines(differ)}: "
                    f"{texts[differ].iloc[0]} is not {names[bands[differ].iloc[0]]}"
                )
        years = years.where(own_years == MISSING, own_years)
        bands = bands.where(own_bands == MISSING, own_bands)
    return years, bands, notes


def _lines(rows: Sequence[Any] | pd.Series) -> str:
    """Where in a file these rows stand: ``2, 5, ... (12 in all)``."""
    lines = (np.flatnonzero(np.asarray(rows)) + 2).tolist()
    named = ", ".join(map(str, lines[:_NAMED]))
    return named if len(lines) <= _NAMED else f"{named}, ... ({len(lines):,} in all)"


def uris(parsed: Parsed) -> list[str]:
    """The locations that are URIs."""
    # Most tables have none: asking for the colon first saves a second in a million rows.
    maybe = parsed.rows.loc[parsed.rows["location"].str.contains("://", regex=False), "location"]
    return [cast(str, location) for location in maybe if is_uri(location)]
