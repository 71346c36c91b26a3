"""Which configurations a search tries: Optuna's draws, through the interface of Ray Tune."""

from __future__ import annotations

import itertools
import shutil
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher

from maskcls.config.search_space import SearchSpace, Values
from ray_jobs.search.ledger import ending
from ray_jobs.search.trial import SCORE, TrialPlan, history

_SAMPLERS = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}
_PREFIX = "trial-"


class LedgerSearcher(Searcher):
    """Goes on where a ledger ends: trials that had not ended come first, under their names.

    Tune copies its snapshots of a search in the background: those of a killed driver may be old, or
    half a file. So none is read; Optuna gets again what is in the ledger and the trials' folders.
    Each trial is drawn by a sampler that is seeded by its number: what it draws depends on what is
    known by then, not on how often the driver was restarted. Once ``over`` says so, no trial comes.
    """

    def __init__(
        self,
        trials: TrialPlan,
        space: SearchSpace,
        ledger: Mapping[str, Mapping[str, Any]],
        over: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(metric=SCORE, mode="max")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._trials, self._space, self._over = trials, space, over
        self._recipe = trials.config.recipe(trials.task)
        self._study = optuna.create_study(direction="maximize")
        self._names = set(ledger)
        self._open = deque[tuple[str, Values]]()
        self._asked: dict[str, tuple[str, optuna.Trial]] = {}
        for name, entry in ledger.items():
            point = space.encode(entry["values"])
            if entry["state"] == "running":
                self._open.append((name, point))
            else:
                trial = self._ask(name, point)
                space.draw(trial, self._recipe)
                self._tell(name, trial, entry["state"])

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The name of Tune's trial and the values of its keys."""
        if self._over():
            return str(Searcher.FINISHED)
        name, point = self._open.popleft() if self._open else self._new()
        trial = self._ask(name, point)
        self._asked[trial_id] = name, trial
        return {"name": name, "values": self._space.draw(trial, self._recipe)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        name, trial = self._asked.pop(trial_id)
        self._tell(name, trial, "failed" if error else ending(result or {})[0])

    def _new(self) -> tuple[str, Values | None]:
        name = next(name for n in itertools.count(1) if (name := _name(n)) not in self._names)
        self._names.add(name)
        # Left by a trial that was begun and never written down, perhaps with other values.
        shutil.rmtree(self._trials.trial_folder(name), ignore_errors=True)
        return name, self._space.first_guess(self._recipe) if name == _name(1) else None

    def _ask(self, name: str, point: Values | None) -> optuna.Trial:
        """Optuna's trial, its draws still to come; they are ``point`` where that is given."""
        settings = self._trials.config
        number = int(name.removeprefix(_PREFIX))
        seed = np.random.SeedSequence((settings.run.seed, number)).generate_state(1)
        self._study.sampler = _SAMPLERS[settings.tune.searcher](seed=int(seed[0]))
        if point is not None:
            self._study.enqueue_trial(point)
        return self._study.ask()

    def _tell(self, name: str, trial: optuna.Trial, state: str) -> None:
        reports = history(self._trials.trial_folder(name))
        for report in reports:
            trial.report(report[SCORE], report["epoch"])
        if state == "finished" and reports:
            self._study.tell(trial, max(report[SCORE] for report in reports))
        else:
            pruned = state == "stopped"
            self._study.tell(trial, state=TrialState.PRUNED if pruned else TrialState.FAIL)


def _name(number: int) -> str:
    return f"{_PREFIX}{number:04d}"
