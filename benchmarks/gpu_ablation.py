"""The ablation on one GPU, without Ray: many variants of a recipe in minutes.

    python -m benchmarks.gpu_ablation DATA --out FOLDER --list benchmarks/gpu_ablation.yaml
                                      [--jobs 14] [--budget-s 400] [--seeds 42 43 44]
                                      [--against NAME] [--show] [--tiny]

The list is one of ``benchmarks.ablation``. Photos, folds, order, augmentation, training and scores
are the project's own; only the lanes are not: the folds of all variants are jobs of ``--jobs``
processes that share the card. All variants are trained with one seed before the next; when the
budget ends no further fold is begun, and the same command goes on where it stopped. ``--show``
trains nothing and writes FOLDER/gpu_ablation.md from what there is, gains paired over people as in
``benchmarks.ablation``. ``--tiny`` is for tests: small photos on the CPU.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.ablation import BASE, LIST, Overlays, compared, folder_of, table
from maskcls.config import layers
from maskcls.config.load import load
from maskcls.config.schema import Config
from maskcls.config.shipped import find
from maskcls.labels import LABEL_COLUMNS, Task
from maskcls.learning.learner import Learner, options
from maskcls.scoring import ensemble
from maskcls.storage import files
from ray_jobs.data import photos as datasets
from ray_jobs.data.augmented import augment_steps
from ray_jobs.data.source import ImageSource
from ray_jobs.training import evaluate, plans

TINY = ["image.size=[64,48]", "train.epochs=2", "folds.count=2"]


@dataclass(frozen=True)
class Fold:
    """One fold of a variant, and what it trains on. ``out`` is the file of its answers."""

    config: Config
    data: datasets.Dataset
    fold: int
    device: str
    out: Path
    threads: int = 1


@dataclass(frozen=True)
class Trained:
    """A fold's learner after an epoch, its photos, and the people that it never sees."""

    learner: Learner
    source: ImageSource
    training: pd.DataFrame
    validation: pd.DataFrame


def epochs(job: Fold, seed: int) -> Iterator[Trained]:
    """Train a fold, with this seed of order, augmentation and first weights."""
    torch.set_num_threads(job.threads)
    recipe = job.data.complete(job.config.recipe(Task.MULTI))
    source = job.data.train.images[recipe.image]
    training, validation = plans.tables(
        source.photos(), Task.MULTI, job.fold, recipe, job.config.run.seed
    )
    plan = plans.epoch_plan(Task.MULTI, recipe, seed, training, rank=0, world=1)
    torch.manual_seed(seed)
    labels = {name: training[name].to_numpy() for name in (*LABEL_COLUMNS.values(), "age")}
    learner = Learner(
        Task.MULTI, recipe, labels, steps_per_epoch=plan.steps, device=torch.device(job.device),
        seed=seed,
    )  # fmt: skip
    for epoch in range(1, recipe.train.epochs + 1):
        learner.start_epoch(epoch)
        for step in range(plan.steps):
            order = {"epoch": np.array([epoch]), "first": np.array([step]),
                     "last": np.array([step + 1])}  # fmt: skip
            made = augment_steps(order, source=source, plan=plan, augment=options(recipe.augment))
            number = (epoch - 1) * plan.steps + step
            learner.step(made["image"], made["item"], epoch=epoch, number=number)
        yield Trained(learner, source, training, validation)


def train(job: Fold) -> None:
    """Train a fold and write the answers of its best epoch, those of a sweep's job."""
    best: tuple[float, float] | None = None
    for now in epochs(job, job.config.run.seed):
        predictor, rows_M = now.learner.predictor(), now.validation["row"].to_numpy()
        probabilities = predictor(now.source.open(), rows_M)
        scores, _ = evaluate.score(probabilities, now.validation)
        rank = scores["macro_f1"], -scores["loss"]
        if best is None or rank > best:
            best = rank
            if (prediction := now.learner.recipe.predict).answers_again:
                in_all = replace(predictor, views=prediction.views)
                probabilities = in_all(now.source.open(), rows_M)
            rows = evaluate.out_of_fold_rows(Task.MULTI, job.fold, probabilities, now.validation)
    with files.replacing(job.out) as temporary:
        rows.to_parquet(temporary, index=False)


