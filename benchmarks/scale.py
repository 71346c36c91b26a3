"""What a job costs from 15 to 1,500 of them, and a photo from 2,100 to 210,000: is it linear?

    python -m benchmarks.scale [--jobs 15 150 1500] [--people 300 3000 30000] [--rounds 5]

Jobs that do nothing go through the real driver, queue and one lane each, events and all. Photos are
files without pixels: what is measured is all that the project does beside pixels and models, from
the list of files to the submission's answers. The slope is that of the time over the size, both as
logarithms, between the two largest: 1 is linear, 2 is quadratic.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks import rows, sleeping
from maskcls.config.schema import Resources
from maskcls.data import folds, manifest
from maskcls.data.label_fixes import STEMS
from maskcls.data.preprocess import Preprocessing
from maskcls.labels import HEADS, LABEL_COLUMNS, AgeBand, Gender, Task
from maskcls.scoring import ensemble
from maskcls.scoring.ensemble import ModelVotes
from maskcls.storage import files
from ray_jobs.cluster import connect, nodes, packing
from ray_jobs.data import augmented, stream
from ray_jobs.data import source as pipeline
from ray_jobs.data.source import EpochPlan, ImageSource
from ray_jobs.lanes import pool
from ray_jobs.lanes.pool import Lanes
from ray_jobs.run import console
from ray_jobs.training import evaluate

FOLDS = 5
TASKS = (Task.MASK, Task.GENDER, Task.AGE)
Seconds = dict[str, float]


def draw_people(root: Path, count: int) -> Path:
    """Folders of ``count`` people with seven files each, which are no photos."""
    rng = np.random.default_rng(0)
    for number, age, gender in zip(
        range(count), rng.integers(18, 81, count), rng.integers(2, size=count), strict=True
    ):
        name = f"{number:06}_{Gender(gender).name.lower()}_Drawn_{age}"
        folder = root / "train" / "images" / name
        folder.mkdir(parents=True)
        for stem in STEMS:
            (folder / f"{stem}.jpg").write_bytes(b"0")
    return root


def cost_of_photos(root: Path, folder: Path) -> Seconds:
    """Seconds of each step over all photos under ``root``."""
    spent: Seconds = {}
    began = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal began
        spent[name] = time.perf_counter() - began
        began = time.perf_counter()

    photos = manifest.read_train(root).photos
    lap("list")
    photos["fold"] = photos["person"].map(folds.assign(photos, FOLDS, 42))
    with files.replacing(folder / "manifest.parquet") as temporary:
        photos.to_parquet(temporary, index=False)
    lap("folds")
    fold_of = photos.drop_duplicates("person").set_index("person")["fold"]
    table = folds.training_table(photos, fold_of, 0, seed=42)
    sides = [folds.validation_table(photos, fold_of, fold) for fold in range(FOLDS)]
    lap("tables")
    _plan_an_epoch(table, folder)
    lap("order of an epoch")
    out_of_fold = pd.concat([_told(task, photos, side) for task in TASKS for side in sides])
    with files.replacing(folder / "out_of_fold.parquet") as temporary:
        out_of_fold.to_parquet(temporary, index=False)
    lap("out of fold")
    out_of_fold = files.read_parquet(folder / "out_of_fold.parquet")
    fitted = ensemble.fit("hard", out_of_fold)
    answers = ensemble.out_of_fold_answers("hard", out_of_fold, seed=42)
    lap("vote")
    ensemble.scores(answers, seed=42)
    lap("scores")
    names = photos["key"].tolist()
    said = {task: _probabilities(photos, task) for task in TASKS}
    ensemble.vote(fitted, [ModelVotes(task, 0, names, heads) for task, heads in said.items()])
    lap("answers")
    return spent


def _plan_an_epoch(table: pd.DataFrame, folder: Path) -> None:
    """All tasks of an epoch, one after the other, with pixels left out."""
    labels_N = table["age_band"].to_numpy()
    plan = EpochPlan(pipeline.training_rows(table), labels_N, np.full(len(AgeBand), 1 / 3), 32, 42)
    source = ImageSource(folder, folder, Preprocessing(1, 1))
    a_task = stream.IMAGES_PER_TASK // plan.batch_size
    with (
        mock.patch.object(ImageSource, "open"),
        mock.patch.object(augmented, "_augmented", lambda photos, plan, epochs, items, *_: items),
    ):
        for first in range(0, plan.steps, a_task):
            orders = {"epoch": np.array([1]), "first": np.array([first]),
                      "last": np.array([min(first + a_task, plan.steps)])}  # fmt: skip
            augmented.augment_steps(orders, source=source, plan=plan, augment={"name": "flip"})


def _told(task: Task, photos: pd.DataFrame, side: pd.DataFrame) -> pd.DataFrame:
    """The out-of-fold rows of one model."""
    side = side.assign(photo=photos["key"].to_numpy()[side["row"]])
    return evaluate.out_of_fold_rows(task, 0, _probabilities(side, task), side)


def _probabilities(photos: pd.DataFrame, task: Task) -> dict[str, npt.NDArray[Any]]:
    """What a model that is mostly right says of photos."""
    rng, said = np.random.default_rng(0), {}
    for head, classes in HEADS[task].items():
        truth_N = photos[LABEL_COLUMNS[head]].to_numpy()
        values_NK = rng.random((len(photos), classes)) + np.eye(classes)[truth_N]
        said[head] = (values_NK / values_NK.sum(axis=1, keepdims=True)).astype(np.float32)
    return said


def cost_of_jobs(lanes: Lanes, count: int) -> float:
    """Seconds of ``count`` jobs that do nothing, as a sweep's driver runs them."""
    made = [sleeping.named(f"job{number}") for number in range(count)]
    began = time.perf_counter()
    lanes.run(made, console.JobLines(count))
    return time.perf_counter() - began


