"""The types that the keys of a configuration are made of."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
)

from maskcls.storage import uri

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Tree = dict[str, Any]

DEFAULT_CACHE: Final = Path("~/.cache/maskcls")


def absolute(path: Path) -> Path:
    """The path from the root, ``~`` and ``~name`` resolved.

    Raises ValueError for a URI, an empty path, and a ``~`` of somebody who has no home folder.
    """
    if uri.is_uri(str(path)):
        raise ValueError(
            "a path on this machine is expected; only run.dir and data.root take s3:// and gs://"
        )
    try:
        return path.expanduser().absolute()
    except RuntimeError:
        whose = path.parts[0].removeprefix("~")
        who = f"no user {whose!r} with a home folder" if whose else "this user has no home folder"
        raise ValueError(f"{who}: set HOME, or write the path from the root (/...)") from None


def _location(value: Any) -> Path | str:
    if isinstance(value, str) and uri.is_uri(value):
        return uri.check_uri(value)
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError("a path, or a URI such as s3://bucket/name, is expected")
    return absolute(Path(value))


def _not_empty(value: Any) -> Any:
    # pathlib takes an empty text for the current folder.
    if value == "":
        raise ValueError("a path is expected, not an empty text")
    return value


def _cache(path: Any) -> Any:
    if path != DEFAULT_CACHE and path != str(DEFAULT_CACHE):
        return path
    try:
        return DEFAULT_CACHE.expanduser()
    except RuntimeError:
        # Containers that run as any user id: the default must not need a home folder.
        return Path(tempfile.gettempdir(), f"maskcls-cache-{os.getuid()}")


AbsolutePath = Annotated[Path, BeforeValidator(_not_empty), AfterValidator(absolute)]
CachePath = Annotated[AbsolutePath, BeforeValidator(_cache)]
Location = Annotated[Path | str, BeforeValidator(_location)]
"""A folder: an absolute path, or the URI of one on an object store as a string."""


def _in_order(ages: tuple[int, int]) -> tuple[int, int]:
    if ages[0] > ages[1]:
        raise ValueError(f"the first age is above the last: write [{ages[1]}, {ages[0]}]")
    return ages


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(value: Any) -> Any:
    """``90s``, ``30m`` or ``1.5h`` in seconds; numbers are seconds already."""
    if not isinstance(value, str):
        return value
    try:
        return float(value[:-1]) * _UNITS[value[-1:]]
    except (KeyError, ValueError):
        raise ValueError("a time is expected: 90s, 30m or 1.5h, or a number of seconds") from None


Duration = Annotated[float, Field(gt=0), BeforeValidator(_seconds)]
"""A time in seconds, above 0; a text with its unit is read."""

AgeRange = Annotated[tuple[NonNegativeInt, NonNegativeInt], AfterValidator(_in_order)]
"""First and last age in years, both included."""


def each_once(values: list[Any]) -> list[Any]:
    twice = sorted({str(value) for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} is given twice")
    return values


FoldNumbers = Annotated[list[NonNegativeInt], Field(min_length=1), AfterValidator(each_once)]


class Section(BaseModel):
    """A group of keys: unknown ones are refused, values cannot change once read."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True
    )


class PeopleGroup(Section):
    """People of an age, and of one gender or both."""

    ages: AgeRange = Field(description="First and last age in years, both included.")
    gender: Literal["male", "female"] | None = Field(
        None, description="Only this gender; null takes both."
    )


class Method(Section):
    """A method and its options. A union of methods is told apart by ``name``."""

    name: str


def named(name: str) -> BeforeValidator:
    """Options that stand there without a name are those of the method ``name``."""
    return BeforeValidator(
        lambda value: {"name": name, **value} if isinstance(value, Mapping) else value
    )
