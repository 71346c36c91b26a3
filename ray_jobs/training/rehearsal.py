"""The loop of a Train worker for a few seconds: what a step, a photo and a checkpoint cost here.

Everything is the real thing on a sample of the photos: the stream of Ray Data, the steps, the
validation, the files. All lanes rehearse one recipe at the same time, so that they get in each
other's way as they will in the run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from maskcls.labels import Float32Array
from maskcls.learning import checkpoint, predict
from maskcls.learning.learner import Learner, options
from ray_jobs.data import source
from ray_jobs.data import stream as pipeline
from ray_jobs.training import evaluate, fit
from ray_jobs.training.job import Job
from ray_jobs.training.session import Session

WARM_S, MEASURE_S, VALIDATE_S = 5.0, 8.0, 3.0
"""Seconds of steps that do not count, of those that do, and of validation."""

STEPS, BATCHES = 3, 2
"""Fewest steps and batches that are measured, however long they take."""

MOST_STEPS = 300
"""Most of them: the stream is made for as many."""


def run(job: Job, session: Session) -> dict[str, Any]:
    """Seconds of each part: ``build`` (tables, model, first batch and step), ``step``, ``photo``
    (in one view), ``save`` (of an epoch) and ``load`` (of a finished model), and
    ``cold``, what the first job of a process takes longer to build than the next."""
    began = time.monotonic()
    *_, stream = _begin(job, session, epochs=1)
    cold = time.monotonic() - began
    for _ in stream:
        session.beat()
    session.epoch(0, {})
    session.go_on(0)  # when all lanes have come this far
    began = time.monotonic()
    learner, plan, validation, stream = _begin(job, session, epochs=None)
    build = time.monotonic() - began
    _steps(learner, stream, plan, session, WARM_S)
    step_s = _steps(learner, stream, plan, session, MEASURE_S)
    photo_s, probabilities = _validation(learner, job, validation, session)
    saving = time.monotonic()
    if session.rank == 0:
        values = {"epoch": 1.0, "val/macro_f1": 0.0}
        weights = learner.averaged.state_dict()
        evaluate.save_best(job, learner, 1, values, probabilities, validation, weights)
        state = {"identity": job.identity, "history": [values], **learner.state()}
        checkpoint.save_resume(job.folder, state)
    saved = time.monotonic()
    if session.rank == 0:
        predict.load(job.folder, session.device)
    return {
        "build": build,
        "cold": max(0.0, cold - build),
        "step": step_s,
        "photo": photo_s,
        "save": saved - saving,
        "load": time.monotonic() - saved,
    }


def _begin(
    job: Job, session: Session, epochs: int | None
) -> tuple[Learner, source.EpochPlan, pd.DataFrame, Iterator[source.Batch]]:
    """A job's learner, plan, validation table and stream, and its first step done."""
    assert job.train is not None
    learner, plan, validation = fit.begin(job, session)
    stream = pipeline.batches(
        job.train, plan, options(job.recipe.augment),
        first_epoch=1, last_epoch=epochs or -(-(2 * MOST_STEPS + 1) // plan.steps),
        title=job.title, streams=session.streams, wait_for_cpu=session.wait_for_cpu,
    )  # fmt: skip
    # As the last epoch: the first ones may leave the backbone as it is, which costs less.
    learner.start_epoch(job.recipe.train.epochs, session.rank)
    float(fit.step(learner, next(stream), plan))
    return learner, plan, validation, stream


def _steps(
    learner: Learner,
    stream: Iterator[source.Batch],
    plan: source.EpochPlan,
    session: Session,
    seconds: float,
) -> float:
    """Seconds of a step, over at least ``seconds`` of them. All processes of a job take as many."""
    began, taken = time.monotonic(), 0
    while session.shared(
        taken < STEPS or (taken < MOST_STEPS and time.monotonic() - began < seconds)
    ):
        loss = fit.step(learner, next(stream), plan)
        taken += 1
        session.beat()
    float(loss)  # a GPU is behind: wait for it
    return (time.monotonic() - began) / taken


def _validation(
    learner: Learner, job: Job, validation: pd.DataFrame, session: Session
) -> tuple[float, dict[str, Float32Array]]:
    """Seconds of a photo, and what the model says of the sample."""
    assert job.train is not None
    photos_NHWC, rows_M = job.train.open(), validation["row"].to_numpy()
    probabilities = evaluate.validate(learner, photos_NHWC, rows_M, session)
    predictor, batch = learner.predictor(), np.resize(rows_M, job.recipe.train.eval_batch_size)
    began, taken = time.monotonic(), 0
    while taken < BATCHES or time.monotonic() - began < VALIDATE_S:
        predictor(photos_NHWC, batch, session.beat)
        taken += 1
    return (time.monotonic() - began) / taken / len(batch), probabilities
