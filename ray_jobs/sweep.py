"""python -m ray_jobs.sweep: every (task, fold), then the vote, the submission and the scores.

With --plan: what that needs, takes and costs, and what cannot run, measured in a minute or two.
"""

from __future__ import annotations

import functools
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import ray

from maskcls import checkpoint, files, gallery, report, results, submission
from maskcls.config import Config
from maskcls.config_load import with_flags
from maskcls.finished_run import FinishedRun
from maskcls.gallery import Explained
from maskcls.images import ImageArray
from maskcls.manifest import OK
from maskcls.voting import FittedVote
from ray_jobs import cluster, console, driver, packing, run_state
from ray_jobs.driver import Lanes, RunFailed
from ray_jobs.ensemble import Ensemble
from ray_jobs.job import Errand, Job
from ray_jobs.job_queue import Event
from ray_jobs.prepare import Photos, forms_of, prepare
from ray_jobs.run_folder import RunFolder, claim, for_driver, make_jobs, read_out_of_fold
from ray_jobs.run_state import Board

log = logging.getLogger(__name__)


def main() -> None:
    # What was imported so far took this process about as long as it computed.
    imports, began = time.process_time(), time.monotonic()
    config, asked = with_flags(
        __doc__ or "", {"plan": "tell what would happen, and start nothing; 1 if a job cannot run"}
    )
    with console.answering_in_words("sweep", config), claim(config, config.tasks) as folder:
        console.setup(folder.log)
        if "plan" in asked:
            from ray_jobs import estimate  # imports PyTorch, which a sweep leaves to its lanes

            cluster.connect()
            if not estimate.show(config, folder, imports + time.monotonic() - began):
                sys.exit(1)
            return
        with run_state.keeping(folder.place, "sweep") as board:
            cluster.connect()
            sweep(config, folder, board)


def sweep(config: Config, folder: RunFolder, board: Board) -> None:
    """Run what is not done yet, vote, and write every result.

    Raises RunFailed where a model is missing, unless ensemble.allow_missing.
    """
    began = time.monotonic()
    models = [(task, fold) for task in config.tasks for fold in config.fold_numbers()]
    packing.plan(config.resources, len(models), cluster.nodes())  # refuse before any work
    board.phase("preparing photos")
    data = prepare(config, forms_of(config, config.tasks), folder.path, folder.uri)
    prepared = time.monotonic()
    jobs = make_jobs(config, folder, data, models)
    votes = folder.place / "votes" / votes_name(data.evaluation)
    ensemble = Ensemble.options(label_selector=cluster.on_this_node()).remote(
        votes.local, votes.uri
    )
    board.phase("training")
    with training(config, folder.path, jobs, ensemble, folder.uri, board) as (failed, lanes):
        trained = time.monotonic()
        done = [job for job in jobs if job.name not in failed]
        if not done:
            raise RunFailed(f"no job came to its end:\n{listed(failed)}")

        board.phase("voting and scoring")
        fitted, answers, scores = _score(config, folder, done)
        scored = time.monotonic()
        content = {
            "complete": not failed,
            "out_of_fold": scores,
            "photos": len(answers),
            "people": int(answers["person"].nunique()),
            "jobs": [job.done() for job in sorted(done, key=lambda job: (job.task, job.fold))],
            "failed": failed,
            "ensemble": {"name": config.ensemble.name, "models": len(done)},
            "votes": votes.local.name if data.evaluation else None,
            "seed": config.run.seed,
            "versions": checkpoint.versions(),
            "seconds": round(scored - began, 1),
            "phases": {
                "prepare photos": round(prepared - began, 1),
                "train and predict": round(trained - prepared, 1),
                "vote and score": round(scored - trained, 1),
            },
        }
        files.write_json(folder.scores, content)
        _show(scores)
        log.info("scores: %s", folder.scores)
        log.info("out-of-fold probabilities: %s", folder.out_of_fold)
        log.info("models: %s", folder.path / "jobs")
        incomplete = bool(failed) and not config.ensemble.allow_missing
        if data.evaluation is not None and not incomplete:
            answer(fitted, done, data.evaluation, ensemble, folder.path, data.train.table)
        log.info("report: %s", report.write(folder.path, _explainer(lanes, folder)))
        if incomplete:
            raise RunFailed(
                f"{len(failed)} of {len(jobs)} models are missing, so no submission is written:\n"
                f"{listed(failed)}\nThe same command tries them again; "
                "ensemble.allow_missing=true votes without them"
            )


