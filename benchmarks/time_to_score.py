"""How soon the product's vote beats the final score of scripts, side by side in one run.

    python -m benchmarks.time_to_score DATA [--config laptop] [key.sub=value ...]

The scripts (`benchmarks.conventional`) train one network a task on one 80/20 split by person, at
128 x 96, for three epochs; their final score is the joint macro F1 of their best epochs on the
people of that split. Our sweep trains on the same people and is scored on the same others: the
clock runs from the start of its command to the moment when what it has written on disk scores more.
Both keep the epoch that is best on these people, so both scores are a little too high.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from safetensors.torch import save_file

from benchmarks import conventional, rows
from maskcls import labels
from maskcls.config.load import load
from maskcls.config.shipped import find
from maskcls.learning import backbones
from maskcls.scoring import ensemble
from maskcls.scoring.metrics import confusion, macro_f1
from maskcls.storage import files
from ray_jobs.data.photos import image_settings, prepare

FOLDS: Final = 5
"""One of these is validated on: an 80/20 split."""

COLUMNS: Final = {"mask": "mask", "gender": "gender", "age": "age_band"}
LOOK_S: Final = 0.2
"""Seconds between two looks at what our sweep has written."""

LIMIT_S: Final = 1800.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--config", default="laptop", help="of our sweep")
    parser.add_argument("--model", default="tf_efficientnet_lite0", help="of the scripts")
    parser.add_argument("--weights", default="package:efficientnet_lite0")
    parser.add_argument("--rows", type=Path, help="where `benchmarks.bench` gathers rows")
    parser.add_argument("words", nargs="*", help="of our sweep")
    arguments = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = [
            f"data.root={arguments.data.absolute()}", f"run.dir={folder / 'run'}",
            f"data.cache={folder / 'cache'}", f"folds.count={FOLDS}", "folds.only=[0]",
            *arguments.words,
        ]  # fmt: skip
        listing = list_photos(arguments.config, words, folder)
        script_s, script_f1 = scripts(listing, arguments.model, arguments.weights, folder)
        print(f"scripts: joint macro F1 {script_f1:.3f} after {script_s:.0f} s", flush=True)
        ours_s, history = ours(arguments.config, words, folder / "run", script_f1)
    for seconds, f1 in history:
        print(f"ours:    joint macro F1 {f1:.3f} after {seconds:.0f} s", flush=True)
    ratios = [ours_s / script_s] if ours_s is not None else []
    note = f"scripts {script_f1:.3f} in {script_s:.0f} s"
    if ours_s is not None:
        note += f"; ours {history[-1][1]:.3f} in {ours_s:.0f} s"
    rows.add(arguments.rows, [
        rows.Row("time until our vote beats the scripts' final score", "three scripts, one split",
                 ratios, must=0.2, aim=0.1, at_most=True, note=note)
    ])  # fmt: skip


def list_photos(config: str, words: Sequence[str], folder: Path) -> Path:
    """The parquet that the scripts read: our photos and folds, and the photos to predict. Nothing
    of it is timed, and what it prepares is not what our sweep uses."""
    read = load([find(config)], [*words, f"data.cache={folder / 'listing'}"]).config
    data = prepare(read, image_settings(read, read.tasks), folder)
    assert data.evaluation, "the data set needs an eval folder"
    path = folder / "listing.parquet"
    conventional.write_listing(data.train.table, data.evaluation.table, path)
    return path


def scripts(listing: Path, model: str, weights: str, folder: Path) -> tuple[float, float]:
    """Seconds of the three scripts one after the other, and their joint macro F1."""
    built = backbones.build(model, {"x": 1}, weights=weights, image_size=(128, 96))
    save_file(built.backbone.state_dict(), folder / "weights.safetensors")
    photos = pd.read_parquet(listing)
    validated = photos[photos["fold"] == 0]
    answers, seconds = {}, 0.0
    for task, column in COLUMNS.items():
        began = time.monotonic()
        out = folder / task
        subprocess.run(
            [sys.executable, "-m", "benchmarks.conventional", str(listing), "--task", column,
             "--fold", "0", "--out", str(out), "--model", model,
             "--weights", str(folder / "weights.safetensors")],
            check=True, timeout=LIMIT_S,
        )  # fmt: skip
        seconds += time.monotonic() - began
        answers[task] = np.load(out / "out_of_fold.npy").argmax(axis=1)
        print(f"script {task}: {json.loads((out / 'times.json').read_text())['macro_f1']:.3f}")
    truth = labels.encode(*(validated[column] for column in COLUMNS.values()))
    said = labels.encode(**answers)
    return seconds, macro_f1(confusion(truth, said, labels.NUM_JOINT))


def ours(
    config: str, words: Sequence[str], run: Path, target: float
) -> tuple[float | None, list[tuple[float, float]]]:
    """Seconds until what our sweep has written scores more than ``target``, None where it never
    does; and its scores by the time at which they were on disk."""
    command = [sys.executable, "-m", "ray_jobs.sweep", "--config", config, *words]
    began = time.monotonic()
    log = (run.parent / "sweep.log").open("w")
    process = subprocess.Popen(
        command, stdout=log, stderr=log, env={**os.environ, "RAY_AUTH_MODE": "token"}
    )
    history: list[tuple[float, float]] = []
    try:
        while time.monotonic() - began < LIMIT_S:
            ended = process.poll() is not None
            now = time.monotonic() - began
            f1 = written_score(run)
            if f1 is not None and (not history or f1 != history[-1][1]):
                history.append((now, f1))
                if f1 > target:
                    return now, history
            if ended:
                if process.returncode:
                    raise RuntimeError((run.parent / "sweep.log").read_text())
                return None, history
            time.sleep(LOOK_S)
        return None, history
    finally:
        log.close()
        process.send_signal(signal.SIGINT)
        process.wait(120)


def written_score(run: Path) -> float | None:
    """Joint macro F1 of the out-of-fold probabilities on disk; None while they do not tell it."""
    parts = [files.read_parquet(path) for path in sorted(run.glob("jobs/*/out_of_fold.parquet"))]
    if not parts:
        return None
    answers = ensemble.out_of_fold_answers("soft", pd.concat(parts, ignore_index=True), seed=0)
    if "joint_predicted" not in answers:
        return None
    cm_KK = confusion(answers["joint_truth"], answers["joint_predicted"], labels.NUM_JOINT)
    return macro_f1(cm_KK)


if __name__ == "__main__":
    main()
