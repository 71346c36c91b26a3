"""Losses against their formulas in numpy and against torch where it has the same loss."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, one_hot

from maskcls.labels import age_band
from maskcls.learning import losses
from tests.maskcls.learning import workers

CLASSIFICATION = [name for name in losses.LOSSES if name != "age_regression"]
WEIGHTED = ["cross_entropy", "label_smoothing", "focal", "focal_smoothing"]


def batch(size=16, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(size, classes, generator=generator)
    targets = torch.randint(classes, (size,), generator=generator)
    soft = torch.randn(size, classes, generator=generator).softmax(dim=1)
    return logits, targets, soft


def build(name, classes=5, **options):
    counts = [10 * (1 + k) ** 2 for k in range(classes)]
    return losses.build(name, num_classes=classes, class_counts=counts, **options)


def reference(logits, target_BK, *, weights=1.0, gamma=0.0, smoothing=0.0):
    """The focal loss in float64, written without any trick."""
    x, q = logits.double().numpy(), target_BK.double().numpy()
    p = np.exp(x - x.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    smooth = (1 - smoothing) * q + smoothing / x.shape[1]
    total = -(weights * smooth * (1 - p) ** gamma * np.log(p)).sum()
    return total / (weights * q).sum()


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 4.0, 0.1, 2.0]])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_without_focus_hard_targets_give_torchs_cross_entropy(weights, smoothing):
    logits, targets, _ = batch()
    ours = build("focal_smoothing", gamma=0.0, smoothing=smoothing, class_weights=weights)
    torchs = cross_entropy(
        logits,
        targets,
        weight=None if weights is None else torch.tensor(weights),
        label_smoothing=smoothing,
    )
    torch.testing.assert_close(ours(logits, targets), torchs)


def test_without_weights_soft_targets_give_torchs_cross_entropy():
    logits, _, soft = batch()
    torch.testing.assert_close(build("cross_entropy")(logits, soft), cross_entropy(logits, soft))


@pytest.mark.parametrize("classes", [2, 3, 18])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("name", "options", "formula"),
    [
        ("cross_entropy", {}, {"gamma": 0.0}),
        ("label_smoothing", {}, {"gamma": 0.0, "smoothing": 0.1}),
        ("label_smoothing", {"smoothing": 0.3}, {"gamma": 0.0, "smoothing": 0.3}),
        ("focal", {}, {"gamma": 2.0}),
        ("focal", {"gamma": 0.5}, {"gamma": 0.5}),
        ("focal_smoothing", {}, {"gamma": 2.0, "smoothing": 0.1}),
        ("focal_smoothing", {"gamma": 1.0, "smoothing": 0.2}, {"gamma": 1.0, "smoothing": 0.2}),
    ],
)
def test_losses_follow_their_formula(name, options, formula, weighted, classes):
    logits, _, soft = batch(classes=classes)
    weights = np.linspace(0.5, 3, classes) if weighted else None
    given_weights = {} if weights is None else {"class_weights": weights.tolist()}
    loss = build(name, classes, **options, **given_weights)(logits, soft)
    expected = reference(logits, soft, weights=1.0 if weights is None else weights, **formula)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_class_balanced_focal_is_focal_with_weights_from_the_counts():
    logits, targets, _ = batch(classes=3)
    loss = losses.build("class_balanced_focal", num_classes=3, class_counts=[5000, 600, 80])
    effective = (1 - 0.999 ** np.array([5000, 600, 80])) / (1 - 0.999)
    expected = reference(logits, one_hot(targets, 3), weights=1 / effective, gamma=2.0)
    assert loss(logits, targets).item() == pytest.approx(expected, rel=1e-5)


def test_class_balanced_weights_are_those_of_the_paper():
    weights = losses.class_balanced_weights([1, 10, 10_000], beta=0.9)
    raw = np.array([1.0, 0.1 / (1 - 0.9**10), 0.1])
    np.testing.assert_allclose(weights, raw / raw.mean())
    np.testing.assert_allclose(losses.class_balanced_weights([1, 10, 10_000], beta=0.0), 1.0)


@given(
    counts=st.lists(st.integers(0, 10**6), min_size=1, max_size=20),
    beta=st.sampled_from([0.0, 0.9, 0.999, 0.999999]),
)
def test_class_balanced_weights_are_finite_with_mean_one_and_favour_the_rare(counts, beta):
    weights = losses.class_balanced_weights(counts, beta)
    assert np.isfinite(weights).all()
    assert weights.mean() == pytest.approx(1)
    assert (np.diff(weights[np.argsort(counts)]) <= 1e-12).all()


def test_soft_f1_follows_its_formula():
    logits, _, soft = batch()
    p, q = logits.softmax(dim=1).double().numpy(), soft.double().numpy()
    f1 = [2 * (p[:, k] * q[:, k]).sum() / (p[:, k].sum() + q[:, k].sum()) for k in range(5)]
    assert build("soft_f1")(logits, soft).item() == pytest.approx(1 - np.mean(f1), rel=1e-5)


def test_soft_f1_of_certain_answers_is_macro_f1_over_the_classes_of_the_batch():
    truth = torch.tensor([0, 0, 1, 1])
    answers = torch.tensor([0, 1, 1, 1])
    certain = 1e4 * one_hot(answers, 5).float()
    assert build("soft_f1")(certain, truth).item() == pytest.approx(1 - (2 / 3 + 4 / 5) / 2)
    assert build("soft_f1")(1e4 * one_hot(truth, 5).float(), truth).item() == pytest.approx(0)


@pytest.mark.parametrize("name", CLASSIFICATION)
@pytest.mark.parametrize("classes", [2, 3, 18])
def test_one_hot_targets_give_the_loss_of_classes(name, classes):
    logits, targets, _ = batch(classes=classes)
    loss = build(name, classes)
    torch.testing.assert_close(
        loss(logits, one_hot(targets, classes).float()), loss(logits, targets)
    )


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_a_step_down_the_gradient_lowers_the_loss(name):
    logits, targets, _ = batch()
    logits.requires_grad_()
    before = build(name)(logits, targets)
    before.backward()
    assert build(name)(logits.detach() - 0.1 * logits.grad, targets) < before


@pytest.mark.parametrize("name", CLASSIFICATION)
@pytest.mark.parametrize("scale", [0.0, 1e-6, 30.0, 1e4, 1e30])
@pytest.mark.parametrize("right", [True, False])
def test_gradients_stay_finite_at_extreme_logits(name, scale, right):
    targets = torch.tensor([0, 1, 2, 2])
    answers = targets if right else (targets + 1) % 5
    logits = (scale * one_hot(answers, 5).float()).requires_grad_()
    loss = build(name)(logits, targets)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


@given(gamma=st.floats(0, 5), logit=st.floats(-200, 200), smoothing=st.sampled_from([0.0, 0.1]))
def test_the_focal_gradient_is_finite_for_every_gamma(gamma, logit, smoothing):
    logits = torch.tensor([[logit, 0.0]], requires_grad=True)
    losses.focal_loss(logits, torch.tensor([0]), gamma=gamma, smoothing=smoothing).backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", losses.LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_float32(name, dtype):
    logits, targets, _ = batch()
    if name == "age_regression":
        logits, targets = logits[:, :1], 20.0 + 40 * torch.rand(16)
    half = logits.to(dtype)
    expected = build(name)(half.float(), targets)
    with torch.autocast("cpu", torch.bfloat16):
        loss = build(name)(half, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_losses_are_scalars_whatever_the_size_of_the_batch(name):
    for size in (1, 7):
        logits, targets, _ = batch(size)
        if name == "age_regression":
            logits, targets = logits[:, :1], targets + 18
        assert build(name)(logits, targets).shape == ()


def test_age_regression_is_the_scaled_mean_squared_error():
    output = torch.tensor([[0.5], [-1.0], [0.0]])
    ages = torch.tensor([40.0, 18.0, 60.0])
    years = losses.age_from_output(output)
    expected = ((years - ages) ** 2).mean() / losses.AGE_SCALE_YEARS**2
    torch.testing.assert_close(build("age_regression")(output, ages), expected)


def test_the_best_output_for_age_regression_reads_back_as_the_age():
    ages = torch.tensor([18.0, 29.5, 60.0])
    output = torch.zeros(3, 1, requires_grad=True)
    optimizer = torch.optim.SGD([output], lr=1.0)
    for _ in range(60):
        optimizer.zero_grad()
        build("age_regression")(output, ages).backward()
        optimizer.step()
    torch.testing.assert_close(losses.age_from_output(output.detach()), ages, atol=1e-3, rtol=0)


@given(
    years=st.lists(st.floats(-20, 120, width=32), min_size=1, max_size=20),
    sigma=st.floats(0.1, losses.MAX_SIGMA_YEARS),
)
@example(years=[-1.0], sigma=1.0)
def test_the_likeliest_band_is_that_of_the_age(years, sigma):
    probabilities = losses.age_band_probabilities(torch.tensor(years), sigma)
    assert probabilities.dtype == torch.float32
    assert (probabilities >= 0).all()
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(len(years)))
    # What a model says may be below zero, and -1 as a label means that nobody knows.
    assert probabilities.argmax(dim=1).tolist() == age_band(np.maximum(years, 0)).tolist()


@pytest.mark.parametrize("edge", [30.0, 60.0])
@pytest.mark.parametrize("towards", [-torch.inf, None, torch.inf])
def test_the_band_changes_exactly_where_the_label_changes(edge, towards):
    years = torch.tensor([edge])
    if towards is not None:
        years = torch.nextafter(years, torch.tensor(towards))
    band = losses.age_band_probabilities(years).argmax(dim=1)
    assert band.tolist() == age_band(years.numpy()).tolist()


def test_band_probabilities_are_gaussian_masses():
    probabilities = losses.age_band_probabilities(torch.tensor([35.0, 60.0]), sigma_years=5.0)
    torch.testing.assert_close(
        losses.age_band_probabilities(torch.tensor([35.0, 60.0])), probabilities
    )
    one_sigma_below = 0.158655
    expected = torch.tensor([[one_sigma_below, 1 - one_sigma_below, 0.0], [0.0, 0.5, 0.5]])
    torch.testing.assert_close(probabilities, expected, atol=5e-6, rtol=0)


@pytest.mark.parametrize("sigma", [0.0, -1.0, 7.0, float("nan")])
def test_a_sigma_that_would_move_bands_is_refused(sigma):
    with pytest.raises(ValueError, match="sigma_years"):
        losses.age_band_probabilities(torch.tensor([40.0]), sigma)


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'focal'"):
        build("focall")
    with pytest.raises(ValueError, match=r"expected one of cross_entropy, .*age_regression"):
        build("xyz")


OPTIONS = {
    "gamma": 1.0, "smoothing": 0.2, "beta": 0.9, "tau": 0.5, "class_weights": [1.0] * 5
}  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", losses.LOSSES)
def test_an_option_is_used_or_refused(name, option):
    logits, targets, _ = batch()
    value = [1.0, 2.0, 3.0, 4.0, 5.0] if option == "class_weights" else OPTIONS[option]
    if option in inspect.signature(losses.LOSSES[name]).parameters:
        plain, changed = build(name), build(name, **{option: value})
        assert changed(logits, targets) != plain(logits, targets)
    else:
        with pytest.raises(ValueError, match=f"{name}.*got {option}"):
            build(name, **{option: value})


def test_the_losses_that_take_weights_are_these():
    taking = [
        name
        for name, builder in losses.LOSSES.items()
        if "class_weights" in inspect.signature(builder).parameters
    ]
    assert taking == WEIGHTED


@pytest.mark.parametrize("name", WEIGHTED)
@pytest.mark.parametrize(
    "weights", [[1.0] * 4, [1.0, 1, 1, 1, 0], [1.0, 1, 1, 1, -1], [1.0, 1, 1, 1, float("inf")]]
)
def test_unfit_class_weights_are_refused(name, weights):
    with pytest.raises(ValueError, match="expected 5 class weights above 0"):
        build(name, class_weights=weights)


def test_adjusted_logits_are_those_plus_the_log_of_the_prior():
    logits, targets, soft = batch(classes=3)
    counts = [60, 30, 0]
    prior = torch.tensor([60.0, 30.0, 1.0]) / 91  # a class without photos counts as one
    for tau in (0.0, 0.7, 1.0):
        loss = losses.build("logit_adjusted", num_classes=3, class_counts=counts, tau=tau)
        for wanted in (targets, soft):
            expected = cross_entropy(logits + tau * prior.log(), wanted)
            torch.testing.assert_close(loss(logits, wanted), expected)


def test_an_adjustment_needs_fitting_counts():
    with pytest.raises(ValueError, match=r"logit_adjusted.*needs class_counts.* 3 classes.*None"):
        losses.build("logit_adjusted", num_classes=3)
    for counts, tau in ([1, -2], 1.0), ([1, 2], -1.0):
        with pytest.raises(ValueError, match="0 or more"):
            losses.build("logit_adjusted", num_classes=2, class_counts=counts, tau=tau)


def test_class_balanced_focal_needs_fitting_counts():
    with pytest.raises(ValueError, match=r"needs class_counts.* 3 classes.*None"):
        losses.build("class_balanced_focal", num_classes=3)
    with pytest.raises(ValueError, match=r"needs class_counts.* 3 classes.*\[1, 2\]"):
        losses.build("class_balanced_focal", num_classes=3, class_counts=[1, 2])
    with pytest.raises(ValueError, match="one count of 0 or more"):
        losses.build("class_balanced_focal", num_classes=2, class_counts=[1, -2])
    with pytest.raises(ValueError, match="beta"):
        losses.build("class_balanced_focal", num_classes=2, class_counts=[1, 2], beta=1.0)


@pytest.mark.parametrize("name", CLASSIFICATION)
@pytest.mark.parametrize(
    "targets", [torch.zeros(4), torch.zeros(3, dtype=torch.int64), torch.zeros(4, 3)]
)
def test_targets_of_another_kind_are_refused(name, targets):
    with pytest.raises(ValueError, match=r"integer classes \[B\] or probabilities"):
        build(name)(torch.zeros(4, 5), targets)


@pytest.mark.parametrize(("outputs", "ages"), [((4,), (4,)), ((4, 3), (4,)), ((4, 1), (4, 1))])
def test_age_regression_refuses_shapes_that_would_broadcast(outputs, ages):
    with pytest.raises(ValueError, match="age_regression expects"):
        build("age_regression")(torch.zeros(outputs), torch.zeros(ages))


# Several workers

SHARED = [
    *((name, {}) for name in losses.LOSSES),
    *((name, {"class_weights": [0.5, 1.0, 4.0, 0.1, 2.0]}) for name in WEIGHTED),
]
"""Every loss, and with class weights where it takes them."""


def losses_of_share(rank, world):
    """Value and gradient of each loss and kind of targets for the photos that a worker has."""
    found = []
    for name, options in SHARED:
        logits, targets, soft = batch(9)
        kinds = [(logits, targets), (logits, soft)]
        if name == "age_regression":
            kinds = [(logits[:, :1], targets + 18.0), (logits[:, :1], 70 * soft[:, 0])]
        for values, wanted in kinds:
            mine = values[rank::world].clone().requires_grad_()
            loss = build(name, **options)(mine, wanted[rank::world])
            loss.backward()
            found.append((loss.detach(), mine.grad))
    return found


@pytest.fixture(scope="module")
def shared():
    return zip(losses_of_share(0, 1), *workers.run(losses_of_share), strict=True)


def test_two_workers_have_the_loss_and_the_gradient_of_one(shared):
    cases = [(name, kind) for name, _ in SHARED for kind in ("hard", "soft")]
    for case, (alone, *shares) in zip(cases, shared, strict=True):
        together = torch.empty_like(alone[1])
        for rank, (loss, gradient) in enumerate(shares):
            torch.testing.assert_close(loss, alone[0], msg=lambda text, case=case: f"{case} {text}")
            together[rank::2] = gradient
        torch.testing.assert_close(together, alone[1], msg=lambda text, case=case: f"{case} {text}")
