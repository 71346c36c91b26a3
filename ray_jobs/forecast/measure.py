"""What a sweep needs, takes and costs, and what of it cannot run: before anything starts."""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray

from maskcls.config import layers
from maskcls.config.methods import NoSampler
from maskcls.config.recipe import People, Recipe
from maskcls.config.schema import Config
from maskcls.data import prepared
from maskcls.data.manifest import Manifest
from maskcls.data.preprocess import Preprocessing
from maskcls.data.status import OK
from maskcls.labels import LABEL_COLUMNS, Task
from maskcls.learning import heads
from maskcls.learning.learner import options
from maskcls.progress import Progress
from maskcls.storage import files
from maskcls.storage.place import Place
from ray_jobs.cluster import nodes as cluster
from ray_jobs.cluster import packing
from ray_jobs.cluster.errors import Refused
from ray_jobs.cluster.nodes import Node
from ray_jobs.cluster.packing import Plan
from ray_jobs.data import sources
from ray_jobs.data.photos import (
    Dataset,
    decide_crops,
    image_settings,
    known_images,
    photos_to_predict,
    prepare_photos,
    training_photos,
)
from ray_jobs.forecast import arithmetic, table
from ray_jobs.forecast.arithmetic import Forecast, JobSize, Measured
from ray_jobs.lanes import pool
from ray_jobs.lanes.records import Event
from ray_jobs.run.folder import RunFolder, make_jobs
from ray_jobs.training import plans

log = logging.getLogger(__name__)

SAMPLE = 320
"""Photos, at least, that are decoded and trained on to measure."""


def show(config: Config, folder: RunFolder, startup: float) -> bool:
    """Tell what a sweep would do, and keep it as plan.json; whether all of it can run.

    ``startup``: seconds that this program itself took until it was connected. Raises ValueError or
    FileNotFoundError for photos that cannot be used at all.
    """
    opened = sources.opened(config)
    found = training_photos(config, opened, look_for_copies=False)
    evaluation = photos_to_predict(config, opened)
    predicted = len(evaluation.photos) if evaluation else 0
    work, done, problems = work_of(config, folder, found.photos, predicted)
    nodes = packing.with_promised(config.resources, cluster.nodes())
    plan = None
    try:
        plan = packing.plan(config.resources, max(1, len(work)), nodes)
    except Refused as error:
        problems["every job"] = str(error)
    measured = Measured()
    if plan and work:
        kinds = {job.kind: job.task for job in reversed(work)}
        measured = measure(config, folder, plan, nodes, kinds, found, evaluation, opened)
        for job in work:
            if job.kind in measured.failed:
                problems[job.name] = measured.failed[job.kind]
    outlook = Forecast(nodes, plan, work, done, problems, measured)
    arithmetic.foresee(config, outlook, startup, len(found.photos) + predicted)
    for line in table.lines_of(config, outlook):
        log.info("%s", line)
    files.write_json(folder.path / "plan.json", table.content(outlook))
    log.info("plan: %s", folder.path / "plan.json")
    return not problems


def work_of(
    config: Config, folder: RunFolder, photos: pd.DataFrame, predicted: int
) -> tuple[list[JobSize], int, dict[str, str]]:
    """The jobs that are not done yet, in the order of the queue; how many are; and why some cannot
    be done. Photos that turn out unreadable are counted."""
    photos = photos.assign(status=OK)
    work: list[JobSize] = []
    problems: dict[str, str] = {}
    done = 0
    for task in config.tasks:
        recipe = config.recipe(task)
        for fold in config.fold_numbers():
            name = f"{task}-fold{fold}"
            if (folder.job(task, fold) / "job.json").is_file():
                done += 1
                continue
            try:
                training, validation = plans.tables(photos, task, fold, recipe, config.run.seed)
                workers = config.resources.workers_per_job
                plan = plans.epoch_plan(task, recipe, config.run.seed, training, 0, workers)
                _check_losses(task, recipe, training)
            except ValueError as error:
                problems[name] = str(error)
                continue
            work.append(
                JobSize(
                    name,
                    task,
                    fold,
                    kind=_kind(task, recipe),
                    training=len(training),
                    steps=plan.steps,
                    validation=len(validation),
                    epochs=recipe.train.epochs,
                    predicted=predicted,
                    views=len(recipe.predict.views),
                    answers_again=recipe.predict.answers_again,
                )
            )
    pixels = {task: int(np.prod(config.recipe(task).image.size)) for task in config.tasks}
    work.sort(key=lambda job: -job.epochs * pixels[job.task])
    return work, done, problems


def _check_losses(task: Task, recipe: Recipe, training: pd.DataFrame) -> None:
    """Build what a worker would build in the end."""
    labels = {name: training[name].to_numpy() for name in (*LABEL_COLUMNS.values(), "age")}
    for head in heads.build(task, recipe).values():
        head.loss(labels, options(recipe.loss))


