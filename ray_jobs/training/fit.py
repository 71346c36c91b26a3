"""The loop that a Train worker runs: one job, from weights to out-of-fold probabilities."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from maskcls.labels import LABEL_COLUMNS
from maskcls.learning import checkpoint, tracking
from maskcls.learning.learner import Learner, options
from maskcls.scoring import metrics
from maskcls.storage import files
from ray_jobs.data import source
from ray_jobs.data import stream as pipeline
from ray_jobs.training import plans
from ray_jobs.training.evaluate import (
    answer_in_all_views,
    predict,
    save_best,
    score,
    show_mistakes,
    validate,
)
from ray_jobs.training.job import Job
from ray_jobs.training.session import Session


@dataclass(frozen=True)
class EpochReport:
    """An epoch's numbers; ``keep`` copies what a later attempt goes on from, and returns what
    writes the copy down."""

    number: int
    values: dict[str, float]
    confusion_KK: npt.NDArray[np.int64]
    keep: Callable[[], Callable[[], None]]


def run(job: Job, session: Session) -> dict[str, Any]:
    """Train the job unless that is done, predict unless that is done; returns its report.

    Raises ValueError for a recipe that cannot be built and FloatingPointError for a loss that is
    no number; nothing is left half written in either case. Raises StorageError where the run lies
    on an object store that does not answer.
    """
    started = time.monotonic()
    known = None
    if session.rank == 0:
        # What another node left, but for what nothing here reads.
        job.place.pull(lambda name: Path(name).name not in ("last.safetensors", "attempts.log"))
        known = job.done()
    known = session.shared(known)
    report = known or _train_to_the_end(job, session, started)
    if session.rank == 0 and job.evaluation is not None and not (known and session.has_voted(job)):
        predict(job, session)
    return report


def _train_to_the_end(job: Job, session: Session, started: float) -> dict[str, Any]:
    tracker = _tracker(job) if session.rank == 0 else None
    history: list[dict[str, float]] = []
    with checkpoint.Writer() as writer:
        for reports in _side_by_side([train(j, session) for j in (job, *job.companions)]):
            history.append(_together(reports))
            if tracker:
                writer.wait()  # while it sends the folder, nothing in there may change
                tracker.epoch(history[-1])
                writes = [report.keep() for report in reports]
                number, values = reports[0].number, history[-1]
                writer.submit(functools.partial(_write, job, session, writes, number, values))
            if job.supervised:
                writer.wait()  # a trial is judged on epochs that are on disk
                if not session.go_on(reports[0].number):
                    break
    return _conclude(job, session, tracker, history, started) if tracker else {}


def _conclude(
    job: Job,
    session: Session,
    tracker: tracking.Tracker,
    history: list[dict[str, float]],
    started: float,
) -> dict[str, Any]:
    """Let the best model answer in all views; write that the job is done and what it reports."""
    answer_in_all_views(job, session)
    info = checkpoint.read_info(job.folder)
    outcome = {
        "identity": job.identity,
        "task": job.task,
        "fold": job.fold,
        "best_epoch": info.epoch,
        "epochs": round(history[-1]["epoch"]) if history else info.epoch,
        "scores": info.scores,
        "views": list(job.recipe.predict.views),
        "node": session.node,
        "device": device_name(session.device),
        "seconds": round(time.monotonic() - started, 3),
        "training_seconds": round(sum(values["seconds"] for values in history), 3),
    }
    show_mistakes(job, tracker)
    tracker.finish(info.scores)
    files.write_json(job.folder / "job.json", outcome)
    job.place.push(last=["job.json"])
    if not job.supervised:
        (job.folder / "resume.pt").unlink(missing_ok=True)
        job.place.push(gone=["resume.pt"])
    return outcome


def device_name(device: torch.device) -> str:
    """What a job computes on, such as `cpu` or `cuda (NVIDIA H100)`."""
    if device.type != "cuda":
        return device.type
    return f"{device.type} ({torch.cuda.get_device_name(device)})"


def _write(
    job: Job,
    session: Session,
    writes: Sequence[Callable[[], None]],
    number: int,
    values: dict[str, float],
) -> None:
    """Write an epoch down, then say that it is over."""
    for write in writes:
        write()
    # The best weights before the state that says they are behind it.
    job.place.push(last=["resume.pt"])
    session.epoch(number, values)


def _side_by_side(folds_F: Sequence[Iterator[EpochReport]]) -> Iterator[list[EpochReport]]:
    """The reports of all folds, epoch by epoch.

    A process that ended between the states of two folds left one of them an epoch ahead: it tells
    that epoch again, and waits for the others.
    """
    for reports in zip(*folds_F, strict=True):
        number = max(report.number for report in reports)
        yield [
            report if report.number == number else next(fold)
            for report, fold in zip(reports, folds_F, strict=True)
        ]


def _together(reports: Sequence[EpochReport]) -> dict[str, float]:
    """The numbers of one epoch over all folds of a job: macro F1 is that of all their people."""
    if len(reports) == 1:
        return reports[0].values
    total = {
        name: float(np.mean([report.values[name] for report in reports]))
        for name in reports[0].values
    }
    pooled = metrics.scores(
        sum(report.confusion_KK for report in reports[1:]) + reports[0].confusion_KK
    )
    return {
        **total,
        **{f"val/{name}": value for name, value in pooled.items()},
        "seconds": sum(report.values["seconds"] for report in reports),
    }


def train(job: Job, session: Session) -> Iterator[EpochReport]:
    """Train epoch by epoch, going on where an earlier attempt stopped; yields after each.

    A supervised job that is resumed tells its last epoch again, since nobody may have judged it.
    """
    recipe = job.recipe
    assert job.train is not None, "only a finished job comes without training photos"
    learner, plan, validation = begin(job, session)
    state = session.shared(
        checkpoint.load_resume(job.folder, job.identity) if session.rank == 0 else None
    )
    history: list[dict[str, float]] = []
    if state is not None:
        learner.restore(state)
        history = state["history"]
    if _out_of_patience(history, recipe.train.patience):
        return
    if state is not None and job.supervised:
        confusion_KK = np.array(state["confusion"], np.int64)
        yield EpochReport(len(history), history[-1], confusion_KK, keep=lambda: lambda: None)
    stream = pipeline.batches(
        job.train,
        plan,
        options(recipe.augment),
        first_epoch=len(history) + 1,
        last_epoch=recipe.train.epochs,
        title=job.title,
        streams=session.streams,
        wait_for_cpu=session.wait_for_cpu,
    )
    for epoch in range(len(history) + 1, recipe.train.epochs + 1):
        began = time.monotonic()
        loss = _train_epoch(learner, stream, plan, epoch, session)
        probabilities = _validated(learner, job, validation, session)
        scores, confusion_KK = score(probabilities, validation)
        values = {
            "epoch": float(epoch),
            "epochs": float(recipe.train.epochs),
            "train/loss": loss,
            "train/lr": learner.lr,
            **{f"val/{name}": value for name, value in scores.items()},
        }
        best = not history or _rank_of(values) > max(map(_rank_of, history))
        history.append(values)
        save = functools.partial(save_best, job, learner, epoch, values, probabilities, validation)
        values["seconds"] = time.monotonic() - began
        keep = functools.partial(_keep, job, learner, history, confusion_KK, save if best else None)
        yield EpochReport(epoch, values, confusion_KK, keep)
        if _out_of_patience(history, recipe.train.patience):
            return


def begin(job: Job, session: Session) -> tuple[Learner, source.EpochPlan, pd.DataFrame]:
    """What learns, what it trains on, and the table of what it validates on."""
    assert job.train is not None
    job.train.open()  # before many tasks ask for images that this node may have to prepare
    photos = job.train.photos()
    training, validation = plans.tables(photos, job.task, job.fold, job.recipe, job.seed)
    plan = plans.epoch_plan(job.task, job.recipe, job.seed, training, session.rank, session.world)
    torch.manual_seed(job.seed)
    learner = Learner(
        job.task,
        job.recipe,
        {name: training[name].to_numpy() for name in (*LABEL_COLUMNS.values(), "age")},
        steps_per_epoch=plan.steps,
        device=session.device,
        seed=job.seed,
        world=session.world,
    )
    return learner, plan, validation


def _train_epoch(
    learner: Learner,
    stream: Iterator[source.Batch],
    plan: source.EpochPlan,
    epoch: int,
    session: Session,
) -> float:
    """One pass over the training photos; returns the mean loss of a photo."""
    learner.start_epoch(epoch, session.rank)
    sizes_S = np.diff(plan.epoch(epoch).bounds_S).tolist()
    total = torch.zeros((), device=session.device)
    for number in range(plan.steps):
        batch = next(stream)
        assert (batch.epoch, batch.step) == (epoch, number), "the stream lost its order"
        total += sizes_S[number] * step(learner, batch, plan)
        session.beat(number + 1, plan.steps)
    loss = float(total) / sum(sizes_S)
    if not np.isfinite(loss):
        raise FloatingPointError(
            f"the training loss became {loss} in epoch {epoch}: lower train.lr, "
            "set train.clip_grad_norm, or use train.precision=float32"
        )
    return loss


def step(learner: Learner, batch: source.Batch, plan: source.EpochPlan) -> torch.Tensor:
    """Teach the learner one batch; returns its loss."""
    return learner.step(
        batch.images_BHWC,
        batch.items_B,
        epoch=batch.epoch,
        number=(batch.epoch - 1) * plan.steps + batch.step,
    )


def _validated(
    learner: Learner, job: Job, validation: pd.DataFrame, session: Session
) -> dict[str, npt.NDArray[np.float32]]:
    """What an epoch's model says of the validation photos: of a trial in all views, since it may
    be the last that is asked of it, else of the plain photo."""
    assert job.train is not None
    views = job.recipe.predict.views if job.supervised else ["plain"]
    rows_M = validation["row"].to_numpy()
    return validate(learner, job.train.open(), rows_M, session, views)


def _rank_of(values: dict[str, float]) -> tuple[float, float]:
    """Epochs compare by macro F1, then by the lower validation loss."""
    return values["val/macro_f1"], -values["val/loss"]


def _out_of_patience(history: list[dict[str, float]], patience: int | None) -> bool:
    if patience is None or not history:
        return False
    best = max(range(len(history)), key=lambda i: (*_rank_of(history[i]), -i))
    return len(history) - 1 - best >= patience


def _keep(
    job: Job,
    learner: Learner,
    history: list[dict[str, float]],
    confusion_KK: npt.NDArray[np.int64],
    save: Callable[[Mapping[str, torch.Tensor]], None] | None,
) -> Callable[[], None]:
    """Copy what the next epoch needs, for training goes on; returns what writes it: the best
    weights first (``save``), then the state, or after the last epoch its weights."""
    learned = checkpoint.copied(learner.state())
    progress = {"identity": job.identity, "history": [*history], "confusion": confusion_KK.tolist()}
    last = len(history) == job.recipe.train.epochs
    weights = learned.get("averaged", learned["model"])

    def write() -> None:
        if save is not None:
            save(weights)
        if last:
            checkpoint.save_weights(job.folder / "last.safetensors", weights)
        else:
            checkpoint.save_resume(job.folder, {**progress, **learned})

    return write


def _tracker(job: Job) -> tracking.Tracker:
    return tracking.Tracker(
        folder=job.folder,
        run_name=job.name,
        group=job.group,
        job_type=str(job.task),
        config=job.recipe.model_dump(mode="json"),
        **options(job.tracking),
    )
