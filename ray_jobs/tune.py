"""python -m ray_jobs.tune task=age run.dir=RUN: search for a better recipe with ASHA.

The recipe's own values are the first trial. best.yaml can be given to sweep and train as it is:
--config configs/sweep.yaml --config RUN/best.yaml
"""

from __future__ import annotations

import itertools
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray
import yaml
from ray import tune

from maskcls import files, metrics, results, search_report, search_space
from maskcls.config import Config, Image, Recipe
from maskcls.config_load import from_command_line
from maskcls.labels import ATTRIBUTES, Task, class_names
from maskcls.search_space import SearchSpace
from ray_jobs import cluster, console, driver, packing, run_state
from ray_jobs.prepare import prepare
from ray_jobs.run_folder import RunFolder, claim
from ray_jobs.run_state import Board
from ray_jobs.searcher import LedgerSearcher
from ray_jobs.trial import SCORE, Ledger, ResumableASHA, Trial, TrialPlan, history, job_state

log = logging.getLogger(__name__)
WINNER_SPLITS = 5
"""Groups of people of which each is answered by the trial that the others picked."""


def main() -> None:
    config = from_command_line(__doc__ or "")
    with console.answering_in_words("tune", config):
        if config.task is None:
            raise ValueError("task is not set: say which, as in task=age")
        if not isinstance(config.run.dir, Path):
            raise ValueError(
                f"run.dir={config.run.dir}: a search lives in a folder that every node sees; "
                "data.root may be a URI, and best.yaml serves a sweep with any run.dir"
            )
        recipe = config.recipe(config.task)
        space = search_space.parse(config.tune.space, recipe)
        forms = list(_forms(space, recipe))
        _check_ends(config, space, recipe)
        with claim(config, []) as folder, run_state.keeping(folder.place, "tune") as board:
            console.setup(folder.log)
            # Tune logs the traceback of a failed trial; the ledger tells its reason in a line.
            logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
            _check_search(config, folder)
            cluster.connect()
            search(config, config.task, space, forms, folder, board)


def search(
    config: Config,
    task: Task,
    space: SearchSpace,
    forms: Sequence[Image],
    folder: RunFolder,
    board: Board,
) -> None:
    """Run the trials that are not done yet and write every result.

    Raises RunFailed where no trial could be scored.
    """
    nodes = cluster.nodes()
    plan = packing.plan(config.resources, config.tune.trials, nodes)
    board.phase("preparing photos")
    data = prepare(config, forms, folder.path).without_evaluation()
    trials = TrialPlan(config, task, data, folder.path / "trials")
    known = [job_state(trials, name, entry) for name, entry in Ledger.read(folder.path).items()]
    board.expect(known, len(plan.lanes), to_come=max(0, config.tune.trials - len(known)))
    if _open_trials(config, folder.path):
        board.phase("searching")
        log.info("%s", plan.reason)
        with driver.lanes(plan, config.resources, folder=folder.path) as lanes:
            _tuner(lanes.queue, trials, space, board, len(plan.lanes)).fit()
            if reason := ray.get(lanes.queue.why_aborted.remote()):
                raise driver.RunFailed(reason)
        shutil.rmtree(_tunes_own(folder.path), ignore_errors=True)
    board.phase("writing results")
    conclude(trials, space, folder)


def conclude(trials: TrialPlan, space: SearchSpace, folder: RunFolder) -> None:
    """trials.csv, best.yaml, the best checkpoint and the page of a search, from its folder."""
    # Several trials start at once, in any order: the first guess stands first in every table.
    ledger = dict(sorted(Ledger.read(folder.path).items()))
    keys = [dimension.key for dimension in space.dimensions]
    table = pd.DataFrame([_row(trials, name, entry, keys) for name, entry in ledger.items()])
    with files.replacing(folder.path / "trials.csv") as temporary:
        table.to_csv(temporary, index=False)
    scored = table.dropna(subset=[SCORE])
    if scored.empty:
        raise driver.RunFailed(f"no trial could be scored; see {folder.path / 'trials.csv'}")
    best = scored.sort_values(SCORE, ascending=False, kind="stable").iloc[0]
    _write_best(trials, best, ledger[best["trial"]]["values"], len(ledger), folder)
    honest = _winners_score(trials, list(scored["trial"]))
    page = search_report.write(
        folder.path,
        task=str(trials.task),
        trials=table,
        keys=keys,
        histories={
            name: pd.DataFrame(history(trials.trial_folder(name)), columns=["epoch", SCORE])
            for name in ledger
        },
        rungs=_rungs(trials.config),
        winners_score=honest,
    )
    log.info("best: trial %s, macro F1 %.3f in epoch %d",
             best["trial"], best[SCORE], best["best_epoch"])  # fmt: skip
    if honest is not None:
        log.info("picking the best brings macro F1 %.3f on people who did not pick", honest)
    for what, path in {
        "trials": folder.path / "trials.csv",
        "overlay for sweep and train": folder.path / "best.yaml",
        "checkpoint": folder.path / "best",
        "page": page,
    }.items():
        log.info("%s: %s", what, path)
    left = _open_trials(trials.config, folder.path)
    if left:
        log.info("%d trial(s) are open: the same command goes on with them", left)


