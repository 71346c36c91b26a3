"""Validation, out-of-fold probabilities and predictions of one model."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import torch.distributed as dist
from scipy.linalg import block_diag

from maskcls import labels
from maskcls.data.status import OK
from maskcls.labels import LABEL_COLUMNS, Float32Array, UInt8Array
from maskcls.learning import checkpoint, tracking
from maskcls.learning import predict as inference
from maskcls.learning.learner import Learner
from maskcls.scoring import metrics
from maskcls.storage import files
from ray_jobs.training import plans
from ray_jobs.training.job import Job
from ray_jobs.training.session import Session


def score(
    probabilities: dict[str, Float32Array], table: pd.DataFrame
) -> tuple[dict[str, float], npt.NDArray[np.int64]]:
    """Scores and confusion matrix of one model against the truth in ``table``: of its head, or,
    with several heads, of the joint class they make up. ``loss`` is the mean negative
    log-likelihood of the truth.

    A head is scored on the photos that have its label. Where none has all three, the matrix has
    the classes of all heads, one head after the other, so macro F1 is a mean over those.
    """
    predicted = {head: values.argmax(axis=1) for head, values in probabilities.items()}
    truth = {head: table[LABEL_COLUMNS[head]].to_numpy() for head in probabilities}
    known = {head: values != labels.MISSING for head, values in truth.items()}
    loss = sum(
        float(-np.log(values[known[head], truth[head][known[head]]].clip(1e-12)).mean())
        for head, values in probabilities.items()
        if known[head].any()
    )
    matrices = {
        head: metrics.confusion(
            truth[head][known[head]], predicted[head][known[head]], values.shape[1]
        )
        for head, values in probabilities.items()
    }
    confusion_KK = block_diag(*matrices.values())
    whole = (table["joint"] != labels.MISSING).to_numpy()
    if len(probabilities) > 1 and whole.any():
        joint = labels.encode(**predicted)
        confusion_KK = metrics.confusion(
            table["joint"].to_numpy()[whole], joint[whole], labels.NUM_JOINT
        )
    return {"loss": loss, **metrics.scores(confusion_KK)}, confusion_KK


def validate(
    learner: Learner,
    photos_NHWC: UInt8Array,
    rows_M: npt.NDArray[np.int64],
    session: Session,
    views: Sequence[str] = ("plain",),
) -> dict[str, Float32Array]:
    """Probabilities of every validation photo, in order, on every process of the job."""
    predictor = learner.predictor(views)
    mine = predictor(photos_NHWC, rows_M[session.rank :: session.world], session.beat)
    if session.world == 1:
        return mine
    shares: list[Any] = [None] * session.world
    dist.all_gather_object(shares, mine)
    # Where there are fewer photos than processes, the first of these have all.
    merged = {
        head: np.empty((len(rows_M), values.shape[1]), np.float32)
        for head, values in shares[0].items()
    }
    for rank, share in enumerate(shares):
        for head, values in share.items():
            merged[head][rank :: session.world] = values
    return merged


def save_best(
    job: Job,
    learner: Learner,
    epoch: int,
    values: dict[str, float],
    probabilities: dict[str, Float32Array],
    validation: pd.DataFrame,
    weights: Mapping[str, torch.Tensor],
) -> None:
    """Write what the best epoch so far leaves: its ``weights`` and what it says out of fold."""
    _write_out_of_fold(job, probabilities, validation)
    checkpoint.save(
        job.folder,
        weights,
        checkpoint.Info(
            identity=job.identity,
            task=job.task,
            fold=job.fold,
            recipe=job.recipe,
            classes=checkpoint.labels_of(job.task, job.recipe.labels.age_limits),
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


def answer_in_all_views(job: Job, session: Session) -> None:
    """What the best model says out of fold as it will predict, where that is more than what epochs
    are compared by, the plain photo. In the first process alone: it has the model. Epochs of a
    trial, which may end at any of them, are seen in all views already.

    Does the same again where it is called again, so an interruption loses nothing.
    """
    assert job.train is not None
    if job.supervised or not job.recipe.predict.answers_again:
        return
    predictor, info = inference.load(job.folder, session.device)
    photos = job.train.photos()
    _, validation = plans.tables(photos, job.task, job.fold, job.recipe, job.seed)
    probabilities = predictor(job.train.open(), validation["row"].to_numpy(), session.beat)
    scores, _ = score(probabilities, validation)
    _write_out_of_fold(job, probabilities, validation)
    checkpoint.save_info(job.folder, info.model_copy(update={"scores": scores}))


def _write_out_of_fold(
    job: Job, probabilities: dict[str, Float32Array], validation: pd.DataFrame
) -> None:
    rows = out_of_fold_rows(job.task, job.fold, probabilities, validation)
    files.write_table(job.folder / "out_of_fold.parquet", rows)


def out_of_fold_rows(
    task: labels.Task, fold: int, probabilities: dict[str, Float32Array], validation: pd.DataFrame
) -> pd.DataFrame:
    """One row a photo and head that the photo has a label for: photo, person, task, head, fold,
    truth, predicted, probabilities."""
    rows = pd.concat(
        [
            pd.DataFrame(
                {
                    "photo": validation["photo"].to_numpy(),
                    "person": validation["person"].to_numpy(),
                    "task": str(task),
                    "head": head,
                    "fold": fold,
                    "truth": validation[LABEL_COLUMNS[head]].to_numpy(),
                    "predicted": values.argmax(axis=1),
                    "probabilities": list(values),
                }
            )
            for head, values in probabilities.items()
        ],
        ignore_index=True,
    )
    return rows[rows["truth"] != labels.MISSING].reset_index(drop=True)


def predict(job: Job, session: Session) -> None:
    """The best model on the photos to predict, in the first process alone: it has the model."""
    assert job.evaluation is not None
    predictor, _ = inference.load(job.folder, session.device)
    photos = job.evaluation.photos()
    readable = (photos["status"] == OK).to_numpy()
    rows_M, numbers = np.flatnonzero(readable), itertools.count(1)
    batches = -(-len(rows_M) // predictor.batch_size)
    probabilities = predictor(
        job.evaluation.open(), rows_M, lambda: session.beat(next(numbers), batches)
    )
    session.vote(job, photos.loc[readable, "image_id"].tolist(), probabilities)


def show_mistakes(job: Job, tracker: tracking.Tracker) -> None:
    """Confusion matrices, and the photos that the model is most surely wrong about."""
    assert job.train is not None
    out_of_fold = pd.read_parquet(job.folder / "out_of_fold.parquet")
    out_of_fold["sure"] = out_of_fold["probabilities"].map(max)
    row_of = pd.Series(range(len(photos := job.train.photos())), index=photos["key"])
    matrices = {}
    for head, rows in out_of_fold.groupby("head"):
        size = len(labels.class_names(str(head)))
        matrices[str(head)] = metrics.confusion(rows["truth"], rows["predicted"], size)
    limits = job.recipe.labels.age_limits
    tracker.confusion(matrices, limits)
    images, captions = [], []
    wrong = out_of_fold[out_of_fold["truth"] != out_of_fold["predicted"]]
    for photo in wrong.nlargest(tracking.MISTAKES, "sure").to_dict("records"):
        names = labels.class_names(photo["head"], limits)
        images.append(job.train.open()[row_of[photo["photo"]]])
        taken = f"taken for {names[photo['predicted']]} ({photo['sure']:.0%})"
        captions.append(f"{names[photo['truth']]}, {taken}")
    tracker.mistakes(images, captions)
