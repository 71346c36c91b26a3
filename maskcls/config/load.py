"""Reading a configuration: layers of files and command-line words, every mistake at once."""

from __future__ import annotations

import argparse
import difflib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from maskcls.config.documentation import section_of
from maskcls.config.layers import flatten, merged, method_options
from maskcls.config.recipe import Recipe
from maskcls.config.schema import Config
from maskcls.config.types import Tree
from maskcls.storage import uri


class ConfigError(ValueError):
    """Everything that is wrong with a configuration, one line each."""


@dataclass(frozen=True)
class Loaded:
    """A configuration and, for each dotted key that was set, the layer that set it."""

    config: Config
    sources: Mapping[str, str]

    def describe(self) -> str:
        """The resolved configuration as YAML, each value with where it came from."""
        lines: list[str] = []
        for key, value in flatten(self.config.model_dump(mode="json")):
            text = yaml.safe_dump(value, default_flow_style=True, width=10**6).split("\n")[0]
            lines.append(f"{key}: {text}  # {self.sources.get(key, 'default')}")
        return "\n".join(lines)


def load(files: Sequence[Path] = (), words: Sequence[str] = ()) -> Loaded:
    """Read the layers, in order: ``files``, then ``key.sub=value`` words.

    Raises ConfigError that lists every unknown key (with the nearest name) and every bad value,
    and FileNotFoundError for a file that does not exist.
    """
    tree: Tree = {}
    sources: dict[str, str] = {}
    problems: dict[str, str] = {}
    layers = [(str(path), _read_layer(path)) for path in files]
    layers.append(("command line", functools.reduce(merged, map(_parse_word, words), {})))
    for source, layer in layers:
        problems |= _unknown_keys(layer, Config, "", source)
        _apply(tree, sources, layer, source)
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        problems = dict(_explain(error, sources)) | problems
    general = {name: value for name, value in tree.items() if name in Recipe.model_fields}
    for task, recipe in tree.get("recipes", {}).items():
        try:
            Recipe.model_validate(merged(general, recipe))
        except ValidationError as error:
            problems = dict(_explain(error, sources, f"recipes.{task}.")) | problems
    if problems:
        raise ConfigError("\n".join(f"{where}: {what}" for where, what in problems.items()))
    return Loaded(config, sources)


def from_command_line(description: str, argv: Sequence[str] | None = None) -> Config:
    """The configuration a user asked for; ``--help`` and ``--print-config`` end the program.

    A bad configuration ends it with status 2 and every reason on standard error.
    """
    return with_flags(description, {}, argv)[0]


