"""Which keys a configuration has: read off the types, sections and methods alike."""

from __future__ import annotations

import difflib
import functools
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from maskcls.config.methods import Ensemble
from maskcls.config.recipe import Recipe
from maskcls.config.types import Method

Classes = tuple[type[BaseModel], ...]

SYNONYMS: Final[Mapping[str, str]] = {
    "learning_rate": "train.lr",
    "initial_lr": "train.lr",
    "base_lr": "train.lr",
    "num_epochs": "train.epochs",
    "max_epochs": "train.epochs",
    "n_epochs": "train.epochs",
    "bs": "train.batch_size",
    "batch": "train.batch_size",
    "batchsize": "train.batch_size",
    "val_batch_size": "train.eval_batch_size",
    "early_stopping": "train.patience",
    "grad_clip": "train.clip_grad_norm",
    "amp": "train.precision",
    "fp16": "train.precision",
    "mixed_precision": "train.precision",
    "backbone": "model.name",
    "arch": "model.name",
    "architecture": "model.name",
    "network": "model.name",
    "checkpoint": "model.weights",
    "dropout": "model.drop_rate",
    "img_size": "image.size",
    "imgsz": "image.size",
    "image_size": "image.size",
    "input_size": "image.size",
    "resolution": "image.size",
    "resize": "image.size",
    "augmentation": "augment.name",
    "augmentations": "augment.name",
    "aug": "augment.name",
    "transform": "augment.name",
    "transforms": "augment.name",
    "mixup": "augment.mix.name",
    "cutmix": "augment.mix.name",
    "criterion": "loss.name",
    "label_smoothing": "loss.smoothing",
    "opt": "optimizer.name",
    "optim": "optimizer.name",
    "optimiser": "optimizer.name",
    "wd": "optimizer.weight_decay",
    "lr_scheduler": "schedule.name",
    "scheduler": "schedule.name",
    "sched": "schedule.name",
    "warmup": "schedule.warmup_epochs",
    "random_seed": "run.seed",
    "output": "run.dir",
    "output_dir": "run.dir",
    "out": "run.dir",
    "save_dir": "run.dir",
    "data_dir": "data.root",
    "data_root": "data.root",
    "dataset": "data.root",
    "images": "data.root",
    "k": "folds.count",
    "n_splits": "folds.count",
    "num_folds": "folds.count",
    "kfold": "folds.count",
    "gpus": "resources.gpus_per_worker",
    "num_workers": "resources.workers_per_job",
    "workers": "resources.workers_per_job",
    "threads": "resources.threads_per_worker",
    "n_trials": "tune.trials",
    "num_trials": "tune.trials",
    "search_space": "tune.space",
}
"""What other programs call a key -> its name here."""


def classes_of(annotation: Any) -> Classes:
    """The section, or all methods of the section, that a key holds; () for a plain value."""
    if typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    parts = (annotation,)
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        parts = typing.get_args(annotation)
    sections = [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]
    return tuple(sections) if len(sections) == len(parts) else ()


def fields_of(classes: Classes) -> dict[str, list[FieldInfo]]:
    """Key -> its field in each of the classes that has it, in the order of the classes."""
    found: dict[str, list[FieldInfo]] = {}
    for section in classes:
        for name, field in section.model_fields.items():
            found.setdefault(name, []).append(field)
    return found


def name_of(method: type[BaseModel]) -> str:
    """The name by which a method is chosen."""
    return str(method.model_fields["name"].default)


def is_methods(classes: Classes) -> bool:
    return bool(classes) and issubclass(classes[0], Method)


def inside(key: str, root: type[BaseModel]) -> Classes | None:
    """The section or methods that a dotted key of ``root`` holds, () for a plain value, None for
    no key at all."""
    classes: Classes = (root,)
    for part in key.split(".") if key else []:
        if part not in (fields := fields_of(classes)):
            return None
        classes = classes_of(fields[part][0].annotation)
    return classes


def field(key: str, root: type[BaseModel]) -> FieldInfo | None:
    """The field of a dotted key, of the first method that has it; None for no such key."""
    section, _, name = key.rpartition(".")
    return next(iter(fields_of(inside(section, root) or ()).get(name, [])), None)


def every_key(*classes: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted keys of all plain values, of every method."""
    for name, fields in fields_of(classes).items():
        inner = classes_of(fields[0].annotation)
        if inner:
            yield from every_key(*inner, prefix=f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _methods(section: str) -> Classes:
    """What a section holds: of a recipe, or the vote, which is outside of it."""
    return classes_of(Ensemble) if section == "ensemble" else inside(section, Recipe) or ()


@functools.cache
def method_options(section: str) -> tuple[str, ...]:
    """The options that some methods of a section take and others do not.

    Also of ``recipes.<task>.<section>``. Naming another method leaves them behind.
    """
    if section.startswith("recipes."):
        section = section.split(".", 2)[-1]
    classes = _methods(section) if section else ()
    if not is_methods(classes):
        return ()
    fields = fields_of(classes)
    return tuple(name for name, found in fields.items() if len(found) < len(classes))


def takers(section: str, option: str) -> list[str]:
    """The methods of a section that take an option."""
    return [
        name_of(method)
        for method in _methods(section)
        if option in method.model_fields and issubclass(method, Method)
    ]


def meant(name: str, every: Sequence[str]) -> str | None:
    """The key of ``every`` that other programs call ``name``, or whose own name is the nearest."""
    if (other := SYNONYMS.get(name.lower().replace("-", "_"))) in every:
        return other
    last_parts: dict[str, str] = {}
    for key in every:
        last_parts.setdefault(key.rpartition(".")[2], key)
    close = difflib.get_close_matches(name, last_parts, n=1, cutoff=0.7)
    return last_parts[close[0]] if close else None


def suggestion(name: str, key: str, known: Sequence[str], prefix: str, every: list[str]) -> str:
    """The key that was likely meant by ``key``, whose last part ``name`` does not exist: what
    other programs call so, what is spelled alike here, or the same name elsewhere.

    ``known`` are the names beside it, ``every`` all dotted keys.
    """
    other = SYNONYMS.get(name.lower().replace("-", "_"))
    if other in every:
        if prefix.startswith("recipes.") and other.split(".")[0] in Recipe.model_fields:
            other = ".".join([*prefix.split(".")[:2], other])
        return f"; did you mean {other}?"
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {prefix}{close[0]}?"
    same = [dotted for dotted in every if name in dotted.split(".")]
    close = same or difflib.get_close_matches(key, every, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known here: {', '.join(known)}"


def has_branches(field: FieldInfo) -> bool:
    """Whether pydantic names the branch of a union in the place of an error: not for ``| None``,
    and not where a validator of ours decides first."""
    if typing.get_origin(field.annotation) not in (types.UnionType, typing.Union):
        return False
    parts = set(typing.get_args(field.annotation)) - {type(None)}
    return len(parts) > 1 and parts != {Path, str} and not classes_of(field.annotation)
