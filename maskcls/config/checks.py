"""What can be said of a configuration without photos, and only of several keys or of a machine.

These checks are made where a configuration is read for a new command, not where that of a finished
run is read back: its weights file may be gone by then.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, Final

from maskcls.config import backbone_names
from maskcls.config.layers import flatten
from maskcls.config.recipe import Model, Recipe
from maskcls.config.schema import Config
from maskcls.labels import HEADS, NUM_JOINT, Task
from maskcls.storage import uri

Problems = Iterator[tuple[str, str]]
"""(dotted key, what is wrong with its value)."""

PHOTOS_A_WORKER: Final = 2
"""Least photos of a worker in a step: batch normalisation needs two."""

JOB_VARIABLE: Final = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets this environment variable for the command of ``ray job submit``."""


def recipe_problems(recipe: Recipe, task: Task, workers: int) -> Problems:
    """What is wrong with a recipe for one task, trained by ``workers`` that share each step."""
    yield from _backbone_problems(recipe.model)
    yield from _class_problems(recipe, task)
    if recipe.loss.name == "age_regression" and task is not Task.AGE:
        yield "loss.name", f"age_regression is for task age, not for {task}"
    if recipe.schedule.warmup_epochs >= recipe.train.epochs:
        yield (
            "schedule.warmup_epochs",
            f"must be fewer than train.epochs={recipe.train.epochs}, "
            f"got {recipe.schedule.warmup_epochs:g}",
        )
    least = PHOTOS_A_WORKER * workers
    if recipe.train.batch_size < least:
        yield (
            "train.batch_size",
            f"must be at least {least}, got {recipe.train.batch_size}: a step needs "
            f"{PHOTOS_A_WORKER} photos a worker, and resources.workers_per_job={workers}",
        )


def _class_problems(recipe: Recipe, task: Task) -> Problems:
    """Weights and shares are one for each class."""
    heads = HEADS[task]
    weights = recipe.loss.class_weights if hasattr(recipe.loss, "class_weights") else None
    if weights is not None and set(heads.values()) != {len(weights)}:
        expected = " and ".join(f"{number} for {head}" for head, number in heads.items())
        yield (
            "loss.class_weights",
            f"task {task} needs one weight for each class, {expected}; got {len(weights)}",
        )
    if recipe.sampler.name == "explicit":
        number = NUM_JOINT if task is Task.MULTI else next(iter(heads.values()))
        if len(recipe.sampler.shares) != number:
            yield (
                "sampler.shares",
                f"task {task} needs one share for each of its {number} classes, "
                f"got {len(recipe.sampler.shares)}",
            )


def _backbone_problems(model: Model) -> Problems:
    if problem := backbone_names.problem_with(model.name):
        yield "model.name", f"{problem}, got {model.name!r}"
    elif model.weights is None:
        return
    elif not model.weights.startswith("package:"):
        if not Path(model.weights).is_file():
            yield "model.weights", f"no such file: {model.weights}"
    elif backbone_names.PACKAGED_WEIGHTS.get(model.weights) != model.name:
        known = " and ".join(
            f"{package} for model.name={name}"
            for package, name in backbone_names.PACKAGED_WEIGHTS.items()
        )
        yield "model.weights", f"there is {known}; got {model.weights} for {model.name}"


def tasks_of(config: Config) -> list[Task]:
    """The tasks whose recipes are checked: ``task`` where it is set (`train`, `tune`), else
    ``tasks`` (`sweep`)."""
    return [config.task] if config.task else config.tasks


def relative_paths(tree: Mapping[str, Any]) -> Problems:
    """Paths that would lie in Ray's copy of the working folder, under ``ray job submit``.

    ``tree`` is what was written, before paths were made absolute. A path in a configuration file
    that is resolved from that file is absolute by then.
    """
    if JOB_VARIABLE not in os.environ:
        return
    defaults = {"run.dir": "runs/run", "data.root": "data"}
    for key, value in {**defaults, **dict(flatten(tree))}.items():
        last = ".".join(key.split(".")[-2:])
        if last not in (
            "run.dir",
            "data.root",
            "data.cache",
            "data.label_fixes",
            "model.weights",
            "pseudo.run",
        ):
            continue
        if isinstance(value, str) and not _lasts(value):
            yield (
                key,
                "under `ray job submit` a path from the root (/...) or a URI is needed: a relative "
                "one lies in Ray's copy of the working folder, which is deleted with its results"
                f" (got {value!r})",
            )


def _lasts(path: str) -> bool:
    return path.startswith(("~", "package:")) or uri.is_uri(path) or PurePath(path).is_absolute()
