"""What a search found: trials.csv, best.yaml, the best checkpoint."""

from __future__ import annotations

import itertools
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from maskcls.config.layers import unflattened
from maskcls.config.schema import Config
from maskcls.config.search_space import SearchSpace
from maskcls.labels import ATTRIBUTES, MISSING, class_names
from maskcls.reports import search
from maskcls.scoring import ensemble, metrics
from maskcls.storage import files, yaml_files
from ray_jobs.cluster.errors import RunFailed
from ray_jobs.run.folder import RunFolder
from ray_jobs.search.ledger import Ledger, best_trial
from ray_jobs.search.trial import SCORE, TrialPlan, history

log = logging.getLogger(__name__)
WINNER_SPLITS = 5
"""Groups of people of which each is answered by the trial that was best on the others."""


def conclude(trials: TrialPlan, space: SearchSpace, folder: RunFolder) -> None:
    """trials.csv, best.yaml, the best checkpoint and the page of a search, from its folder."""
    # Several trials start at once, in any order: the first guess stands first in every table.
    ledger = dict(sorted(Ledger.read(folder.path).items()))
    keys = [dimension.key for dimension in space.dimensions]
    rows = [_row(trials, name, entry, keys) for name, entry in ledger.items()]
    table = pd.DataFrame(rows, columns=None if rows else ["trial", SCORE])
    files.write_table(folder.path / "trials.csv", table)
    scored = table.dropna(subset=[SCORE])
    name = best_trial(ledger, dict(zip(scored["trial"], scored[SCORE], strict=True)))
    if name is None:
        raise RunFailed(_why_no_best(trials.config, folder, ledger))
    best = table[table["trial"] == name].iloc[0]
    _write_best(trials, best, ledger[name]["values"], len(ledger), folder)
    honest = _nested_selection_score(trials, list(scored["trial"]))
    page = search.write(
        folder.path,
        task=str(trials.task),
        trials=table,
        keys=keys,
        histories={
            name: pd.DataFrame(history(trials.trial_folder(name)), columns=["epoch", SCORE])
            for name in ledger
        },
        rungs=_rungs(trials.config),
        nested_selection_score=honest,
    )
    log.info("best: trial %s, macro F1 %.3f in epoch %d",
             best["trial"], best[SCORE], best["best_epoch"])  # fmt: skip
    if honest is not None:
        log.info(
            "nested selection: macro F1 %.3f on people who had no part in choosing the best", honest
        )
    for what, path in {
        "trials": folder.path / "trials.csv",
        "overlay for sweep and train": folder.path / "best.yaml",
        "checkpoint": folder.path / "best",
        "page": page,
    }.items():
        log.info("%s: %s", what, path)
    left = open_trials(trials.config, folder.path)
    if left:
        log.info("%d trial(s) are open: the same command goes on with them", left)


def _why_no_best(config: Config, folder: RunFolder, ledger: Mapping[str, Any]) -> str:
    if all(entry["state"] == "running" for entry in ledger.values()):
        return (
            f"tune.time_limit_s={config.tune.time_limit_s} was over before any trial ended an "
            "epoch: the same command goes on; raise the limit"
        )
    return f"no trial could be scored; see {folder.path / 'trials.csv'}"


def _nested_selection_score(trials: TrialPlan, names: Sequence[str]) -> float | None:
    """``metrics.nested_selection_score`` of the scored trials; None for too few people."""
    space = trials.task if trials.task in ATTRIBUTES else "joint"
    seed = trials.config.run.seed
    tables = []
    for name in names:
        parts = sorted(trials.trial_folder(name).glob("fold*/out_of_fold.parquet"))
        rows = pd.concat(map(files.read_parquet, parts), ignore_index=True)
        answers = ensemble.out_of_fold_answers("soft", rows, seed=seed).sort_values("photo")
        tables.append(answers[answers[f"{space}_truth"] != MISSING])
    people = tables[0]["person"]
    if people.nunique() < WINNER_SPLITS:
        return None
    return metrics.nested_selection_score(
        np.stack([table[f"{space}_predicted"].to_numpy(np.int64) for table in tables]),
        tables[0][f"{space}_truth"].to_numpy(np.int64),
        people.to_numpy(),
        len(class_names(space)),
        seed=seed,
        splits=WINNER_SPLITS,
    )


def open_trials(config: Config, run: Path) -> int:
    """How many trials have not ended, those not begun included."""
    states = [entry["state"] for entry in Ledger.read(run).values()]
    begun = states.count("running")
    # With a tune.trials that is smaller now, those that have begun are still brought to their end.
    return max(begun, config.tune.trials - (len(states) - begun))


def _rungs(config: Config) -> list[int]:
    """The epochs at which ASHA judges."""
    settings = config.tune
    rungs = itertools.takewhile(
        lambda epoch: epoch <= settings.max_epochs,
        (settings.grace_epochs * settings.reduction_factor**k for k in itertools.count()),
    )
    return list(rungs)


def _row(
    trials: TrialPlan, name: str, entry: Mapping[str, Any], keys: Sequence[str]
) -> dict[str, Any]:
    reports = history(trials.trial_folder(name))
    best = max(reports, key=lambda report: report[SCORE], default=None)
    failed = entry["state"] == "failed"
    return {
        "trial": name,
        "state": entry["state"],
        "reason": entry["reason"],
        "epochs": len(reports),
        "best_epoch": best["epoch"] if best else None,
        SCORE: best[SCORE] if best and not failed else None,
        "seconds": round(entry["seconds"], 1),
        "epoch_seconds": round(sum(report["epoch_seconds"] for report in reports), 1),
        **{key: entry["values"].get(key) for key in keys},
    }


def _write_best(
    trials: TrialPlan, best: pd.Series, values: Mapping[str, Any], count: int, folder: RunFolder
) -> None:
    epochs = {"train.epochs": values.get("train.epochs", trials.config.tune.max_epochs)}
    overlay = unflattened({**values, **epochs})
    folds = ", ".join(map(str, trials.config.tune.folds))
    head = (
        f"# The best of {count} trials for task {trials.task}: "
        f"macro F1 {best[SCORE]:.4f} on fold(s) {folds}, epoch {best['best_epoch']:.0f}.\n"
        "# Use: --config configs/sweep.yaml --config best.yaml\n"
    )
    text = yaml_files.dump({"recipes": {str(trials.task): overlay}})
    files.write_text(folder.path / "best.yaml", head + text)
    shutil.rmtree(folder.path / "best", ignore_errors=True)
    shutil.copytree(
        trials.trial_folder(best["trial"]),
        folder.path / "best",
        ignore=shutil.ignore_patterns("resume.pt"),
    )
