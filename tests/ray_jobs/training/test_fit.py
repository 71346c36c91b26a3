"""A job that ends in the middle goes on as if it had not; an epoch is over when it is on disk."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from maskcls.config.load import load
from maskcls.data import folds
from maskcls.labels import Task
from maskcls.learning import checkpoint, predict, tracking
from maskcls.scoring import metrics
from ray_jobs.data import stream
from ray_jobs.training import fit
from ray_jobs.training import job as jobs
from ray_jobs.training.job import Job
from tests import one_process
from tests.ray_jobs.test_chance import Photos, make_photos

EPOCHS, PEOPLE = 3, 24


class Death(BaseException):
    """The process is gone."""


class Mortal(one_process.Alone):
    """A session whose process dies at a certain beat."""

    def __init__(self, beats):
        super().__init__()
        self._beats = beats

    def beat(self, done=0, total=0):
        self._beats -= 1
        if self._beats < 0:
            raise Death


@pytest.fixture(scope="module")
def photos():
    table, images_NHWC = make_photos(seed=3)
    table, images_NHWC = table[: 3 * PEOPLE], images_NHWC[: 3 * PEOPLE]
    return Photos(
        table.assign(fold=table["person"].map(folds.assign(table, 2, seed=1))), images_NHWC
    )


def job_of_two_folds(folder, photos):
    words = ["model.name=test_efficientnet", "model.pretrained=false", "image.size=[32,24]",
             f"train.epochs={EPOCHS}", "train.batch_size=24", "folds.count=2",
             "train.ema=0.9", "predict.views=[plain,flip]"]  # fmt: skip
    config = load([], words).config
    recipe = config.recipe(Task.GENDER)
    first, second = (
        Job(
            name="trial", task=Task.GENDER, fold=fold, recipe=recipe, seed=1,
            identity=jobs.identity(recipe, task=Task.GENDER, fold=fold, seed=1, data="photos"),
            folder=folder / f"fold{fold}", train=photos, evaluation=None, group="run",
            tracking=config.tracking, supervised=True,
        )
        for fold in range(2)
    )  # fmt: skip
    return replace(first, companions=(second,))


def left_by(job):
    """What a finished job leaves, but for times."""
    metrics = tracking.read_metrics(job.folder).drop(columns="seconds")
    weights = [(j.folder / "model.safetensors").read_bytes() for j in (job, *job.companions)]
    said = [pd.read_parquet(j.folder / "out_of_fold.parquet").astype(str)
            for j in (job, *job.companions)]  # fmt: skip
    return metrics, weights, said


def assert_same(one, other):
    pd.testing.assert_frame_equal(one[0], other[0])
    assert one[1] == other[1]
    for a, b in zip(one[2], other[2], strict=True):
        pd.testing.assert_frame_equal(a, b)


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "batches", one_process.batches)
        job = job_of_two_folds(tmp_path_factory.mktemp("undisturbed"), photos)
        session = one_process.Alone()
        fit.run(job, session)
    assert session.told.count("go on?") == EPOCHS
    assert session.told.count("no CPU") == 2  # once a fold
    return left_by(job), session.told.count("beat")


def test_it_may_die_at_any_beat(whole, photos, tmp_path, monkeypatch):
    """After any step or batch of any fold of any epoch."""
    expected, beats = whole
    monkeypatch.setattr(stream, "batches", one_process.batches)
    monkeypatch.setattr(fit, "show_mistakes", lambda *_: None)  # drawn when all is on disk
    for beat in range(beats):
        job = job_of_two_folds(tmp_path / str(beat), photos)
        with pytest.raises(Death):
            fit.run(job, Mortal(beat))
        fit.run(job, one_process.Alone())
        assert_same(left_by(job), expected)


def test_epochs_are_compared_by_the_plain_photo_and_answers_are_of_all_views(
    photos, tmp_path, monkeypatch
):
    monkeypatch.setattr(stream, "batches", one_process.batches)
    job = replace(job_of_two_folds(tmp_path, photos), companions=(), supervised=False)
    fit.run(job, one_process.Alone())
    predictor, info = predict.load(job.folder, torch.device("cpu"))
    rows = pd.read_parquet(job.folder / "out_of_fold.parquet")
    row_of = pd.Series(range(len(photos.photos())), index=photos.photos()["key"])
    rows_M = row_of[rows["photo"]].to_numpy()
    said = {
        views: replace(predictor, views=views)(photos.open(), rows_M)["gender"]
        for views in (("plain",), ("plain", "flip"))
    }
    truth = rows["truth"].to_numpy()
    f1 = {
        views: metrics.scores(metrics.confusion(truth, of.argmax(axis=1), 2))["macro_f1"]
        for views, of in said.items()
    }
    np.testing.assert_allclose(np.stack(rows["probabilities"]), said["plain", "flip"], atol=1e-6)
    assert np.abs(said["plain", "flip"] - said["plain",]).max() > 1e-3
    assert info.scores["macro_f1"] == pytest.approx(f1["plain", "flip"])
    epochs = tracking.read_metrics(job.folder)
    assert epochs["val/macro_f1"].max() == pytest.approx(f1["plain",])


def test_it_may_die_between_the_states_of_two_folds(whole, photos, tmp_path, monkeypatch):
    expected, _ = whole
    monkeypatch.setattr(stream, "batches", one_process.batches)
    job = job_of_two_folds(tmp_path, photos)
    save, saved = checkpoint.save_resume, []

    def save_three(folder, state):
        if len(saved) == 3:
            raise Death
        save(folder, state)
        saved.append(folder)

    monkeypatch.setattr(checkpoint, "save_resume", save_three)
    with pytest.raises(Death):
        fit.run(job, one_process.Alone())
    monkeypatch.setattr(checkpoint, "save_resume", save)
    session = one_process.Alone()
    fit.run(job, session)
    assert_same(left_by(job), expected)
    # The second epoch is told again, to be judged.
    assert session.told.count("go on?") == 2


def test_a_trial_that_is_ended_has_answered_in_all_views(photos, tmp_path, monkeypatch):
    """Tune removes the weights of a trial as soon as it is over, and wants no more of it."""
    monkeypatch.setattr(stream, "batches", one_process.batches)
    job = replace(job_of_two_folds(tmp_path, photos), companions=())

    class Over(one_process.Alone):
        def go_on(self, number):
            self.beat = self.refuse
            self.said = pd.read_parquet(job.folder / "out_of_fold.parquet")
            predictor, _ = predict.load(job.folder, torch.device("cpu"))
            assert list(predictor.views) == ["plain", "flip"]
            row_of = pd.Series(range(len(photos.photos())), index=photos.photos()["key"])
            self.expected = predictor(photos.open(), row_of[self.said["photo"]].to_numpy())
            (job.folder / "model.safetensors").unlink()
            return False

        def refuse(self, *_):
            raise AssertionError("the trial is over")

    session = Over()
    report = fit.run(job, session)
    assert report["epochs"] == 1
    said = np.stack(session.said["probabilities"])
    np.testing.assert_allclose(said, session.expected["gender"], atol=1e-6)
    pd.testing.assert_frame_equal(
        pd.read_parquet(job.folder / "out_of_fold.parquet").astype(str), session.said.astype(str)
    )


class Checked(one_process.Alone):
    """A session that is told of epochs only when they are on disk."""

    def __init__(self, job):
        super().__init__()
        self._job = job

    def epoch(self, number, values):
        super().epoch(number, values)
        if number < EPOCHS:
            state = checkpoint.load_resume(self._job.folder, self._job.identity)
            assert len(state["history"]) == number
            best = max(state["history"], key=lambda v: (v["val/macro_f1"], -v["val/loss"]))
            assert checkpoint.read_info(self._job.folder).epoch == best["epoch"]
        else:
            assert (self._job.folder / "last.safetensors").is_file()


@pytest.mark.parametrize("cut_off", [1, 2])
def test_an_epoch_is_over_when_it_is_on_disk(photos, tmp_path, monkeypatch, cut_off):
    monkeypatch.setattr(stream, "batches", one_process.batches)
    straight, other = (
        replace(job_of_two_folds(tmp_path / name, photos), companions=(), supervised=False)
        for name in ("straight", "other")
    )
    session = Checked(straight)
    fit.run(straight, session)
    assert session.told.count("epoch") == EPOCHS

    save, saved = checkpoint.save_resume, []

    def save_some(folder, state):
        saved.append(folder)
        if len(saved) == cut_off:
            raise Death
        save(folder, state)

    monkeypatch.setattr(checkpoint, "save_resume", save_some)
    session = Checked(other)
    with pytest.raises(Death):
        fit.run(other, session)
    assert session.told.count("epoch") == cut_off - 1
    monkeypatch.setattr(checkpoint, "save_resume", save)
    fit.run(other, Checked(other))
    assert_same(left_by(other), left_by(straight))
