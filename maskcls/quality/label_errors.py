"""Which labels are likely wrong, by what models that never saw the person say against them.

Mask is judged by photo; gender and age by person, since seven photos share the label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from maskcls.data.label_fixes import LabelFixes
from maskcls.labels import FloatArray, IntArray, class_names
from maskcls.scoring import ensemble

BY_PERSON: Final = ("gender", "age")
"""Attributes that the photos of a person share."""


@dataclass(frozen=True)
class Suspects:
    """Every label of a run with what speaks against it.

    ``table`` has a row for each label, the likeliest error of a task first: ``task`` (an
    attribute), ``rank`` (from 1), ``person``, ``photo`` (its key; empty for a person's label),
    ``given`` and ``likely`` (names of classes), ``score`` (mean out-of-fold probability of the
    given class), ``likely_probability``, ``flagged`` (see ``confident_classes``) and ``fix`` (label
    fixes that the given label came from). ``photos`` is the run's manifest and ``fixes`` what it
    was made with.
    """

    name: str
    identity: str
    table: pd.DataFrame
    photos: pd.DataFrame
    fixes: LabelFixes


def ranked(out_of_fold: pd.DataFrame, attribute: str) -> pd.DataFrame:
    """The labels of one attribute, the likeliest error first (``Suspects.table`` without ``fix``).

    Labels are ranked by the probability of the given class, the self-confidence of Northcutt et al.
    (see ``confident_classes``). No rows where no model tells the attribute.
    """
    told = ensemble.attribute_probabilities(out_of_fold, attribute)
    if told is None:
        return pd.DataFrame()
    probabilities_NK, given_N, photos = told
    if attribute in BY_PERSON:
        people, first_N, person_N = np.unique(
            photos["person"], return_index=True, return_inverse=True
        )
        sums_NK = np.zeros((len(people), probabilities_NK.shape[1]))
        np.add.at(sums_NK, person_N, probabilities_NK)
        probabilities_NK = sums_NK / np.bincount(person_N)[:, None]
        given_N, photos = given_N[first_N], pd.DataFrame({"photo": "", "person": people})
    confident_N = confident_classes(probabilities_NK, given_N)
    flagged_N = confident_N != given_N
    likely_N = np.where(flagged_N, confident_N, _likeliest_other(probabilities_NK, given_N))
    rows, names = np.arange(len(given_N)), np.array(class_names(attribute))
    table = pd.DataFrame(
        {
            "task": attribute,
            "person": photos["person"],
            "photo": photos["photo"],
            "given": names[given_N],
            "likely": names[likely_N],
            "score": probabilities_NK[rows, given_N],
            "likely_probability": probabilities_NK[rows, likely_N],
            "flagged": flagged_N,
        }
    ).sort_values(["score", "person", "photo"], ignore_index=True)
    table.insert(1, "rank", np.arange(1, len(table) + 1))
    return table


def confident_classes(probabilities_NK: FloatArray, given_N: npt.ArrayLike) -> IntArray:
    """The class that a model is confident of, [N]; the given class where there is none.

    A model is confident of a class where its probability reaches its own mean over all that were
    given that class, so it may be shy of a rare class as a whole; among several the likeliest
    counts. What is confidently of another class than given, and most likely not of the given one,
    is off the diagonal of the confident joint: Northcutt, Jiang and Chuang, "Confident Learning:
    Estimating Uncertainty in Dataset Labels", JAIR 70, 2021, section 3.1.
    """
    given = np.asarray(given_N, np.int64)
    counts_K = np.bincount(given, minlength=probabilities_NK.shape[1])
    sums_K = (probabilities_NK * (given[:, None] == np.arange(len(counts_K)))).sum(axis=0)
    threshold_K = np.divide(
        sums_K, counts_K, out=np.full(len(counts_K), np.inf), where=counts_K > 0
    )
    reached_NK = probabilities_NK >= threshold_K - 1e-6  # a mean of equals may round above them
    confident_N = np.where(reached_NK, probabilities_NK, -1).argmax(axis=1)
    doubted_N = reached_NK.any(axis=1) & (probabilities_NK.argmax(axis=1) != given)
    return np.where(doubted_N, confident_N, given)


def _likeliest_other(probabilities_NK: FloatArray, given_N: IntArray) -> IntArray:
    given_NK = given_N[:, None] == np.arange(probabilities_NK.shape[1])
    return np.where(given_NK, -1, probabilities_NK).argmax(axis=1)


def with_fix(table: pd.DataFrame, photos: pd.DataFrame) -> pd.DataFrame:
    by_photo = photos.set_index("key")["fix"]
    # What was done to a person was done to all photos: the shortest list has only that.
    by_person = photos.groupby("person")["fix"].agg(lambda fixes: min(fixes, key=len))
    return table.assign(fix=table["photo"].map(by_photo).fillna(table["person"].map(by_person)))
