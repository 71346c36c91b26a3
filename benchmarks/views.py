"""What a mirrored second view is worth, and what it costs: a finished run's models, out of fold.

    python -m benchmarks.views RUN

Each model answers the people of its fold anew: as it was trained to, mirrored, and both. The scores
are those of the run's routes in a soft vote; differences to the plain view are paired, with their
95 % interval over people. Seconds are those of a photo in one forward pass after the other.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import torch

from maskcls import labels
from maskcls.labels import ATTRIBUTES
from maskcls.learning import predict
from maskcls.reports import finished_run
from maskcls.reports.analysis import difference
from maskcls.scoring import ensemble
from ray_jobs.data.photos import image_settings, prepare
from ray_jobs.run.folder import RunFolder, make_jobs
from ray_jobs.training import plans
from ray_jobs.training.evaluate import out_of_fold_rows

VIEWS: Final = {"plain": ["plain"], "flip": ["flip"], "plain and flip": ["plain", "flip"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run", type=Path)
    run = finished_run.read(parser.parse_args().run)
    folder = RunFolder(run.folder.absolute())
    config = folder.config()
    data = prepare(config, image_settings(config, config.tasks), folder.path).without_evaluation()
    models = [(job["task"], job["fold"]) for job in run.scores["jobs"]]
    jobs = make_jobs(config, folder, data, [(labels.Task(task), fold) for task, fold in models])
    answers, seconds = {}, {}
    for name, views in VIEWS.items():
        rows, spent, photos = [], 0.0, 0
        for job in jobs:
            assert job.train is not None
            predictor, _ = predict.load(job.folder, torch.device("cpu"))
            table = job.train.photos()
            _, validation = plans.tables(table, job.task, job.fold, job.recipe, job.seed)
            began = time.monotonic()
            said = replace(predictor, views=views)(job.train.open(), validation["row"].to_numpy())
            spent, photos = spent + time.monotonic() - began, photos + len(validation)
            rows.append(out_of_fold_rows(job.task, job.fold, said, validation))
        table = ensemble.out_of_fold_answers("soft", pd.concat(rows), seed=run.seed)
        answers[name], seconds[name] = table.sort_values("photo"), spent / photos
    print(table_of(answers, seconds, run.seed).to_string(index=False))


def table_of(
    answers: dict[str, pd.DataFrame], seconds: dict[str, float], seed: int
) -> pd.DataFrame:
    plain = answers["plain"]
    rows = []
    for name, table in answers.items():
        scores = ensemble.scores(table, seed=seed)
        row = {"views": name, "ms a photo": f"{1000 * seconds[name]:.1f}"}
        for target in [target for target in ("joint", *ATTRIBUTES) if target in scores]:
            gain = difference(
                plain[f"{target}_truth"].to_numpy(np.int64),
                plain[f"{target}_predicted"].to_numpy(np.int64),
                table[f"{target}_predicted"].to_numpy(np.int64),
                plain["person"].to_numpy(),
                classes=len(labels.class_names(target)),
                seed=seed,
            )
            row[target] = f"{scores[target]['macro_f1']:.3f}"
            if name != "plain":
                row[target] += f", {gain}"
        rows.append(row)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
