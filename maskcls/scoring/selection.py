"""Weights of a soft vote, found by forward selection with replacement for macro F1.

Each round adds one more of the route that helps most, and the best round counts; how often a route
was added is its weight (Caruana et al., Ensemble Selection from Libraries of Models, ICML 2004).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from maskcls.labels import FloatArray, IntArray
from maskcls.scoring.metrics import confusion, macro_f1

SELECTION_ROUNDS: Final = 20
"""Rounds of a selection, so the finest weight is one in as many."""

BAGS: Final = 10
"""Samples of people whose selections ``greedy_weights`` averages."""

SEED: Final = 0
"""Of those samples: the same people give the same weights."""

TIE: Final = 1e-9
"""Probabilities this close are equal, as in ``voting``: the order of a sum must not decide."""


def best_weights(probabilities_MNK: FloatArray, truth_N: IntArray) -> FloatArray:
    """Weights [routes] that maximise macro F1 on these photos, by one selection; equal ones where
    nothing beats them. Takes probabilities [routes, N, K] and true classes [N]."""
    counts_M, best = _selected(probabilities_MNK, truth_N)
    if best <= _macro_f1(probabilities_MNK.sum(axis=0), truth_N):
        counts_M = np.ones(len(probabilities_MNK))
    return counts_M / counts_M.sum()


def greedy_weights(
    probabilities_MNK: FloatArray, truth_N: IntArray, people_N: npt.NDArray
) -> FloatArray:
    """Weights [routes]: the mean of ``BAGS`` selections, each on another half of the people.

    One selection among many routes takes some by luck; what is chosen again and again on other
    people is not (bagged selection, section 2.3 of the paper, here over people). A route that no
    selection took has weight 0. Takes probabilities [routes, N, K], true classes and people [N].
    """
    people, person_N = np.unique(people_N, return_inverse=True)
    random = np.random.default_rng(SEED)
    total_M = np.zeros(len(probabilities_MNK))
    for _ in range(BAGS):
        bag = random.permutation(len(people))[: (len(people) + 1) // 2]
        inside_N = np.isin(person_N, bag)
        counts_M, _ = _selected(probabilities_MNK[:, inside_N], truth_N[inside_N])
        total_M += counts_M / counts_M.sum()
    weights_M: FloatArray = total_M / total_M.sum()
    return weights_M


def _selected(probabilities_MNK: FloatArray, truth_N: IntArray) -> tuple[FloatArray, float]:
    """How often the best round has each route, [routes], and its macro F1."""
    counts_M = best_M = np.zeros(len(probabilities_MNK))
    best, sum_NK = -1.0, np.zeros(probabilities_MNK.shape[1:])
    for _ in range(SELECTION_ROUNDS):
        values_M = [_macro_f1(sum_NK + one_NK, truth_N) for one_NK in probabilities_MNK]
        chosen = int(np.argmax(values_M))
        counts_M = counts_M + (np.arange(len(counts_M)) == chosen)
        sum_NK = sum_NK + probabilities_MNK[chosen]
        if values_M[chosen] > best:
            best_M, best = counts_M, values_M[chosen]
    return best_M, best


def _macro_f1(sum_NK: FloatArray, truth_N: IntArray) -> float:
    leading_NK = sum_NK >= sum_NK.max(axis=1, keepdims=True) - TIE
    return macro_f1(confusion(truth_N, leading_NK.argmax(axis=1), sum_NK.shape[1]))