def with_flags(
    description: str, flags: Mapping[str, str], argv: Sequence[str] | None = None
) -> tuple[Config, set[str]]:
    """``from_command_line``, and which of ``flags`` (name -> help) were given, as ``--name``."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog="Every key is listed in docs/config.md; lists are written 'tasks=[mask,age]'.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", action="append", default=[], type=Path, metavar="FILE", help="YAML; may repeat"
    )
    parser.add_argument(
        "--print-config", action="store_true", help="show each value and its source, then stop"
    )
    for name, text in flags.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    parser.add_argument("words", nargs="*", metavar="key.sub=value", help="override a key")
    arguments = parser.parse_intermixed_args(argv)
    try:
        loaded = load(arguments.config, arguments.words)
    except (ConfigError, FileNotFoundError) as error:
        parser.exit(2, f"{parser.prog}: the configuration is refused\n{error}\n")
    if arguments.print_config:
        print(loaded.describe())
        parser.exit(0)
    return loaded.config, {name for name in flags if vars(arguments)[name]}


def _read_layer(path: Path) -> Tree:
    tree = _with_recipes(_read_yaml(path), str(path), path.parent)
    data = tree.get("data")
    if isinstance(data, dict) and isinstance(fixes := data.get("label_fixes"), str):
        # A file named inside a YAML is meant from that YAML, wherever the program was started.
        data["label_fixes"] = str((path.parent / Path(fixes).expanduser()).absolute())
    return tree


def _read_yaml(path: Path) -> Tree:
    if not path.is_file():
        raise FileNotFoundError(f"--config {path}: no such file (looked in {Path.cwd()})")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected keys and values, got {type(tree).__name__}")
    return tree


def _with_recipes(tree: Tree, source: str, folder: Path) -> Tree:
    """Recipes that are paths, relative to ``folder``, become what the file holds."""
    if "recipes" not in tree:
        return tree
    recipes = tree["recipes"]
    if not isinstance(recipes, dict):
        raise ConfigError(f"recipes ({source}): expected recipes.<task>, got {recipes!r}")
    for task, recipe in recipes.items():
        if isinstance(recipe, str):
            recipes[task] = _read_yaml(folder / Path(recipe).expanduser())
        elif not isinstance(recipe, dict):
            raise ConfigError(
                f"recipes.{task} ({source}): expected keys or the path of a YAML, got {recipe!r}"
            )
    return tree


def _parse_word(word: str) -> Tree:
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise ConfigError(f"{word!r}: expected key.sub=value")
    try:
        value = yaml.safe_load(text) if text else None
    except yaml.YAMLError as error:
        raise ConfigError(f"{word!r}: the value is not valid YAML: {error}") from None
    tree: Any = value
    for name in reversed(key.split(".")):
        tree = {name: tree}
    return _with_recipes(tree, "command line", Path())


def _unknown_keys(
    tree: Mapping[str, Any], section: type[BaseModel], prefix: str, source: str
) -> Iterator[tuple[str, str]]:
    """Where and what; so does ``_explain``."""
    known = section.model_fields
    for name, value in tree.items():
        key = f"{prefix}{name}"
        where = f"{key} ({source})"
        if name not in known:
            yield where, f"no such key{_nearest(str(name), key, list(known), prefix)}"
        elif key == "recipes":
            for task, recipe in value.items():
                yield from _unknown_keys(recipe, Recipe, f"recipes.{task}.", source)
        elif (inner := section_of(known[name].annotation)) is not None:
            if isinstance(value, Mapping):
                yield from _unknown_keys(value, inner, f"{key}.", source)
            else:
                yield where, f"is a section, expected {key}.<key>, got {value!r}"


def _nearest(name: str, key: str, known: list[str], prefix: str) -> str:
    """The likeliest meant key: spelled alike here, or the same name elsewhere."""
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {prefix}{close[0]}?"
    every = [dotted for dotted, _ in flatten(Config().model_dump())]
    same = [dotted for dotted in every if name in dotted.split(".")]
    close = same or difflib.get_close_matches(key, every, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known here: {', '.join(known)}"


def _apply(tree: Tree, sources: dict[str, str], layer: Tree, source: str) -> None:
    """Put a layer on top of ``tree``: its general keys also beat the recipes of earlier layers."""
    general = {name: value for name, value in layer.items() if name in Recipe.model_fields}
    for task, recipe in tree.get("recipes", {}).items():
        for key, value in flatten(general):
            gone = [key] if value != {} else []
            section, _, name = key.rpartition(".")
            if name == "name" and _get(recipe, key) not in (None, value):
                gone += [f"{section}.{option}" for option in method_options(section)]
            for lost in gone:
                _remove(recipe, lost.split("."))
                sources.pop(f"recipes.{task}.{lost}", None)
    combined = merged(tree, layer)
    tree.clear()
    tree.update(combined)
    sources.update({key: source for key, _ in flatten(layer)})


def _get(tree: Tree, key: str) -> Any:
    return dict(flatten(tree)).get(key)


def _remove(tree: Tree, names: list[str]) -> None:
    if len(names) == 1:
        tree.pop(names[0], None)
    elif isinstance(inner := tree.get(names[0]), dict):
        _remove(inner, names[1:])


def _explain(
    error: ValidationError, sources: Mapping[str, str], prefix: str = ""
) -> Iterator[tuple[str, str]]:
    for problem in error.errors():
        key = prefix + ".".join(str(part) for part in problem["loc"] if not _is_branch(part))
        source = _source(key, sources)
        if prefix and not source:
            continue  # not the recipe's own: told of the general value already
        message = problem["msg"].removeprefix("Value error, ")
        given = problem["input"]
        shown = f", got {given!r}" if not isinstance(given, dict | BaseModel) else ""
        if isinstance(given, str) and uri.is_uri(given):
            shown = ""  # somebody may have written a key into it
        if problem["type"] in ("literal_error", "enum") and isinstance(given, str):
            expected = str(problem.get("ctx", {}).get("expected", ""))
            names = [name.strip("' ") for name in expected.replace(" or ", ",").split(",")]
            close = difflib.get_close_matches(given, names, n=1)
            shown += f"; did you mean {close[0]!r}?" if close else ""
        yield f"{key or 'configuration'}{f' ({source})' if source else ''}", f"{message}{shown}"


def _source(key: str, sources: Mapping[str, str]) -> str | None:
    """The layer that set a key, one around it or, for a rule between keys, one inside it."""
    return next(
        (
            source
            for other, source in sources.items()
            if f"{key}.".startswith(f"{other}.") or other.startswith(f"{key}.")
        ),
        None,
    )


def _is_branch(part: Any) -> bool:
    """Pydantic puts the branch of a union (``constrained-float``) into the place of an error."""
    return isinstance(part, str) and ("[" in part or "-" in part)
