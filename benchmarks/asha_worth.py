"""Is ASHA worth it? Against a grid of configurations that were all trained in full.

    python -m benchmarks.asha_worth --out FOLDER [--seeds 50]

Every configuration of the grid is trained to the end once, on drawn faces, and its learning curve
kept in FOLDER (a second call only evaluates). Then Ray's ASHA scheduler, the class that
`ray_jobs.tune` uses, judges trials that replay these curves, in a random order, on two lanes.
Random search gets the same number of epochs and spends it on configurations trained in full.
Noise is the spread of the best configuration's score over training seeds.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray.tune.schedulers import TrialScheduler

from examples.drawn_faces import draw
from maskcls.config import search_space
from maskcls.config.load import load
from maskcls.config.recipe import Recipe
from maskcls.labels import Task
from maskcls.learning import tracking
from ray_jobs.cluster import connect
from ray_jobs.data.photos import image_settings, prepare
from ray_jobs.run import console
from ray_jobs.run.folder import RunFolder, make_jobs
from ray_jobs.run.jobs import run_all
from ray_jobs.search.asha import ResumableASHA
from ray_jobs.search.trial import SCORE
from ray_jobs.training.job import Job, identity

EPOCHS = 9
GRID: dict[str, list[Any]] = {
    "train.lr": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2],
    "optimizer.name": ["adamw", "sgd"],
    "loss.name": ["cross_entropy", "focal"],
    "augment.name": ["base", "flip"],
}
WORDS = (
    "tasks=[age]", "folds.count=3", "image.size=[48,36]", "model.name=test_efficientnet",
    f"train.epochs={EPOCHS}",
)  # fmt: skip
NOISE_SEEDS = 6
LANES = 2
Curves = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=50)
    arguments = parser.parse_args()
    console.setup()
    connect.connect()
    out = arguments.out.absolute()
    curves, noise = train_grid(out)
    report(curves, noise, arguments.seeds, out)


def train_grid(out: Path) -> tuple[Curves, list[float]]:
    """The learning curve of every configuration, and the best one's scores over seeds."""
    root = draw.draw(out / "data", people=120, eval_people=6, height=96, width=72)
    config = load([], [f"data.root={root}", f"data.cache={out / 'cache'}", *WORDS]).config
    data = prepare(config, image_settings(config, [Task.AGE]), out).without_evaluation()
    (base,) = make_jobs(config, RunFolder(out), data, [(Task.AGE, 0)])
    values = [dict(zip(GRID, point, strict=True)) for point in itertools.product(*GRID.values())]
    jobs = [
        _variant(base, search_space.apply(base.recipe, point), 42, f"config{n:03d}", data.digest)
        for n, point in enumerate(values)
    ]
    run_all(config, out, jobs)
    curves = {job.name: list(tracking.read_metrics(job.folder)["val/macro_f1"]) for job in jobs}
    best = max(jobs, key=lambda job: max(curves[job.name]))
    print("best:", values[jobs.index(best)])
    again = [
        _variant(base, best.recipe, seed, f"noise{seed}", data.digest)
        for seed in range(NOISE_SEEDS)
    ]
    run_all(config, out, again)
    return curves, [float(tracking.read_metrics(j.folder)["val/macro_f1"].max()) for j in again]


def _variant(base: Job, recipe: Recipe, seed: int, name: str, data: str) -> Job:
    return replace(
        base,
        name=name,
        recipe=recipe,
        seed=seed,
        folder=base.folder.parent / name,
        identity=identity(recipe, task=base.task, fold=base.fold, seed=seed, data=data),
    )


def replay(curves: Mapping[str, Sequence[float]], order: Sequence[str]) -> tuple[str, int]:
    """ASHA over the curves: the configuration it returns and the epochs it spent."""
    scheduler = ResumableASHA(
        Path("/nonexistent"), metric=SCORE, mode="max", max_t=EPOCHS, grace_period=1,
        reduction_factor=3,
    )  # fmt: skip
    waiting, running, spent, seen = list(order), dict[str, int](), 0, dict[str, float]()
    while waiting or running:
        while waiting and len(running) < LANES:
            running[waiting.pop(0)] = 0
        for name in list(running):
            trial = SimpleNamespace(trial_id=name, config={"name": name})
            if running[name] == 0:
                scheduler.on_trial_add(None, trial)
            running[name] += 1
            spent += 1
            epoch, score = running[name], curves[name][running[name] - 1]
            seen[name] = max(seen.get(name, 0.0), score)
            verdict = scheduler.on_trial_result(None, trial, {"epoch": epoch, SCORE: score})
            if verdict == TrialScheduler.STOP or epoch == EPOCHS:
                del running[name]
    return max(seen, key=lambda name: seen[name]), spent


def report(curves: Curves, noise: Sequence[float], seeds: int, out: Path) -> None:
    full = {name: max(curve) for name, curve in curves.items()}
    best, names = max(full.values()), sorted(full)
    spread = float(np.std(noise, ddof=1))
    asha_regret, random_regret, share = [], [], []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        order = [str(name) for name in rng.permutation(names)]
        returned, spent = replay(curves, order)
        share.append(spent / (EPOCHS * len(names)))
        asha_regret.append(best - full[returned])
        afforded = [str(name) for name in rng.permutation(names)[: max(1, spent // EPOCHS)]]
        random_regret.append(best - max(full[name] for name in afforded))
    print(f"{len(names)} configurations x {EPOCHS} epochs; best {best:.3f}, median "
          f"{np.median(list(full.values())):.3f}, worst {min(full.values()):.3f}; "
          f"noise (std over {len(noise)} training seeds) {spread:.3f}")  # fmt: skip
    print(f"epochs spent: {np.mean(share):.0%} of the grid (highest {max(share):.0%})")
    for name, regret in (("ASHA", asha_regret), ("random, same epochs", random_regret)):
        within = np.mean(np.array(regret) <= spread)
        print(f"{name:20s} regret mean {np.mean(regret):.4f}, worst {max(regret):.4f}, "
              f"within noise of the best in {within:.0%} of {seeds} seeds")  # fmt: skip


if __name__ == "__main__":
    main()