def slope(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """The exponent of the size between the two largest."""
    (low, high), (short, long) = sizes[-2:], seconds[-2:]
    return math.log(long / short) / math.log(high / low)


def row(
    what: str, sizes: Sequence[int], taken: Sequence[Sequence[float]], note: str = ""
) -> rows.Row:
    """``taken`` holds the seconds of each size, a list a round."""
    medians = [statistics.median(of_size) for of_size in zip(*taken, strict=True)]
    one, *_ = each = [median / size for median, size in zip(medians, sizes, strict=True)]
    costs = ", ".join(f"{n:,}: {cost / one:.2f}" for n, cost in zip(sizes, each, strict=True))
    return rows.Row(
        f"slope of the cost of {what}, {sizes[-2]:,} to {sizes[-1]:,}", "linear",
        [slope(sizes, seconds) for seconds in taken], 1.1, 1.02, at_most=True,
        note=f"cost of one against that of {sizes[0]:,}: {costs}{note}",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--jobs", type=int, nargs="*", default=[15, 150, 1500])
    parser.add_argument("--people", type=int, nargs="*", default=[300, 3000, 30000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=Path)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if arguments.people:
            rows.add(arguments.rows, [photos_row(arguments.people, arguments.rounds, folder)])
        if arguments.jobs:
            stack.enter_context(sleeping.asleep())
            rows.add(arguments.rows, [jobs_row(arguments.jobs, arguments.rounds, folder, stack)])


def photos_row(people: Sequence[int], rounds: int, folder: Path) -> rows.Row:
    roots = [draw_people(folder / f"people{count}", count) for count in people]
    parts: list[list[Seconds]] = []
    for _, root in itertools.product(range(rounds), roots):
        if root is roots[0]:
            parts.append([])
        parts[-1].append(cost_of_photos(root, folder))
        print("  ".join(f"{name} {s:.2f}" for name, s in parts[-1][-1].items()), flush=True)
    taken = [[sum(spent.values()) for spent in of_round] for of_round in parts]
    sizes = [len(STEMS) * count for count in people]
    steepest = max(
        parts[0][0],
        key=lambda name: statistics.median(slope(sizes, [s[name] for s in r]) for r in parts),
    )
    at = statistics.median(slope(sizes, [s[steepest] for s in r]) for r in parts)
    return row("a photo's rows", sizes, taken, f"; steepest part: {steepest} ({at:.2f})")


def jobs_row(counts: Sequence[int], rounds: int, folder: Path, stack: ExitStack) -> rows.Row:
    connect.connect()
    running = []
    for count in counts:
        resources = Resources(jobs_at_once=1, gpus_per_worker=0)
        plan = packing.plan(resources, count, nodes.nodes())
        lanes = pool.lanes(plan, resources, folder=folder / f"jobs{count}")
        running.append(stack.enter_context(lanes))
        sleeping.wake(running[-1])
    taken = []
    for _ in range(rounds):
        taken.append([cost_of_jobs(*pair) for pair in zip(running, counts, strict=True)])
        print("  ".join(f"{n}: {s:.2f} s" for n, s in zip(counts, taken[-1], strict=True)))
    return row("a job's way through the queue", counts, taken)


if __name__ == "__main__":
    main()