def _kind(task: Task, recipe: Recipe) -> str:
    """The same for recipes whose steps cost the same: who is trained on, for how long and at which
    rate does not matter, nor does the loss, which is built anew for each job beforehand."""
    kept = recipe.model_dump(
        mode="json", exclude={"people": True, "sampler": True, "schedule": True, "loss": True,
                              "train": {"epochs", "patience", "lr", "freeze_epochs"}}
    )  # fmt: skip
    return layers.digest(kept, task is Task.MULTI)


def measure(
    config: Config,
    folder: RunFolder,
    plan: Plan,
    nodes: Sequence[Node],
    kinds: Mapping[str, Task],
    found: Manifest,
    evaluation: Manifest | None,
    opened: sources.Opened,
    enough_s: float = math.inf,
) -> Measured:
    """What the parts of a sweep cost here. ``kinds`` of job are measured in their order, each on
    the recipe of its task; after ``enough_s`` seconds no further one is begun."""
    began = time.monotonic()
    measured = Measured()
    decided = decide_crops(config, found, image_settings(config, config.tasks))
    images = list(dict.fromkeys(decided.values()))
    recipes = list(dict.fromkeys(map(Preprocessing.of, known_images(config, found, images))))
    threads = os.cpu_count() or 1
    for side in filter(None, (found, evaluation)):
        if prepared.unprepared(side.photos, recipes, config.data.cache, threads=threads):
            measured.missing += len(side.photos)
    measured.lookup = time.monotonic() - began
    aside = folder.path / ".plan"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        sampled = time.monotonic()
        sample = _sample(found.photos)
        there = config.model_copy(
            update={"data": config.data.model_copy(update={"cache": aside / "cache"})}
        )
        photos = prepare_photos(
            there, Manifest(sample, []), images, Place(aside), "sample.parquet", opened
        )
        measured.decode = (time.monotonic() - sampled) / len(sample)
        lanes = None if folder.uri and len(nodes) > 1 else _lanes_now(config, plan, nodes)
        if lanes is not None:
            data = Dataset(photos, None, "rehearsal", completed=decided)
            _rehearse(config, lanes, kinds, data, aside, measured, began + enough_s)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    measured.took = time.monotonic() - began
    return measured


def _lanes_now(config: Config, plan: Plan, nodes: Sequence[Node]) -> Plan | None:
    """Those lanes of the plan that nodes which are up carry; None where there is none."""
    lanes = plan.lanes_on([node for node in nodes if node.id])
    if not lanes and config.plan.start_node:
        lanes = 1
    return replace(plan, lanes=plan.lanes[:lanes]) if lanes else None


def _sample(photos: pd.DataFrame) -> pd.DataFrame:
    """All photos of a few people of every fold."""
    people = photos.drop_duplicates("person").sort_values("person")
    each = -(-SAMPLE * len(people) // (len(photos) * people["fold"].nunique()))
    chosen = people.groupby("fold").head(each)["person"]
    return photos[photos["person"].isin(chosen)].reset_index(drop=True)


def _rehearse(
    config: Config,
    plan: Plan,
    kinds: Mapping[str, Task],
    data: Dataset,
    folder: Path,
    measured: Measured,
    until: float,
) -> None:
    """Every kind of job for a few seconds, in all lanes at the same time."""
    began = time.monotonic()
    with pool.lanes(plan, config.resources, folder=folder) as lanes:
        for kind, task in kinds.items():
            if measured.costs and time.monotonic() > until:
                break
            (job,) = make_jobs(config, RunFolder(folder), data, [(task, 0)])
            recipe = job.recipe.model_copy(update={"people": People(), "sampler": NoSampler()})
            jobs = []
            for lane in plan.lanes:
                name = f"{task}-lane{lane.number}"
                lane_job = replace(job, name=name, folder=folder / name, recipe=recipe)
                jobs.append(replace(lane_job, purpose="rehearse"))
            log.info("measuring %s in %d lane(s)", task, len(jobs))
            together = _Together(lanes.queue, [job.name for job in jobs], began, str(task))
            outcomes = lanes.run(jobs, together)
            if not measured.starts:
                measured.starts = together.started
            failed = [outcome.reason for outcome in outcomes.values() if outcome.reason]
            if failed:
                measured.failed[kind] = failed[0]
            else:
                reports = pd.DataFrame([outcome.report or {} for outcome in outcomes.values()])
                measured.costs[kind] = {str(part): float(reports[part].mean()) for part in reports}


class _Together:
    """Lets jobs of a rehearsal go on when the last one is ready, and shows how long that takes."""

    def __init__(self, queue: Any, names: Sequence[str], began: float, task: str) -> None:
        self._line = Progress(f"measuring {task}")
        self._queue, self._began = queue, began
        self._expected, self._ready = set(names), set[str]()
        self.started: list[float] = []

    def __call__(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.kind == "started":
                self.started.append(time.monotonic() - self._began)
            elif event.kind == "epoch":
                self._ready.add(event.job)
            elif event.kind != "lost":
                self._expected.discard(event.job)
                self._ready.discard(event.job)
        self._line.wait()
        if self._ready and self._ready == self._expected:
            ray.get([self._queue.decide.remote(name, 0, True) for name in self._ready])
            self._ready.clear()
