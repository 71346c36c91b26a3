"""python -m ray_jobs.sweep: every (task, fold), then the vote, the submission and the scores.

With --plan: what that needs, takes and costs, and what cannot run. It starts Ray and lanes for a
minute or two to measure; in run.dir it writes plan.json, beside the run's log and configuration.

With --budget 30m (also 900s, 2h): measures, and trains as much of the tasks, in their order, as
ends in that time. The choice is kept in run.dir: the same command goes on with it.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd

from maskcls.config.load import with_flags
from maskcls.config.schema import Config
from maskcls.learning import checkpoint
from maskcls.scoring import ensemble as results
from maskcls.scoring.voting import FittedVote
from maskcls.storage import files
from ray_jobs.cluster import connect, nodes, packing
from ray_jobs.cluster.errors import RunFailed
from ray_jobs.data import sources
from ray_jobs.data.photos import image_settings, prepare
from ray_jobs.lanes.pool import Lanes
from ray_jobs.run import arguments, console, state, weights
from ray_jobs.run.folder import RunFolder, claim, make_jobs, read_out_of_fold
from ray_jobs.run.jobs import answer, listed, training, votes_name
from ray_jobs.run.state import Board
from ray_jobs.run.votes import Ensemble
from ray_jobs.training.job import Job

log = logging.getLogger(__name__)


def main() -> None:
    # What was imported so far took this process about as long as it computed.
    imports, began = time.process_time(), time.monotonic()
    config, asked = with_flags(
        __doc__ or "",
        {"plan": "measure and say what would happen, but train nothing; 1 if a job cannot run"},
        arguments.words(options={"--budget": "budget.time_s"}),
    )
    with ExitStack() as stack:
        stack.enter_context(console.report_errors("sweep", config))
        chosen = None
        if config.budget.time_s is not None:
            from ray_jobs.forecast import choosing

            chosen = choosing.chosen_before(config)
        config = chosen or config
        sources.check(config)
        folder = stack.enter_context(claim(config, config.tasks))
        console.setup(folder.log)
        if "plan" in asked:
            from ray_jobs.forecast import (
                measure,  # imports PyTorch, which a sweep leaves to its lanes
            )

            weights.check(config, config.tasks, folder)
            connect.connect()
            if not measure.show(config, folder, imports + time.monotonic() - began):
                sys.exit(1)
            return
        board = stack.enter_context(state.keeping(folder.place, "sweep"))
        weights.check(config, config.tasks, folder)
        connect.connect()
        if config.budget.time_s is not None and chosen is None:
            board.phase("measuring, to choose for the budget")
            config = choosing.choose(config, folder, imports + time.monotonic() - began)
        sweep(config, folder, board)
        if config.budget.time_s is not None:
            took = imports + time.monotonic() - began
            share = took / config.budget.time_s
            log.info("budget: %.0f of %.0f s (%.0f %%)", took, config.budget.time_s, 100 * share)


def sweep(config: Config, folder: RunFolder, board: Board) -> None:
    """Run what is not done yet, vote, and write every result.

    Raises RunFailed where a model is missing, unless ensemble.allow_missing.
    """
    began = time.monotonic()
    models = [(task, fold) for task in config.tasks for fold in config.fold_numbers()]
    packing.plan(config.resources, len(models), nodes.nodes())  # refuse before any work
    board.phase("preparing photos")
    data = prepare(config, image_settings(config, config.tasks), folder.path, folder.uri)
    prepared = time.monotonic()
    jobs = make_jobs(config, folder, data, models)
    votes = folder.place / "votes" / votes_name(data.evaluation)
    ensemble = Ensemble.options(label_selector=nodes.on_this_node()).remote(votes.local, votes.uri)
    board.phase("training")
    with training(config, folder.path, jobs, ensemble, folder.uri, board) as (failed, lanes):
        trained = time.monotonic()
        done = [job for job in jobs if job.name not in failed]
        if not done:
            raise RunFailed(f"no job finished:\n{listed(failed)}")

        board.phase("voting and scoring")
        fitted, answers, scores = _score(config, folder, done)
        content = _content(config, answers, scores, done, failed)
        content["ensemble"]["fitted"] = results.to_json(fitted)
        content["pseudo"] = data.pseudo
        content["votes"] = votes.local.name if data.evaluation else None
        phases = {
            "prepare photos": prepared - began,
            "start workers, train, predict": trained - prepared,
            "vote and score": time.monotonic() - trained,
        }
        content["seconds"] = round(sum(phases.values()), 1)
        content["phases"] = {name: round(seconds, 1) for name, seconds in phases.items()}
        files.write_json(folder.scores, content)
        _show(scores, fitted)
        log.info("scores: %s", folder.scores)
        log.info("out-of-fold probabilities: %s", folder.out_of_fold)
        log.info("models: %s", folder.path / "jobs")
        incomplete = bool(failed) and not config.ensemble.allow_missing
        if data.evaluation is not None and not incomplete:
            table, limits = data.train.table, config.labels.age_limits
            answer(fitted, done, data.evaluation, ensemble, folder.path, table, limits)
        log.info("report: %s", _report(folder, lanes))
        if incomplete:
            raise RunFailed(
                f"{len(failed)} of {len(jobs)} models are missing, so no submission is written:\n"
                f"{listed(failed)}\nThe same command tries them again; "
                "ensemble.allow_missing=true votes without them"
            )


def _content(
    config: Config,
    answers: pd.DataFrame,
    scores: dict[str, dict[str, Any]],
    done: Sequence[Job],
    failed: dict[str, str],
) -> dict[str, Any]:
    """What scores.json keeps of a run, but for how long it took."""
    return {
        "complete": not failed,
        "out_of_fold": scores,
        "photos": len(answers),
        "people": int(answers["person"].nunique()),
        "jobs": [job.done() for job in sorted(done, key=lambda job: (job.task, job.fold))],
        "failed": failed,
        "ensemble": {
            "name": config.ensemble.name,
            "offsets": config.ensemble.fits_offsets,
            "models": len(done),
        },
        "seed": config.run.seed,
        "versions": checkpoint.versions(),
    }


def _score(
    config: Config, folder: RunFolder, done: Sequence[Job]
) -> tuple[dict[str, FittedVote], pd.DataFrame, dict[str, dict[str, Any]]]:
    """The vote, fitted out of fold and written down with all it was fitted on; its answers out of
    fold and what they score."""
    out_of_fold = read_out_of_fold(done)
    files.write_table(folder.out_of_fold, out_of_fold)
    name, offsets = config.ensemble.name, config.ensemble.fits_offsets
    fitted = results.fit(name, out_of_fold, offsets=offsets)
    files.write_json(folder.ensemble, results.to_json(fitted))
    answers = results.out_of_fold_answers(name, out_of_fold, seed=config.run.seed, offsets=offsets)
    limits = config.labels.age_limits
    return fitted, answers, results.scores(answers, seed=config.run.seed, age_limits=limits)


def _show(scores: dict[str, dict[str, Any]], fitted: dict[str, FittedVote]) -> None:
    log.info("out of fold  macro F1 (95 % interval)  accuracy")
    for space, values in scores.items():
        low, high = values["macro_f1_interval"]
        log.info(
            "%-11s  %.3f (%.3f to %.3f)      %.3f",
            space, values["macro_f1"], low, high, values["accuracy"],
        )  # fmt: skip
    for target, vote in fitted.items():
        if vote.offsets is not None:
            log.info(
                "offsets of %s: %s, gain %+.3f (%+.3f to %+.3f) on people who had no part in "
                "fitting them", target, "used" if vote.offsets["used"] else "not used",
                vote.offsets["gain"], vote.offsets["low"], vote.offsets["high"],
            )  # fmt: skip


def _report(folder: RunFolder, lanes: Lanes | None) -> Path:
    from ray_jobs.run import reporting  # Matplotlib: seconds that no start should wait for

    return reporting.write(folder, lanes)


if __name__ == "__main__":
    main()
