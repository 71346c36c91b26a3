"""Layers of a configuration: how one goes on top of another."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from maskcls.config.types import Tree


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A nested mapping -> (dotted key, leaf) pairs. Empty mappings are leaves."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value and f"{prefix}{name}" != "tune.space":
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


METHOD_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "augment": ("ops", "magnitude", "severity", "width", "depth", "alpha", "noise"),
    "augment.mix": ("alpha",),
    "loss": ("gamma", "smoothing", "beta", "class_weights"),
    "optimizer": ("amsgrad", "momentum", "alpha"),
    "schedule": ("min_factor", "cycles", "step_epochs", "gamma"),
    "sampler": ("shares",),
}
"""Section -> the keys that belong to the method it names: another name leaves them behind."""


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


def method_options(section: str) -> tuple[str, ...]:
    """The options of the method that a section names, also of ``recipes.<task>.<section>``."""
    if section.startswith("recipes."):
        section = section.split(".", 2)[-1]
    return METHOD_OPTIONS.get(section, ())


def digest(*parts: Any) -> str:
    """Sixteen hexadecimal digits that change when any JSON-able part changes."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
