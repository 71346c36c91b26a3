import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
)

from maskcls.scoring import metrics
from maskcls.scoring.metrics import confusion, macro_f1, nested_selection_score, people_splits

pairs = st.integers(2, 18).flatmap(
    lambda k: st.tuples(
        st.just(k),
        st.lists(st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)), min_size=1, max_size=60),
    )
)


@settings(deadline=None, max_examples=50)
@given(pairs)
def test_scores_agree_with_scikit_learn(case):
    num_classes, photos = case
    truth, predicted = np.array(photos).T
    cm_KK = metrics.confusion(truth, predicted, num_classes)
    np.testing.assert_array_equal(
        cm_KK, confusion_matrix(truth, predicted, labels=range(num_classes))
    )
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, predicted, average="macro", zero_division=0
    )
    assert metrics.scores(cm_KK) == pytest.approx(
        {
            "macro_f1": f1,
            "accuracy": accuracy_score(truth, predicted),
            "macro_precision": precision,
            "macro_recall": recall,
        }
    )
    assert metrics.macro_f1(cm_KK) == pytest.approx(f1)
    expected = precision_recall_fscore_support(
        truth, predicted, labels=range(num_classes), zero_division=0
    )
    np.testing.assert_allclose(metrics.per_class(cm_KK), expected[:3])


@settings(deadline=None, max_examples=50)
@given(pairs, st.integers(0, 60))
def test_matrices_of_parts_add_up_to_the_whole(case, cut):
    num_classes, photos = case
    truth, predicted = np.array(photos).T
    parts = [
        metrics.confusion(truth[part], predicted[part], num_classes)
        for part in (slice(cut), slice(cut, None))
    ]
    np.testing.assert_array_equal(sum(parts), metrics.confusion(truth, predicted, num_classes))


def test_a_class_that_never_occurs_does_not_count_but_a_missed_one_does():
    assert metrics.macro_f1(np.diag([2, 1, 0])) == 1.0
    # Class 2 occurs in the truth only, so its F1 of 0 counts.
    assert metrics.macro_f1(metrics.confusion([0, 0, 2], [0, 0, 0], 3)) == pytest.approx(0.4)


def test_rows_are_the_truth():
    np.testing.assert_array_equal(metrics.confusion([0, 0, 1], [1, 1, 1], 2), [[0, 2], [0, 1]])


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        ([0, 1], [0], r"same length.*\(2,\) and \(1,\)"),
        ([[0]], [[0]], "same length"),
        ([3], [0], "true classes go from 0 to 2, got 3"),
        ([0, 1], [0, -1], "predicted classes go from 0 to 2, got -1"),
    ],
)
def test_confusion_refuses_what_it_cannot_count(truth, predicted, message):
    with pytest.raises(ValueError, match=message):
        metrics.confusion(truth, predicted, 3)


@pytest.mark.parametrize("score", [metrics.macro_f1, metrics.accuracy, metrics.scores])
def test_nothing_is_no_score(score):
    with pytest.raises(ValueError, match="no photos"):
        score(np.zeros((3, 3), np.int64))


def noisy_people(num_people=60, photos_each=7, seed=0):
    """People of whom each is either right on all photos or on none."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.integers(3, size=num_people), photos_each)
    wrong = np.repeat(rng.random(num_people) < 0.3, photos_each)
    people = np.repeat([f"{person:06d}" for person in range(num_people)], photos_each)
    return truth, np.where(wrong, (truth + 1) % 3, truth), people


def test_the_interval_is_the_one_of_a_plain_loop_over_drawn_people():
    truth, predicted, people = noisy_people()
    low, high = metrics.bootstrap_interval(truth, predicted, people, 3, seed=1, draws=2000)
    rng = np.random.default_rng(2)
    photos_of = [np.flatnonzero(people == person) for person in np.unique(people)]
    values = []
    for _ in range(1000):
        drawn = np.concatenate([photos_of[i] for i in rng.integers(60, size=60)])
        values.append(f1_score(truth[drawn], predicted[drawn], average="macro"))
    assert (low, high) == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.02)
    assert low < f1_score(truth, predicted, average="macro") < high


def test_an_interval_over_people_is_wider_than_one_over_their_photos():
    truth, predicted, people = noisy_people()
    by_person = metrics.bootstrap_interval(truth, predicted, people, 3, seed=0)
    by_photo = metrics.bootstrap_interval(truth, predicted, np.arange(len(truth)), 3, seed=0)
    assert np.ptp(by_person) > 2 * np.ptp(by_photo)


def test_the_interval_depends_on_the_seed_and_level_only():
    truth, predicted, people = noisy_people()
    interval = metrics.bootstrap_interval(truth, predicted, people, 3, seed=0)
    shuffled = np.random.default_rng(3).permutation(len(truth))
    assert interval == metrics.bootstrap_interval(
        truth[shuffled], predicted[shuffled], people[shuffled], 3, seed=0
    )
    assert interval != metrics.bootstrap_interval(truth, predicted, people, 3, seed=1)
    narrow = metrics.bootstrap_interval(truth, predicted, people, 3, seed=0, level=0.5)
    assert interval[0] < narrow[0] < narrow[1] < interval[1]


@pytest.mark.parametrize(
    ("truth", "predicted", "people"), [([], [], []), ([0, 1], [0, 1], ["a"])], ids=["none", "short"]
)
def test_the_interval_needs_a_person_for_each_photo(truth, predicted, people):
    with pytest.raises(ValueError, match="one person each"):
        metrics.bootstrap_interval(truth, predicted, people, 3, seed=0)


def people_of_answers(people=60, seed=0):
    """Truth, an answer that is right in 70 %, one in 80 % and the person of each photo."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(3, size=people * 7)
    answers = [
        np.where(rng.random(len(truth)) < right, truth, rng.integers(3, size=len(truth)))
        for right in (0.7, 0.8)
    ]
    return truth, *answers, np.arange(people).repeat(7)


