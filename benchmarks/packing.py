"""Fifteen unequal jobs on logical GPUs: how long they take against the best possible schedule.

    python -m benchmarks.packing [--gpus 1 2 4 8] [--rounds 5]

The jobs sleep; driver, queue and lanes are the real ones, one lane a GPU, all of them up before the
clock runs. The driver sees a job's epochs and pixels and not what else its time depends on, by
which times differ here by a tenth up or down. The best schedule is a mixed-integer programme's, or
its lower bound where that is not solved in time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import ray
from scipy.optimize import Bounds, LinearConstraint, milp

from benchmarks import rows, sleeping
from benchmarks.sleeping import SleepingJob
from maskcls.config.load import load
from maskcls.config.schema import Config, Resources
from maskcls.data.preprocess import Preprocessing
from maskcls.labels import Task
from ray_jobs.cluster import connect, nodes, packing
from ray_jobs.data.photos import Dataset, Photos
from ray_jobs.data.source import ImageSource
from ray_jobs.lanes import pool as driver
from ray_jobs.lanes.pool import Lanes
from ray_jobs.run.folder import RunFolder, make_jobs

FOLDS = 3
SOLVE_S = 10.0
"""Longest time for the best schedule of one round."""


def jobs(seed: int, mean_s: float) -> list[SleepingJob]:
    """Five tasks of three folds in the order in which a sweep would submit them."""
    rng = np.random.default_rng(seed)
    words = [f"folds.count={FOLDS}", f"tasks=[{','.join(Task)}]"]
    for task in Task:
        words += [f"recipes.{task}.train.epochs={rng.integers(10, 41)}",
                  f"recipes.{task}.image.size=[{32 * rng.integers(8, 13)},288]"]  # fmt: skip
    config = load([], words).config
    made = make_jobs(
        config,
        RunFolder(Path("/nowhere")),
        _no_photos(config),
        [(task, fold) for task in Task for fold in range(FOLDS)],
    )
    costs = np.array([j.recipe.train.epochs * j.recipe.image.size[0] for j in made], float)
    seconds = mean_s * costs / costs.mean() * rng.uniform(0.9, 1.1, len(made))
    return [
        SleepingJob(**{**vars(job), "name": f"{seed}-{job.name}", "sleep_s": float(sleep)})
        for job, sleep in zip(made, seconds, strict=True)
    ]


def _no_photos(config: Config) -> Dataset:
    source = ImageSource(Path("/nowhere"), Path("/nowhere"), Preprocessing(1, 1))
    forms = {config.recipe(task).image: source for task in Task}
    return Dataset(Photos(Path("/nowhere"), forms), None, "")


def best_makespan(seconds_J: Sequence[float], machines: int) -> float:
    """The shortest time in which the jobs can be done, or the best lower bound found."""
    times_J = np.asarray(seconds_J)
    count = len(times_J)
    # Unknowns: whether job j runs on machine m (row by row), and the makespan.
    once = LinearConstraint(np.c_[np.kron(np.eye(count), np.ones(machines)), np.zeros(count)], 1, 1)
    ends = LinearConstraint(
        np.c_[np.kron(times_J, np.eye(machines)), -np.ones(machines)], -np.inf, 0
    )
    least = max(times_J.max(), times_J.sum() / machines)
    choices = count * machines
    found = milp(
        np.r_[np.zeros(choices), 1],
        constraints=[once, ends],
        integrality=np.r_[np.ones(choices), 0],
        bounds=Bounds(np.r_[np.zeros(choices), least], np.r_[np.ones(choices), times_J.sum()]),
        options={"time_limit": SOLVE_S, "mip_rel_gap": 1e-3},
    )
    return max(least, float(found.mip_dual_bound))


def share_of_best(lanes: Lanes, made: Sequence[SleepingJob]) -> float:
    """The best possible time over the time taken."""
    began = time.monotonic()
    outcomes = lanes.run(made)
    taken = time.monotonic() - began
    assert all(outcome.report for outcome in outcomes.values()), outcomes
    return best_makespan([job.sleep_s for job in made], len(lanes.threads)) / taken


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mean", type=float, default=1.5, help="seconds of a job (1.5)")
    parser.add_argument("--rows", type=Path)
    arguments = parser.parse_args()
    connect.quiet()
    ray.init(num_gpus=sum(arguments.gpus), include_dashboard=False, log_to_driver=False)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(sleeping.asleep())
        running = []
        for gpus in arguments.gpus:
            resources = Resources(gpus_per_worker=1, jobs_at_once=gpus, allow_cpu=True)
            plan = packing.plan(resources, FOLDS * len(Task), nodes.nodes())
            lanes = driver.lanes(plan, resources, folder=folder / str(gpus))
            running.append(stack.enter_context(lanes))
            sleeping.wake(running[-1])
        ratios = []
        for number in range(arguments.rounds):
            made = jobs(number, arguments.mean)
            # All at the same time: sleeping takes no CPU.
            with ThreadPoolExecutor(len(running)) as pool:
                ratios.append(list(pool.map(share_of_best, running, [made] * len(running))))
            print("  ".join(f"{ratio:.3f}" for ratio in ratios[-1]), flush=True)
    rows.add(
        arguments.rows,
        [
            rows.Row(f"15 unequal jobs on {gpus} logical GPU(s)", "best possible schedule",
                     list(of_gpus), 0.93, 0.97, note=f"jobs of {arguments.mean:g} s on average")
            for gpus, of_gpus in zip(arguments.gpus, zip(*ratios, strict=True), strict=True)
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
