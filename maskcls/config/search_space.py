"""What a tuner may vary: keys of the configuration and how each is drawn.

train.lr: {loguniform: [1.0e-5, 1.0e-2]}
loss.name: [cross_entropy, focal]
loss.gamma: {uniform: [0.5, 4.0], when: {loss.name: focal}}
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pydantic import ValidationError

from maskcls.config import keys
from maskcls.config.explain import explain
from maskcls.config.layers import flatten, merged, unflattened
from maskcls.config.recipe import Recipe

Values = dict[str, Any]
"""Dotted key -> value."""

KINDS = ("choice", "uniform", "loguniform", "int")


class Draws(Protocol):
    """What draws the values: an Optuna trial, or anything with these methods of it."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...
    def suggest_int(self, name: str, low: int, high: int) -> int: ...
    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


@dataclass(frozen=True)
class Dimension:
    """One key and how it is drawn; only where the keys in ``when`` have one of those values."""

    key: str
    kind: str
    values: tuple[Any, ...]
    when: Mapping[str, tuple[Any, ...]]

    def active(self, drawn: Mapping[str, Any]) -> bool:
        return all(drawn.get(key) in values for key, values in self.when.items())

    def draw(self, draws: Draws) -> Any:
        if self.kind == "choice":
            # Optuna wants plain values: a list (such as an image size) is drawn by its place.
            return self.values[draws.suggest_categorical(self.key, range(len(self.values)))]
        if self.kind == "int":
            return draws.suggest_int(self.key, *self.values)
        return draws.suggest_float(self.key, *self.values, log=self.kind == "loguniform")

    def contains(self, value: Any) -> bool:
        if self.kind == "choice":
            return value in self.values
        if not isinstance(value, int | float) or (self.kind == "int" and value % 1):
            return False
        return self.values[0] <= value <= self.values[1]

    def encode(self, value: Any) -> Any:
        """What ``draws`` would have answered for ``value``."""
        return self.values.index(value) if self.kind == "choice" else value


@dataclass(frozen=True)
class SearchSpace:
    """All dimensions, each after those that it depends on."""

    dimensions: tuple[Dimension, ...]

    def draw(self, draws: Draws, recipe: Recipe) -> Values:
        """One configuration. A condition on a key outside the space asks ``recipe``."""
        known = dict(flatten(recipe.model_dump(mode="json")))
        drawn: Values = {}
        for dimension in self.dimensions:
            if dimension.active(known | drawn):
                drawn[dimension.key] = dimension.draw(draws)
        return drawn

    def encode(self, values: Mapping[str, Any]) -> Values:
        """What ``draws`` answered where ``values`` were drawn."""
        return {d.key: d.encode(values[d.key]) for d in self.dimensions if d.key in values}

    def first_guess(self, recipe: Recipe) -> Values:
        """The recipe's own values, as ``draws`` would answer them.

        Raises ValueError naming the keys whose value the space does not contain.
        """
        known = dict(flatten(recipe.model_dump(mode="json")))
        active = [d for d in self.dimensions if d.active(known)]
        outside = [
            f"{d.key}={known.get(d.key)!r}" for d in active if not d.contains(known.get(d.key))
        ]
        if outside:
            raise ValueError(
                f"tune.space does not contain the recipe's own {', '.join(outside)}, which is the "
                "first trial: widen the space, or set the key to a value inside it"
            )
        return self.encode({d.key: known[d.key] for d in active})


def parse(space: Mapping[str, Any], recipe: Recipe) -> SearchSpace:
    """Read ``tune.space``. Raises ValueError that lists everything wrong with it: unknown keys
    (with the nearest), kinds, bounds, values that the configuration refuses, circular conditions.
    """
    if not space:
        raise ValueError(
            "tune.space is empty: name at least one key, "
            "as in tune.space={train.lr: {loguniform: [1e-5, 1e-2]}}"
        )
    known = list(keys.every_key(Recipe))
    methods = _methods(space, recipe)
    problems: list[str] = []
    dimensions = []
    for key, text in space.items():
        try:
            if key not in known:
                near = [f"{key}.name", *difflib.get_close_matches(str(key), known, n=1)]
                close = keys.SYNONYMS.get(str(key)) or next(filter(known.__contains__, near), None)
                raise ValueError(f"no such key{f'; did you mean {close}?' if close else ''}")
            dimension = _dimension(key, text)
            unknown = [str(name) for name in dimension.when if name not in known]
            if unknown:
                raise ValueError(f"when: no such key {', '.join(unknown)}")
            dimensions.append(_as_held(dimension, recipe, methods))
        except ValueError as error:
            problems.append(f"tune.space: {key}: {error}")
    try:
        ordered = _ordered(dimensions)
    except ValueError as error:
        problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    return SearchSpace(tuple(ordered))


