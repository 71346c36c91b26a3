"""The ledger of a search: what became of each trial."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray import tune

from maskcls.storage import files
from ray_jobs.lanes.pool import queue_name
from ray_jobs.lanes.records import Event
from ray_jobs.run.state import Board, JobState
from ray_jobs.search.trial import SCORE, TrialPlan, history

log = logging.getLogger(__name__)
ENDS = {"finished": "done", "stopped": "cancelled", "failed": "failed"}
"""How a trial ends -> the kind of event that this is for its job."""


def ending(result: Mapping[str, Any]) -> tuple[str, str]:
    """State and reason of a trial that ended without an error, from its last report."""
    if result.get("epoch", 0) >= result.get("of", 1):
        return "finished", "ran all its epochs"
    if result.get("done_early"):
        return "finished", "no better score for train.patience epochs"
    return "stopped", f"not among the best at epoch {result.get('epoch', 0)}"


def best_trial(entries: Mapping[str, Mapping[str, Any]], scores: Mapping[str, float]) -> str | None:
    """The name of the trial with the highest score; of equal ones, the first by name.

    A trial that failed is none, however good its epochs before that were.
    """
    candidates = [
        name
        for name, score in scores.items()
        if entries[name]["state"] != "failed" and math.isfinite(score)
    ]
    return min(candidates, key=lambda name: (-scores[name], name), default=None)


def job_state(plan: TrialPlan, name: str, entry: Mapping[str, Any]) -> JobState:
    """A trial as its entry in the ledger and its folder tell, for the board of the run."""
    reports = history(plan.trial_folder(name))
    states: dict[Any, Any] = {"finished": "done", "stopped": "stopped", "failed": "failed"}
    return JobState(
        name=name,
        task=str(plan.task),
        epochs=entry["values"].get("train.epochs", plan.config.tune.max_epochs),
        state=states.get(entry.get("state"), "waiting"),
        epoch=reports[-1]["epoch"] if reports else 0,
        score=max((report[SCORE] for report in reports), default=None),
        reason=entry.get("reason") or None,
    )


class Ledger(tune.Callback):
    """Writes down what becomes of every trial, tells it in a line and to the board of the run, and
    keeps only what is needed.

    Kept in ``trials.json`` at every change, so that it survives whatever ends the driver.
    """

    def __init__(self, plan: TrialPlan, board: Board) -> None:
        self._plan, self._board = plan, board
        self._run, self._trials = plan.folder.parent, plan.folder
        self._best: dict[str, float] = {}
        self._with_weights: list[str] = []

    @staticmethod
    def read(run: Path) -> dict[str, dict[str, Any]]:
        """Name -> values, state, reason and seconds, in the order of their start."""
        path = run / "trials.json"
        return files.read_json(path) if path.is_file() else {}

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        name, values = trial.config["name"], trial.config["values"]
        log.info("%s  starts: %s", name, _values_text(values))
        self._write(trial, "running", "")
        self._board.begin(job_state(self._plan, name, {"values": values}))
        self._show(trial, "started", {"attempt": 1})

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        log.info(
            "%s  epoch %d/%d  macro F1 %.3f  loss %.3f  %.1f s",
            trial.config["name"], result["epoch"], result["of"], result[SCORE], result["loss"],
            result["epoch_seconds"],
        )  # fmt: skip
        self._show(trial, "epoch", {
            "epoch": result["epoch"], "epochs": result["of"], "val/macro_f1": result[SCORE],
            "seconds": result["epoch_seconds"],
        })  # fmt: skip

    def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
        self._board.hear([])

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        # Here, not in the trial's own cleanup: with reused actors that comes only with the next.
        self._cancel(trial)
        self._write(trial, *ending(trial.last_result))
        self._tidy()

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        queue = ray.get_actor(queue_name(self._run))
        if ray.get(queue.why_aborted.remote()):
            return  # Not the trial has failed but the run: the next one goes on with it.
        # Tune has not read the error yet when it calls this.
        failed = ray.get(queue.why_failed.remote(trial.config["name"]))
        reason = failed or "the trial's own process died"
        self._cancel(trial)
        log.info("%s  failed: %s", trial.config["name"], reason)
        self._write(trial, "failed", reason)
        self._tidy()

    def _cancel(self, trial: Any) -> None:
        queue = ray.get_actor(queue_name(self._run))
        ray.get(queue.cancel.remote(trial.config["name"]))

    def _show(self, trial: Any, kind: str, values: dict[str, Any]) -> None:
        self._board.hear([Event(kind, trial.config["name"], values=values)])

    def _write(self, trial: Any, state: str, reason: str) -> None:
        ledger = self.read(self._run)
        entry = ledger.setdefault(trial.config["name"], {"values": trial.config["values"]})
        seconds = trial.last_result.get("time_total_s", 0.0) if trial.last_result else 0.0
        entry |= {"state": state, "reason": reason, "seconds": seconds}
        files.write_json(self._run / "trials.json", ledger)
        if state in ENDS:
            self._show(trial, ENDS[state], {"reason": reason})

    def _tidy(self) -> None:
        """Ended trials lose what only a running one needs, and all but the best their weights."""
        entries = self.read(self._run)
        # Each trial is looked at once: to read all again at each end would cost as the square of
        # their number, more than an hour for 1,500.
        fresh = [
            name
            for name, entry in entries.items()
            if entry["state"] != "running" and name not in self._best
        ]
        for name in fresh:
            scores = [report[SCORE] for report in history(self._trials / name)]
            self._best[name] = max(filter(math.isfinite, scores), default=-math.inf)
            for fold in (self._trials / name).glob("fold*"):
                (fold / "resume.pt").unlink(missing_ok=True)
                (fold / "last.safetensors").unlink(missing_ok=True)
        keep = best_trial(entries, self._best)
        for name in {*self._with_weights, *fresh} - {keep}:
            for fold in (self._trials / name).glob("fold*"):
                (fold / "model.safetensors").unlink(missing_ok=True)
        self._with_weights = [keep] if keep else []


def _values_text(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in values.items()
    )
