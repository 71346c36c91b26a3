"""The folder of a finished sweep, made up in a second: nothing in it was trained."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

from maskcls import labels
from maskcls.config.schema import Config
from maskcls.data.label_fixes import STEMS
from maskcls.labels import HEADS, LABEL_COLUMNS, Task
from maskcls.learning import backbones, checkpoint, heads, tracking
from maskcls.scoring import ensemble as results
from maskcls.storage import files

SIZE = (48, 36)
TASKS = (Task.MASK, Task.GENDER, Task.AGE)
LOSSES = ((1.0, 0.5, 0.3), (0.6, 0.45, 0.4))


def make(
    folder, *, tasks=TASKS, people=40, folds=2, seed=0, errors=0.2, ensemble="hard", first=0,
    offsets=False, photos=True, weights=True, votes=True, failed=None, recipe=None, losses=LOSSES,
    best_epoch=2,
):  # fmt: skip
    """``errors`` is the share of wrong answers, of all or by task; ``first`` the number of the
    first person; ``recipe`` what differs from the usual one; ``losses`` are those of training and
    of validation, by epoch."""
    rng = np.random.default_rng(seed)
    manifest_root = folder / "photos"
    manifest = _manifest(manifest_root, people, folds, first)
    if photos:
        for path in manifest["path"]:
            _draw(path, rng)
    (folder / "run").mkdir(parents=True)
    folder = folder / "run"
    manifest.to_parquet(folder / "manifest.parquet", index=False)
    config = Config.model_validate(
        {
            "model": {"name": "test_efficientnet", "pretrained": True}, "image": {"size": SIZE},
            "data": {"root": str(manifest_root)}, "run": {"dir": str(folder)},
            "tasks": list(map(str, tasks)),
        }
        | (recipe or {})
    )  # fmt: skip
    files.write_text(folder / "config.yaml", config.yaml())
    jobs, rows = [], []
    for task in tasks:
        for fold in range(folds):
            mine = manifest[manifest["fold"] == fold]
            share = errors[task] if isinstance(errors, dict) else errors
            rows.append(_out_of_fold(task, fold, mine, share, rng))
            jobs.append(_job(folder, task, fold, config.recipe(task), weights, losses, best_epoch))
    out_of_fold = pd.concat(rows, ignore_index=True)
    out_of_fold.to_parquet(folder / "out_of_fold.parquet", index=False)
    answers = results.out_of_fold_answers(ensemble, out_of_fold, seed=42, offsets=offsets)
    fitted = results.fit(ensemble, out_of_fold, offsets=offsets)
    files.write_json(folder / "ensemble.json", results.to_json(fitted))
    if votes:
        _votes(folder, tasks, folds, rng)
    scores = {
        "complete": not failed,
        "out_of_fold": results.scores(answers, seed=42),
        "photos": len(answers),
        "people": people,
        "jobs": jobs,
        "failed": failed or {},
        "ensemble": {
            "name": ensemble,
            "offsets": offsets,
            "models": len(jobs),
            "fitted": results.to_json(fitted),
        },
        "votes": "0123456789abcdef" if votes else None,
        "seed": 42,
        "versions": {"torch": "2.9.0", "ray": "2.50.0"},
        "seconds": 100.0,
        "phases": {
            "prepare photos": 10.0,
            "start workers, train, predict": 85.0,
            "vote and score": 5.0,
        },
    }
    files.write_json(folder / "scores.json", scores)
    return folder


def _manifest(root, people, folds, first):
    rows = []
    for number in range(first, first + people):
        gender, age = number % 2, (20, 29, 30, 45, 59, 60)[number // 2 % 6]
        name = f"{number:06}_{('male', 'female')[gender]}_Drawn_{age}"
        for stem, mask in STEMS.items():
            key = f"train/images/{name}/{stem}.jpg"
            band = int(labels.age_band(age))
            rows.append(
                {
                    "key": key, "path": str(root / key), "status": "ok", "person": f"{number:06}",
                    "group": f"{number:06}", "gender": gender, "race": "Drawn", "age": age,
                    "stem": stem, "variant": "original", "mask": int(mask), "fix": "",
                    "age_band": band, "joint": int(labels.encode(mask, gender, band)),
                    "fold": number % folds, "weight": 1.0,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _draw(path, rng):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    image = np.full((64, 48, 3), rng.integers(255, size=3), np.uint8)
    cv2.imwrite(path, image)


def _probabilities(truth_N, classes, errors, rng):
    wrong_N = rng.random(len(truth_N)) < errors
    answer_N = np.where(wrong_N, (truth_N + 1) % classes, truth_N)
    values_NK = rng.random((len(truth_N), classes)) + 3 * np.eye(classes)[answer_N]
    return (values_NK / values_NK.sum(axis=1, keepdims=True)).astype(np.float32)


def _out_of_fold(task, fold, photos, errors, rng):
    parts = []
    for head, classes in HEADS[task].items():
        truth = photos[LABEL_COLUMNS[head]].to_numpy()
        values = _probabilities(truth, classes, errors, rng)
        parts.append(
            pd.DataFrame(
                {
                    "photo": photos["key"].to_numpy(), "person": photos["person"].to_numpy(),
                    "task": str(task), "head": head, "fold": fold, "truth": truth,
                    "predicted": values.argmax(axis=1), "probabilities": list(values),
                }
            )
        )  # fmt: skip
    return pd.concat(parts)


def _job(folder, task, fold, recipe, weights, losses, best_epoch):
    job = folder / "jobs" / f"{task}-fold{fold}"
    scores = {"macro_f1": 0.8125, "accuracy": 0.9375, "loss": 0.25}
    info = checkpoint.Info(
        identity="0" * 16, task=task, fold=fold, recipe=recipe,
        classes=checkpoint.labels_of(task, recipe.labels.age_limits), mean=(0.5,) * 3,
        std=(0.25,) * 3, seed=42, epoch=2, scores=scores, versions={},
    )  # fmt: skip
    torch.manual_seed(fold)
    if weights:
        sizes = heads.sizes(task, recipe)
        model = backbones.build("test_efficientnet", sizes, weights=None, image_size=SIZE)
        checkpoint.save(job, model.state_dict(), info)
    else:
        files.write_text(job / "checkpoint.json", info.model_dump_json())
    lines = [
        dict.fromkeys(tracking.COLUMNS, 0.8)
        | {"epoch": epoch, "train/loss": train, "val/loss": validation}
        | {"val/macro_f1": 0.8 - 0.1 * abs(epoch - best_epoch)}
        for epoch, (train, validation) in enumerate(zip(*losses, strict=True), start=1)
    ]
    files.write_text(job / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    return {
        "identity": "0" * 16, "task": str(task), "fold": fold, "best_epoch": best_epoch,
        "epochs": 3, "scores": scores, "seconds": 3723.4, "training_seconds": 61.0,
    }  # fmt: skip


def _votes(folder, tasks, folds, rng):
    image_ids = [f"{number:04}.jpg" for number in range(30)]
    table = pd.DataFrame({"image_id": image_ids, "status": "ok"})
    table.to_parquet(folder / "eval.parquet", index=False)
    truth = {
        head: rng.integers(size, size=30) for task in tasks for head, size in HEADS[task].items()
    }
    (folder / "votes" / "0123456789abcdef").mkdir(parents=True)
    for task in tasks:
        for fold in range(folds):
            rows = [
                pd.DataFrame(
                    {
                        "image_id": image_ids,
                        "head": head,
                        "probabilities": list(_probabilities(truth[head], size, 0.1, rng)),
                    }
                )
                for head, size in HEADS[task].items()
            ]
            path = folder / "votes" / "0123456789abcdef" / f"{task}-fold{fold}.parquet"
            pd.concat(rows).to_parquet(path, index=False)
