"""Sure answers become labels of the fold whose models gave them, and are never validated on."""

import numpy as np
import pandas as pd
import pytest

from maskcls import labels
from maskcls.config.recipe import Recipe
from maskcls.data import folds, pseudo
from maskcls.labels import HEADS, Task
from maskcls.scoring.ensemble import ModelVotes
from ray_jobs.training import plans
from tests import made_run

IDS = [f"{number}.jpg" for number in range(6)]


def sharp(classes_N, size, sure=0.97):
    values_NK = np.full((len(classes_N), size), (1 - sure) / (size - 1))
    values_NK[np.arange(len(classes_N)), classes_N] = sure
    return values_NK


def votes_of(fold, classes, sure=0.97, task=Task.MULTI):
    """A model that says the same class number of each photo, in every head."""
    heads = {
        head: sharp(np.array(classes) % size, size, sure) for head, size in HEADS[task].items()
    }
    return ModelVotes(task, fold, IDS, heads)


def to_predict():
    keys = [f"eval/images/{name}" for name in IDS]
    return pd.DataFrame({"key": keys, "path": keys, "status": "ok", "image_id": IDS})


@pytest.fixture
def photos():
    return made_run._manifest(made_run.Path("/nowhere"), people=12, folds=2, first=0)


def with_answers(photos, votes, confidence=0.95):
    answers = pseudo.sure_answers(votes, confidence)
    further = pseudo.further_rows(photos, to_predict(), answers)
    return pd.concat([photos, further], ignore_index=True)


def test_each_fold_gets_the_answers_of_its_own_models(photos):
    table = with_answers(photos, [votes_of(0, [0, 0, 1, 1, 2, 2]), votes_of(1, [1] * 6)])
    first, second = (pseudo.items(table, fold, Task.MULTI) for fold in (0, 1))
    assert first["mask"].tolist() == [0, 0, 1, 1, 2, 2]
    assert first["gender"].tolist() == [0, 0, 1, 1, 0, 0]
    assert first["age_band"].tolist() == [0, 0, 1, 1, 2, 2]
    assert second["mask"].tolist() == [1] * 6
    np.testing.assert_array_equal(labels.age_band(first["age"]), first["age_band"])
    np.testing.assert_array_equal(
        first["joint"], labels.encode(first["mask"], first["gender"], first["age_band"])
    )
    assert list(first) == folds.COLUMNS
    # Rows are those of the table whose images they are.
    assert table["key"][first["row"]].tolist() == [f"eval/images/{name}" for name in IDS]
    # What other folds' models say, who know this fold's people, changes nothing.
    other = with_answers(photos, [votes_of(0, [0, 0, 1, 1, 2, 2]), votes_of(1, [2] * 6)])
    pd.testing.assert_frame_equal(pseudo.items(other, 0, Task.MULTI), first)


def test_they_are_people_of_their_own_with_no_partner_and_the_weight_of_a_photo(photos):
    table = with_answers(photos, [votes_of(0, [2] * 6)])
    further = table[table["fold"] == pseudo.NO_FOLD]
    for column in ("person", "group"):
        assert further[column].tolist() == [f"pseudo:{name}" for name in IDS]
    assert (further["weight"] == 1).all()
    assert (further[["race", "stem", "variant", "fix"]] == "").all(axis=None)
    made = pseudo.items(table, 0, Task.AGE)
    assert (made["row2"] == -1).all() and (made["weight2"] == 0).all()
    assert made["key"].tolist() == [folds.number_of(f"eval/images/{name}") for name in IDS]
    assert (made[["mask", "gender", "joint"]] == labels.MISSING).all(axis=None)
    known = photos.index[photos["age_band"] == 2]
    assert (made["age"] == int(photos["age"][known].median())).all()
    # An age in years that a photo lacks counts for nothing.
    table.loc[known, "age"] = [labels.MISSING] * 5 + list(range(60, 60 + len(known) - 5))
    expected = int(np.median(range(60, 60 + len(known) - 5)))
    assert (pseudo.items(table, 0, Task.AGE)["age"] == expected).all()
    mask = pseudo.items(table, 0, Task.MASK)
    assert (mask["mask"] == 2).all()
    assert (mask[["gender", "age", "age_band", "joint"]] == labels.MISSING).all(axis=None)
    assert list(pseudo.items(photos, 0, Task.MASK)) == folds.COLUMNS


def test_only_sure_answers_count_and_of_each_task_what_it_tells(photos):
    unsure = votes_of(0, [1] * 6, sure=0.9)
    heads = {**unsure.probabilities, "mask": sharp(np.ones(6, int), 3)}
    table = with_answers(photos, [ModelVotes(Task.MULTI, 0, IDS, heads)])
    assert len(pseudo.items(table, 0, Task.MASK)) == 6
    assert len(pseudo.items(table, 0, Task.AGE)) == 0
    assert len(pseudo.items(table, 0, Task.MULTI)) == 0
    assert len(pseudo.items(table, 0, Task.JOINT)) == 0
    assert pseudo.counts(table, 1) == {"mask": 6, "gender": 0, "age": 0, "all": 0}


def test_several_models_of_a_fold_must_be_sure_together(photos):
    sure, other = votes_of(0, [1] * 6), votes_of(0, [1] * 6, sure=0.9, task=Task.MASK)
    answers = pseudo.sure_answers([sure, other], 0.95)
    assert (answers["pseudo_mask_0"] == pseudo.NOT_SURE).all()
    assert (answers["pseudo_age_0"] == 1).all()
    assert (pseudo.sure_answers([sure, sure], 0.95)["pseudo_mask_0"] == 1).all()
    assert (
        pseudo.sure_answers([votes_of(0, [1] * 6, sure=0.95)], 0.95)["pseudo_mask_0"] == 1
    ).all()
    joint = ModelVotes(Task.JOINT, 0, IDS, {"joint": sharp(np.full(6, 16), 18, sure=0.99)})
    assert pseudo.sure_answers([joint], 0.95).iloc[0].tolist() == [2, 1, 1]


def test_they_are_trained_on_and_never_validated_on(photos):
    table = with_answers(photos, [votes_of(0, [1] * 6)])
    plain = plans.tables(photos, Task.MULTI, 0, Recipe(), 1)
    training, validation = plans.tables(table, Task.MULTI, 0, Recipe(), 1)
    assert len(training) == len(plain[0]) + 6
    pd.testing.assert_frame_equal(training[: len(plain[0])], plain[0], check_dtype=False)
    pd.testing.assert_frame_equal(validation, plain[1])
    # Another fold, whose models were not asked, trains as before.
    unchanged = plans.tables(table, Task.MULTI, 1, Recipe(), 1)
    for one, other in zip(unchanged, plans.tables(photos, Task.MULTI, 1, Recipe(), 1), strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_photos_that_cannot_be_used_and_unknown_ones_are_left_out(photos):
    table = with_answers(photos, [votes_of(0, [1] * 6)])
    table.loc[table["key"] == f"eval/images/{IDS[0]}", "status"] = "not an image"
    assert len(pseudo.items(table, 0, Task.MULTI)) == 5
    answers = pseudo.sure_answers([votes_of(0, [1] * 6)], 0.95)
    assert len(pseudo.further_rows(photos, to_predict()[:2], answers)) == 2
    nothing = with_answers(photos, [votes_of(0, [1] * 6, sure=0.5)])
    assert len(nothing) == len(photos)
    pd.testing.assert_frame_equal(pseudo.plain(table)[list(photos)], photos, check_dtype=False)
