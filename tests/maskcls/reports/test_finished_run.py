import numpy as np
import pandas as pd
import pytest

from maskcls.labels import Task
from maskcls.reports import finished_run
from tests import made_run


@pytest.fixture
def folder(tmp_path):
    return made_run.make(tmp_path, photos=False, weights=False)


def test_a_run_is_read_from_its_folder_alone(folder, tmp_path):
    moved = folder.rename(tmp_path / "moved")
    run = finished_run.read(moved)
    assert run.name == "moved"
    assert run.tasks == [Task.MASK, Task.GENDER, Task.AGE]
    assert run.targets == ["joint", "mask", "gender", "age"]
    assert len(run.answers) == 280
    assert run.recipes[Task.AGE].model.name == "test_efficientnet"
    assert list(run.histories) == [(task, fold) for task in sorted(run.tasks) for fold in (0, 1)]
    assert run.routes() == {"three models": [Task.MASK, Task.GENDER, Task.AGE]}


@pytest.mark.parametrize("name", ["scores.json", "out_of_fold.parquet", "manifest.parquet"])
def test_an_unfinished_run_is_refused(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"no finished run here.*{name}"):
        finished_run.read(folder)


def test_votes_of_other_photos_are_not_taken_for_those_of_the_run(folder):
    other = folder / "votes" / "0000"  # sorts first
    other.mkdir()
    votes = pd.read_parquet(folder / "votes" / "0123456789abcdef" / "age-fold0.parquet")
    votes.assign(image_id="new " + votes["image_id"]).to_parquet(other / "age-fold0.parquet")
    votes = finished_run.read(folder).votes
    assert [(vote.task, vote.fold) for vote in votes] == [
        (task, fold) for task in (Task.MASK, Task.GENDER, Task.AGE) for fold in (0, 1)
    ]
    assert votes[0].image_ids[0] == "0000.jpg"


def test_votes_are_answers_by_model(folder):
    run = finished_run.read(folder)
    answers = finished_run.answers_by_model(run.votes, "gender")
    assert list(answers) == ["gender 0", "gender 1"]
    np.testing.assert_array_equal(
        answers["gender 0"], run.votes[2].probabilities["gender"].argmax(axis=1)
    )


def test_a_run_that_predicted_nothing_has_no_votes(tmp_path):
    folder = made_run.make(tmp_path, photos=False, weights=False, votes=False)
    assert finished_run.read(folder).votes == []
