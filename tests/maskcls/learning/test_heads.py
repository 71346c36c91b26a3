"""Every head: what teaches it leads to the classes that it is read as, mixed or not."""

import numpy as np
import pytest
import torch

from maskcls.config.recipe import Recipe
from maskcls.labels import HEADS, Task, age_band
from maskcls.learning import heads
from maskcls.learning.heads import Classes, Distribution, Ordinal, Regression, WithYears

AGES = np.array([18, 25, 29, 30, 41, 59, 60, 72, 95])
LABELS = {"age": AGES, "age_band": age_band(AGES)}
PLAIN = Classes("age_band", 3)
WAYS = [
    (PLAIN, {"name": "cross_entropy"}),
    (PLAIN, {"name": "logit_adjusted"}),
    (WithYears(PLAIN, 0.3), {"name": "focal"}),
    (Regression(), {"name": "age_regression"}),
    (Distribution(2.0), {"name": "cross_entropy"}),
    (Ordinal(), {"name": "cross_entropy"}),
]


def learned(head, options, targets, labels=LABELS, *, one_for_all=False):
    """Probabilities of outputs that are free to fit their targets: one row a photo, or one row."""
    torch.manual_seed(0)
    rows = 1 if one_for_all else len(targets)
    outputs = torch.zeros(rows, head.outputs, requires_grad=True)
    optimizer = torch.optim.Adam([outputs], lr=0.2)
    loss = head.loss(labels, options)
    for _ in range(250):
        optimizer.zero_grad()
        loss(outputs.expand(len(targets), -1), targets).backward()
        optimizer.step()
    return head.scores(outputs.detach()).softmax(dim=1)


@pytest.mark.parametrize(("head", "options"), WAYS)
def test_what_fits_the_targets_is_read_as_the_band(head, options):
    found = learned(head, options, head.targets(LABELS))
    assert found.shape == (len(AGES), 3) and found.dtype == torch.float32
    torch.testing.assert_close(found.sum(dim=1), torch.ones(len(AGES)))
    assert found.argmax(dim=1).tolist() == LABELS["age_band"].tolist()


@pytest.mark.parametrize(
    ("head", "options"), [way for way in WAYS if not isinstance(way[0], Regression)]
)
def test_half_of_two_photos_is_read_as_half_of_both_bands(head, options):
    """A regression cannot: between 18 and 72 lies 45."""
    targets = head.targets(LABELS)
    mixed = (targets[[0]] + targets[[7]]) / 2
    plain = {"name": "cross_entropy"}
    found = learned(head, plain, mixed)[0]
    torch.testing.assert_close(found, torch.tensor([0.5, 0.0, 0.5]), atol=0.03, rtol=0)


@pytest.mark.parametrize("head", [PLAIN, WithYears(PLAIN, 0.5), Distribution(0.01)])
def test_adjusted_logits_are_blind_to_how_frequent_a_band_is(head):
    """One answer for all photos: as frequent as they are, or with the adjustment all alike."""
    labels = {"age": np.repeat([25, 45, 65], [60, 30, 10])}
    labels["age_band"] = age_band(labels["age"])
    targets = head.targets(labels)
    plain = learned(head, {"name": "cross_entropy"}, targets, labels, one_for_all=True)[0]
    adjusted = learned(head, {"name": "logit_adjusted"}, targets, labels, one_for_all=True)[0]
    half = learned(head, {"name": "logit_adjusted", "tau": 0.5}, targets, labels, one_for_all=True)
    torch.testing.assert_close(plain, torch.tensor([0.6, 0.3, 0.1]), atol=0.02, rtol=0)
    torch.testing.assert_close(adjusted, torch.full((3,), 1 / 3), atol=0.02, rtol=0)
    assert plain[2] < half[0, 2] < adjusted[2]


def test_the_years_are_learned_beside_the_classes_and_weigh_as_told():
    head = WithYears(PLAIN, 2.0)
    targets = head.targets(LABELS)
    outputs = torch.randn(len(AGES), 4, generator=torch.Generator().manual_seed(1))
    alone = PLAIN.loss(LABELS, {"name": "focal"})(outputs[:, :3], targets[:, :3])
    years = 40 + 20 * outputs[:, 3]
    squares = ((years - torch.tensor(AGES)) / 20).square().mean()
    found = head.loss(LABELS, {"name": "focal"})(outputs, targets)
    torch.testing.assert_close(found, alone + 2 * squares)


def recipe(**sections):
    return Recipe.model_validate(sections)


@pytest.mark.parametrize(
    ("task", "sections", "outputs"),
    [
        (Task.AGE, {}, {"age": 3}),
        (Task.AGE, {"loss": {"name": "age_regression"}}, {"age": 1}),
        (Task.AGE, {"age": {"name": "distribution"}}, {"age": 101}),
        (Task.AGE, {"age": {"name": "ordinal"}}, {"age": 2}),
        (Task.AGE, {"age": {"years_weight": 0.1}}, {"age": 4}),
        (Task.JOINT, {"age": {"years_weight": 0.1}}, {"joint": 19}),
        (Task.MULTI, {"age": {"name": "distribution"}}, {"mask": 3, "gender": 2, "age": 101}),
        (Task.MULTI, {"age": {"years_weight": 0.1}}, {"mask": 3, "gender": 2, "age": 4}),
        (Task.GENDER, {"age": {"name": "ordinal"}}, {"gender": 2}),
    ],
)
def test_the_outputs_of_each_task(task, sections, outputs):
    assert heads.sizes(task, recipe(**sections)) == outputs


@pytest.mark.parametrize("task", Task)
def test_what_a_task_has_no_head_for_is_refused(task):
    if task is not Task.AGE:
        with pytest.raises(ValueError, match="age_regression is for task age"):
            heads.build(task, recipe(loss={"name": "age_regression"}))
    if HEADS[task].keys() == {"joint"}:
        for name in ("distribution", "ordinal"):
            with pytest.raises(ValueError, match=f"{name} is for tasks age and multi"):
                heads.build(task, recipe(age={"name": name}))
