"""python -m ray_jobs.train task=age fold=0: train one model on one fold.

A sweep in the same run.dir takes the finished job over.
"""

from __future__ import annotations

import logging

from maskcls.config.load import from_command_line
from ray_jobs.cluster import connect, nodes, packing
from ray_jobs.data import sources
from ray_jobs.data.photos import prepare
from ray_jobs.run import arguments, console, state, weights
from ray_jobs.run.folder import claim, make_jobs
from ray_jobs.run.jobs import run_all

log = logging.getLogger(__name__)


def main() -> None:
    config = from_command_line(__doc__ or "", arguments.words())
    with console.report_errors("train", config):
        if config.task is None:
            raise ValueError("task is not set: say which, as in task=age fold=0")
        sources.check(config)
        with (
            claim(config, [config.task]) as folder,
            state.keeping(folder.place, "train") as board,
        ):
            console.setup(folder.log)
            weights.check(config, [config.task], folder)
            connect.connect()
            packing.plan(config.resources, 1, nodes.nodes())  # refuses before any work
            board.phase("preparing photos")
            # Nothing to predict: that is for a sweep.
            image = config.recipe(config.task).image
            data = prepare(config, [image], folder.path, folder.uri).without_evaluation()
            (job,) = make_jobs(config, folder, data, [(config.task, config.fold)])
            board.phase("training")
            run_all(config, folder.path, [job], folder.uri, board)
            log.info("weights, scores and out-of-fold probabilities: %s", job.folder)


if __name__ == "__main__":
    main()
