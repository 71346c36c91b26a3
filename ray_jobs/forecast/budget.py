"""What of a configuration is trained in a given time: tasks, folds, epochs and pixels.

``tasks`` is a portfolio: an ordered list of unlike recipes, each the one that adds the most to
those before it (the idea of AutoGluon's portfolios, arXiv 2311.02971). The choices are tried from
the richest to the poorest, and the first that ends in time, by what was measured here, is taken. So
the same measurement always gives the same choice, and the choice itself is kept in the run: a
resumed run does not choose again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from maskcls import labels
from maskcls.config.schema import Config
from maskcls.labels import ATTRIBUTES, Task
from ray_jobs.forecast import arithmetic
from ray_jobs.forecast.arithmetic import Forecast, JobSize

USED: Final = 0.92
"""Share of the budget that a forecast may fill: forecasts err, and a run must not end late."""

FEWEST_FOLDS, FEW_FOLDS = 2, 3
"""Folds below which nothing can be validated, and below which only a tight budget goes."""

EPOCH_SHARES: Final = (1.0, 0.85, 0.7, 0.6)
"""Shares of a recipe's epochs that are tried before a task is given up."""

FEWER_SHARES: Final = (0.45, 0.3)
"""Those that are tried before pixels are given up. With three seeds 128 x 96 scored .480 after 5
epochs, 96 x 72 .442 after 5 (-.078 to +.004) and .441 after 9: likely, not sure."""

TIGHT_SHARES: Final = (0.3, 0.2, 0.0)
"""Those of fewer pixels; 0 is the fewest that the schedule allows."""

SMALLER: Final = 0.75
"""Factor of height and width where pixels are given up."""

FIXED_SHARE: Final = 0.15
"""Share of a step that does not shrink with the pixels. Assumed."""


@dataclass(frozen=True)
class Choice:
    """What is trained."""

    tasks: tuple[Task, ...]
    folds: int
    scale: float
    epochs: Mapping[Task, int]

    def overlay(self, config: Config) -> dict[str, Any]:
        """The choice as a layer on top of ``config``, in keys and plain values."""
        recipes = {}
        for task in self.tasks:
            size = [scaled(pixels, self.scale) for pixels in config.recipe(task).image.size]
            recipes[str(task)] = {"image": {"size": size}, "train": {"epochs": self.epochs[task]}}
        return {
            "tasks": [str(task) for task in self.tasks],
            "folds": {"count": self.folds},
            "recipes": recipes,
        }


def scaled(pixels: int, scale: float) -> int:
    """A height or width, a multiple of 4 unless it stays as it is."""
    return pixels if scale == 1 else max(4, 4 * round(pixels * scale / 4))


def choices(config: Config) -> list[Choice]:
    """All choices, each once, from the richest to the poorest.

    First as many tasks as possible, since unlike models add more than folds of one, or its last
    epochs; then, of the fewest tasks that tell all attributes, fewer folds and epochs; then fewer
    pixels.
    """
    tasks = tuple(config.tasks)
    prefixes = [
        tasks[:n] for n in range(len(tasks), 0, -1) if _attributes(tasks[:n]) == _attributes(tasks)
    ]
    most = config.folds.count
    folds = list(dict.fromkeys((most, min(most, FEW_FOLDS))))
    least, fewest = prefixes[-1], list(dict.fromkeys((folds[-1], FEWEST_FOLDS)))
    tried = [
        (prefix, 1.0, share, count)
        for prefix in prefixes for share in EPOCH_SHARES for count in folds
    ]  # fmt: skip
    tried += [(least, 1.0, share, folds[-1]) for share in FEWER_SHARES]
    tried += [(least, SMALLER, share, count) for share in TIGHT_SHARES for count in fewest]
    found: list[Choice] = []
    for prefix, scale, share, count in tried:
        choice = Choice(prefix, count, scale, _epochs(config, prefix, share))
        if choice not in found:
            found.append(choice)
    return found


def _attributes(tasks: Sequence[Task]) -> set[str]:
    return {name for name in ATTRIBUTES for task in tasks if labels.tells(task, name)}


def _epochs(config: Config, tasks: Sequence[Task], share: float) -> dict[Task, int]:
    epochs = {}
    for task in tasks:
        recipe = config.recipe(task)
        least = math.floor(recipe.schedule.warmup_epochs) + 1
        epochs[task] = max(least, round(share * recipe.train.epochs))
    return epochs


def _an_epoch_more(config: Config, choice: Choice) -> Choice:
    """The choice with one more epoch of each task, where its recipe has one."""
    most = {task: config.recipe(task).train.epochs for task in choice.tasks}
    epochs = {task: min(most[task], count + 1) for task, count in choice.epochs.items()}
    return replace(choice, epochs=epochs)


@dataclass(frozen=True)
class Outlook:
    """A choice, the seconds that its run takes in all, and the richer choices with theirs."""

    choice: Choice
    seconds: float
    refused: Sequence[tuple[Choice, float]]


