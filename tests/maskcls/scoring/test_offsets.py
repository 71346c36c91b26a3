import numpy as np
import pytest

from maskcls.scoring import metrics, offsets, voting


def f1(truth, predicted, num_classes=3):
    return metrics.macro_f1(metrics.confusion(truth, predicted, num_classes))


def make_task(prior, lean, people=150, photos_each=4, seed=0):
    """Calibrated probabilities: each class by its share and what a photo shows of it."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.choice(len(prior), size=people, p=prior), photos_each)
    shown_NK = rng.normal(size=(len(truth), len(prior))) + lean * np.eye(len(prior))[truth]
    logits_NK = lean * shown_NK + np.log(prior)
    raised_NK = np.exp(logits_NK - logits_NK.max(axis=1, keepdims=True))
    probabilities_NK = raised_NK / raised_NK.sum(axis=1, keepdims=True)
    return probabilities_NK, truth, np.repeat(np.arange(people), photos_each)


SKEWED = [0.85, 0.1, 0.05]


def test_shifted_probabilities_lead_where_the_sum_of_logarithm_and_offset_does():
    probabilities_NK, _, _ = make_task(SKEWED, 1.0)
    values = [-1.0, 0.5, 0.5]
    shifted_NK = offsets.shifted(probabilities_NK, values)
    np.testing.assert_allclose(shifted_NK.sum(axis=1), 1)
    expected_NK = np.log(probabilities_NK) + values
    expected_NK -= np.log(np.exp(expected_NK).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(np.log(shifted_NK), expected_NK, atol=1e-3)


@pytest.mark.parametrize("k", [0, 1, 2])
def test_one_count_gives_the_score_of_every_offset(k, monkeypatch):
    """The fast search finds what trying every value finds."""
    monkeypatch.setattr(offsets, "SMOOTHING", 1)
    probabilities_NK, truth, _ = make_task(SKEWED, 1.0)
    logs_NK = np.log(probabilities_NK)

    def score(value):
        moved_NK = logs_NK.copy()
        moved_NK[:, k] += value
        return f1(truth, moved_NK.argmax(axis=1))

    found = offsets._best_value(logs_NK, truth, k, 0.0)
    assert score(found) == pytest.approx(max(map(score, offsets.GRID)))


def best_by_hand(logs_NK, truth, k, now):
    """Of the values whose neighbourhood scores best, the nearest to ``now``."""
    scores = []
    for value in offsets.GRID:
        moved_NK = logs_NK.copy()
        moved_NK[:, k] += value - now
        scores.append(f1(truth, moved_NK.argmax(axis=1)))
    padded = [scores[0]] * 2 + scores + [scores[-1]] * 2
    around = np.array([sum(padded[place : place + 5]) for place in range(len(scores))])
    best = offsets.GRID[around >= around.max() - 1e-12]
    return best[np.abs(best - now).argmin()]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("now", [-1.3, 0.0, 2.4])
def test_the_best_value_is_the_middle_of_a_good_neighbourhood(seed, now):
    probabilities_NK, truth, _ = make_task(SKEWED, 1.0, people=30, seed=seed)
    logs_NK = np.log(probabilities_NK)
    for k in range(3):
        expected = best_by_hand(logs_NK, truth, k, now)
        assert offsets._best_value(logs_NK, truth, k, now) == pytest.approx(expected)
    # A class that everything speaks against takes the largest value.
    logs_NK[:, 2] = logs_NK[:, :2].max(axis=1) - 2.45
    truth = np.full(len(truth), 2)
    expected = best_by_hand(logs_NK, truth, 2, 0.0)
    assert offsets._best_value(logs_NK, truth, 2, 0.0) == pytest.approx(expected)
    assert expected >= 2.4


@pytest.mark.parametrize("seed", range(6))
def test_a_fit_goes_class_by_class_until_nothing_changes(seed):
    probabilities_NK, truth, _ = make_task([0.7, 0.2, 0.1], 0.8, people=40, seed=seed)
    logs_NK, shares = np.log(probabilities_NK), np.bincount(truth, minlength=3) / len(truth)
    prior = -np.log(shares) - np.mean(-np.log(shares))
    starts = [strength * prior for strength in (0, 0.25, 0.5, 0.75, 1)]
    found = max(starts, key=lambda start: f1(truth, (logs_NK + start).argmax(axis=1)))
    for _ in range(3):
        for k in range(3):
            found[k] = best_by_hand(logs_NK + found, truth, k, found[k])
    np.testing.assert_allclose(offsets.fit(probabilities_NK, truth), found - found.mean())


def test_offsets_find_rare_classes_and_their_gain_holds_on_other_people():
    probabilities_NK, truth, people = make_task(SKEWED, 1.2, people=500)
    tried = offsets.fit_if_clear(probabilities_NK, truth, people)
    assert tried == offsets.fit_if_clear(probabilities_NK, truth, people)
    assert tried.used
    assert tried.low > 0
    assert tried.gain > 0.02
    assert np.mean(tried.values) == pytest.approx(0)
    assert tried.values[0] < min(tried.values[1:])
    fresh_NK, fresh_truth, _ = make_task(SKEWED, 1.2, people=500, seed=1)
    plain = f1(fresh_truth, fresh_NK.argmax(axis=1))
    assert f1(fresh_truth, offsets.shifted(fresh_NK, tried.values).argmax(axis=1)) > plain + 0.02


def test_the_nested_score_of_a_vote_has_offsets_where_they_are_asked_for():
    probabilities_NK, truth, people = make_task(SKEWED, 1.2, people=500)
    plain, shifted = (
        voting.nested_score("soft", probabilities_NK[None], truth, people, seed=0, offsets=offsets)
        for offsets in (False, True)
    )
    assert shifted[0]["macro_f1"] > plain[0]["macro_f1"] + 0.02
    assert np.array_equal(plain[1], probabilities_NK.argmax(axis=1))


def test_offsets_are_the_same_in_any_order_of_photos():
    probabilities_NK, truth, people = make_task(SKEWED, 1.2)
    order = np.random.default_rng(0).permutation(len(truth))
    shuffled = offsets.fit_if_clear(probabilities_NK[order], truth[order], people[order])
    tried = offsets.fit_if_clear(probabilities_NK, truth, people)
    assert shuffled.values == pytest.approx(tried.values)
    assert (shuffled.used, shuffled.gain) == (tried.used, pytest.approx(tried.gain))


def test_of_too_few_people_no_gain_is_known():
    probabilities_NK, truth, people = make_task([1 / 3] * 3, 0.3)
    few = people < offsets.SPLITS - 1
    tried = offsets.fit_if_clear(probabilities_NK[few], truth[few], people[few])
    values = offsets.fit(probabilities_NK[few], truth[few]).tolist()
    assert tried == offsets.FittedOffsets(values, 0.0, 0.0, 0.0, used=False)
    enough = people < offsets.SPLITS
    tried = offsets.fit_if_clear(probabilities_NK[enough], truth[enough], people[enough])
    assert tried.low < tried.high


def test_the_logarithm_of_the_class_frequencies_is_where_the_search_begins(monkeypatch):
    """Of its shares the one with the best score, by hand; the search from there on is left away."""
    monkeypatch.setattr(offsets, "_best_value", lambda scores_NK, truth_N, k, now: now)
    probabilities_NK, truth, _ = make_task(SKEWED, 1.2)
    logs_NK, shares = np.log(probabilities_NK), np.bincount(truth) / len(truth)
    expected = {}
    for strength in (0, 0.25, 0.5, 0.75, 1):
        moved_NK = logs_NK - strength * np.log(shares)
        expected[f1(truth, moved_NK.argmax(axis=1))] = -strength * np.log(shares)
    best = expected[max(expected)]
    assert np.ptp(best) > 0.5
    np.testing.assert_allclose(offsets.fit(probabilities_NK, truth), best - best.mean())


def test_on_random_labels_offsets_are_not_used_and_gain_nothing():
    """Of 40 data sets whose photos show nothing, in-sample fits gain on all."""
    used, gains, in_sample, nested = 0, [], [], []
    for seed in range(40):
        probabilities_NK, truth, people = make_task([1 / 3] * 3, 0.0, people=60, seed=seed)
        probabilities_NK = np.random.default_rng(100 + seed).dirichlet(np.ones(3), len(truth))
        tried = offsets.fit_if_clear(probabilities_NK, truth, people)
        plain = f1(truth, probabilities_NK.argmax(axis=1))
        shifted_NK = offsets.shifted(probabilities_NK, tried.values)
        in_sample.append(f1(truth, shifted_NK.argmax(axis=1)) - plain)
        gains.append(tried.gain)
        used += tried.used
        if seed < 10:
            scores, _ = voting.nested_score(
                "soft", probabilities_NK[None], truth, people, seed=seed, offsets=True
            )
            nested.append(scores["macro_f1"] - plain)
    assert np.mean(in_sample) > 0.015
    assert used <= 3
    assert np.mean(gains) < 0.005
    assert abs(np.mean(nested)) < 0.01


def test_nobody_is_answered_by_offsets_fitted_on_their_own_photos(monkeypatch):
    people = np.repeat(np.arange(10), 3)
    probabilities_NK = np.stack([people + 1, 100 - people], axis=1) / 101
    seen = []
    monkeypatch.setattr(
        offsets, "fit", lambda p_NK, truth: seen.append(set(p_NK[:, 0])) or np.zeros(2)
    )

    def shifted(p_NK, values):
        assert not set(p_NK[:, 0]) & seen[-1]
        assert len(set(p_NK[:, 0]) | seen[-1]) == 10
        assert len(seen[-1]) == 8  # four fifths
        return p_NK

    monkeypatch.setattr(offsets, "shifted", shifted)
    offsets.fit_if_clear(probabilities_NK, people % 2, people)
    assert len(seen) == 1 + offsets.SPLITS


def test_with_few_people_no_offsets_are_used():
    probabilities_NK, truth, people = make_task(SKEWED, 1.2, people=4)
    assert not offsets.fit_if_clear(probabilities_NK, truth, people).used


def test_a_class_that_nobody_has_gets_no_offset_of_its_own():
    probabilities_NK, truth, _ = make_task([0.8, 0.2], 1.0)
    with_third_NK = np.concatenate([probabilities_NK * 0.9, np.full((len(truth), 1), 0.1)], axis=1)
    values = offsets.fit(with_third_NK, truth)
    assert np.isfinite(values).all()
    assert not (offsets.shifted(with_third_NK, values).argmax(axis=1) == 2).any()
