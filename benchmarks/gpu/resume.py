"""Whether a run that was interrupted on a GPU goes on as if it had not been."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu import setting as shared
from benchmarks.gpu.agreement import (
    PROBABILITY_TOLERANCE,
    ROUGH_TOLERANCE,
    as_shipped,
    some_photos,
    trained,
    weights_apart,
)
from benchmarks.gpu.findings import Found, require
from benchmarks.gpu.setting import Setting
from maskcls.labels import Task
from maskcls.learning import checkpoint, predict
from maskcls.learning.learner import Learner


def resumes(setting: Setting, precision: str) -> Found:
    """Two epochs against one, saved, loaded by another learner, and one: the same bytes, with the
    kernels that give the same sums each time."""
    with _deterministic():
        straight, resumed = _straight_and_resumed(setting, precision)
    different = [
        name for name, (one, other) in _tensors(straight, resumed).items()
        if one.cpu().numpy().tobytes() != other.cpu().numpy().tobytes()
    ]  # fmt: skip
    count = len(_tensors(straight, resumed))
    require(not different, f"{len(different)} of {count} tensors differ, first {different[:3]}")
    return f"the same bytes in {count} tensors of weights and optimiser", {"tensors": count}


def roughly(setting: Setting) -> Found:
    """The same as the project runs: a resumed run may differ by as much as a run done twice."""
    with as_shipped():
        straight, resumed = _straight_and_resumed(setting, "auto")
        again, _ = _straight_and_resumed(setting, "auto", resume=False)
    noise, found = weights_apart(straight, again), weights_apart(straight, resumed)
    text = f"weights differ by {found:.1e}; those of two straight runs by {noise:.1e}"
    require(found <= 10 * noise, text)
    return text, {"resumed": found, "repeated": noise}


def _straight_and_resumed(
    setting: Setting, precision: str, resume: bool = True
) -> tuple[Learner, Learner]:
    photos, labels = some_photos(setting)
    recipe = shared.recipe(setting.learning, precision, {"schedule": {"name": "cosine"}})
    straight = shared.learner(recipe, labels, setting.device)
    if not resume:
        shared.train(straight, photos, 1, 2)
        return straight, straight
    shared.train(straight, photos, 1, 1)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save_resume(Path(folder), {"identity": precision, **straight.state()})
        shared.train(straight, photos, 2, 2)
        state = checkpoint.load_resume(Path(folder), precision)
    assert state is not None
    resumed = shared.learner(recipe, labels, setting.device)
    resumed.restore(state)
    shared.train(resumed, photos, 2, 2)
    return straight, resumed


def travels(setting: Setting) -> Found:
    """A checkpoint written here, loaded on a CPU, and what both say in float32; and here in mixed
    precision."""
    photos, labels = some_photos(setting)
    recipe = shared.recipe(setting.checked)
    learner, _ = trained(shared.learner(recipe, labels, setting.device), photos, 2)
    info = checkpoint.Info(
        identity="gpu", task=Task.MASK, fold=0, recipe=recipe,
        classes=checkpoint.labels_of(Task.MASK), mean=learner.normalize.mean,
        std=learner.normalize.std, seed=0, epoch=2, scores={}, versions=checkpoint.versions(),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder), learner.model.state_dict(), info)
        predictor, _ = predict.load(Path(folder), torch.device("cpu"))
    rows = np.arange(len(photos))
    here, there = learner.predictor()(photos, rows)["mask"], predictor(photos, rows)["mask"]
    mixed = predict.Predictor(learner.model, learner.normalize, torch.bfloat16, 64, predictor.heads)
    rough = mixed(photos, rows)["mask"]
    exact, loose = (float(np.abs(there - other).max()) for other in (here, rough))
    text = f"probabilities differ by {exact:.1e}, and by {loose:.1e} from those in bfloat16"
    require(exact <= PROBABILITY_TOLERANCE and loose <= ROUGH_TOLERANCE, text)
    return text, {"float32": exact, "bfloat16": loose}


def _tensors(one: Learner, other: Learner) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Every tensor of weights and optimiser by name, of both."""
    states = [learner.state() for learner in (one, other)]
    pairs = {name: (states[0]["model"][name], states[1]["model"][name])
             for name in states[0]["model"]}  # fmt: skip
    for index, values in states[0]["optimizer"]["state"].items():
        for name in values:
            both = [state["optimizer"]["state"][index][name] for state in states]
            pairs[f"optimizer.{index}.{name}"] = (both[0], both[1])
    return pairs


@contextmanager
def _deterministic() -> Iterator[None]:
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before
