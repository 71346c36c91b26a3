"""Pseudo-labels: sure answers of a finished run, as labels of photos that nobody labelled.

They are trained on and never validated on. For fold k they come from models of fold k alone: the
models of other folds have learned the labels of fold k's people, and would hand them on. So what a
fold is scored on has no part in what it trains on, here as elsewhere.

A table of photos holds them as further rows, after those of the training people: one a photo, with
the columns ``pseudo_<attribute>_<fold>`` (a class, or -1 where the models of that fold are not
sure) and -1 as its ``fold``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from maskcls import labels
from maskcls.data import folds
from maskcls.data.status import OK
from maskcls.labels import ATTRIBUTES, Task
from maskcls.scoring.ensemble import ModelVotes, for_target

NOT_SURE = -1
NO_FOLD = -1
"""The ``fold`` of a photo that nobody validates on."""


def sure_answers(votes: Sequence[ModelVotes], confidence: float) -> pd.DataFrame:
    """What models say of photos, indexed by image id: a column ``pseudo_<attribute>_<fold>`` for
    each attribute and fold that they tell.

    The answer is the likeliest class by the mean probability of the fold's models; ``NOT_SURE``
    where that mean is below ``confidence``.
    """
    columns: dict[str, pd.Series] = {}
    for fold in sorted({model.fold for model in votes}):
        for attribute in ATTRIBUTES:
            of_models = [
                pd.DataFrame(
                    for_target(model.probabilities, model.task, attribute), index=model.image_ids
                )
                for model in votes
                if model.fold == fold and labels.tells(model.task, attribute)
            ]
            if of_models:
                mean = sum(of_models[1:], of_models[0]) / len(of_models)
                sure_N = mean.max(axis=1).to_numpy() >= confidence
                classes_N = np.where(sure_N, mean.to_numpy().argmax(axis=1), NOT_SURE)
                columns[_column(attribute, fold)] = pd.Series(classes_N, index=mean.index)
    return pd.DataFrame(columns)


def further_rows(
    photos: pd.DataFrame, to_predict: pd.DataFrame, answers: pd.DataFrame
) -> pd.DataFrame:
    """Those of ``to_predict`` (a manifest of photos to predict) that some fold is sure of, as rows
    to append to ``photos`` (a manifest of training photos)."""
    known = to_predict[to_predict["image_id"].isin(answers.index)]
    sure = answers.loc[known["image_id"]].reset_index(drop=True)
    rows = known.reset_index(drop=True).join(sure)[(sure != NOT_SURE).any(axis=1).to_numpy()]
    names = "pseudo:" + rows["image_id"]
    unknown = dict.fromkeys(("mask", "gender", "age", "age_band", "joint"), labels.MISSING)
    text = dict.fromkeys(("race", "stem", "variant", "fix"), "")
    rows = rows.assign(person=names, group=names, fold=NO_FOLD, weight=1.0, **unknown, **text)
    return rows[[*photos.columns, *answers.columns]]


def plain(photos: pd.DataFrame) -> pd.DataFrame:
    """The photos of training people, without pseudo-labelled ones."""
    return photos[photos["fold"] != NO_FOLD]


def items(photos: pd.DataFrame, fold: int, task: Task) -> pd.DataFrame:
    """The pseudo-labelled items (``folds.COLUMNS``) of a fold: usable photos of which its models
    are sure in every attribute that ``task`` tells.

    Their age in years is the median of the training photos of their age band.
    """
    attributes = [name for name in ATTRIBUTES if labels.tells(task, name)]
    columns = {name: _column(name, fold) for name in attributes}
    if not set(columns.values()) <= set(photos):
        return pd.DataFrame(columns=folds.COLUMNS)
    rows = photos.assign(row=np.arange(len(photos)))
    known = rows[(rows["fold"] != NO_FOLD) & (rows["age"] != labels.MISSING)]
    chosen = (rows["fold"] == NO_FOLD) & (rows["status"] == OK)
    for column in columns.values():
        chosen &= rows[column].fillna(NOT_SURE) >= 0
    rows = rows[chosen]
    classes = {name: rows[column].astype(np.int64) for name, column in columns.items()}
    band = classes.get("age", pd.Series(labels.MISSING, index=rows.index))
    years = known.groupby("age_band")["age"].median().astype(np.int64)
    made = rows.assign(
        row2=-1,
        weight2=0.0,
        mask=classes.get("mask", labels.MISSING),
        gender=classes.get("gender", labels.MISSING),
        age=band.map(years).fillna(labels.MISSING).astype(np.int64),
        age_band=band,
        key=[folds.number_of(key) for key in rows["key"]],
    )
    joint = labels.joint_class(made["mask"], made["gender"], made["age_band"])
    return made.assign(joint=joint)[folds.COLUMNS].reset_index(drop=True)


def counts(photos: pd.DataFrame, count: int) -> Mapping[str, float]:
    """Sure photos, the mean over ``count`` folds: of each attribute, and ``all`` at once."""
    tasks = {**{name: Task(name) for name in ATTRIBUTES}, "all": Task.MULTI}
    return {
        name: float(np.mean([len(items(photos, fold, task)) for fold in range(count)]))
        for name, task in tasks.items()
    }


def _column(attribute: str, fold: int) -> str:
    return f"pseudo_{attribute}_{fold}"
