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
from maskcls.config.ages import AgeClasses, AgeDistribution, AgeOrdinal
from maskcls.config.layers import flatten
from maskcls.config.recipe import DETECTORS, Model, Recipe
from maskcls.config.schema import Config
from maskcls.labels import AGE_BAND_STARTS, HEADS, NUM_JOINT, Task, tells
from maskcls.storage import uri

Problems = Iterator[tuple[str, str]]
"""(dotted key, what is wrong with its value)."""

PHOTOS_A_WORKER: Final = 2
"""Least photos of a worker in a step: batch normalisation needs two."""

JOB_VARIABLE: Final = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets this environment variable for the command of ``ray job submit``."""


_PATHS: Final = (
    "run.dir", "data.root", "data.table", "data.cache", "data.label_fixes", "model.weights",
    "pseudo.run", "answers.out", "image.detector",
)  # fmt: skip


def recipe_problems(recipe: Recipe, task: Task, workers: int) -> Problems:
    """What is wrong with a recipe for one task, trained by ``workers`` that share each step."""
    yield from _backbone_problems(recipe.model)
    yield from _class_problems(recipe, task)
    learns_years = recipe.loss.name == "age_regression" or recipe.age.name == "distribution"
    if learns_years and recipe.labels.age_limits != AGE_BAND_STARTS:
        yield (
            "labels.age_limits",
            f"loss.name=age_regression and age.name=distribution know {list(AGE_BAND_STARTS)} only",
        )
    yield from _age_problems(recipe, task)
    yield from _freeze_problems(recipe)
    if recipe.loss.name == "logit_adjusted" and recipe.sampler.name != "none":
        yield (
            "loss.name",
            "logit_adjusted makes up for rare classes, as the sampler does already: set "
            f"sampler.name=none or another loss (sampler.name={recipe.sampler.name})",
        )
    if recipe.schedule.warmup_epochs >= recipe.train.epochs:
        yield (
            "schedule.warmup_epochs",
            f"must be fewer than train.epochs={recipe.train.epochs}, "
            f"got {recipe.schedule.warmup_epochs:g}; schedule.warmup_epochs=0 goes with any",
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


def _age_problems(recipe: Recipe, task: Task) -> Problems:
    """Ways to tell age that the task has no head for, or that its loss does not go with."""
    loss, age = recipe.loss.name, recipe.age
    if loss == "age_regression":
        if task is not Task.AGE:
            yield "loss.name", f"age_regression is for task age, not for {task}"
        if age != AgeClasses():
            key = "age.years_weight" if isinstance(age, AgeClasses) else "age.name"
            yield key, "loss.name=age_regression tells years already: leave `age` as it is"
        return
    if isinstance(age, AgeClasses):
        if age.years_weight and not tells(task, "age"):
            yield "age.years_weight", f"task {task} does not tell age: set recipes.age.age.*"
        return
    own_losses = ["cross_entropy"]
    if isinstance(age, AgeDistribution):
        own_losses.append("logit_adjusted")
    if task not in (Task.AGE, Task.MULTI):
        yield "age.name", f"{age.name} is for tasks age and multi, not for {task}"
    elif task is Task.AGE and loss not in own_losses:
        yield "loss.name", f"age.name={age.name} goes with {' or '.join(own_losses)}, got {loss}"
    elif isinstance(age, AgeOrdinal) and loss == "logit_adjusted":
        yield "loss.name", "age.name=ordinal has no logits of classes to adjust: another loss"
    elif task is Task.AGE and getattr(recipe.loss, "class_weights", None) is not None:
        yield "loss.class_weights", f"age.name={age.name} takes no class weights"


def _freeze_problems(recipe: Recipe) -> Problems:
    """What was not learned elsewhere must not be kept as it is."""
    train, model = recipe.train, recipe.model
    for key, value in (
        ("train.freeze_epochs", train.freeze_epochs), ("train.freeze_layers", train.freeze_layers)
    ):  # fmt: skip
        if value and model.weights is None and not model.pretrained:
            yield key, "freezes random weights: set model.weights or model.pretrained"
    if train.freeze_epochs > train.epochs:
        yield (
            "train.freeze_epochs",
            f"must be at most train.epochs={train.epochs}, got {train.freeze_epochs}",
        )
    if train.freeze_layers and model.name in backbone_names.TORCHVISION:
        yield "train.freeze_layers", f"is for timm's backbones, not for {model.name}"


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
    if "data.table" in dict(flatten(tree)):
        del defaults["data.root"]  # paths may be relative to the table
    for key, value in {**defaults, **dict(flatten(tree))}.items():
        last = ".".join(key.split(".")[-2:])
        if last not in _PATHS:
            continue
        for path in value if isinstance(value, list) else [value]:
            if last == "image.detector" and path in DETECTORS:
                continue
            if isinstance(path, str) and (problem := lost_with_the_job(path)):
                yield key, problem


def lost_with_the_job(path: str) -> str | None:
    """What is wrong with a path under `ray job submit`; None where nothing is."""
    if JOB_VARIABLE not in os.environ or _lasts(path):
        return None
    return (
        "under `ray job submit` a path from the root (/...) or a URI is needed: a relative one "
        "lies in Ray's copy of the working folder, which is deleted with its results "
        f"(got {path!r})"
    )


def _lasts(path: str) -> bool:
    return path.startswith(("~", "package:")) or uri.is_uri(path) or PurePath(path).is_absolute()