def apply(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with some keys changed. Raises ValueError for a value that a key refuses."""
    # In one layer, so that a method's name does not drop the options that come with it.
    overlay = unflattened(values)
    try:
        return Recipe.model_validate(merged(recipe.model_dump(), overlay))
    except ValidationError as error:
        problems = (f"{key}: {message}" for key, message in explain(error, Recipe))
        raise ValueError("; ".join(problems)) from None


def _methods(space: Mapping[str, Any], recipe: Recipe) -> dict[str, list[Any]]:
    """``loss.name`` and its like -> the methods that a trial may have."""
    known = dict(flatten(recipe.model_dump(mode="json")))
    methods: dict[str, list[Any]] = {}
    for key in keys.every_key(Recipe):
        if not keys.method_options(key.rpartition(".")[0]) or not key.endswith(".name"):
            continue
        text = space.get(key, [known[key]])
        choices = text.get("choice") if isinstance(text, Mapping) else text
        methods[key] = list(choices) if isinstance(choices, list | tuple) else []
    return methods


def _as_held(
    dimension: Dimension, recipe: Recipe, methods: Mapping[str, Sequence[Any]]
) -> Dimension:
    """With its values as the configuration holds them: paths absolute, ``"1e-4"`` a number.

    Raises ValueError for a value that the key refuses, or that some method of a trial does not
    take: ``loss.gamma`` needs ``when: {loss.name: focal}`` where other losses are tried as well.
    """

    def held(key: str, values: Sequence[Any], at: Mapping[str, Any]) -> tuple[Any, ...]:
        trees = (apply(recipe, {**at, key: value}).model_dump(mode="json") for value in values)
        return tuple(dict(flatten(tree))[key] for tree in trees)

    def with_methods(key: str, values: Sequence[Any]) -> tuple[Any, ...]:
        section, _, option = key.rpartition(".")
        if option not in keys.method_options(section):
            return held(key, values, {})
        name = f"{section}.name"
        possible = dimension.when.get(name, methods[name])
        takers = keys.takers(section, option)
        if key != dimension.key:
            possible = [method for method in possible if method in takers] or takers
        others = [str(method) for method in possible if method not in takers]
        if others:
            raise ValueError(
                f"{', '.join(others)} has no such option: add when: {{{name}: "
                f"[{', '.join(takers)}]}}"
            )
        found = [held(key, values, {name: method})
                 for method in possible]  # fmt: skip
        return found[0] if found else tuple(values)

    when = {name: with_methods(name, options) for name, options in dimension.when.items()}
    values = with_methods(dimension.key, dimension.values)
    if dimension.kind in ("uniform", "loguniform") and not all(
        isinstance(value, float) for value in values
    ):
        raise ValueError(f"{dimension.kind}: the key takes no fractions; use int or a list")
    return replace(
        dimension,
        values=values if dimension.kind == "choice" else dimension.values,
        when=when,
    )


def _dimension(key: str, text: Any) -> Dimension:
    if isinstance(text, Sequence) and not isinstance(text, str):
        text = {"choice": list(text)}
    if not isinstance(text, Mapping):
        raise ValueError(f"expected a list or one of {', '.join(KINDS)}, got {text!r}")
    when = text.get("when") or {}
    if not isinstance(when, Mapping):
        raise ValueError(f"when: expected {{key: value or list}}, got {when!r}")
    kinds = [str(name) for name in text if name != "when"]
    if len(kinds) != 1 or kinds[0] not in KINDS:
        raise ValueError(f"expected one of {', '.join(KINDS)} (and when), got {kinds}")
    kind, values = kinds[0], text[kinds[0]]
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise ValueError(f"{kind}: expected a list, got {values!r}")
    if kind != "choice":
        values = _bounds(kind, values)
    return Dimension(
        key,
        kind,
        tuple(values),
        {name: tuple(v) if isinstance(v, list) else (v,) for name, v in when.items()},
    )


def _bounds(kind: str, values: Sequence[Any]) -> list[Any]:
    try:
        low, high = (float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{kind}: expected [lowest, highest], got {list(values)}") from None
    if kind == "int" and not (low.is_integer() and high.is_integer()):
        raise ValueError(f"int: expected whole numbers, got {list(values)}")
    if not low < high:
        raise ValueError(f"{kind}: {low} is not below {high}")
    if kind == "loguniform" and low <= 0:
        raise ValueError(f"loguniform: {low} must be above 0")
    return [int(low), int(high)] if kind == "int" else [low, high]


def _ordered(dimensions: Sequence[Dimension]) -> list[Dimension]:
    """Each after those in its ``when``."""
    left, ordered = list(dimensions), list[Dimension]()
    while left:
        waiting = {dimension.key for dimension in left}
        ready = [d for d in left if not waiting & set(d.when)]
        if not ready:
            raise ValueError(f"tune.space: conditions in a circle: {', '.join(sorted(waiting))}")
        ordered += ready
        left = [d for d in left if d not in ready]
    return ordered