def test_a_paired_difference_knows_which_answers_are_better():
    truth, worse, better, people = people_of_answers()
    low, high = metrics.bootstrap_difference(truth, worse, better, people, 3, seed=1)
    gain = metrics.macro_f1(metrics.confusion(truth, better, 3)) - metrics.macro_f1(
        metrics.confusion(truth, worse, 3)
    )
    assert 0 < low < gain < high
    assert metrics.bootstrap_difference(truth, better, worse, people, 3, seed=1) == (-high, -low)
    assert metrics.bootstrap_difference(truth, worse, worse, people, 3, seed=1) == (0, 0)


def test_pairing_takes_out_what_both_have_in_common():
    # Both fail on the same hard half of the people, and one fails on a little more.
    rng = np.random.default_rng(2)
    people = np.arange(80).repeat(7)
    truth = rng.integers(3, size=len(people))
    first = np.where(people % 2, truth, (truth + 1) % 3)
    second = np.where(rng.random(len(people)) < 0.02, (first + 1) % 3, first)
    low, high = metrics.bootstrap_difference(truth, first, second, people, 3, seed=0)
    alone = metrics.bootstrap_interval(truth, first, people, 3, seed=0)
    assert high - low < (alone[1] - alone[0]) / 4


def test_the_interval_of_a_share_is_that_of_a_mean_over_people():
    truth, answers, _, people = people_of_answers(people=300)
    right = truth == answers
    low, high = metrics.share_interval(right, people, seed=0)
    error = right.reshape(-1, 7).mean(axis=1).std() / np.sqrt(300)
    assert low == pytest.approx(right.mean() - 1.96 * error, abs=error / 4)
    assert high == pytest.approx(right.mean() + 1.96 * error, abs=error / 4)
    assert metrics.share_interval(np.ones(14), np.arange(2).repeat(7), seed=0) == (1, 1)


def test_the_best_of_many_guessers_is_lucky_and_its_honest_score_is_not():
    lucky, honest = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        truth_N = rng.integers(3, size=300)
        people_N = np.repeat(np.arange(60), 5)
        guesses_CN = rng.integers(3, size=(40, 300))
        lucky.append(max(macro_f1(confusion(truth_N, guess_N, 3)) for guess_N in guesses_CN))
        honest.append(nested_selection_score(guesses_CN, truth_N, people_N, 3, seed=seed, splits=5))
    assert np.mean(lucky) > 0.38
    assert np.mean(honest) == pytest.approx(1 / 3, abs=0.02)


def test_a_better_candidate_is_picked_and_keeps_its_score():
    rng = np.random.default_rng(0)
    truth_N = rng.integers(3, size=300)
    good_N = np.where(rng.random(300) < 0.8, truth_N, (truth_N + 1) % 3)
    candidates_CN = np.stack([rng.integers(3, size=300), good_N])
    score = nested_selection_score(candidates_CN, truth_N, np.arange(300) // 5, 3, seed=0, splits=5)
    assert score == macro_f1(confusion(truth_N, good_N, 3))


def test_people_are_dealt_whole():
    people_N = np.repeat(["a", "b", "c", "d", "e"], [1, 7, 3, 4, 2])
    split_N = people_splits(people_N, 3, seed=0)
    assert all(len(set(split_N[people_N == person])) == 1 for person in "abcde")
    assert sorted(np.bincount(split_N[np.unique(people_N, return_index=True)[1]])) == [1, 2, 2]
    for splits in (1, 6):
        with pytest.raises(ValueError, match="expected 2 to 5 splits"):
            people_splits(people_N, splits, seed=0)
