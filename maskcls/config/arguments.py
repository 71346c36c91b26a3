"""Types for argparse: values with the limits that the configuration sets."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Annotated, Any

import yaml
from pydantic import PositiveInt, TypeAdapter, ValidationError

from maskcls.config.types import Section


def of_key(section: type[Section], key: str) -> Callable[[str], Any]:
    """A value of ``section.key`` in text -> the value. It raises what argparse shows."""
    field = section.model_fields[key]
    return of_type(Annotated[field.annotation, *field.metadata])


def of_type(kind: Any, read: Callable[[str], Any] = str) -> Callable[[str], Any]:
    """A text -> the value of a type that ``read`` finds in it. It raises what argparse shows."""
    adapter = TypeAdapter(kind)

    def parse(text: str) -> Any:
        try:
            return adapter.validate_python(read(text))
        except yaml.YAMLError as error:
            raise argparse.ArgumentTypeError(f"not valid YAML: {error}") from None
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise argparse.ArgumentTypeError(f"{reason}, got {text!r}") from None

    return parse


positive_int = of_type(PositiveInt)
"""A whole number from 1."""