def _winners_score(trials: TrialPlan, names: Sequence[str]) -> float | None:
    """``metrics.winners_score`` of the scored trials; None where people are too few for it."""
    space = trials.task if trials.task in ATTRIBUTES else "joint"
    seed = trials.config.run.seed
    tables = []
    for name in names:
        parts = sorted(trials.trial_folder(name).glob("fold*/out_of_fold.parquet"))
        rows = pd.concat(map(files.read_parquet, parts), ignore_index=True)
        tables.append(results.out_of_fold_answers("soft", rows, seed=seed).sort_values("photo"))
    people = tables[0]["person"]
    if people.nunique() < WINNER_SPLITS:
        return None
    return metrics.winners_score(
        np.stack([table[f"{space}_predicted"].to_numpy(np.int64) for table in tables]),
        tables[0][f"{space}_truth"].to_numpy(np.int64),
        people.to_numpy(),
        len(class_names(space)),
        seed=seed,
        splits=WINNER_SPLITS,
    )


def _open_trials(config: Config, run: Path) -> int:
    """How many trials have not ended, those not begun included."""
    states = [entry["state"] for entry in Ledger.read(run).values()]
    begun = states.count("running")
    # With a tune.trials that is smaller now, those that have begun are still brought to their end.
    return max(begun, config.tune.trials - (len(states) - begun))


def _tuner(
    queue: Any, trials: TrialPlan, space: SearchSpace, board: Board, at_once: int
) -> tune.Tuner:
    """Tune with the trials that have not ended yet."""
    # Nobody reads the state that Tune saves: the ledger is what a search goes on from.
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "inf"
    settings = trials.config.tune
    run = trials.folder.parent
    ledger = Ledger.read(run)
    ended = [name for name, entry in ledger.items() if entry["state"] != "running"]
    if ledger:
        log.info("going on with the search in %s: %d of %d trials have ended",
                 run, len(ended), settings.trials)  # fmt: skip
    scheduler = ResumableASHA(
        trials.folder,
        ended,
        max_t=settings.max_epochs,
        grace_period=settings.grace_epochs,
        reduction_factor=settings.reduction_factor,
    )
    trainable = tune.with_parameters(Trial, queue=queue, plan=trials)

    def over() -> bool:
        return ray.get(queue.why_aborted.remote()) is not None

    return tune.Tuner(
        tune.with_resources(trainable, {"memory": 1}),
        tune_config=tune.TuneConfig(
            metric=SCORE,
            mode="max",
            search_alg=LedgerSearcher(trials, space, ledger, over),
            scheduler=scheduler,
            num_samples=_open_trials(trials.config, run),
            max_concurrent_trials=at_once,
            time_budget_s=settings.time_limit_s,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(_tunes_own(run)),
            callbacks=[Ledger(trials, board)],
            failure_config=tune.FailureConfig(max_failures=0),
            verbose=0,
        ),
    )


def _tunes_own(run: Path) -> Path:
    """The folder for what Ray Tune itself writes, which nobody reads."""
    return run / ".ray_tune"


def _forms(space: SearchSpace, recipe: Recipe) -> Iterator[Image]:
    """Every form of a photo that a trial may ask for: all are prepared before the first trial."""
    dimensions = [d for d in space.dimensions if d.key.startswith("image.")]
    for dimension in dimensions:
        if dimension.kind != "choice":
            raise ValueError(
                f"tune.space: {dimension.key}: photos are prepared beforehand, so only a list of "
                f"values can be searched, not {dimension.kind}"
            )
    for values in itertools.product(*(d.values for d in dimensions)):
        changed = dict(zip((d.key for d in dimensions), values, strict=True))
        yield search_space.apply(recipe, changed).image


def _check_ends(config: Config, space: SearchSpace, recipe: Recipe) -> None:
    patient = recipe.train.patience is not None
    patient |= any(dimension.key == "train.patience" for dimension in space.dimensions)
    if patient and len(config.tune.folds) > 1:
        raise ValueError(
            "train.patience: with several tune.folds each would end at an epoch of its own; leave "
            "it to ASHA, or give one fold"
        )
    for dimension in space.dimensions:
        if dimension.key == "train.epochs" and max(dimension.values) > config.tune.max_epochs:
            raise ValueError(
                f"tune.space: train.epochs goes to {max(dimension.values)}, but "
                f"tune.max_epochs={config.tune.max_epochs} ends every trial: raise it"
            )
    space.first_guess(recipe)


def _check_search(config: Config, folder: RunFolder) -> None:
    """A search goes on only as the search that it was."""
    assert config.task is not None
    now = {
        "task": str(config.task),
        "seed": config.run.seed,
        "folds": config.folds.count,
        **config.tune.model_dump(mode="json", exclude={"time_limit_s", "trials"}),
        "recipe": config.recipe(config.task).model_dump(mode="json"),
    }
    path = folder.path / "search.json"
    if path.is_file():
        then = files.read_json(path)
        changed = [key for key in now if then.get(key) != now[key]]
        if changed:
            raise ValueError(
                f"run.dir={folder.path} holds a search with another {', '.join(changed)}: choose "
                "another run.dir for a new search, or give the same settings to go on with it"
            )
    files.write_json(path, now)


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
    overlay: dict[str, Any] = {}
    for key, value in {**values, **epochs}.items():
        *sections, name = key.split(".")
        place = overlay
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    folds = ", ".join(map(str, trials.config.tune.folds))
    head = (
        f"# The best of {count} trials for task {trials.task}: "
        f"macro F1 {best[SCORE]:.4f} on fold(s) {folds}, epoch {best['best_epoch']:.0f}.\n"
        "# Use: --config configs/sweep.yaml --config best.yaml\n"
    )
    text = yaml.safe_dump({"recipes": {str(trials.task): overlay}}, sort_keys=False)
    files.write_text(folder.path / "best.yaml", head + text)
    shutil.rmtree(folder.path / "best", ignore_errors=True)
    shutil.copytree(
        trials.trial_folder(best["trial"]),
        folder.path / "best",
        ignore=shutil.ignore_patterns("resume.pt"),
    )


if __name__ == "__main__":
    main()
