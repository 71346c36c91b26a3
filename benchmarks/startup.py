"""Time outside training: a naive `TorchTrainer.fit` a job, against a job in a warm lane.

    python -m benchmarks.startup [--rounds 5]

The same tiny job each time. What is not training is all of its time but its epochs at the speed of
the last one: the first also starts a stream. The naive way has Ray's own settings.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from benchmarks import rows
from examples.drawn_faces import draw
from maskcls.config.load import load
from maskcls.labels import Task
from maskcls.learning import tracking
from ray_jobs.cluster import connect, nodes, packing
from ray_jobs.data.photos import image_settings, prepare
from ray_jobs.lanes import pool
from ray_jobs.lanes.pool import Lanes
from ray_jobs.run.folder import RunFolder, make_jobs
from ray_jobs.training import fit
from ray_jobs.training.job import Job

WORDS = (
    "tasks=[age]", "folds.count=3", "image.size=[32,24]", "model.name=test_efficientnet",
    "train.epochs=2", "folds.allow_thin=true",
)  # fmt: skip


class Alone:
    """The session of a worker that nobody waits for."""

    rank, world, node, device = 0, 1, "", torch.device("cpu")

    def beat(self, done: int = 0, total: int = 0) -> None: ...

    def epoch(self, number: int, values: dict[str, float]) -> None: ...

    def streams(self) -> int:
        return 1

    def wait_for_cpu(self) -> None: ...

    def shared(self, value: Any) -> Any:
        return value

    def go_on(self, number: int) -> bool:
        return True

    def vote(self, job: Job, keys: list[str], probabilities: Any) -> None: ...

    def has_voted(self, job: Job) -> bool:
        return True


def train_alone(config: dict[str, Any]) -> None:
    """The naive ``train_loop_per_worker``."""
    torch.set_num_threads(config["threads"])
    fit.run(config["job"], Alone())


def naive(job: Job, threads: int) -> None:
    with _settings_of_ray():
        TorchTrainer(
            train_alone,
            train_loop_config={"job": job, "threads": threads},
            # No CPU, as for our lanes: Ray Data's tasks need both.
            scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"memory": 1}),
            run_config=RunConfig(name=job.name, storage_path=str(job.folder.parent / "ray")),
        ).fit()


@contextmanager
def _settings_of_ray() -> Iterator[None]:
    """Without what ``cluster.quiet`` sets for Ray Train."""
    ours = {name: os.environ.pop(name) for name in list(os.environ) if "RAY_TRAIN_" in name}
    try:
        yield
    finally:
        os.environ.update(ours)


def in_lane(lanes: Lanes, job: Job) -> None:
    (outcome,) = lanes.run([job]).values()
    assert outcome.report, outcome.reason


def outside_training(job: Job, seconds: float) -> float:
    epochs = tracking.read_metrics(job.folder)["seconds"]
    return seconds - len(epochs) * float(epochs.iloc[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=Path)
    arguments = parser.parse_args()
    connect.connect()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = draw.draw(folder / "data", people=42, eval_people=6, height=64, width=48)
        config = load([], [f"data.root={root}", f"data.cache={folder / 'cache'}", *WORDS]).config
        data = prepare(config, image_settings(config, [Task.AGE]), folder).without_evaluation()
        (first, *_) = make_jobs(config, RunFolder(folder), data, [(Task.AGE, 0)])
        resources = config.resources.model_copy(update={"jobs_at_once": 1})
        plan = packing.plan(resources, 1, nodes.nodes())

        def job(name: str) -> Job:
            return replace(first, name=name, folder=folder / "jobs" / name)

        with pool.lanes(plan, resources, folder=folder) as lanes:
            in_lane(lanes, job("warm-up"))
            naive(job("naive-warm-up"), plan.threads)
            outside: dict[str, list[float]] = {"naive": [], "lane": []}
            for number in range(arguments.rounds):
                for kind in outside:
                    one = job(f"{kind}{number}")
                    if kind == "lane":
                        # In a sweep a job follows another: during the naive fit Ray ended the
                        # processes of Ray Data, which had nothing to do.
                        in_lane(lanes, job(f"before{number}"))
                    began = time.monotonic()
                    naive(one, plan.threads) if kind == "naive" else in_lane(lanes, one)
                    outside[kind].append(outside_training(one, time.monotonic() - began))
                    print(f"  {kind:6} {outside[kind][-1]:6.2f} s outside training", flush=True)
    rows.add(
        arguments.rows,
        [rows.Row("time outside training, a job, times less", "naive TorchTrainer.fit",
                  [a / b for a, b in zip(outside["naive"], outside["lane"], strict=True)], 5, 8.3,
                  note="a job in a lane after another; the bounds are 5 and 3 s against 25 s")],
    )  # fmt: skip


if __name__ == "__main__":
    main()
