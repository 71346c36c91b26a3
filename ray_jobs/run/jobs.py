"""Jobs of a run: trained on lanes, and what their models answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import ray

from maskcls import labels
from maskcls.config.schema import Config
from maskcls.data.status import OK
from maskcls.labels import LABEL_COLUMNS
from maskcls.scoring import submission
from maskcls.scoring.voting import FittedVote
from maskcls.storage import files
from ray_jobs.cluster import nodes, packing
from ray_jobs.cluster.errors import RunFailed
from ray_jobs.data.photos import Photos
from ray_jobs.lanes import pool
from ray_jobs.lanes.pool import Lanes
from ray_jobs.lanes.records import Event
from ray_jobs.run import console, state
from ray_jobs.run.folder import for_driver
from ray_jobs.run.state import Board
from ray_jobs.training.job import Job

log = logging.getLogger(__name__)


@contextmanager
def training(
    config: Config,
    folder: Path,
    jobs: Sequence[Job],
    ensemble: Any | None = None,
    uri: str | None = None,
    board: Board | None = None,
) -> Iterator[tuple[dict[str, str], Lanes | None]]:
    """Run those jobs that are not done; yields what failed, and why, and the lanes, one of which
    then waits for calls, or None where there is none: all was done, or they had GPUs, which are
    free for others by then.

    The ensemble is needed where jobs have photos to predict. ``uri`` is where ``folder`` lives, if
    on an object store: what the jobs left there is fetched. ``board`` shows how far they are.
    """
    pending = [job for job in jobs if job.done() is None or _owes_votes(job, ensemble)]
    trained = sum(job.done() is not None for job in jobs)
    if trained and any(job.train is not None for job in jobs):
        log.info("%d of %d models are trained already", trained, len(jobs))
    if board is not None:
        board.expect(state.of_jobs(jobs))
    if not pending:
        yield {}, None
        return
    plan = packing.plan(config.resources, len(pending), nodes.nodes())
    log.info("%s", plan.reason)
    log.info("starting workers; the first lines of jobs follow in half a minute or more")
    listeners: list[Callable[[Sequence[Event]], None]] = []
    if board is not None:
        board.state.lanes = len(plan.lanes)
        listeners.append(board.hear)  # first: the lines tell what it knows of the time left
    listeners.append(
        console.JobLines(
            len(jobs),
            len(jobs) - len(pending),
            trains=any(job.train is not None for job in jobs),
            time_left=board.time_left if board is not None else lambda: None,
        )
    )
    with pool.lanes(plan, config.resources, folder=folder, ensemble=ensemble, uri=uri) as lanes:
        if board is not None:
            listeners.append(lambda _: board.wait_for(lanes.waits_for))
        outcomes = lanes.run(pending, *listeners, last=True)
        for job in pending:
            job.place.pull(for_driver)
        failed = {name: outcome.reason for name, outcome in outcomes.items() if outcome.reason}
        yield failed, lanes if not plan.gpus_per_worker else None


def run_all(
    config: Config,
    folder: Path,
    jobs: Sequence[Job],
    uri: str | None = None,
    board: Board | None = None,
) -> None:
    """``training`` where every job is needed. Raises RunFailed where one fails."""
    with training(config, folder, jobs, uri=uri, board=board) as (failed, _):
        pass  # the lanes have no more to do
    if failed:
        raise RunFailed(f"{len(failed)} of {len(jobs)} models are missing:\n{listed(failed)}")


def _owes_votes(job: Job, ensemble: Any) -> bool:
    return job.evaluation is not None and not ray.get(ensemble.has.remote(str(job.task), job.fold))


def answer(
    fitted: dict[str, FittedVote],
    jobs: Sequence[Job],
    evaluation: Photos,
    ensemble: Any,
    out: Path,
    train_table: Path,
    age_limits: labels.AgeLimits,
) -> None:
    """Vote on the photos to predict and write predictions.parquet and submission.csv in ``out``."""
    models = [(str(job.task), job.fold) for job in jobs]
    answers = ray.get(ensemble.vote.remote(fitted, models))
    photos = pd.read_parquet(evaluation.table)
    answers = photos[["image_id", "status"]].merge(answers, on="image_id", how="left")
    unreadable = answers["status"] != OK
    answers["fallback"] = unreadable
    if "ans" in answers:
        train = pd.read_parquet(train_table)
        most_frequent = most_frequent_class(train[train["status"] == OK])
        answers["ans"] = answers["ans"].where(~unreadable, most_frequent).astype("int64")
        if unreadable.any():
            log.info("%d unreadable photo(s) got class %d", unreadable.sum(), most_frequent)
    files.write_table(out / "predictions.parquet", answers)
    files.write_table(out / "predictions.csv", with_names(answers, age_limits))
    log.info("predictions by name: %s", out / "predictions.csv")
    if "ans" not in answers:
        log.info("predictions: %s (no submission: these tasks do not make up a class)",
                 out / "predictions.parquet")  # fmt: skip
        return
    submission.write(
        photos["image_id"].tolist(), answers.set_index("image_id")["ans"], out / "submission.csv"
    )
    log.info("submission: %s", out / "submission.csv")


def most_frequent_class(photos: pd.DataFrame) -> int:
    """The joint class that most photos have, or what the most frequent labels make up where none
    has all three."""
    if len(known := photos.loc[photos["joint"] != labels.MISSING, "joint"]):
        return int(known.mode().min())
    columns = [photos[LABEL_COLUMNS[attribute]] for attribute in labels.ATTRIBUTES]
    return int(labels.encode(*(c[c != labels.MISSING].mode().min() for c in columns)))


def with_names(
    answers: pd.DataFrame, age_limits: labels.AgeLimits = labels.AGE_BAND_STARTS
) -> pd.DataFrame:
    """Answers for people to read: ``image_id``, the class ``ans`` where there is one, and mask,
    gender and age by their names. ``status`` says which photos could not be read."""
    named = answers[[name for name in ("image_id", "ans") if name in answers]].copy()
    parts = labels.decode(answers["ans"]) if "ans" in answers else answers
    for attribute in labels.ATTRIBUTES:
        if attribute in parts:
            names = labels.class_names(attribute, age_limits)
            known = pd.Series(parts[attribute]).reset_index(drop=True)
            named[attribute] = [names[int(one)] if one == one else "" for one in known]
    return named.assign(status=answers["status"])


def votes_name(evaluation: Photos | None) -> str:
    """The folder that keeps the votes on these photos: other photos have another."""
    return evaluation.digest if evaluation else "none"


def listed(failed: dict[str, str]) -> str:
    """Failed jobs, those of one reason on one line."""
    names: dict[str, list[str]] = {}
    for name, reason in failed.items():
        names.setdefault(reason, []).append(name)
    return "\n".join(f"  {', '.join(jobs)}: {reason}" for reason, jobs in names.items())