def _score(
    config: Config, folder: RunFolder, done: Sequence[Job]
) -> tuple[dict[str, FittedVote], pd.DataFrame, dict[str, dict[str, Any]]]:
    """The vote, fitted out of fold and written down with all it was fitted on; its answers out of
    fold and what they score."""
    out_of_fold = read_out_of_fold(done)
    with files.replacing(folder.out_of_fold) as temporary:
        out_of_fold.to_parquet(temporary, index=False)
    fitted = results.fit(config.ensemble.name, out_of_fold)
    files.write_json(folder.ensemble, results.to_json(fitted))
    answers = results.out_of_fold_answers(config.ensemble.name, out_of_fold, seed=config.run.seed)
    return fitted, answers, results.scores(answers, seed=config.run.seed)


def _explainer(lanes: Lanes | None, folder: RunFolder) -> gallery.Explain:
    """How the report gets its heat maps: from a lane where there is one, since this process would
    import PyTorch and timm for them, which takes longer than they do."""
    if lanes is None or folder.uri is not None:  # another node has not fetched all models
        return gallery.explain

    def explain(
        run: FinishedRun, mistakes: pd.DataFrame, photos: Mapping[str, ImageArray]
    ) -> Explained:
        known = run.only(mistakes["photo"].tolist())
        make = functools.partial(gallery.explain, known, mistakes, photos)
        outcome = lanes.ask(Errand("heat maps", make))
        if outcome.report is not None:
            return outcome.report["answer"]
        log.debug("no lane made the heat maps: %s", outcome.reason)
        return make()

    return explain


@contextmanager
def training(
    config: Config,
    folder: Path,
    jobs: Sequence[Job],
    ensemble: Any | None = None,
    uri: str | None = None,
    board: Board | None = None,
) -> Iterator[tuple[dict[str, str], Lanes | None]]:
    """Run those jobs that are not done; yields what failed, and why, and the lanes, which then
    wait for more, or None where all was done.

    The ensemble is needed where jobs have photos to predict. ``uri`` is where ``folder`` lives, if
    on an object store: what the jobs left there is fetched. ``board`` shows how far they are.
    """
    pending = [job for job in jobs if job.done() is None or _owes_votes(job, ensemble)]
    trained = sum(job.done() is not None for job in jobs)
    if trained:
        log.info("%d of %d models are trained already", trained, len(jobs))
    if board is not None:
        board.expect(run_state.of_jobs(jobs))
    if not pending:
        yield {}, None
        return
    plan = packing.plan(config.resources, len(pending), cluster.nodes())
    log.info("%s", plan.reason)
    listeners: list[Callable[[Sequence[Event]], None]] = [
        console.Progress(len(jobs), len(jobs) - len(pending))
    ]
    if board is not None:
        board.state.lanes = len(plan.lanes)
        listeners.append(board.hear)
    with driver.lanes(plan, config.resources, folder=folder, ensemble=ensemble, uri=uri) as lanes:
        outcomes = lanes.run(pending, *listeners)
        for job in pending:
            job.place.pull(for_driver)
        yield {name: outcome.reason for name, outcome in outcomes.items() if outcome.reason}, lanes


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
        most_frequent = int(train.loc[train["status"] == OK, "joint"].mode().min())
        answers["ans"] = answers["ans"].where(~unreadable, most_frequent).astype("int64")
        if unreadable.any():
            log.info("%d unreadable photo(s) got class %d", unreadable.sum(), most_frequent)
    with files.replacing(out / "predictions.parquet") as temporary:
        answers.to_parquet(temporary, index=False)
    if "ans" not in answers:
        log.info("predictions: %s (no submission: these tasks do not make up a class)",
                 out / "predictions.parquet")  # fmt: skip
        return
    submission.write(
        photos["image_id"].tolist(), answers.set_index("image_id")["ans"], out / "submission.csv"
    )
    log.info("submission: %s", out / "submission.csv")


def votes_name(evaluation: Photos | None) -> str:
    """The folder that keeps the votes on these photos: other photos have another."""
    return evaluation.digest if evaluation else "none"


def _show(scores: dict[str, dict[str, Any]]) -> None:
    log.info("out of fold  macro F1 (95 %% interval)  %s", "accuracy")
    for space, values in scores.items():
        low, high = values["macro_f1_interval"]
        log.info(
            "%-11s  %.3f (%.3f to %.3f)      %.3f",
            space, values["macro_f1"], low, high, values["accuracy"],
        )  # fmt: skip


def listed(failed: dict[str, str]) -> str:
    return "\n".join(f"  {name}: {reason}" for name, reason in failed.items())


if __name__ == "__main__":
    main()
