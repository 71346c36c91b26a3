"""Every backbone of docs/names.md: two training steps and one prediction on photos that are not
square."""

from __future__ import annotations

import functools
import gc
import math

import numpy as np
import torch

from benchmarks.gpu import setting as shared
from benchmarks.gpu.findings import Crew, Found, Rows, require
from benchmarks.gpu.setting import Model, Setting
from maskcls.learning.backbones import BACKBONES

TINY = ("tf_efficientnet_lite0", "squeezenet1_1", "shufflenet_v2_x1_0")


def rows(setting: Setting, crew: Crew) -> Rows:
    """The checks by name."""
    names = TINY if setting.tiny else tuple(BACKBONES)
    return {name: functools.partial(one, setting, name) for name in names}


def one(setting: Setting, name: str) -> Found:
    """Two steps in the precision that the project takes by itself, and a prediction. Two, since
    what lies before a scale that starts at 0 moves only in the second."""
    model = Model(name, (64, 48) if setting.tiny else (256, 192), 4 if setting.tiny else 8)
    photos, labels = shared.drawn(model, model.batch_size)
    learner = shared.learner(shared.recipe(model, "auto"), labels, setting.device)
    before = [weight.detach().clone() for weight in learner.model.parameters()]
    loss = shared.train(learner, photos, 1, 2)[-1][0] / len(photos)
    require(math.isfinite(loss), f"the loss is {loss}")
    now = learner.model.parameters()
    still = sum(bool(torch.equal(old, new)) for old, new in zip(before, now, strict=True))
    require(still == 0, f"{still} of {len(before)} weights did not move")
    said = learner.predictor()(photos, np.arange(len(photos)))["mask"]
    require(said.shape == (len(photos), 3), f"probabilities of shape {said.shape}")
    require(bool(abs(said.sum(axis=1) - 1).max() < 1e-3), "probabilities do not sum to 1")
    del learner, before
    gc.collect()
    if setting.gpu:
        torch.cuda.empty_cache()
    return f"loss {loss:.3f}, {'x'.join(map(str, model.size))}", {"loss": loss}
