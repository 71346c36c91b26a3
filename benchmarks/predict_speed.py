"""Fifteen models on one set of photos: a pass over the photos a model, against ours.

    python -m benchmarks.predict_speed DATA [--rounds 5] [--photos 105]

Ours decodes each photo once and hands it to all models, which two warm lanes run; the vote is part
of it. The usual way is one program with a DataLoader of two workers. Both begin with photos on disk
and with their imports behind them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import ray
import torch

from benchmarks import rows
from benchmarks.sweep_speed import BATCH, COMPUTE, DATA_BOUND, Setting
from maskcls.config.load import load
from maskcls.config.schema import Config
from maskcls.data import manifest
from maskcls.labels import ATTRIBUTES, Task
from maskcls.learning import backbones, checkpoint, heads
from maskcls.scoring import ensemble as results
from maskcls.scoring import voting
from maskcls.storage import files
from ray_jobs.cluster import connect, nodes, packing
from ray_jobs.data.photos import prepare_eval
from ray_jobs.lanes import pool
from ray_jobs.lanes.pool import Lanes
from ray_jobs.run.votes import Ensemble
from ray_jobs.training.job import Job

TASKS = (Task.MASK, Task.GENDER, Task.AGE)
LANES = 2


@dataclass
class Bench:
    """A data set whose photos are all to be predicted, and finished models of one kind."""

    folder: Path
    root: Path
    setting: Setting
    models: int
    lanes: Lanes
    ensemble: Any

    def config(self, number: int) -> Config:
        height, width = self.setting.size
        return load([], [
            f"data.root={self.root}", f"data.cache={self.folder / f'cache{number}'}",
            f"image.size=[{height},{width}]", f"model.name={self.setting.model}",
            f"train.eval_batch_size={2 * BATCH}",
        ]).config  # fmt: skip

    def train(self) -> None:
        """The folders that finished jobs leave, with random weights."""
        for job in self.jobs(self.config(0), 0, None):
            sizes = heads.sizes(job.task, job.recipe)
            model = backbones.build(
                self.setting.model, sizes, weights=None, image_size=self.setting.size
            )
            info = checkpoint.Info(
                identity=job.identity, task=job.task, fold=job.fold, recipe=job.recipe,
                classes=checkpoint.labels_of(job.task), mean=(0.5,) * 3, std=(0.5,) * 3, seed=0,
                epoch=1, scores={}, versions={},
            )  # fmt: skip
            checkpoint.save(job.folder, model.state_dict(), info)
            report = {"identity": job.identity, "task": job.task, "fold": job.fold, "epochs": 1}
            files.write_json(job.folder / "job.json", report)

    def jobs(self, config: Config, number: int, images: Any) -> list[Job]:
        """In each round under other names, since the ensemble does not ask a model twice."""
        return [
            Job(
                name=f"{number}-{place}", task=TASKS[place % len(TASKS)],
                fold=number * self.models + place, recipe=config.recipe(TASKS[place % len(TASKS)]),
                seed=0, identity="0" * 16, folder=self.folder / "models" / str(place), train=None,
                evaluation=images, group="", tracking=config.tracking,
            )
            for place in range(self.models)
        ]  # fmt: skip

    def ours(self, number: int) -> float:
        began = time.monotonic()
        config = self.config(number)
        photos = prepare_eval(config, [config.image], self.folder / f"tables{number}")
        assert photos is not None
        jobs = self.jobs(config, number, photos.images[config.image])
        outcomes = self.lanes.run(jobs)
        assert all(outcome.report for outcome in outcomes.values()), outcomes
        fitted = {
            target: voting.FittedVote("hard", 1, len(classes), {"weights": [1.0]})
            for target, classes in ATTRIBUTES.items()
            if target in results.targets(job.task for job in jobs)
        }
        ray.get(self.ensemble.vote.remote(fitted, [(str(job.task), job.fold) for job in jobs]))
        return time.monotonic() - began

    def conventional(self, listing: Path) -> float:
        command = [sys.executable, "-m", "benchmarks.conventional_predict", str(listing),
                   "--model", self.setting.model, "--size", *map(str, self.setting.size),
                   "--models", str(self.models), "--batch-size", str(BATCH)]  # fmt: skip
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=900)
        return float(done.stdout)


def to_predict(root: Path, count: int, out: Path) -> Path:
    """A data set that asks for ``count`` photos of ``root``'s training side."""
    (out / "eval" / "images").mkdir(parents=True)
    paths = manifest.read_train(root).photos["path"].head(count)
    for number, path in enumerate(paths):
        (out / "eval" / "images" / f"{number:05}.jpg").symlink_to(path)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--photos", type=int, default=105)
    parser.add_argument("--models", type=int, default=15)
    parser.add_argument("--compute-bound", action="store_true", help="Lite0 at 128 x 96 instead")
    parser.add_argument("--rows", type=Path)
    arguments = parser.parse_args()
    setting = COMPUTE if arguments.compute_bound else DATA_BOUND
    torch.manual_seed(0)
    connect.connect()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = to_predict(arguments.data, arguments.photos, folder / "data")
        listing = folder / "listing.parquet"
        pd.DataFrame({"path": [str(p) for p in sorted(root.glob("eval/images/*"))]}) \
            .to_parquet(listing)  # fmt: skip
        config = load([], [f"resources.jobs_at_once={LANES}"]).config
        plan = packing.plan(config.resources, arguments.models, nodes.nodes())
        ensemble = Ensemble.remote(folder / "votes")
        with pool.lanes(plan, config.resources, folder=folder, ensemble=ensemble) as lanes:
            bench = Bench(folder, root, setting, arguments.models, lanes, ensemble)
            bench.train()
            bench.ours(0)  # imports, in both lanes
            ratios = []
            for number in range(1, arguments.rounds + 1):
                theirs, ours = bench.conventional(listing), bench.ours(number)
                ratios.append(theirs / ours)
                print(f"  a pass a model {theirs:7.1f} s  ours {ours:7.1f} s", flush=True)
    height, width = setting.size
    what = f"prediction, {arguments.models} models ({setting.model}, {height} x {width})"
    must, aim = (None, None) if arguments.compute_bound else (4, 5)
    rows.add(
        arguments.rows,
        [rows.Row(what, "a pass over the photos a model", ratios, must, aim,
                  note=f"{arguments.photos} photos, {LANES} warm lanes; their start, once a run, "
                       "is not in it")],
    )  # fmt: skip


if __name__ == "__main__":
    main()
