"""What pydantic says of a bad value, in the words of the configuration's keys."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from maskcls.config import keys
from maskcls.storage import uri


def explain(error: ValidationError, root: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """(dotted key, what is wrong) for each problem of a value of ``root``."""
    for problem in error.errors():
        key, branch = _key(problem["loc"], root)
        given = problem["input"]
        if branch and problem["type"] == ("float_type" if isinstance(given, dict) else "dict_type"):
            continue  # of number | mapping only the branch that was meant
        section, _, option = key.rpartition(".")
        methods = keys.takers(section, option)
        message = problem["msg"].removeprefix("Value error, ")
        value = _value(given)
        match problem["type"]:
            case "union_tag_invalid":
                key, value = f"{key}.name", _value(given["name"])
                expected = problem["ctx"]["expected_tags"]
                message = f"Input should be one of {expected}"
                value += _nearest(given["name"], expected)
            case "list_type" if isinstance(given, str | int | float):
                message = f"a list is expected, as in {key}=[{given}]"
            case "literal_error" | "enum":
                value += _nearest(given, str(problem.get("ctx", {}).get("expected", "")))
            case "extra_forbidden" if methods:
                method = problem["loc"][-2]
                verb = "have it" if len(methods) > 1 else "has it"
                message = f"{method} has no such option; {', '.join(methods)} {verb}"
            case "float_parsing" if str(given).count(",") == 1:
                value += f"; did you mean {given.replace(',', '.')}?"
            case "missing" if methods:
                message = f"{problem['loc'][-2]} needs it"
        yield key, f"{message}{value}"


def _value(given: Any) -> str:
    # A URI may hold a password.
    secret = isinstance(given, str) and uri.is_uri(given)
    return "" if secret or isinstance(given, dict | BaseModel) else f", got {given!r}"


def _nearest(given: Any, expected: str) -> str:
    names = [name.strip("' ") for name in expected.replace(" or ", ",").split(",")]
    close = difflib.get_close_matches(given, names, n=1) if isinstance(given, str) else []
    return f"; did you mean {close[0]!r}?" if close else ""


def _key(place: Sequence[Any], root: type[BaseModel]) -> tuple[str, bool]:
    """The dotted key of an error's place, and whether it lies in one branch of a union.

    Pydantic puts the method (``focal``), the branch of a union (``constrained-float``) and the
    mark of a mapping's key (``[key]``) into the place; none of them is part of a key.
    """
    parts: list[str] = []
    classes: keys.Classes = (root,)
    branch = label = False
    for part in place:
        if label:
            label, branch = False, not classes
            continue
        if part == "[key]":
            continue
        parts.append(str(part))
        field = keys.fields_of(classes).get(part, [None])[0]
        classes = keys.classes_of(field.annotation) if field else ()
        label = keys.is_methods(classes) or (field is not None and keys.has_branches(field))
    return ".".join(parts), branch