def tiny(overlays: Overlays) -> Overlays:
    """The same on small photos and with few epochs."""
    return replace(overlays, words={n: [*words, *TINY] for n, words in overlays.words.items()})


def jobs_of(
    overlays: Overlays, data: Path, out: Path, seeds: Sequence[int], device: str
) -> Iterator[Fold]:
    """All folds of all variants, with their photos prepared."""
    prepared: dict[str, datasets.Dataset] = {}
    for seed, (name, words) in itertools.product(seeds, overlays.words.items()):
        given = [*words, f"run.seed={seed}"]
        given += [f"data.root={data}", f"data.cache={out / 'cache'}"]
        config = load([find(overlays.config)], given).config
        images = datasets.image_settings(config, [Task.MULTI])
        key = layers.digest(str(images), seed, config.folds.count)
        if key not in prepared:
            prepared[key] = datasets.prepare(config, images, out / "tables" / key)
        # What was trained by another recipe or on other photos is not taken for this.
        recipe = prepared[key].complete(config.recipe(Task.MULTI)).model_dump(mode="json")
        digest = layers.digest(recipe, prepared[key].digest)
        folder = folder_of(out, name, seed)
        folder.mkdir(parents=True, exist_ok=True)
        for fold in range(config.folds.count):
            yield Fold(config, prepared[key], fold, device, folder / f"fold{fold}-{digest}.parquet")


def answers(files_of: Mapping[int, Sequence[Path]]) -> pd.DataFrame:
    """Out-of-fold answers of a variant (seed -> the files of its folds), in a stable order."""
    parts = []
    for seed, paths in files_of.items():
        rows = pd.concat(map(pd.read_parquet, paths), ignore_index=True)
        parts.append(ensemble.out_of_fold_answers("soft", rows, seed=seed).assign(seed=seed))
    return pd.concat(parts).sort_values(["seed", "photo"], ignore_index=True)


def report(jobs: Sequence[Fold], names: Sequence[str], out: Path, against: str) -> str:
    """The table of the variants that have all folds of a seed."""
    files_of: dict[str, dict[int, list[Path]]] = {name: {} for name in names}
    for name, seed in itertools.product(names, {job.config.run.seed for job in jobs}):
        mine = [job.out for job in jobs if job.out.parent == folder_of(out, name, seed)]
        if all(path.is_file() for path in mine):
            files_of[name][seed] = mine
    rows = []
    for name, of in files_of.items():
        shared = sorted(of.keys() & files_of[against].keys())
        if shared:
            ours, first = (
                {seed: each[seed] for seed in shared} for each in (of, files_of[against])
            )
            cells = compared(answers(ours), answers(first), name == against)
            rows.append({"variant": name, "seeds": str(len(shared)), **cells})
    return table(rows) if rows else "no variant is done\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--list", type=Path, default=LIST.with_name("gpu_ablation.yaml"))
    parser.add_argument("--against", default=BASE, metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[42, 43, 44])
    parser.add_argument("--jobs", type=int, default=14)
    parser.add_argument("--budget-s", type=float, default=400)
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    ends = time.monotonic() + arguments.budget_s
    overlays, out = Overlays.read(arguments.list), arguments.out.absolute()
    data = arguments.data.absolute()
    overlays = tiny(overlays) if arguments.tiny else overlays
    device = "cpu" if arguments.tiny else "cuda"
    jobs = list(jobs_of(overlays, data, out, arguments.seeds, device))
    print(f"[{ends - time.monotonic():4.0f} s left] photos prepared", flush=True)
    if arguments.show:
        told = report(jobs, list(overlays.words), out, arguments.against)
        files.write_text(out / "gpu_ablation.md", told)
        print(told)
        return
    waiting = [job for job in jobs if not job.out.is_file()]
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        for number, late in enumerate(pool.map(partial(_in_time, ends), waiting), 1):
            if late:
                print(f"out of time: {len(waiting) - number + 1} folds are not begun")
                break
            print(f"[{ends - time.monotonic():4.0f} s left] {number} of {len(waiting)} folds",
                  flush=True)  # fmt: skip


def _in_time(ends: float, job: Fold) -> bool:
    """Train unless it is too late; whether it is."""
    late = time.monotonic() > ends
    if not late:
        train(job)
    return late


if __name__ == "__main__":
    main()
