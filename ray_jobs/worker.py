"""The loop that a Train worker runs: one job, from weights to out-of-fold probabilities."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import torch.distributed as dist

from maskcls import checkpoint, files, folds, inference, labels, metrics, sampling, tracking
from maskcls.config import Recipe
from maskcls.learner import LABEL_COLUMNS, Learner, options
from maskcls.manifest import OK
from ray_jobs import pipeline
from ray_jobs.job import Job

FloatArray = npt.NDArray[np.float32]
MISTAKES = 10
"""Wrong photos that a job shows."""


class Session(Protocol):
    """What a job needs of the process that runs it."""

    rank: int
    world: int
    node: str
    device: torch.device

    def beat(self) -> None:
        """Say that the job is alive; raises Cancelled when nobody wants it any more."""

    def epoch(self, number: int, values: dict[str, float]) -> None:
        """Tell the driver of an epoch."""

    def streams(self) -> int:
        """How many streams of batches share the cluster at the moment."""

    def go_on(self, number: int) -> bool:
        """Whether a supervised job shall train on after this epoch."""

    def vote(self, job: Job, keys: list[str], probabilities: dict[str, FloatArray]) -> None:
        """Hand the ensemble what this model says of the photos to predict."""

    def has_voted(self, job: Job) -> bool:
        """Whether the ensemble has this model's votes already."""


class Cancelled(Exception):  # noqa: N818 -- not an error: somebody decided so
    """Nobody wants the job any more."""


@dataclass(frozen=True)
class EpochReport:
    """An epoch's numbers; ``keep`` writes down that it is over, so that a later attempt goes on
    from there."""

    number: int
    values: dict[str, float]
    confusion_KK: npt.NDArray[np.int64]
    keep: Callable[[], None]


def run(job: Job, session: Session) -> dict[str, Any]:
    """Train the job unless that is done, predict unless that is done; returns its report.

    Raises ValueError for a recipe that cannot be built and FloatingPointError for a loss that is
    no number; nothing is left half written in either case. Raises StorageError where the run lies
    on an object store that does not answer.
    """
    started = time.monotonic()
    # What another node left; last.safetensors is for users, nothing here reads it.
    job.place.pull(lambda name: name != "last.safetensors")
    known = job.done()
    report = known or _train_to_the_end(job, session, started)
    if job.evaluation is not None and not (known and session.has_voted(job)):
        _predict(job, session)
    return report


def _train_to_the_end(job: Job, session: Session, started: float) -> dict[str, Any]:
    tracker = _tracker(job) if session.rank == 0 else None
    history: list[dict[str, float]] = []
    for reports in _side_by_side([train(j, session) for j in (job, *job.companions)]):
        values = _together(reports)
        history.append(values)
        if tracker:
            tracker.epoch(values)
            for report in reports:
                report.keep()
            # The best weights before the state that says they are behind it.
            job.place.push(last=["resume.pt"])
        session.epoch(reports[0].number, values)
        if job.supervised and not session.go_on(reports[0].number):
            break
    info = checkpoint.read_info(job.folder)
    outcome = {
        "identity": job.identity,
        "task": job.task,
        "fold": job.fold,
        "best_epoch": info.epoch,
        "epochs": round(history[-1]["epoch"]) if history else info.epoch,
        "scores": info.scores,
        "node": session.node,
        "seconds": round(time.monotonic() - started, 3),
        "training_seconds": round(sum(values["seconds"] for values in history), 3),
    }
    if session.rank == 0:
        if tracker:
            _show_mistakes(job, tracker)
            tracker.finish(info.scores)
        files.write_json(job.folder / "job.json", outcome)
        job.place.push(last=["job.json"])
        if not job.supervised:
            (job.folder / "resume.pt").unlink(missing_ok=True)
            job.place.push(gone=["resume.pt"])
    return outcome


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

    After the yield of a best epoch its weights and out-of-fold probabilities are on disk. A
    supervised job that is resumed tells its last epoch again, since nobody may have judged it.
    """
    recipe, rank = job.recipe, session.rank
    assert job.train is not None, "only a finished job comes without training photos"
    learner, plan, validation = begin(job, session)
    state = checkpoint.load_resume(job.folder, job.identity)
    history: list[dict[str, float]] = []
    if state is not None:
        learner.restore(state)
        history = state["history"]
    if _out_of_patience(history, recipe.train.patience):
        return
    if state is not None and job.supervised:
        confusion_KK = np.array(state["confusion"], np.int64)
        yield EpochReport(len(history), history[-1], confusion_KK, keep=lambda: None)
    stream = pipeline.batches(
        job.train,
        plan,
        options(recipe.augment),
        first_epoch=len(history) + 1,
        last_epoch=recipe.train.epochs,
        title=job.title,
        streams=session.streams,
    )
    for epoch in range(len(history) + 1, recipe.train.epochs + 1):
        began = time.monotonic()
        loss = _train_epoch(learner, stream, plan, epoch, session)
        probabilities = validate(learner, job.train.open(), validation["row"].to_numpy(), session)
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
        if rank == 0 and best:
            save_best(job, learner, epoch, values, probabilities, validation)
        values["seconds"] = time.monotonic() - began
        keep = functools.partial(_keep, job, learner, history, confusion_KK)
        yield EpochReport(epoch, values, confusion_KK, keep)
        if _out_of_patience(history, recipe.train.patience):
            return


def begin(job: Job, session: Session) -> tuple[Learner, pipeline.EpochPlan, pd.DataFrame]:
    """What learns, what it trains on, and the table of what it validates on."""
    assert job.train is not None
    photos = job.train.photos()
    training, validation = tables(photos, job.fold, job.recipe, job.seed)
    validation["photo"] = photos["key"].to_numpy()[validation["row"]]
    plan = epoch_plan(job.task, job.recipe, job.seed, training, session.rank, session.world)
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


def tables(
    photos: pd.DataFrame, fold: int, recipe: Recipe, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What a fold trains on and what it validates on; see ``folds``."""
    fold_of = photos.drop_duplicates("person").set_index("person")["fold"]
    people = recipe.people.model_dump()
    training = folds.training_table(photos, fold_of, fold, seed=seed, **people)
    return training, folds.validation_table(photos, fold_of, fold)


