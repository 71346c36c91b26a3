"""Distributions over years and questions in order, against their formulas."""

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy, one_hot

from maskcls.labels import age_band
from maskcls.learning import ages
from tests.maskcls.learning import workers


@pytest.mark.parametrize("sigma", [0.5, 3.0, 10.0])
def test_a_bell_stands_around_each_age(sigma):
    wanted = torch.tensor([0, 29, 30, 60, 100])
    found = ages.year_distributions(wanted, sigma).numpy()
    years = np.arange(ages.YEARS)
    for age, row in zip(wanted.tolist(), found, strict=True):
        bell = np.exp(-((years - age) ** 2) / (2 * sigma**2))
        np.testing.assert_allclose(row, bell / bell.sum(), atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def test_ages_beyond_the_last_year_count_as_it():
    beyond, last = ages.year_distributions(torch.tensor([130, 100]), 3.0)
    assert torch.equal(beyond, last)


def test_bands_are_the_sums_of_their_years():
    per_year = torch.rand(4, ages.YEARS, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    bands = age_band(np.arange(ages.YEARS))
    expected = np.stack([per_year.numpy()[:, bands == k].sum(axis=1) for k in range(3)], axis=1)
    np.testing.assert_allclose(ages.bands_of_years(per_year), expected, rtol=1e-5)
    assert ages.band_of_year().tolist() == bands.tolist()


def corn_batch():
    generator = torch.Generator().manual_seed(4)
    logits = 2 * torch.randn(12, 2, generator=generator)
    classes = torch.randint(3, (12,), generator=generator)
    soft = torch.randn(12, 3, generator=generator).softmax(dim=1)
    return logits, classes, soft


def test_corn_asks_each_question_of_those_who_reached_it():
    logits, classes, _ = corn_batch()
    total, asked = 0.0, 0
    for question in range(2):
        reached = classes >= question
        answers = (classes[reached] > question).float()
        yes = logits[reached, question].sigmoid()
        total += binary_cross_entropy(yes, answers, reduction="sum").item()
        asked += len(answers)
    loss = ages.corn_loss(logits, one_hot(classes, 3).float())
    assert loss.item() == pytest.approx(total / asked, rel=1e-5)


def test_corn_weighs_soft_targets_by_their_mass():
    logits, _, soft = corn_batch()
    yes, q = logits.sigmoid().double().numpy(), soft.double().numpy()
    reached_1 = q[:, 1] + q[:, 2]
    total = -(
        reached_1 * np.log(yes[:, 0]) + q[:, 0] * np.log(1 - yes[:, 0])
        + q[:, 2] * np.log(yes[:, 1]) + q[:, 1] * np.log(1 - yes[:, 1])
    ).sum()  # fmt: skip
    expected = total / (len(q) + reached_1.sum())
    assert ages.corn_loss(logits, soft).item() == pytest.approx(expected, rel=1e-5)


def test_corns_probabilities_are_products_of_answers():
    logits, *_ = corn_batch()
    yes = logits.sigmoid()
    expected = torch.stack([1 - yes[:, 0], yes[:, 0] * (1 - yes[:, 1]), yes.prod(dim=1)], dim=1)
    torch.testing.assert_close(ages.corn_probabilities(logits), expected)


@pytest.mark.parametrize("scale", [0.0, 1e4, 1e30])
def test_corns_gradients_stay_finite(scale):
    logits = (scale * torch.tensor([[1.0, -1.0], [-1.0, 1.0]])).requires_grad_()
    ages.corn_loss(logits, one_hot(torch.tensor([0, 2]), 3).float()).backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("targets", [torch.zeros(12), torch.zeros(12, 2), torch.zeros(3, 3)])
def test_corn_refuses_other_shapes(targets):
    with pytest.raises(ValueError, match=r"CORN expects logits \[B, K - 1\]"):
        ages.corn_loss(corn_batch()[0], targets)


def corn_of_share(rank, world):
    """Value and gradient for the photos that a worker has."""
    logits, classes, soft = corn_batch()
    found = []
    for targets in (one_hot(classes, 3).float(), soft):
        mine = logits[rank::world].clone().requires_grad_()
        loss = ages.corn_loss(mine, targets[rank::world])
        loss.backward()
        found.append((loss.detach(), mine.grad))
    return found


def test_two_workers_have_the_corn_loss_and_gradient_of_one():
    first, second = workers.run(corn_of_share)
    for alone, *shares in zip(corn_of_share(0, 1), first, second, strict=True):
        together = torch.empty_like(alone[1])
        for rank, (loss, gradient) in enumerate(shares):
            torch.testing.assert_close(loss, alone[0])
            together[rank::2] = gradient
        torch.testing.assert_close(together, alone[1])
