"""ASHA that goes on after a restart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler

from ray_jobs.search.trial import history


class ResumableASHA(ASHAScheduler):
    """ASHA whose rungs outlive the driver: read from the trials' own folders.

    A trial that is added brings the epochs that it has behind it, but for the last, which its lane
    tells again to be judged; the first one also brings those of the trials that had ``ended``.
    """

    def __init__(self, folder: Path, ended: Sequence[str] = (), **options: Any) -> None:
        super().__init__(time_attr="epoch", stop_last_trials=False, **options)
        self._folder, self._ended = folder, list(ended)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        while self._ended:
            name = self._ended.pop(0)
            trial_that_ended = SimpleNamespace(trial_id=name)
            self._add(tune_controller, trial_that_ended, history(self._folder / name))
        self._add(tune_controller, trial, history(self._folder / trial.config["name"])[:-1])

    def _add(self, tune_controller: Any, trial: Any, behind: Sequence[dict[str, Any]]) -> None:
        super().on_trial_add(tune_controller, trial)
        for report in behind:
            self.on_trial_result(tune_controller, trial, report)