def score(
    probabilities: dict[str, FloatArray], table: pd.DataFrame
) -> tuple[dict[str, float], npt.NDArray[np.int64]]:
    """Scores and confusion matrix of one model against the truth in ``table``: of its head, or,
    with several heads, of the joint class they make up. ``loss`` is the mean negative
    log-likelihood of the truth."""
    predicted = {head: values.argmax(axis=1) for head, values in probabilities.items()}
    truth = {head: table[LABEL_COLUMNS[head]].to_numpy() for head in probabilities}
    loss = sum(
        float(-np.log(values[np.arange(len(values)), truth[head]].clip(1e-12)).mean())
        for head, values in probabilities.items()
    )
    if len(probabilities) > 1:
        joint = labels.encode(**predicted)
        confusion_KK = metrics.confusion(table["joint"].to_numpy(), joint, labels.NUM_JOINT)
    else:
        ((head, values),) = probabilities.items()
        confusion_KK = metrics.confusion(truth[head], predicted[head], values.shape[1])
    return {"loss": loss, **metrics.scores(confusion_KK)}, confusion_KK


def epoch_plan(
    task: labels.Task, recipe: Recipe, seed: int, training: pd.DataFrame, rank: int, world: int
) -> pipeline.EpochPlan:
    """What every epoch shows, in which steps. Raises ValueError for shares that cannot be had."""
    head, classes = next(iter(labels.HEADS[task].items()))
    if task is labels.Task.MULTI:
        head, classes = "joint", labels.NUM_JOINT
    labels_N = training[LABEL_COLUMNS[head]].to_numpy()
    sampler = recipe.sampler
    return pipeline.EpochPlan(
        rows=pipeline.training_rows(training),
        labels_N=labels_N,
        shares=sampling.class_shares(sampler.name, labels_N, classes, sampler.shares),
        batch_size=recipe.train.batch_size,
        seed=seed,
        rank=rank,
        world=world,
    )


def _train_epoch(
    learner: Learner,
    stream: Iterator[pipeline.Batch],
    plan: pipeline.EpochPlan,
    epoch: int,
    session: Session,
) -> float:
    """One pass over the training photos; returns the mean loss of a photo."""
    learner.start_epoch(epoch, session.rank)
    bounds_S = plan.epoch(epoch).bounds_S
    total = torch.zeros((), device=session.device)
    for step in range(plan.steps):
        batch = next(stream)
        assert (batch.epoch, batch.step) == (epoch, step), "the stream lost its order"
        total += learner.step(
            batch.images_BHWC,
            batch.items_B,
            epoch=epoch,
            number=(epoch - 1) * plan.steps + step,
            total=int(bounds_S[step + 1] - bounds_S[step]),
        )
        session.beat()
    if session.world > 1:
        dist.all_reduce(total)
    loss = float(total) / int(bounds_S[-1])
    if not np.isfinite(loss):
        raise FloatingPointError(
            f"the training loss became {loss} in epoch {epoch}: lower train.lr, "
            "set train.clip_grad_norm, or use train.precision=float32"
        )
    return loss


