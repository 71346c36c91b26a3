"""What an epoch shows, by the labels of its photos."""

import numpy as np
import pandas as pd
import pytest

from maskcls.config.recipe import Recipe
from maskcls.data import folds
from maskcls.labels import MISSING, Task
from ray_jobs.training import plans

BALANCED = Recipe.model_validate({"sampler": {"name": "class_balanced"}})


def items(mask, gender, age_band):
    """A training table of these labels, the joint class where all three are known."""
    table = pd.DataFrame({"mask": mask, "gender": gender, "age_band": age_band})
    known = (table != MISSING).all(axis=1)
    joint = np.where(known, 6 * table["mask"] + 3 * table["gender"] + table["age_band"], MISSING)
    rest = {"row2": -1, "weight2": 0.0, "person": "x", "age": MISSING, "weight": 1.0}
    numbers = np.arange(len(table))
    return table.assign(joint=joint, row=numbers, key=numbers, **rest)[folds.COLUMNS]


def shown(table):
    """How often each item of the table is shown in the first epoch."""
    plan = plans.epoch_plan(Task.MULTI, BALANCED, 0, table, 0, 1)
    return np.bincount(plan.epoch(1).items_N, minlength=len(table))


def test_several_heads_are_balanced_by_the_joint_class():
    table = items([0] * 90 + [1] * 10, [0] * 100, [0] * 50 + [2] * 50)
    counts = shown(table).reshape(10, 10)
    assert counts.sum() == 100
    # Worn and young, worn and old, incorrect and old.
    parts = [counts[:5].sum(), counts[5:9].sum(), counts[9:].sum()]
    assert parts == pytest.approx([100 / 3] * 3, abs=1)


def test_several_heads_are_balanced_where_no_photo_has_all_labels():
    nobody = [MISSING] * 100
    table = items([0] * 90 + [1] * 10 + nobody, nobody + [0] * 50 + [1] * 50, nobody + [0] * 100)
    counts = shown(table)
    assert counts[:90].sum() == counts[90:100].sum() == 50
    assert counts[100:150].sum() == counts[150:].sum() == 50
