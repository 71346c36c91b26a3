"""python -m ray_jobs.train task=age fold=0: train one model on one fold.

A sweep in the same run.dir takes the finished job over.

With --find-lr it trains nothing that is kept: a hundred steps whose learning rate rises from 1e-5
to 1, and the rate to begin with, in the folder range_test of run.dir.
"""

from __future__ import annotations

import logging

from maskcls.config.load import with_flags
from maskcls.config.schema import Config
from maskcls.labels import Task
from ray_jobs.cluster import connect, nodes, packing
from ray_jobs.data import sources
from ray_jobs.data.photos import prepare
from ray_jobs.run import arguments, console, state, weights
from ray_jobs.run.folder import RunFolder, claim, make_jobs
from ray_jobs.run.jobs import run_all
from ray_jobs.run.state import Board
from ray_jobs.training.job import Job

log = logging.getLogger(__name__)


def main() -> None:
    config, asked = with_flags(
        __doc__ or "",
        {"find-lr": "try learning rates instead, and suggest one"},
        arguments.words(),
    )
    with console.report_errors("train", config):
        if (task := config.task) is None:
            raise ValueError("task is not set: say which, as in task=age fold=0")
        if "find-lr" in asked:
            config = _aside(config)
        sources.check(config)
        with (
            claim(config, [task]) as folder,
            state.keeping(folder.place, "train") as board,
        ):
            console.setup(folder.log)
            weights.check(config, [task], folder)
            connect.connect()
            packing.plan(config.resources, 1, nodes.nodes())  # refuses before any work
            job = _job(config, task, folder, board)
            if "find-lr" in asked:
                from ray_jobs.forecast import learning_rate

                board.phase("trying learning rates")
                learning_rate.find(config, folder.path, job)
                return
            board.phase("training")
            run_all(config, folder.path, [job], folder.uri, board)
            log.info("weights, scores and out-of-fold probabilities: %s", job.folder)


def _aside(config: Config) -> Config:
    """The same in a folder of its own: training with another rate is another configuration."""
    folder = RunFolder.of(config)
    if folder.uri is not None:
        raise ValueError(f"--find-lr needs a folder on this machine as run.dir, not {folder.uri}")
    run = config.run.model_copy(update={"dir": folder.path / "range_test"})
    return config.model_copy(update={"run": run})


def _job(config: Config, task: Task, folder: RunFolder, board: Board) -> Job:
    """The job of the configuration's fold, its photos prepared. Nothing to predict: that is for a
    sweep."""
    board.phase("preparing photos")
    image = config.recipe(task).image
    data = prepare(config, [image], folder.path, folder.uri).without_evaluation()
    (job,) = make_jobs(config, folder, data, [(task, config.fold)])
    return job


if __name__ == "__main__":
    main()
