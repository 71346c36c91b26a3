"""Layers of a configuration: how one goes on top of another."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from maskcls.config.keys import method_options
from maskcls.config.types import Tree


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A nested mapping -> (dotted key, leaf) pairs. Empty mappings are leaves."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value and f"{prefix}{name}" != "tune.space":
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def unflattened(flat: Mapping[str, Any]) -> Tree:
    """Dotted key -> value as a nested mapping."""
    tree: Tree = {}
    for key, value in flat.items():
        *sections, name = key.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return tree


def merged(below: Mapping[str, Any], above: Mapping[str, Any], prefix: str = "") -> Tree:
    """A copy of ``below`` with ``above`` on top, section by section.

    Where ``above`` names another method (``loss.name``), the options of the one below go.
    """
    result = copy.deepcopy(dict(below))
    if "name" in above and above["name"] != below.get("name", above["name"]):
        for option in method_options(prefix.rstrip(".")):
            result.pop(option, None)
    for name, value in above.items():
        key = f"{prefix}{name}"
        old = result.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping) and key != "tune.space":
            result[name] = merged(old, value, f"{key}.")
        else:
            result[name] = copy.deepcopy(value)
    return result


def digest(*parts: Any) -> str:
    """Sixteen hexadecimal digits that change when any JSON-able part changes."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
