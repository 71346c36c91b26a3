"""Which labels the photos have: what a task can be trained on, and what nobody can learn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from maskcls.data.status import OK
from maskcls.labels import (
    AGE_BAND_STARTS,
    ATTRIBUTES,
    HEADS,
    LABEL_COLUMNS,
    MISSING,
    AgeLimits,
    Task,
    class_names,
)

UNLABELLED = "no label for this task"
"""The status, for one task, of a sound photo that it cannot use."""


def for_task(photos: pd.DataFrame, task: Task, *, years: bool = False) -> pd.DataFrame:
    """The photos as ``task`` sees them: those without a label for any of its heads get the status
    ``UNLABELLED``, and so do those without an age in ``years`` where it needs one."""
    known = np.zeros(len(photos), bool)
    for head in HEADS[task]:
        known |= (photos[LABEL_COLUMNS[head]] != MISSING).to_numpy()
    if years:
        known &= (photos["age"] != MISSING).to_numpy()
    sound = photos["status"] == OK
    return photos.assign(status=photos["status"].mask(sound & ~known, UNLABELLED))


def joint_everywhere(photos: pd.DataFrame) -> bool:
    """Whether each fold has a usable photo with all three labels, so that the joint class can be
    scored in each."""
    usable = photos[photos["status"] == OK]
    folds = usable.loc[usable["joint"] != MISSING, "fold"].nunique()
    return bool(folds == usable["fold"].nunique())


def counts(photos: pd.DataFrame, heads: Iterable[str]) -> dict[str, int]:
    """Usable photos that have a label, for each head."""
    usable = photos[photos["status"] == OK]
    return {head: int((usable[LABEL_COLUMNS[head]] != MISSING).sum()) for head in heads}


def absent_classes(photos: pd.DataFrame, age_limits: AgeLimits = AGE_BAND_STARTS) -> list[str]:
    """Classes of which there is no usable photo to train on: "age from_60", ...

    Nothing learns them, and scores are means over the others: worth a word, not an error. An
    attribute without any label is not listed.
    """
    usable = photos[photos["status"] == OK]
    there = {a: set(usable[LABEL_COLUMNS[a]]) - {MISSING} for a in ATTRIBUTES}
    return [
        f"{attribute} {name}"
        for attribute, classes in there.items()
        for k, name in enumerate(class_names(attribute, age_limits))
        if classes and k not in classes
    ]


def require(photos: pd.DataFrame, tasks: Sequence[Task]) -> None:
    """Raise ValueError where a head of a task has no label at all, or only one class."""
    for task in tasks:
        for head in HEADS[task]:
            classes = set(photos.loc[photos["status"] == OK, LABEL_COLUMNS[head]]) - {MISSING}
            if len(classes) < 2:
                raise ValueError(_too_few(task, head, classes, tasks))


def _too_few(task: Task, head: str, classes: set[int], tasks: Sequence[Task]) -> str:
    others = [other for other in tasks if other is not task]
    if task in (Task.JOINT, Task.MULTI):
        hint = f"train the labelled ones, such as tasks=[{', '.join(set(ATTRIBUTES) - {head})}]"
    elif others:
        hint = f"leave it out: tasks=[{', '.join(others)}]"
    else:
        hint = "choose another task"
    source = "give the column by data.columns, and its words by data.values"
    if not classes:
        rows = "all three labels" if head == "joint" else f"a label for {head}"
        return f"task {task}: no photo has {rows}. Either {source}, or {hint}"
    only = class_names(head)[classes.pop()]
    return (
        f"task {task}: every photo has the same class of {head}, {only}, so there is nothing to "
        f"learn. Add photos of other classes, or {hint}"
    )


def summary(photos: pd.DataFrame) -> list[str]:
    """A note on how many photos have each label, where some have not all."""
    found = counts(photos, ATTRIBUTES)
    total = int((photos["status"] == OK).sum())
    if all(number == total for number in found.values()):
        return []
    joint = counts(photos, ["joint"])["joint"]
    each = ", ".join(f"{head} {number:,}" for head, number in found.items())
    return [f"labels of {total:,} photos: {each}; all three: {joint:,}"]
