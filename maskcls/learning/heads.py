"""The heads of a model: what each puts out, what teaches it, and how its outputs are read.

A head has ``outputs``, D of them a photo. ``targets`` are floats [N, ...], a row a photo of the
training table: rows of mixed photos are weighted means of rows. ``loss`` compares the two, and
``scores`` turns outputs [B, D] into scores of the classes [B, K] whose softmax are probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from maskcls.config.ages import AgeClasses, AgeDistribution, AgeOrdinal
from maskcls.config.recipe import Recipe
from maskcls.labels import HEADS, LABEL_COLUMNS, MISSING, AgeBand, Task
from maskcls.learning import ages, losses
from maskcls.learning.losses import Loss

Labels = Mapping[str, npt.NDArray[np.int64]]
"""Columns of the training table: classes, and ``age`` in years, [N] each."""


class Head(Protocol):
    """See the module."""

    @property
    def outputs(self) -> int:
        """Numbers a photo that the model puts out."""

    def targets(self, labels: Labels) -> Tensor:
        """What teaches it, a row a photo."""

    def loss(self, labels: Labels, options: Mapping[str, Any]) -> Loss:
        """Its loss with the options of ``loss`` in the recipe."""

    def scores(self, outputs_BD: Tensor) -> Tensor:
        """Scores of the classes, float32 [B, K]; their softmax are probabilities."""


@dataclass(frozen=True)
class Classes:
    """One logit a class."""

    column: str
    outputs: int

    def targets(self, labels: Labels) -> Tensor:
        return one_hot(torch.from_numpy(labels[self.column].astype(np.int64)), self.outputs).float()

    def loss(self, labels: Labels, options: Mapping[str, Any]) -> Loss:
        counts = _counts(labels[self.column], self.outputs).tolist()
        return losses.build(num_classes=self.outputs, class_counts=counts, **options)

    def scores(self, outputs_BD: Tensor) -> Tensor:
        return outputs_BD.float()


@dataclass(frozen=True)
class WithYears:
    """Classes, and the age in years as one more output, whose error counts ``weight``."""

    classes: Classes
    weight: float

    @property
    def outputs(self) -> int:
        return self.classes.outputs + 1

    def targets(self, labels: Labels) -> Tensor:
        return torch.column_stack([self.classes.targets(labels), _years(labels)])

    def loss(self, labels: Labels, options: Mapping[str, Any]) -> Loss:
        of_classes = self.classes.loss(labels, options)

        def loss(outputs_BD: Tensor, targets_BD: Tensor) -> Tensor:
            years = losses.age_regression_loss(outputs_BD[:, -1:], targets_BD[:, -1])
            return of_classes(outputs_BD[:, :-1], targets_BD[:, :-1]) + self.weight * years

        return loss

    def scores(self, outputs_BD: Tensor) -> Tensor:
        return self.classes.scores(outputs_BD[:, :-1])


@dataclass(frozen=True)
class Regression:
    """The age in years as one number."""

    outputs: int = 1

    def targets(self, labels: Labels) -> Tensor:
        return _years(labels)

    def loss(self, labels: Labels, options: Mapping[str, Any]) -> Loss:
        return losses.build(num_classes=len(AgeBand), **options)

    def scores(self, outputs_BD: Tensor) -> Tensor:
        return _log(losses.age_band_probabilities(losses.age_from_output(outputs_BD)))


@dataclass(frozen=True)
class Distribution:
    """A logit for each year, taught with a bell of ``sigma_years`` around the age."""

    sigma_years: float
    outputs: int = ages.YEARS

    def targets(self, labels: Labels) -> Tensor:
        return ages.year_distributions(_years(labels), self.sigma_years)

    def loss(self, labels: Labels, options: Mapping[str, Any]) -> Loss:
        if options["name"] != "logit_adjusted":
            options = {"name": "cross_entropy"}
        counts = _counts(labels["age_band"], len(AgeBand))
        # A year is as frequent as its band: which of its years people have is left to learn.
        counts_Y = counts[ages.band_of_year().numpy()].tolist()
        return losses.build(num_classes=self.outputs, class_counts=counts_Y, **options)

    def scores(self, outputs_BD: Tensor) -> Tensor:
        return _log(ages.bands_of_years(outputs_BD.float().softmax(dim=1)))


@dataclass(frozen=True)
class Ordinal:
    """A yes or no for each start of a band."""

    outputs: int = len(AgeBand) - 1

    def targets(self, labels: Labels) -> Tensor:
        return Classes(LABEL_COLUMNS["age"], len(AgeBand)).targets(labels)

    def loss(self, labels: Labels, options: Mapping[str, Any]) -> Loss:
        return ages.corn_loss

    def scores(self, outputs_BD: Tensor) -> Tensor:
        return _log(ages.corn_probabilities(outputs_BD))


def build(task: Task, recipe: Recipe) -> dict[str, Head]:
    """The heads of a task by name. Raises ValueError for a way to tell age that its task lacks."""
    return {name: _build(name, classes, task, recipe) for name, classes in HEADS[task].items()}


def sizes(task: Task, recipe: Recipe) -> dict[str, int]:
    """The outputs of each head of a task."""
    return {name: head.outputs for name, head in build(task, recipe).items()}


def _build(name: str, classes: int, task: Task, recipe: Recipe) -> Head:
    plain = Classes(LABEL_COLUMNS[name], classes)
    if recipe.loss.name == "age_regression":
        if task is not Task.AGE:
            raise ValueError(f"loss.name=age_regression is for task age, not for {task}")
        return Regression()
    if name == "joint" and not isinstance(recipe.age, AgeClasses):
        raise ValueError(f"age.name={recipe.age.name} is for tasks age and multi, not for {task}")
    if name not in ("age", "joint"):
        return plain
    match recipe.age:
        case AgeDistribution(sigma_years=sigma_years):
            return Distribution(sigma_years)
        case AgeOrdinal():
            return Ordinal()
        case AgeClasses(years_weight=weight):
            return WithYears(plain, weight) if weight else plain


def learns_years(recipe: Recipe) -> bool:
    """Whether the age head needs ages in years: of a photo with only a band it learns nothing."""
    if recipe.loss.name == "age_regression" or isinstance(recipe.age, AgeDistribution):
        return True
    return isinstance(recipe.age, AgeClasses) and bool(recipe.age.years_weight)


def known(name: str, labels: Labels, recipe: Recipe) -> npt.NDArray[np.bool_]:
    """Which items have what the head ``name`` learns, [N]."""
    column = "age" if name == "age" and learns_years(recipe) else LABEL_COLUMNS[name]
    return np.asarray(labels[column] != MISSING)


def _counts(classes_N: npt.NDArray[np.int64], num_classes: int) -> npt.NDArray[np.int64]:
    """How many items of each class there are; those without a label count nowhere."""
    return np.bincount(classes_N[classes_N != MISSING], minlength=num_classes)


def _years(labels: Labels) -> Tensor:
    return torch.from_numpy(labels["age"].astype(np.float32))


def _log(probabilities_BK: Tensor) -> Tensor:
    """Logarithms that stay finite: of what is 0, that of the smallest number."""
    return probabilities_BK.clamp_min(torch.finfo(torch.float32).tiny).log()
