"""A trial of Ray Tune: one configuration, trained by a lane, judged epoch by epoch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from maskcls import files, search_space, tracking
from maskcls.config import Config
from maskcls.labels import Task
from ray_jobs import job as jobs
from ray_jobs.driver import queue_name
from ray_jobs.job import Job
from ray_jobs.job_queue import Event
from ray_jobs.prepare import Dataset
from ray_jobs.run_state import Board, JobState

log = logging.getLogger(__name__)
ENDS = {"finished": "done", "stopped": "cancelled", "failed": "failed"}
"""How a trial ends -> the kind of event that this is for its job."""

SCORE = "score"
"""The metric that Tune maximises: out-of-fold macro F1 of the trial's folds after an epoch."""


class TrialFailed(RuntimeError):  # noqa: N818 -- an answer to the user, not a bug
    """The trial's configuration cannot be trained; says why."""


@dataclass(frozen=True)
class TrialPlan:
    """What all trials of a search share."""

    config: Config
    task: Task
    data: Dataset
    folder: Path

    def trial_folder(self, name: str) -> Path:
        return self.folder / name

    def job(self, name: str, values: Mapping[str, Any]) -> Job:
        """The job of a trial: its first fold, with the others as companions."""
        recipe = search_space.apply(self.config.recipe(self.task), values)
        if "train.epochs" not in values:
            recipe = search_space.apply(recipe, {"train.epochs": self.config.tune.max_epochs})
        seed = self.config.run.seed
        first, *others = (
            Job(
                name=name,
                task=self.task,
                fold=fold,
                recipe=recipe,
                seed=seed,
                identity=jobs.identity(
                    recipe, task=self.task, fold=fold, seed=seed, data=self.data.digest
                ),
                folder=self.trial_folder(name) / f"fold{fold}",
                train=self.data.train.images[recipe.image],
                evaluation=None,
                group=self.folder.parent.name,
                tracking=self.config.tracking,
                supervised=True,
            )
            for fold in self.config.tune.folds
        )
        return replace(first, companions=tuple(others))


class Trial(tune.Trainable):
    """Hands its job to a lane and passes its epochs on to Tune.

    Its configuration is what ``LedgerSearcher`` suggests: a name that outlives the driver, which
    Tune's own id does not, and the values of the keys that are searched.

    That Tune asks for another step is the verdict to go on; the end of a trial is told to the
    lane by the ledger, which hears of it first.
    """

    def setup(
        self, config: dict[str, Any], queue: Any = None, plan: TrialPlan | None = None
    ) -> None:
        assert queue is not None
        assert plan is not None
        self._queue, self._plan = queue, plan
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._job = self._plan.job(config["name"], config["values"])
        self._seen, self._unread = ray.get(self._queue.events_so_far.remote()), list[Event]()
        of = self._job.recipe.train.epochs
        # A resumed trial has epochs behind it, and may have nothing left to do.
        behind = history(self._plan.trial_folder(self._job.name))
        self._last: dict[str, Any] = {**behind[-1], "of": of} if behind else {}
        self._unjudged: int | None = None
        ray.get(self._queue.submit.remote([self._job]))

    def step(self) -> dict[str, Any]:
        if self._unjudged is not None:
            ray.get(self._queue.decide.remote(self._job.name, self._unjudged, True))
        while True:
            for event in self._news():
                if event.kind == "failed":
                    raise TrialFailed(event.values["reason"])
                if event.kind in ("done", "cancelled"):
                    return {**self._last, "done": True, "done_early": event.kind == "done"}
                if event.kind == "epoch":
                    of = self._job.recipe.train.epochs
                    self._last = {**_report(event.values), "of": of}
                    self._unjudged = self._last["epoch"]
                    return {**self._last, "done": self._unjudged >= of}

    def _news(self) -> Iterator[Event]:
        """Events of this trial, each once."""
        while not self._unread:
            self._seen, self._unread = ray.get(
                self._queue.events.remote(self._seen, self._job.name)
            )
        while self._unread:
            yield self._unread.pop(0)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the trial's folder has its checkpoint, which a resumed trial goes on from."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing; see ``save_checkpoint``."""


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


def history(trial_folder: Path) -> list[dict[str, Any]]:
    """The reports of a trial so far, from its folder."""
    paths = sorted(trial_folder.glob("fold*/metrics.jsonl"))
    if not paths:
        return []
    return [_report(row) for _, row in tracking.read_metrics(paths[0].parent).iterrows()]


def _report(values: Any) -> dict[str, Any]:
    return {
        "epoch": int(values["epoch"]),
        SCORE: values["val/macro_f1"],
        "loss": values["val/loss"],
        "epoch_seconds": values["seconds"],
    }


def ending(result: Mapping[str, Any]) -> tuple[str, str]:
    """State and reason of a trial that ended without an error, from its last report."""
    if result.get("epoch", 0) >= result.get("of", 1):
        return "finished", "ran all its epochs"
    if result.get("done_early"):
        return "finished", "no better score for train.patience epochs"
    return "stopped", f"not among the best at epoch {result.get('epoch', 0)}"


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
        log.info("%s  starts: %s", name, _told(values))
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
        told = ray.get(queue.why_failed.remote(trial.config["name"]))
        reason = told or "the trial's own process died"
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
        ended = [name for name, e in self.read(self._run).items() if e["state"] != "running"]
        # Each trial is looked at once: to read all again at each end would cost as the square of
        # their number, more than an hour for 1,500.
        fresh = [name for name in ended if name not in self._best]
        for name in fresh:
            scores = [report[SCORE] for report in history(self._trials / name)]
            self._best[name] = max(scores, default=-1.0)
            for fold in (self._trials / name).glob("fold*"):
                (fold / "resume.pt").unlink(missing_ok=True)
                (fold / "last.safetensors").unlink(missing_ok=True)
        self._with_weights = [*self._with_weights, *fresh]
        keep = max(ended, key=lambda name: self._best[name])
        for name in self._with_weights:
            if name != keep:
                for fold in (self._trials / name).glob("fold*"):
                    (fold / "model.safetensors").unlink(missing_ok=True)
        self._with_weights = [keep]


def _told(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in values.items()
    )
