"""Reading a configuration: layers of files and command-line words, every mistake at once."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from maskcls.config import checks, keys, shipped
from maskcls.config.explain import explain
from maskcls.config.layers import flatten, merged
from maskcls.config.recipe import Recipe
from maskcls.config.schema import Config
from maskcls.config.types import Tree, absolute
from maskcls.config.words import flag_problem, parse_word
from maskcls.storage import yaml_files
from maskcls.storage.uri import is_uri


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
            text = yaml_files.dump(value, flow=True).split("\n")[0]
            lines.append(f"{key}: {text}  # {self.sources.get(key, 'default')}")
        return "\n".join(lines)


def load(files: Sequence[Path] = (), words: Sequence[str] = ()) -> Loaded:
    """Read the layers, in order: ``files``, then ``key.sub=value`` words.

    Raises ConfigError that lists every unknown key (with the nearest name) and every bad value,
    and FileNotFoundError for a configuration file that does not exist.
    """
    tree: Tree = {}
    sources: dict[str, str] = {}
    problems: dict[str, str] = {}
    layers = [(str(path), _read_layer(path)) for path in files]
    layers.append(("command line", functools.reduce(merged, map(_read_word, words), {})))
    for source, layer in layers:
        problems |= _unknown_keys(layer, (Config,), "", source)
        _apply(tree, sources, layer, source)
    config: Config | None = None
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        problems = dict(_located(explain(error, Config), sources)) | problems
    general = {name: value for name, value in tree.items() if name in Recipe.model_fields}
    if config is not None:
        general = config.model_dump(include=set(Recipe.model_fields))
    for task, recipe in tree.get("recipes", {}).items():
        try:
            Recipe.model_validate(merged(general, recipe))
        except ValidationError as error:
            own = _located(explain(error, Recipe), sources, f"recipes.{task}.")
            problems = dict(own) | problems
    relative = dict(_located(checks.relative_paths(tree), sources))
    if problems or config is None:
        raise ConfigError(_lines(relative | problems))
    if problems := dict(_checked(config, sources)) | relative:
        raise ConfigError(_lines(problems))
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
        epilog="Every key is listed in docs/config.md; lists are written 'tasks=[mask,age]'. "
        "Words beat all files, also what a file sets under recipes.<task>.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="FILE",
        help=f"YAML, or one of {', '.join(shipped.names())}; may repeat",
    )
    parser.add_argument(
        "--print-config", action="store_true", help="show each value and its source, then stop"
    )
    for name, text in flags.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    parser.add_argument("words", nargs="*", metavar="key.sub=value", help="override a key")
    argv = sys.argv[1:] if argv is None else argv
    arguments, unknown = parser.parse_known_intermixed_args(argv)
    if unknown:
        known = ["config", "print-config", *flags]
        parser.exit(2, f"{parser.prog}: {flag_problem(unknown, argv, known)}\n")
    try:
        loaded = load([shipped.find(name) for name in arguments.config], arguments.words)
    except (ConfigError, FileNotFoundError) as error:
        parser.exit(2, f"{parser.prog}: the configuration is refused\n{error}\n")
    if arguments.print_config:
        print(loaded.describe())
        parser.exit(0)
    return loaded.config, {name for name in flags if vars(arguments)[name.replace("-", "_")]}


def _read_layer(path: Path) -> Tree:
    tree = _with_recipes(_read_yaml(path), str(path), path.parent)
    data = tree.get("data")
    if isinstance(data, dict):
        # A file named inside a YAML is meant from that YAML, wherever the program was started.
        for key in ("label_fixes", "table"):
            if isinstance(value := data.get(key), str):
                data[key] = _from(path.parent, value)
            elif isinstance(value, list):
                data[key] = [_from(path.parent, v) if isinstance(v, str) else v for v in value]
    return tree


def _from(folder: Path, name: str) -> str:
    return name if name.startswith("~") or is_uri(name) else str((folder / name).absolute())


def _read_yaml(path: Path) -> Tree:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file (looked in {Path.cwd()})")
    try:
        tree = yaml_files.read(path)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected keys and values, got {type(tree).__name__}")
    return tree


def _read_word(word: str) -> Tree:
    try:
        tree = parse_word(word)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return _with_recipes(tree, "command line", Path())


def _with_recipes(tree: Tree, source: str, folder: Path) -> Tree:
    """Recipes that are paths, relative to ``folder``, become what the file holds."""
    if "recipes" not in tree:
        return tree
    recipes = tree["recipes"]
    if not isinstance(recipes, dict):
        raise ConfigError(f"recipes ({source}): expected recipes.<task>, got {recipes!r}")
    for task, recipe in recipes.items():
        if isinstance(recipe, str):
            recipes[task] = _read_yaml(folder / _expanded(recipe, f"recipes.{task} ({source})"))
        elif not isinstance(recipe, dict):
            raise ConfigError(
                f"recipes.{task} ({source}): expected keys or the path of a YAML, got {recipe!r}"
            )
    return tree


def _expanded(path: str, where: str) -> Path:
    try:
        return absolute(Path(path)) if path.startswith("~") else Path(path)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def _unknown_keys(
    tree: Mapping[str, Any], classes: keys.Classes, prefix: str, source: str
) -> Iterator[tuple[str, str]]:
    """(key and source, what is wrong) for each key that no section, or no method of it, has."""
    known = keys.fields_of(classes)
    for name, value in tree.items():
        key = f"{prefix}{name}"
        where = f"{key} ({source})"
        if name not in known:
            every = list(keys.every_key(Config))
            yield where, f"no such key{keys.suggestion(str(name), key, list(known), prefix, every)}"
        elif key == "recipes":
            for task, recipe in value.items():
                yield from _unknown_keys(recipe, (Recipe,), f"recipes.{task}.", source)
        elif inner := keys.classes_of(known[name][0].annotation):
            if isinstance(value, Mapping):
                yield from _unknown_keys(value, inner, f"{key}.", source)
            else:
                yield where, f"is a section, expected {key}.<key>, got {value!r}"


def _apply(tree: Tree, sources: dict[str, str], layer: Tree, source: str) -> None:
    """Put a layer on top of ``tree``: its general keys also beat the recipes of earlier layers."""
    general = {name: value for name, value in layer.items() if name in Recipe.model_fields}
    for task, recipe in tree.get("recipes", {}).items():
        for key, value in flatten(general):
            gone = [key] if value != {} else []
            section, _, name = key.rpartition(".")
            if name == "name" and _get(recipe, key) not in (None, value):
                gone += [f"{section}.{option}" for option in keys.method_options(section)]
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


def _checked(config: Config, sources: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What is wrong with the recipes of the tasks that a command may train."""
    for task in checks.tasks_of(config):
        recipe = config.recipe(task)
        workers = config.resources.workers_per_job
        for key, message in checks.recipe_problems(recipe, task, workers):
            own = f"recipes.{task}.{key}"
            yield _where(own if own in sources else key, sources), message


def _located(
    problems: Iterator[tuple[str, str]], sources: Mapping[str, str], prefix: str = ""
) -> Iterator[tuple[str, str]]:
    """Problems of keys under ``prefix`` with the layer of each.

    Of a recipe only its own: those of the general values have been said.
    """
    for key, message in problems:
        if not prefix or _source(f"{prefix}{key}", sources):
            yield _where(f"{prefix}{key}", sources), message


def _where(key: str, sources: Mapping[str, str]) -> str:
    source = _source(key, sources)
    return f"{key or 'configuration'}{f' ({source})' if source else ''}"


def _source(key: str, sources: Mapping[str, str]) -> str | None:
    """The layer that set a key, one around it, a rule's key inside it or else its method."""
    near = (
        source
        for other, source in sources.items()
        if f"{key}.".startswith(f"{other}.") or other.startswith(f"{key}.")
    )
    return sources.get(key) or next(near, sources.get(f"{key.rpartition('.')[0]}.name"))


def _lines(problems: Mapping[str, str]) -> str:
    return "\n".join(f"{where}: {what}" for where, what in problems.items())
