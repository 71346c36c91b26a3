"""Forward selection against its definition, step by step."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from maskcls.scoring import selection


def make_task(seed, routes=4, people=40, photos_each=3):
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.integers(3, size=people), photos_each)
    logits_MNK = rng.normal(size=(routes, len(truth), 3))
    logits_MNK += np.linspace(0, 1.5, routes)[:, None, None] * np.eye(3)[truth]
    raised_MNK = np.exp(logits_MNK)
    probabilities_MNK = raised_MNK / raised_MNK.sum(axis=2, keepdims=True)
    return probabilities_MNK, truth, np.repeat(np.arange(people), photos_each)


def score(sum_NK, truth):
    return f1_score(truth, sum_NK.argmax(axis=1), average="macro")


def selected(probabilities_MNK, truth):
    """How often each route is in the bag of the best round."""
    bag, best = [], ([], -1.0)
    for _ in range(20):
        tried = [score(sum(probabilities_MNK[m] for m in [*bag, more]), truth)
                 for more in range(len(probabilities_MNK))]  # fmt: skip
        bag.append(int(np.argmax(tried)))
        if max(tried) > best[1] + 1e-12:
            best = list(bag), max(tried)
    return np.bincount(best[0], minlength=len(probabilities_MNK)), best[1]


@pytest.mark.parametrize("seed", range(5))
def test_a_selection_is_the_one_of_a_plain_loop(seed):
    probabilities_MNK, truth, _ = make_task(seed)
    counts, best = selected(probabilities_MNK, truth)
    assert best > score(probabilities_MNK.sum(axis=0), truth)
    expected = counts / counts.sum()
    np.testing.assert_allclose(selection.best_weights(probabilities_MNK, truth), expected)


@pytest.mark.parametrize("size", [9, 10])
def test_weights_are_the_mean_of_selections_on_halves_of_the_people(size, monkeypatch):
    probabilities_MNK, truth, people = make_task(0, people=size)
    photo_of = {tuple(row): number for number, row in enumerate(probabilities_MNK[0])}
    halves, plain = [], selection._selected

    def noted(said_MNK, true_N):
        inside = [photo_of[tuple(row)] for row in said_MNK[0]]
        assert np.array_equal(truth[inside], true_N)
        halves.append(set(people[inside]))
        assert np.isin(people, list(halves[-1])).sum() == len(inside)  # people in whole
        return plain(said_MNK, true_N)

    monkeypatch.setattr(selection, "_selected", noted)
    weights = selection.greedy_weights(probabilities_MNK, truth, people)
    assert len(halves) == selection.BAGS
    assert {len(half) for half in halves} == {5}
    assert len({frozenset(half) for half in halves}) > 5
    shares = []
    for half in halves:
        inside = np.isin(people, list(half))
        counts, _ = selected(probabilities_MNK[:, inside], truth[inside])
        shares.append(counts / counts.sum())
    np.testing.assert_allclose(weights, np.mean(shares, axis=0))
    again = selection.greedy_weights(probabilities_MNK, truth, people)
    np.testing.assert_array_equal(weights, again)
