"""A search from its first trial to its last."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune

from maskcls.config import search_space
from maskcls.config.recipe import Image, Recipe
from maskcls.config.schema import Config
from maskcls.config.search_space import SearchSpace
from maskcls.labels import Task
from maskcls.storage import files
from ray_jobs.cluster import nodes as cluster
from ray_jobs.cluster import packing
from ray_jobs.cluster.errors import RunFailed
from ray_jobs.data.photos import prepare
from ray_jobs.lanes import pool
from ray_jobs.run.folder import RunFolder
from ray_jobs.run.state import Board
from ray_jobs.search.asha import ResumableASHA
from ray_jobs.search.ledger import Ledger, job_state
from ray_jobs.search.results import conclude, open_trials
from ray_jobs.search.searcher import LedgerSearcher
from ray_jobs.search.trial import SCORE, Trial, TrialPlan

log = logging.getLogger(__name__)


def search(
    config: Config,
    task: Task,
    space: SearchSpace,
    images: Sequence[Image],
    folder: RunFolder,
    board: Board,
) -> None:
    """Run the trials that are not done yet and write every result.

    Raises RunFailed where no trial could be scored.
    """
    nodes = cluster.nodes()
    plan = packing.plan(config.resources, config.tune.trials, nodes)
    board.phase("preparing photos")
    data = prepare(config, images, folder.path).without_evaluation()
    trials = TrialPlan(config, task, data, folder.path / "trials")
    known = [job_state(trials, name, entry) for name, entry in Ledger.read(folder.path).items()]
    board.expect(known, len(plan.lanes), to_come=max(0, config.tune.trials - len(known)))
    if open_trials(config, folder.path):
        board.phase("searching")
        log.info("%s", plan.reason)
        with pool.lanes(plan, config.resources, folder=folder.path) as lanes:
            _tuner(lanes.queue, trials, space, board, len(plan.lanes)).fit()
            if reason := ray.get(lanes.queue.why_aborted.remote()):
                raise RunFailed(reason)
        shutil.rmtree(_tunes_own(folder.path), ignore_errors=True)
    board.phase("writing results")
    conclude(trials, space, folder)


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
    to_run = open_trials(trials.config, run)
    trainable = tune.with_parameters(Trial, queue=queue, plan=trials, of=to_run)

    def over() -> bool:
        return ray.get(queue.why_aborted.remote()) is not None

    return tune.Tuner(
        tune.with_resources(trainable, trial_resources(cluster.on_this_node())),
        tune_config=tune.TuneConfig(
            metric=SCORE,
            mode="max",
            search_alg=LedgerSearcher(trials, space, ledger, over),
            scheduler=scheduler,
            num_samples=to_run,
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


def trial_resources(node: Mapping[str, str]) -> tune.PlacementGroupFactory:
    """What a trial's own process reserves: next to nothing, on the node with these labels. It waits
    for a lane and computes nothing, but lost with a spot node it would end a healthy job."""
    return tune.PlacementGroupFactory([{"memory": 1}], bundle_label_selector=[dict(node)])


def _tunes_own(run: Path) -> Path:
    """The folder for what Ray Tune itself writes, which nobody reads."""
    return run / ".ray_tune"


def searched_images(space: SearchSpace, recipe: Recipe) -> Iterator[Image]:
    """Every image section that a trial may have: all are prepared before the first trial."""
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


def check_ends(config: Config, space: SearchSpace, recipe: Recipe) -> None:
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


def check_search(config: Config, folder: RunFolder) -> None:
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
