"""The types that the keys of a configuration are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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


def absolute(path: Path) -> Path:
    if uri.is_uri(str(path)):
        raise ValueError(
            "a path on this machine is expected; only run.dir and data.root take s3:// and gs://"
        )
    return Path(path).expanduser().absolute()


def _location(value: Any) -> Path | str:
    if isinstance(value, str) and uri.is_uri(value):
        return uri.check_uri(value)
    if not isinstance(value, str | Path):
        raise ValueError("a path, or a URI such as s3://bucket/name, is expected")
    return absolute(Path(value))


AbsolutePath = Annotated[Path, AfterValidator(absolute)]
Location = Annotated[Path | str, BeforeValidator(_location)]
"""A folder: an absolute path, or the URI of one on an object store as a string."""


def each_once(values: list[Any]) -> list[Any]:
    twice = sorted({str(value) for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} stands there twice")
    return values


FoldNumbers = Annotated[list[NonNegativeInt], Field(min_length=1), AfterValidator(each_once)]


class Section(BaseModel):
    """A group of keys: unknown ones are refused, values cannot change once read."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True
    )