def shared(value: Any, world: int) -> Any:
    """The first worker's value, on every worker of the job."""
    if world == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def validate(
    learner: Learner,
    photos_NHWC: pipeline.UInt8Array,
    rows_M: npt.NDArray[np.int64],
    session: Session,
) -> dict[str, FloatArray]:
    """Probabilities of every validation photo, in order, on every process of the job."""
    predictor = learner.predictor()
    mine = predictor(photos_NHWC, rows_M[session.rank :: session.world], session.beat)
    if session.world == 1:
        return mine
    shares: list[Any] = [None] * session.world
    dist.all_gather_object(shares, mine)
    merged = {
        head: np.empty((len(rows_M), values.shape[1]), np.float32) for head, values in mine.items()
    }
    for rank, share in enumerate(shares):
        for head, values in share.items():
            merged[head][rank :: session.world] = values
    return merged


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
) -> None:
    """Write what the next epoch needs, or after the last one its weights."""
    if len(history) == job.recipe.train.epochs:
        checkpoint.save_weights(job.folder / "last.safetensors", learner.model.state_dict())
        return
    state = {"identity": job.identity, "history": history, "confusion": confusion_KK.tolist()}
    checkpoint.save_resume(job.folder, {**state, **learner.state()})


def save_best(
    job: Job,
    learner: Learner,
    epoch: int,
    values: dict[str, float],
    probabilities: dict[str, FloatArray],
    validation: pd.DataFrame,
) -> None:
    out_of_fold = out_of_fold_rows(job, probabilities, validation)
    with files.replacing(job.folder / "out_of_fold.parquet") as temporary:
        out_of_fold.to_parquet(temporary, index=False)
    checkpoint.save(
        job.folder,
        learner.model.state_dict(),
        checkpoint.Info(
            identity=job.identity,
            task=job.task,
            fold=job.fold,
            recipe=job.recipe,
            classes=checkpoint.labels_of(job.task),
            mean=learner.normalize.mean,
            std=learner.normalize.std,
            seed=job.seed,
            epoch=epoch,
            scores={
                name.removeprefix("val/"): value
                for name, value in values.items()
                if name.startswith("val/")
            },
            versions=checkpoint.versions(),
        ),
    )


def out_of_fold_rows(
    job: Job, probabilities: dict[str, FloatArray], validation: pd.DataFrame
) -> pd.DataFrame:
    """One row a photo and head: photo, person, task, head, fold, truth, predicted,
    probabilities."""
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "photo": validation["photo"].to_numpy(),
                    "person": validation["person"].to_numpy(),
                    "task": str(job.task),
                    "head": head,
                    "fold": job.fold,
                    "truth": validation[LABEL_COLUMNS[head]].to_numpy(),
                    "predicted": values.argmax(axis=1),
                    "probabilities": list(values),
                }
            )
            for head, values in probabilities.items()
        ],
        ignore_index=True,
    )


def _predict(job: Job, session: Session) -> None:
    """The best model on the photos to predict; only the first process works, it is quick."""
    assert job.evaluation is not None
    if session.rank != 0:
        return
    predictor, _ = inference.load(job.folder, session.device)
    photos = job.evaluation.photos()
    readable = (photos["status"] == OK).to_numpy()
    probabilities = predictor(job.evaluation.open(), np.flatnonzero(readable), session.beat)
    session.vote(job, photos.loc[readable, "image_id"].tolist(), probabilities)


def _tracker(job: Job) -> tracking.Tracker:
    return tracking.Tracker(
        folder=job.folder,
        run_name=job.name,
        group=job.group,
        job_type=str(job.task),
        config=job.recipe.model_dump(mode="json"),
        **options(job.tracking),
    )


def _show_mistakes(job: Job, tracker: tracking.Tracker) -> None:
    """Confusion matrices, and the photos that the model is most surely wrong about."""
    assert job.train is not None
    out_of_fold = pd.read_parquet(job.folder / "out_of_fold.parquet")
    out_of_fold["sure"] = out_of_fold["probabilities"].map(max)
    row_of = pd.Series(range(len(photos := job.train.photos())), index=photos["key"])
    matrices = {}
    for head, rows in out_of_fold.groupby("head"):
        size = len(labels.class_names(str(head)))
        matrices[str(head)] = metrics.confusion(rows["truth"], rows["predicted"], size)
    tracker.confusion(matrices)
    images, captions = [], []
    wrong = out_of_fold[out_of_fold["truth"] != out_of_fold["predicted"]]
    for photo in wrong.nlargest(MISTAKES, "sure").to_dict("records"):
        names = labels.class_names(photo["head"])
        images.append(job.train.open()[row_of[photo["photo"]]])
        taken = f"taken for {names[photo['predicted']]} ({photo['sure']:.0%})"
        captions.append(f"{names[photo['truth']]}, {taken}")
    tracker.mistakes(images, captions)
