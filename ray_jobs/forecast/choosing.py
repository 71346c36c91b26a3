"""Choosing for a budget, once a run: measure, choose, and keep the choice in its folder."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from maskcls.config.layers import merged
from maskcls.config.schema import Config
from maskcls.storage import files
from ray_jobs.cluster import nodes as cluster
from ray_jobs.cluster import packing
from ray_jobs.data import sources
from ray_jobs.data.photos import photos_to_predict, training_photos
from ray_jobs.forecast import budget
from ray_jobs.forecast.arithmetic import Forecast, JobSize
from ray_jobs.run.folder import RunFolder

log = logging.getLogger(__name__)

MEASURING_SHARE: Final = 0.12
"""Share of the budget after which no further kind of job is measured."""


def chosen_before(config: Config) -> Config | None:
    """The configuration that this run has chosen, or None where it has not yet.

    Raises ValueError where it was chosen for another budget or for other recipes, and where
    ``run.dir`` is not a folder of this machine.
    """
    folder = RunFolder.of(config)
    if folder.uri is not None:
        raise ValueError(f"--budget needs a folder on this machine as run.dir, not {folder.uri}")
    path = folder.path / "budget.json"
    if not path.is_file():
        return None
    kept = files.read_json(path)
    if kept["asked"] != _asked(config):
        raise ValueError(
            f"run.dir={config.run.dir} was chosen for budget.time_s={kept['asked']['time_s']:g} or "
            "for other tasks or folds: choose another run.dir (or delete this one)"
        )
    log.info("chosen for the budget before, and kept: %s", kept["lines"][0])
    return _with(config, kept["choice"])


def choose(config: Config, folder: RunFolder, spent_s: float) -> Config:
    """Measure, choose what is trained in ``budget.time_s``, write it to ``budget.json`` and the
    run's configuration, and return that.

    ``spent_s``: seconds since the program began. Raises ValueError where nothing ends in time.
    """
    from ray_jobs.forecast import measure  # imports PyTorch, which a sweep leaves to its lanes

    began = time.monotonic()
    assert config.budget.time_s is not None
    opened = sources.opened(config)
    evaluation = photos_to_predict(config, opened)
    found = training_photos(config, opened)
    predicted = len(evaluation.photos) if evaluation else 0
    work = _work(config, folder, predicted, opened)
    jobs = work[config.folds.count]
    kinds = {job.kind: job.task for job in sorted(jobs, key=lambda j: config.tasks.index(j.task))}
    nodes = packing.with_promised(config.resources, cluster.nodes())
    plan = packing.plan(config.resources, len(jobs), nodes)
    measured = measure.measure(
        config, folder, plan, nodes, kinds, found, evaluation, opened,
        enough_s=MEASURING_SHARE * config.budget.time_s,
    )  # fmt: skip
    if measured.failed:
        raise ValueError(f"cannot measure: {next(iter(measured.failed.values()))}")
    outlook = budget.choose(
        config,
        work,
        Forecast(nodes, plan, jobs, 0, {}, measured),
        spent_s=spent_s + time.monotonic() - began,
        photos=len(found.photos) + predicted,
    )
    lines = budget.lines_of(config, outlook)
    for line in lines:
        log.info("%s", line)
    overlay = outlook.choice.overlay(config)
    content = {
        "asked": _asked(config),
        "choice": overlay,
        "predicted_s": round(outlook.seconds, 1),
        "measuring_s": round(measured.took, 1),
        "lines": lines,
    }
    chosen = _with(config, overlay)
    files.write_text(folder.path / "config.yaml", chosen.yaml())
    files.write_json(folder.path / "budget.json", content)  # last: who finds it finds both
    return chosen


def _work(
    config: Config, folder: RunFolder, predicted: int, opened: sources.Opened
) -> dict[int, list[JobSize]]:
    """The jobs of all tasks, for each number of folds that may be chosen.

    Raises ValueError where one of them cannot be trained, naming it.
    """
    from ray_jobs.forecast import measure

    work: dict[int, list[JobSize]] = {}
    for count in dict.fromkeys(choice.folds for choice in budget.choices(config)):
        there = _with(config, {"folds": {"count": count}})
        photos = training_photos(there, opened).photos
        work[count], _, problems = measure.work_of(there, folder, photos, predicted)
        if problems:
            raise ValueError("\n".join(f"{name}: {why}" for name, why in problems.items()))
    return work


def _asked(config: Config) -> dict[str, Any]:
    """What a choice is made of, but for the machine."""
    return {
        "time_s": config.budget.time_s,
        "tasks": [str(task) for task in config.tasks],
        "folds": config.folds.count,
        "recipes": {str(t): config.recipe(t).model_dump(mode="json") for t in config.tasks},
    }


def _with(config: Config, overlay: dict[str, Any]) -> Config:
    return Config.model_validate(merged(config.model_dump(mode="json"), overlay))
