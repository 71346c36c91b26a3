"""python -m ray_jobs.compare: three models, one joint head or one multi-head: same people, same
folds, one table.

Trains what is missing in run.dir, and scores each route (and all together) out of fold.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack

import pandas as pd

from maskcls.config.load import from_command_line
from maskcls.config.schema import Config
from maskcls.data import coverage
from maskcls.labels import ATTRIBUTES, Task
from maskcls.reports import finished_run
from maskcls.scoring import ensemble
from maskcls.storage import files
from ray_jobs.cluster import connect, nodes, packing
from ray_jobs.data import sources
from ray_jobs.data.photos import image_settings, prepare
from ray_jobs.run import arguments, console, state, weights
from ray_jobs.run.folder import RunFolder, claim, make_jobs, read_out_of_fold
from ray_jobs.run.jobs import run_all
from ray_jobs.run.state import Board

log = logging.getLogger(__name__)

ROUTES = finished_run.ROUTES | {"all together": list(Task)}


def main() -> None:
    config = from_command_line(__doc__ or "", arguments.words())
    with ExitStack() as stack:
        stack.enter_context(console.report_errors("compare", config))
        sources.check(config)
        folder = stack.enter_context(claim(config, list(Task)))
        board = stack.enter_context(state.keeping(folder.place, "compare"))
        console.setup(folder.log)
        weights.check(config, list(Task), folder)
        connect.connect()
        compare(config, folder, board)


def compare(config: Config, folder: RunFolder, board: Board) -> None:
    """Train every route and write routes.csv. Raises RunFailed where a model fails."""
    models = [(task, fold) for task in Task for fold in config.fold_numbers()]
    packing.plan(config.resources, len(models), nodes.nodes())  # refuse before any work
    board.phase("preparing photos")
    images = image_settings(config, list(Task))
    data = prepare(config, images, folder.path, folder.uri).without_evaluation()
    coverage.require(pd.read_parquet(data.train.table), list(Task))
    jobs = make_jobs(config, folder, data, models)
    board.phase("training")
    run_all(config, folder.path, jobs, folder.uri, board)
    board.phase("scoring")
    out_of_fold = read_out_of_fold(jobs)
    seconds = dict.fromkeys(Task, 0.0)
    for job in jobs:
        seconds[job.task] += (job.done() or {})["seconds"]
    rows = []
    for route, tasks in ROUTES.items():
        answers = ensemble.out_of_fold_answers(
            config.ensemble.name,
            out_of_fold[out_of_fold["task"].isin(tasks)],
            seed=config.run.seed,
            offsets=config.ensemble.fits_offsets,
        )
        scores = ensemble.scores(answers, seed=config.run.seed)
        low, high = scores["joint"]["macro_f1_interval"]
        rows.append(
            {
                "route": route,
                "joint macro F1": round(scores["joint"]["macro_f1"], 4),
                "95 %": f"{low:.3f} to {high:.3f}",
                "joint accuracy": round(scores["joint"]["accuracy"], 4),
                **{f"{a} macro F1": round(scores[a]["macro_f1"], 4) for a in ATTRIBUTES},
                "seconds": round(sum(seconds[task] for task in tasks), 1),
            }
        )
    table = pd.DataFrame(rows)
    files.write_table(folder.path / "routes.csv", table)
    log.info("%s", table.to_string(index=False))
    log.info("table: %s", folder.path / "routes.csv")


if __name__ == "__main__":
    main()
