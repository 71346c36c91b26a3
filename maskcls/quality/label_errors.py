"""Which labels are likely wrong, by the predictions of models that never saw the person.

Mask is judged by photo; gender and age by person, since seven photos share the label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from maskcls.data.label_fixes import LabelFixes
from maskcls.labels import AGE_BAND_STARTS, AgeLimits, FloatArray, IntArray, class_names
from maskcls.scoring import ensemble

BY_PERSON: Final = ("gender", "age")
"""Attributes that the photos of a person share."""


@dataclass(frozen=True)
class Suspects:
    """Every label of a run with the out-of-fold evidence against it.

    ``table`` has a row for each label, the likeliest error of a task first: ``task`` (an
    attribute), ``rank`` (from 1), ``person``, ``photo`` (its key; empty for a person's label),
    ``given`` and ``likely`` (names of classes: the label, and the likeliest of the others),
    ``score`` (mean out-of-fold probability of the given class), ``likely_probability``,
    ``flagged`` (see the function) and ``fix`` (label
    fixes that the given label came from). ``photos`` is the run's manifest and ``fixes`` what it
    was made with.
    """

    name: str
    identity: str
    table: pd.DataFrame
    photos: pd.DataFrame
    fixes: LabelFixes
    age_limits: AgeLimits = AGE_BAND_STARTS


def ranked(
    out_of_fold: pd.DataFrame, attribute: str, age_limits: AgeLimits = AGE_BAND_STARTS
) -> pd.DataFrame:
    """The labels of one attribute, the likeliest error first (``Suspects.table`` without ``fix``).

    Labels are ranked by the probability of the given class ("self-confidence"). No rows where no
    model predicts the attribute.
    """
    predictions = ensemble.attribute_probabilities(out_of_fold, attribute)
    if predictions is None:
        return pd.DataFrame()
    probabilities_NK, given_N, photos = predictions
    if attribute in BY_PERSON:
        people, first_N, person_N = np.unique(
            photos["person"], return_index=True, return_inverse=True
        )
        sums_NK = np.zeros((len(people), probabilities_NK.shape[1]))
        np.add.at(sums_NK, person_N, probabilities_NK)
        probabilities_NK = sums_NK / np.bincount(person_N)[:, None]
        given_N, photos = given_N[first_N], pd.DataFrame({"photo": "", "person": people})
    rows, names = np.arange(len(given_N)), np.array(class_names(attribute, age_limits))
    others_NK = probabilities_NK.copy()
    others_NK[rows, given_N] = -1
    likely_N = others_NK.argmax(axis=1)
    table = pd.DataFrame(
        {
            "task": attribute,
            "person": photos["person"],
            "photo": photos["photo"],
            "given": names[given_N],
            "likely": names[likely_N],
            "score": probabilities_NK[rows, given_N],
            "likely_probability": probabilities_NK[rows, likely_N],
            "flagged": flagged(probabilities_NK, given_N),
        }
    ).sort_values(["score", "person", "photo"], ignore_index=True)
    table.insert(1, "rank", np.arange(1, len(table) + 1))
    return table


def flagged(probabilities_NK: FloatArray, given_N: IntArray) -> npt.NDArray[np.bool_]:
    """Whether the models are confident of another class than the given one, [N].

    A model is confident of a class where its probability reaches its own mean over all that were
    given that class: the off-diagonal of the confident joint (Northcutt, Jiang and Chuang,
    "Confident Learning", JAIR 70, 2021, section 3.1), as cleanlab computes it.
    """
    if len(np.unique(given_N)) < 2:  # cleanlab refuses it: there is no other class to be found
        return np.zeros(len(given_N), bool)
    # Imported here: cleanlab and scikit-learn take 2 s and 70 MB, which only this verb needs.
    from cleanlab.filter import find_label_issues

    issues_N = find_label_issues(
        given_N, probabilities_NK, filter_by="confident_learning", n_jobs=1
    )
    return np.asarray(issues_N, bool)


def with_fix(table: pd.DataFrame, photos: pd.DataFrame) -> pd.DataFrame:
    """``table`` with the column ``fix``: the label fixes that each given label came from."""
    by_photo = photos.set_index("key")["fix"]
    # What was done to a person was done to all photos: the shortest list has only that.
    by_person = photos.groupby("person")["fix"].agg(lambda fixes: min(fixes, key=len))
    return table.assign(fix=table["photo"].map(by_photo).fillna(table["person"].map(by_person)))
