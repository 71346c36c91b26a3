"""Decision offsets for macro F1: a number for each class that is added to its log-probability
before the likeliest class is taken.

The likeliest class is the best answer for accuracy. Macro F1 counts a rare class as much as a
frequent one, so it pays to answer rare classes more often. Adding offsets to logits is the
"post-hoc logit adjustment" of Menon et al. (ICLR 2021, arXiv 2007.07314); there they follow from
the class frequencies, here they are fitted for the score itself.

Offsets have two ways to lie, and both are closed. Fitted and scored on the same people they always
seem to help: so their gain is measured on people who had no part in the fit. And a small gain is
often luck: so they are used only where the 95 % interval of that gain, over people, is above 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from maskcls.labels import FloatArray, IntArray
from maskcls.scoring.metrics import (
    bootstrap_difference,
    confusion,
    macro_f1,
    macro_f1s,
    people_splits,
)

GRID: Final[FloatArray] = np.linspace(-2.5, 2.5, 51)
"""The values that an offset can have."""

STRENGTHS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the logarithm of the class frequencies that are tried first."""

SMOOTHING: Final = 5
"""Neighbouring values of ``GRID`` over which the score is averaged: a peak that one value has alone
is luck, a broad one is there on other people too."""

ROUNDS: Final = 3
"""How often each class is looked at."""

SPLITS: Final = 5
"""Groups of people of which each is answered by offsets fitted on the others."""

SEED: Final = 0
"""Of those groups, and of the interval."""

SMALLEST_PROBABILITY: Final = 1e-6
"""Floor before the logarithm, so that one certain and wrong model cannot veto all others."""


@dataclass(frozen=True)
class FittedOffsets:
    """Offsets, and what they gain on people who had no part in fitting them."""

    values: list[float]
    """One a class; their mean is 0."""
    gain: float
    """Macro F1 with offsets minus without."""
    low: float
    """The 95 % interval of the gain over people begins here ..."""
    high: float
    """... and ends here."""
    used: bool
    """Whether a vote uses them: ``low`` is above 0."""


def shifted(probabilities_NK: FloatArray, offsets_K: npt.ArrayLike) -> FloatArray:
    """Probabilities [N, K] with offsets added to their logarithms, scaled to a sum of 1."""
    raised_NK = np.maximum(probabilities_NK, SMALLEST_PROBABILITY) * np.exp(np.asarray(offsets_K))
    scaled_NK: FloatArray = raised_NK / raised_NK.sum(axis=1, keepdims=True)
    return scaled_NK


def fit(probabilities_NK: FloatArray, truth_N: IntArray) -> FloatArray:
    """The offsets [K] for macro F1 on these photos.

    First the best share of ``-log(class frequency)``, which is one number to fit. Then, class by
    class, the best value of ``GRID``, the others held. The same input gives the same offsets.
    """
    logs_NK = np.log(np.maximum(probabilities_NK, SMALLEST_PROBABILITY))
    classes = logs_NK.shape[1]
    counts_K = np.bincount(truth_N, minlength=classes)
    prior_K = -np.log(np.maximum(counts_K, 1) / len(truth_N))
    starts = [strength * (prior_K - prior_K.mean()) for strength in STRENGTHS]
    offsets_K = max(starts, key=lambda start_K: _macro_f1(logs_NK + start_K, truth_N))
    for _ in range(ROUNDS):
        before_K = offsets_K.copy()
        # A class that nobody has gets no offset: there is nothing to learn it from.
        for k in map(int, np.flatnonzero(counts_K)):
            offsets_K[k] = _best_value(logs_NK + offsets_K, truth_N, k, offsets_K[k])
        if (offsets_K == before_K).all():
            break
    centred_K: FloatArray = offsets_K - offsets_K.mean()
    return centred_K


def fit_if_clear(
    probabilities_NK: FloatArray, truth_N: IntArray, people_N: npt.NDArray
) -> FittedOffsets:
    """The offsets of all people, with their gain on people who had no part in fitting them.

    Takes probabilities [N, K], true classes [N] and the person of each photo [N]. Where there are
    fewer people than ``SPLITS``, the gain cannot be known and they are not used.
    """
    values = fit(probabilities_NK, truth_N).tolist()
    if len(np.unique(people_N)) < SPLITS:
        return FittedOffsets(values, 0.0, 0.0, 0.0, used=False)
    split_N = people_splits(people_N, SPLITS, SEED)
    plain_N, answers_N = probabilities_NK.argmax(axis=1), np.empty_like(truth_N)
    for split in range(SPLITS):
        held_N = split_N == split
        others_K = fit(probabilities_NK[~held_N], truth_N[~held_N])
        answers_N[held_N] = shifted(probabilities_NK[held_N], others_K).argmax(axis=1)
    classes = probabilities_NK.shape[1]
    low, high = bootstrap_difference(truth_N, plain_N, answers_N, people_N, classes, seed=SEED)
    gain = macro_f1(confusion(truth_N, answers_N, classes)) - macro_f1(
        confusion(truth_N, plain_N, classes)
    )
    return FittedOffsets(values, gain, low, high, used=low > 0)


def _macro_f1(scores_NK: FloatArray, truth_N: IntArray) -> float:
    return macro_f1(confusion(truth_N, scores_NK.argmax(axis=1), scores_NK.shape[1]))


def _best_value(scores_NK: FloatArray, truth_N: IntArray, k: int, now: float) -> float:
    """The best offset of class ``k``, which now is ``now``; the nearest to it of equally good ones.

    A photo is answered ``k`` from a certain offset on, and like before below it. So one count of
    photos by that threshold, truth and other answer gives the confusion matrix of every offset.
    """
    classes = scores_NK.shape[1]
    others_NK = scores_NK.copy()
    others_NK[:, k] = -np.inf
    other_N = others_NK.argmax(axis=1)
    margin_N = others_NK.max(axis=1) - (scores_NK[:, k] - now)
    first_N = np.searchsorted(GRID, margin_N, side="right")  # from this value of GRID on it is k
    cell_N = (first_N * classes + truth_N) * classes + other_N
    cells_GKK = np.bincount(cell_N, minlength=(len(GRID) + 1) * classes**2).reshape(
        len(GRID) + 1, classes, classes
    )
    taken_GKK = cells_GKK.cumsum(axis=0)[:-1]
    cm_GKK = cells_GKK.sum(axis=0) - taken_GKK
    cm_GKK[:, :, k] += taken_GKK.sum(axis=2)
    edges = SMOOTHING // 2
    smooth_G = np.convolve(np.pad(macro_f1s(cm_GKK), edges, "edge"), np.ones(SMOOTHING), "valid")
    best_G = np.flatnonzero(smooth_G >= smooth_G.max() - 1e-12)
    return float(GRID[best_G[np.abs(GRID[best_G] - now).argmin()]])
