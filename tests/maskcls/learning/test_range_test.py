"""Which learning rate a range test suggests."""

import math

import numpy as np
import pytest

from maskcls.learning import range_test


def losses(best, noise=0.0, seed=0):
    """Of a model that learns in proportion to the rate up to ``best``, and diverges above."""
    rng, loss, found = np.random.default_rng(seed), 3.0, []
    for number in range(range_test.STEPS):
        rate = range_test.LOWEST * range_test.factor(number)
        loss *= math.exp(-0.3 * rate / best) if rate < best else 1 + 0.3 * rate / best
        found.append(loss + noise * rng.standard_normal())
        if range_test.diverged(found):
            break
    return found


def test_rates_rise_in_equal_ratios_between_the_limits():
    rates = [range_test.LOWEST * range_test.factor(n) for n in range(range_test.STEPS)]
    assert rates[0] == range_test.LOWEST
    assert rates[-1] == pytest.approx(range_test.HIGHEST)
    assert np.allclose(np.diff(np.log(rates)), np.log(rates[1] / rates[0]))


@pytest.mark.parametrize("best", [1e-4, 1e-3, 1e-2, 1e-1])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_the_suggestion_is_below_where_the_loss_rises_and_not_far(best, noise):
    assert best / 4 < range_test.suggestion(losses(best, noise)) < best


def test_a_loss_that_is_no_number_ends_the_test_and_does_not_count():
    found = [*losses(1e-2)[:40], float("nan")]
    assert range_test.diverged(found)
    assert range_test.suggestion(found) == range_test.suggestion(found[:-1])


def test_a_loss_that_never_falls_is_said():
    with pytest.raises(ValueError, match="falls at no rate"):
        range_test.suggestion([3.0 + number for number in range(20)])
    with pytest.raises(ValueError, match="falls at no rate"):
        range_test.suggestion([float("nan")])


def test_the_smoothed_loss_is_a_mean_with_falling_weights():
    given = [4.0, 2.0, 1.0]
    weights = np.array([0.81, 0.9, 1.0])
    assert range_test.smoothed(given)[-1] == pytest.approx(np.average(given, weights=weights))
    assert range_test.smoothed(given)[0] == 4.0
