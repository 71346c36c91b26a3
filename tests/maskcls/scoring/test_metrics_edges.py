"""Bounds, defaults and seeds of the metrics: what broken code (`make mutate`) would get wrong."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from maskcls.scoring import metrics

PEOPLE = np.arange(30).repeat(4)
RNG = np.random.default_rng(5)
TRUTH = RNG.integers(3, size=len(PEOPLE))
FIRST, SECOND = (
    np.where(RNG.random(len(PEOPLE)) < right, TRUTH, RNG.integers(3, size=len(PEOPLE)))
    for right in (0.5, 0.8)
)
INTERVALS = {
    "bootstrap_interval": (TRUTH, FIRST, PEOPLE, 3),
    "bootstrap_difference": (TRUTH, FIRST, SECOND, PEOPLE, 3),
    "share_interval": (TRUTH == FIRST, PEOPLE),
}


@pytest.mark.parametrize("name", INTERVALS)
def test_an_interval_is_that_of_95_percent_of_1000_draws(name):
    interval, arguments = getattr(metrics, name), INTERVALS[name]
    plain = interval(*arguments, seed=3)
    assert plain == interval(*arguments, seed=3, draws=1000, level=0.95)
    assert plain != interval(*arguments, seed=4)


@pytest.mark.parametrize("name", INTERVALS)
def test_the_level_leaves_as_much_below_as_above(name):
    interval, arguments = getattr(metrics, name), INTERVALS[name]
    low, high = interval(*arguments, seed=3, level=0.0)
    assert low == high  # the median
    assert interval(*arguments, seed=3, level=0.5) == pytest.approx((low, high), abs=0.06)
    wide = interval(*arguments, seed=3, level=1.0)
    assert low - wide[0] == pytest.approx(wide[1] - high, rel=0.6)


def test_from_two_splits_to_one_a_person():
    people = np.repeat(["a", "b", "c"], 2)
    assert sorted(set(metrics.people_splits(people, 2, seed=0))) == [0, 1]
    assert sorted(set(metrics.people_splits(people, 3, seed=0))) == [0, 1, 2]
    with pytest.raises(ValueError, match=r"expected 2 to 3 splits \(one person each\), got 4"):
        metrics.people_splits(people, 4, seed=0)


def test_splits_depend_on_their_seed_alone():
    first = metrics.people_splits(PEOPLE, 5, seed=1)
    assert np.array_equal(first, metrics.people_splits(PEOPLE, 5, seed=1))
    assert not np.array_equal(first, metrics.people_splits(PEOPLE, 5, seed=2))


def test_the_selected_candidate_is_held_against_the_people_of_its_seed():
    guesses = np.random.default_rng(0).integers(3, size=(20, len(PEOPLE)))
    scores = [
        metrics.nested_selection_score(guesses, TRUTH, PEOPLE, 3, seed=seed, splits=5)
        for seed in (1, 1, 2, 3, 4)
    ]
    assert scores[0] == scores[1]
    assert len(set(scores)) > 2


def test_who_is_picked_had_the_best_score_on_the_other_people():
    """Each candidate is right about one half of the people: the other half picks the wrong one."""
    half = metrics.people_splits(PEOPLE, 2, seed=0)
    wrong = (TRUTH + 1) % 3
    candidates = np.stack([np.where(half == side, TRUTH, wrong) for side in (0, 1)])
    assert metrics.nested_selection_score(candidates, TRUTH, PEOPLE, 3, seed=0, splits=2) == 0


def test_the_nested_score_is_that_of_a_plain_loop():
    guesses = np.where(np.random.default_rng(1).random((9, len(TRUTH))) < 0.5, TRUTH, FIRST)
    split_N = metrics.people_splits(PEOPLE, 4, seed=0)
    said = [0] * len(TRUTH)
    for number, split in enumerate(split_N):
        others = split_N != split
        scores = [f1_score(TRUTH[others], one[others], average="macro") for one in guesses]
        said[number] = guesses[int(np.argmax(scores))][number]
    score = metrics.nested_selection_score(guesses, TRUTH, PEOPLE, 3, seed=0, splits=4)
    assert score == pytest.approx(f1_score(TRUTH, said, average="macro"))


def test_the_lowest_and_the_highest_class_count():
    cm_KK = metrics.confusion([0, 2], [2, 0], 3)
    assert cm_KK.tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    for truth, message in (
        ([3, 4], "true classes go from 0 to 2, got 3 to 4"),
        ([-1, 1], "true classes go from 0 to 2, got -1 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            metrics.confusion(truth, [0, 0], 3)
    assert metrics.confusion([], [], 2).tolist() == [[0, 0], [0, 0]]


def test_a_stack_of_matrices_is_scored_one_by_one():
    stack = np.stack([metrics.confusion(TRUTH, answers, 3) for answers in (FIRST, SECOND)])
    for together, alone in zip(
        metrics.per_class(stack), zip(*map(metrics.per_class, stack), strict=True), strict=True
    ):
        assert np.array_equal(together, np.stack(alone))


def test_photos_and_people_that_do_not_match_are_counted_in_the_refusal():
    with pytest.raises(ValueError, match="got 2 photos and 1 people entries"):
        metrics.bootstrap_interval([0, 1], [0, 1], ["a"], 3, seed=0)
