"""``key.sub=value`` words of the command line."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml

from maskcls.config import keys
from maskcls.config.layers import unflattened
from maskcls.config.schema import Config
from maskcls.config.types import Tree
from maskcls.storage import yaml_files


def parse_word(word: str) -> Tree:
    """``train.lr=3e-4`` -> ``{"train": {"lr": 0.0003}}``.

    The value of a key that holds a path or a text is taken as it stands, spaces, ``#`` and all;
    nothing, or ``null``, is null. All other values are YAML. Raises ValueError.
    """
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise ValueError(f"{word!r}: expected key.sub=value")
    value: Any
    if _takes_text(key) and not (key.startswith("recipes.") and text.startswith("{")):
        value = None if text in ("", "null") else text
    else:
        try:
            value = yaml_files.parse(text) if text else None
        except yaml.YAMLError as error:
            raise ValueError(f"{word!r}: the value is not valid YAML: {error}") from None
    return unflattened({key: value})


def _takes_text(key: str) -> bool:
    first, *rest = key.split(".")
    if first == "recipes" and rest:
        if len(rest) == 1:
            return True  # the path of a recipe, unless it is a mapping
        key = ".".join(rest[1:])
    field = keys.field(key, Config)
    return field is not None and _is_text(field.annotation)


def _is_text(annotation: Any) -> bool:
    if typing.get_origin(annotation) is Annotated:
        return _is_text(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return all(_is_text(part) for part in typing.get_args(annotation) if part is not type(None))
    return annotation in (str, Path)


def key_for_flag(flag: str) -> str | None:
    """The key that ``--flag`` was meant for: ``--epochs`` -> ``train.epochs``."""
    name = flag.lstrip("-").replace("-", "_")
    every = list(keys.every_key(Config))
    if name in every:
        return name
    return keys.meant(name, every)


def flag_problem(unknown: Sequence[str], argv: Sequence[str], flags: Sequence[str]) -> str:
    """What to write in place of flags that do not exist."""
    lines = []
    for argument in unknown:
        flag, equals, value = argument.partition("=")
        after = argv[argv.index(argument) + 1 :] if argument in argv else []
        if not equals:
            value = after[0] if after and not after[0].startswith("-") else "..."
        key = key_for_flag(flag)
        if key is not None:
            lines.append(f"{flag}: write {key}={value}, without dashes")
        else:
            known = ", ".join(f"--{name}" for name in flags)
            lines.append(
                f"{flag}: no such flag (there are {known}); keys of docs/config.md are written as "
                "key.sub=value"
            )
    return "\n".join(lines)
