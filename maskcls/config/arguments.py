"""Types for argparse: values with the limits that the configuration sets."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import PositiveInt, TypeAdapter, ValidationError

from maskcls.config.types import Section


def of_key(section: type[Section], key: str) -> Callable[[str], Any]:
    """A value of ``section.key`` in text -> the value. It raises what argparse shows."""
    field = section.model_fields[key]
    of_field: Any = Annotated[field.annotation, *field.metadata]
    return _parser(TypeAdapter(of_field))


def default_of(section: type[Section], key: str) -> Any:
    """The default of ``section.key``."""
    return section.model_fields[key].default


def _parser(adapter: TypeAdapter[Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            return adapter.validate_python(text)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise argparse.ArgumentTypeError(f"{reason}, got {text!r}") from None

    return parse


positive_int = _parser(TypeAdapter(PositiveInt))
"""A whole number from 1."""