def choose(
    config: Config,
    work: Mapping[int, Sequence[JobSize]],
    forecast: Forecast,
    *,
    spent_s: float,
    photos: int,
) -> Outlook:
    """The first choice that ends within ``budget.time_s``, with as many epochs as still fit.

    ``work`` holds the jobs of all tasks for each number of folds; ``forecast`` the nodes, the plan
    and what was measured; ``spent_s`` the seconds since the program began. A choice with a task
    that was not measured is passed over: measuring stops where the budget is short. Raises
    ValueError where not even the poorest choice ends in time.
    """
    assert config.budget.time_s is not None
    limit_s = USED * config.budget.time_s

    def takes(choice: Choice) -> float | None:
        return predicted(config, choice, work[choice.folds], forecast, spent_s, photos)

    refused: list[tuple[Choice, float]] = []
    for choice in choices(config):
        seconds = takes(choice)
        if seconds is not None and seconds <= limit_s:
            longer = _an_epoch_more(config, choice)
            while longer != choice and (more_s := takes(longer)) and more_s <= limit_s:
                choice, seconds = longer, more_s
                longer = _an_epoch_more(config, choice)
            return Outlook(choice, seconds, refused)
        if seconds is not None:
            refused.append((choice, seconds))
    if not refused:
        raise ValueError("no task could be measured, so nothing can be chosen for the budget")
    poorest, seconds = refused[-1]
    raise ValueError(
        f"budget.time_s={config.budget.time_s:g} is too short: even {described(config, poorest)} "
        f"takes about {seconds:.0f} s here, as busy as this machine is now. Give --budget "
        f"{math.ceil(seconds / USED / 60)}m, or a smaller backbone"
    )


def predicted(
    config: Config,
    choice: Choice,
    work: Sequence[JobSize],
    forecast: Forecast,
    spent_s: float,
    photos: int,
) -> float | None:
    """Seconds of the whole run of a choice; None where a task of it was not measured."""
    known = forecast.measured.costs
    mine = [job for job in work if job.task in choice.tasks]
    if any(job.kind not in known for job in mine):
        return None
    ratio = choice.scale**2
    costs = {kind: _scaled_costs(cost, ratio) for kind, cost in known.items()}
    missing = forecast.measured.missing if choice.scale == 1 else photos
    jobs = [replace(job, epochs=choice.epochs[job.task]) for job in mine]
    seconds = {job.name: arithmetic.job_seconds(job, costs[job.kind], 1) for job in jobs}
    jobs.sort(key=lambda job: -seconds[job.name])
    measured = replace(forecast.measured, costs=costs, missing=missing)
    outlook = Forecast(forecast.nodes, forecast.plan, jobs, 0, {}, measured)
    arithmetic.foresee(config, outlook, spent_s, photos)
    return outlook.total


def _scaled_costs(costs: Mapping[str, float], ratio: float) -> dict[str, float]:
    """The costs of a job on ``ratio`` times the pixels."""
    factor = 1.0 if ratio == 1 else FIXED_SHARE + (1 - FIXED_SHARE) * ratio
    return {
        name: value * factor if name in ("step", "photo") else value
        for name, value in costs.items()
    }


def described(config: Config, choice: Choice) -> str:
    """A choice in words: ``multi (128 x 96, 5 of 7 epochs) in 3 folds``."""
    parts = []
    for task in choice.tasks:
        recipe = config.recipe(task)
        height, width = (scaled(pixels, choice.scale) for pixels in recipe.image.size)
        parts.append(
            f"{task} ({height} x {width}, {choice.epochs[task]} of {recipe.train.epochs} epochs)"
        )
    return f"{', '.join(parts)} in {choice.folds} folds"


def lines_of(config: Config, outlook: Outlook) -> list[str]:
    """What was chosen, and what was given up, for a reader."""
    limit_s, choice = config.budget.time_s, outlook.choice
    assert limit_s is not None
    lines = [
        f"budget {limit_s:.0f} s: {described(config, choice)}; the run should take "
        f"{outlook.seconds:.0f} s"
    ]
    left = [str(task) for task in config.tasks if task not in choice.tasks]
    given = [f"tasks {', '.join(left)}"] if left else []
    given += [
        f"{config.recipe(task).train.epochs - epochs} epochs of {task}"
        for task, epochs in choice.epochs.items()
        if epochs < config.recipe(task).train.epochs
    ]
    if choice.folds < config.folds.count:
        given.append(f"{config.folds.count - choice.folds} of {config.folds.count} folds")
    if choice.scale < 1:
        given.append("a quarter of height and width")
    if not given:
        return [*lines, "given up: nothing; all that tasks lists is trained"]
    lines.append(f"given up: {', '.join(given)}")
    if outlook.refused:
        richer, seconds = outlook.refused[-1]
        lines.append(f"the next richer, {described(config, richer)}, would take {seconds:.0f} s")
    return lines
