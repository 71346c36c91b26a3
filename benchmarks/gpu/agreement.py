"""When two trained models count as the same, and how they come to be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from benchmarks.gpu import setting as shared
from benchmarks.gpu.findings import Found, require
from benchmarks.gpu.setting import Setting, UInt8Array
from maskcls.learning import predict
from maskcls.learning.learner import Learner

LOSS_TOLERANCE = 1e-3
"""Of a step's loss, relative: float32 sums in another order, over an epoch of steps."""
SECOND_TOLERANCE = 1e-2
"""The same of the second step of a large model with random weights, which multiplies rounding."""
WEIGHT_TOLERANCE = 5e-3
"""Of all weights, |a - b| / |b|: AdamW's first steps are as long for a tiny gradient as for any."""
PROBABILITY_TOLERANCE = 2e-3
"""Of any one probability, absolute."""
ROUGH_TOLERANCE = 0.05
"""The same where one side computes in bfloat16, which has 8 bits of fraction."""

Trained = tuple[Learner, list[list[float]]]


class Contiguous(predict.Normalize):
    """Photos in the layout that PyTorch has by default."""

    def __call__(self, images_BHWC: UInt8Array) -> torch.Tensor:
        return super().__call__(images_BHWC).contiguous()


def contiguous(learner: Learner) -> Learner:
    """The learner with weights and photos in that layout."""
    learner.model.to(memory_format=torch.contiguous_format)
    before = learner.normalize
    learner.normalize = Contiguous(before.mean, before.std, before.device)
    return learner


def some_photos(setting: Setting, count: int | None = None) -> tuple[UInt8Array, shared.Labels]:
    """Drawn photos, by default in full batches: cuDNN chooses kernels anew for each size of one."""
    return shared.drawn(setting.checked, count or (48 if setting.tiny else 96))


def trained(learner: Learner, photos: UInt8Array, epochs: int) -> Trained:
    return learner, shared.train(learner, photos, 1, epochs)


def agree(one: Trained, other: Trained, photos: UInt8Array) -> Found:
    (there, there_losses), (here, here_losses) = one, other
    loss = max(apart(a, b) for a, b in zip(there_losses, here_losses, strict=True))
    weights = weights_apart(there, here)
    said = [
        learner.predictor()(photos, np.arange(len(photos)))["mask"] for learner in (there, here)
    ]
    chance = float(np.abs(said[0] - said[1]).max())
    text = f"losses differ by {loss:.1e}, weights by {weights:.1e}, probabilities by {chance:.1e}"
    limits = LOSS_TOLERANCE, WEIGHT_TOLERANCE, PROBABILITY_TOLERANCE
    within = loss <= limits[0] and weights <= limits[1] and chance <= limits[2]
    allowed = "; allowed are {:g}, {:g} and {:g}".format(*limits)
    require(within, text + allowed)
    return text + allowed, {"loss": loss, "weights": weights, "probability": chance}


def apart(one: list[float], other: list[float]) -> float:
    """The largest relative difference of two lists of losses."""
    a, b = np.array(one), np.array(other)
    return float((np.abs(a - b) / np.abs(a)).max())


def weights_apart(one: Learner, other: Learner) -> float:
    a, b = (
        torch.cat([weight.detach().double().cpu().ravel() for weight in learner.model.parameters()])
        for learner in (one, other)
    )
    return float((a - b).norm() / a.norm())


@contextmanager
def as_shipped() -> Iterator[None]:
    """Convolutions of float32 in TF32, as PyTorch has them unless told otherwise."""
    shared.plain_float32(tf32=True)
    try:
        yield
    finally:
        shared.plain_float32()
