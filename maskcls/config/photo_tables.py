"""What a configuration says of tables of photos: which columns there are, and which words."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field

from maskcls.config.types import Location, each_once
from maskcls.labels import Gender, Mask

COLUMNS: Final = (
    "path", "person", "group", "mask", "gender", "age", "age_band", "split", "weight",
)  # fmt: skip
"""What a table may tell of a photo; ``path`` it must."""

WORDS: Final[dict[str, dict[str, int]]] = {
    "mask": {one.name.lower(): int(one) for one in Mask},
    "gender": {one.name.lower(): int(one) for one in Gender},
    "split": {"train": 0, "eval": 1},
}
"""The words of columns that hold classes."""

VALUED: Final = (*WORDS, "age", "age_band")
"""Columns whose words ``data.values`` may translate."""


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str | Path) else value


def _known(name: str, known: tuple[str, ...], what: str) -> None:
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
        raise ValueError(f"{what} {name!r}; {hint}")


def _columns(columns: dict[str, str]) -> dict[str, str]:
    for ours in columns:
        _known(ours, COLUMNS, "no such column")
    each_once(list(columns.values()))
    return columns


def _as_text(value: Any) -> Any:
    """YAML reads the words 0 and true as a number and a truth value; a table has only text."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _texts(values: Any) -> Any:
    if not isinstance(values, Mapping):
        return values
    return {
        _as_text(column): (
            {_as_text(theirs): _as_text(ours) for theirs, ours in words.items()}
            if isinstance(words, Mapping)
            else words
        )
        for column, words in values.items()
    }


def _values(values: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    for column, words in values.items():
        _known(column, VALUED, "no column whose words can be translated is called")
        for ours in words.values():
            if column in WORDS and ours:
                _known(ours, tuple(WORDS[column]), f"{column} has no class")
    return values


TableFiles = Annotated[
    list[Location], Field(min_length=1), BeforeValidator(_several), AfterValidator(each_once)
]
"""One table, or several."""

ColumnNames = Annotated[dict[str, str], AfterValidator(_columns)]
"""Our name of a column -> its name in the table."""

Values = Annotated[dict[str, dict[str, str]], BeforeValidator(_texts), AfterValidator(_values)]
"""Column -> word of the table -> our word; an empty text says that it means nothing."""
