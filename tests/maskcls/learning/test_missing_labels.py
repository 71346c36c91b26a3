"""A head never learns from a photo without its label: alone, mixed, in any loss, on any worker."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskcls.config.recipe import Recipe
from maskcls.labels import HEADS, LABEL_COLUMNS, MISSING, Task, joint_class
from maskcls.learning.learner import Learner

PHOTOS, SIZE = 12, (32, 32)
LOSSES = ["cross_entropy", "focal", "label_smoothing", "focal_smoothing", "soft_f1",
          "class_balanced_focal"]  # fmt: skip
MIXES = ["none", "mixup", "vertical_cutmix"]


def labels_of(missing):
    """Labels of ``PHOTOS`` photos; ``missing`` has (head, photo) pairs."""
    rng = np.random.default_rng(0)
    made = {"mask": rng.integers(0, 3, PHOTOS), "gender": rng.integers(0, 2, PHOTOS)}
    made |= {"age_band": rng.integers(0, 3, PHOTOS), "age": rng.integers(18, 66, PHOTOS)}
    for head, photo in missing:
        made[LABEL_COLUMNS[head]][photo] = MISSING
        if head == "age":
            made["age"][photo] = MISSING
    made["joint"] = joint_class(made["mask"], made["gender"], made["age_band"])
    return made


def learner_of(labels, loss, mix):
    recipe = Recipe.model_validate(
        {"model": {"name": "test_vit"}, "image": {"size": SIZE}, "loss": {"name": loss}}
        | {"augment": {"mix": {"name": mix}}, "optimizer": {"name": "sgd", "weight_decay": 0.0}}
    )
    torch.manual_seed(3)
    return Learner(
        Task.MULTI, recipe, labels, steps_per_epoch=1, device=torch.device("cpu"), seed=5
    )


def seen_by_heads(learner):
    """One step; the photos whose outputs reach each head's loss, as rows of the batch.

    The outputs of photo i are i everywhere, so what reaches a loss tells which photos it saw.
    """
    seen = {}

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, inputs_BCHW):
            rows = torch.arange(len(inputs_BCHW)).float()[:, None]
            return {h: self.scale * rows.expand(-1, k) for h, k in HEADS[Task.MULTI].items()}

    for head in list(learner._losses):

        def note(logits, targets, head=head):
            assert len(logits) == len(targets)
            seen[head] = logits[:, 0].round().int().tolist()
            return logits.sum()

        learner._losses[head] = note
    learner._replica = Model()
    photos = np.random.default_rng(1).integers(0, 256, (PHOTOS, *SIZE, 3), dtype=np.uint8)
    learner.step(photos, np.arange(PHOTOS), epoch=1, number=0)
    return seen


pairs = st.sets(st.tuples(st.sampled_from(list(HEADS[Task.MULTI])), st.integers(0, PHOTOS - 1)))


@settings(max_examples=20)
@given(pairs, st.sampled_from(MIXES))
def test_no_head_sees_a_photo_without_its_label(missing, mix):
    learner = learner_of(labels_of(missing), "cross_entropy", mix)
    partners = []
    inner = learner._mix

    def noted(*arguments):
        mixed = inner(*arguments)
        partners.append(mixed[1] if mixed[2] != 1.0 else torch.arange(PHOTOS))
        return mixed

    learner._mix = noted
    seen = seen_by_heads(learner)
    for head, rows in seen.items():
        known = [(head, photo) not in missing for photo in range(PHOTOS)]
        partner = partners[0].tolist()
        assert rows == [i for i in range(PHOTOS) if known[i] and known[partner[i]]]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("mix", MIXES)
def test_a_step_where_a_head_has_no_label_at_all_changes_it_in_nothing(loss, mix):
    learner = learner_of(labels_of([("mask", photo) for photo in range(PHOTOS)]), loss, mix)
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    photos = np.random.default_rng(1).integers(0, 256, (PHOTOS, *SIZE, 3), dtype=np.uint8)
    learner.start_epoch(1)
    told = learner.step(photos, np.arange(PHOTOS), epoch=1, number=0)
    assert torch.isfinite(told)
    after = learner.model.state_dict()
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    of_mask = {name for name in after if "mask" in name.split(".")}
    assert of_mask and not of_mask & {n for n in moved if "running" not in n and "num" not in n}
    assert {name for name in moved if "gender" in name.split(".")}


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_is_that_of_the_labelled_photos_alone(loss):
    hidden = [("mask", 1), ("mask", 4), ("age", 2)]
    learner = learner_of(labels_of(hidden), loss, "none")
    complete = labels_of([])
    torch.manual_seed(0)
    for head, classes in HEADS[Task.MULTI].items():
        logits = torch.randn(PHOTOS, classes)
        kept = [i for i in range(PHOTOS) if (head, i) not in hidden]
        index = torch.arange(PHOTOS)
        mine = learner._loss(head, logits, index, index, 1.0)
        truth = torch.from_numpy(complete[LABEL_COLUMNS[head]][kept])
        assert torch.equal(mine, learner._losses[head](logits[kept], truth))
