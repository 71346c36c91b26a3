"""Whether training, resuming and predicting on a GPU give what they give on a CPU."""

from __future__ import annotations

import functools
import math
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu import setting as shared
from benchmarks.gpu.findings import Crew, Found, NotHere, Rows, require
from benchmarks.gpu.setting import Sections, Setting, UInt8Array
from maskcls import checkpoint, inference
from maskcls.labels import HEADS, Task
from maskcls.learner import Learner

LOSS_TOLERANCE = 1e-3
"""Of a step's loss, relative: float32 sums in another order, over an epoch of steps."""
WEIGHT_TOLERANCE = 1e-2
"""Of all weights, |a - b| / |b|: AdamW's first steps are as long for a tiny gradient as for any."""
PROBABILITY_TOLERANCE = 1e-2
"""Of any one probability, absolute."""
ROUGH_TOLERANCE = 0.05
"""The same where one side computes in bfloat16, which has 8 bits of fraction."""
MUST_FALL_TO = 0.8
"""Share of the first epoch's loss that the last epoch's may have."""

LOSSES: dict[str, tuple[Task, dict[str, Any]]] = {
    "cross_entropy": (Task.MASK, {"class_weights": [1.0, 2.0, 3.0]}),
    "label_smoothing": (Task.GENDER, {}),
    "focal": (Task.JOINT, {}),
    "focal_smoothing": (Task.AGE, {}),
    "soft_f1": (Task.MASK, {}),
    "class_balanced_focal": (Task.MASK, {}),
    "age_regression": (Task.AGE, {}),
}
MIXERS = ("mixup", "cutmix", "vertical_cutmix")
OPTIMIZERS = ("adam", "rmsprop", "sgd")

Trained = tuple[Learner, list[list[float]]]


def rows(setting: Setting, crew: Crew) -> Rows:
    """The checks by name."""
    shared.plain_float32()
    resume = {
        f"resume, {precision}": functools.partial(resumes, setting, precision)
        for precision in ("float32", "bfloat16", "float16")
    }
    learns = {
        f"{precision} learns": functools.partial(learns_in, setting, precision)
        for precision in ("float32", "bfloat16", "float16")
    }
    return {
        "one epoch, CPU and here": functools.partial(one_epoch, setting),
        "every loss, mixer and optimiser": functools.partial(names, setting),
        "channels_last and contiguous": functools.partial(layouts, setting),
        **learns,
        **resume,
        "resume, kernels as they are": functools.partial(resumes_roughly, setting),
        "a checkpoint from here on a CPU": functools.partial(travels, setting),
        "three heads": functools.partial(three_heads, setting),
        "waits of a step": functools.partial(waits, setting),
    }


def one_epoch(setting: Setting) -> Found:
    """The same epoch on a CPU, and on the device at hand."""
    photos, labels = _photos(setting)
    recipe = shared.recipe(setting.checked)
    there = _trained(shared.learner(recipe, labels, torch.device("cpu")), photos, 1)
    return _agree(
        there, _trained(shared.learner(recipe, labels, setting.device), photos, 1), photos
    )


def layouts(setting: Setting) -> Found:
    """Contiguous weights and photos against channels_last ones, which the learner makes."""
    photos, labels = _photos(setting)
    recipe = shared.recipe(setting.checked)
    plain = contiguous(shared.learner(recipe, labels, setting.device))
    ours = shared.learner(recipe, labels, setting.device)
    found = _agree(_trained(plain, photos, 1), _trained(ours, photos, 1), photos)
    weight = next(weight for weight in ours.model.parameters() if weight.ndim == 4)
    require(weight.is_contiguous(memory_format=torch.channels_last), "weights lost channels_last")
    return found


class Contiguous(inference.Normalize):
    """Photos in the layout that PyTorch has by default."""

    def __call__(self, images_BHWC: UInt8Array) -> torch.Tensor:
        return super().__call__(images_BHWC).contiguous()


def contiguous(learner: Learner) -> Learner:
    """The learner with weights and photos in that layout."""
    learner.model.to(memory_format=torch.contiguous_format)
    before = learner.normalize
    learner.normalize = Contiguous(before.mean, before.std, before.device)
    return learner


def names(setting: Setting) -> Found:
    """Two steps of each on the CPU and here: the second loss tells of the first step's gradient."""
    photos, labels = _photos(setting, 2 * setting.checked.batch_size)
    tried: dict[str, tuple[Task, Sections]] = {
        **{name: (task, {"loss": {"name": name, **more}}) for name, (task, more) in LOSSES.items()},
        **{name: (Task.MASK, {"augment": {"mix": {"name": name}}}) for name in MIXERS},
        **{name: (Task.MASK, {"optimizer": {"name": name}}) for name in OPTIMIZERS},
    }
    worst = {}
    for name, (task, sections) in tried.items():
        recipe = shared.recipe(setting.checked, sections=sections)
        losses = [
            shared.train(shared.learner(recipe, labels, device, task), photos, 1, 1)[0]
            for device in (torch.device("cpu"), setting.device)
        ]
        worst[name] = _apart(*losses)
    far = {name: value for name, value in worst.items() if not value <= LOSS_TOLERANCE}
    require(not far, f"losses differ by more than {LOSS_TOLERANCE:g}: {far}")
    return f"{len(tried)} names; losses differ by {max(worst.values()):.1e} at most", worst


def learns_in(setting: Setting, precision: str) -> Found:
    """The loss is a number and falls."""
    photos, labels = _photos(setting)
    learner = shared.learner(shared.recipe(setting.checked, precision), labels, setting.device)
    with _as_shipped():
        epochs = shared.train(learner, photos, 1, 4)
    means = [sum(steps) / len(photos) for steps in epochs]
    require(all(map(math.isfinite, means)), f"the loss became {means}")
    text = f"loss {means[0]:.3f} in epoch 1, {means[-1]:.3f} in epoch 4"
    require(means[-1] < MUST_FALL_TO * means[0], f"{text}: it should fall by a fifth")
    scale = learner.state()["scaler"].get("scale")
    return text + (f", loss scale {scale:g}" if scale else ""), {"losses": means, "scale": scale}


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


def resumes_roughly(setting: Setting) -> Found:
    """The same as the project runs: a resumed run may differ by as much as a run done twice."""
    with _as_shipped():
        straight, resumed = _straight_and_resumed(setting, "auto")
        again, _ = _straight_and_resumed(setting, "auto", resume=False)
    noise, found = _weights_apart(straight, again), _weights_apart(straight, resumed)
    text = f"weights differ by {found:.1e}; those of two straight runs by {noise:.1e}"
    require(found <= 10 * noise, text)
    return text, {"resumed": found, "repeated": noise}


def _straight_and_resumed(
    setting: Setting, precision: str, resume: bool = True
) -> tuple[Learner, Learner]:
    photos, labels = _photos(setting)
    recipe = shared.recipe(setting.checked, precision, {"schedule": {"name": "cosine"}})
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
    photos, labels = _photos(setting)
    recipe = shared.recipe(setting.checked)
    learner, _ = _trained(shared.learner(recipe, labels, setting.device), photos, 2)
    info = checkpoint.Info(
        identity="gpu", task=Task.MASK, fold=0, recipe=recipe,
        classes=checkpoint.labels_of(Task.MASK), mean=learner.normalize.mean,
        std=learner.normalize.std, seed=0, epoch=2, scores={}, versions=checkpoint.versions(),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder), learner.model.state_dict(), info)
        predictor, _ = inference.load(Path(folder), torch.device("cpu"))
    rows = np.arange(len(photos))
    here, there = learner.predictor()(photos, rows)["mask"], predictor(photos, rows)["mask"]
    mixed = inference.Predictor(learner.model, learner.normalize, torch.bfloat16, 64)
    rough = mixed(photos, rows)["mask"]
    exact, loose = (float(np.abs(there - other).max()) for other in (here, rough))
    text = f"probabilities differ by {exact:.1e}, and by {loose:.1e} from those in bfloat16"
    require(exact <= PROBABILITY_TOLERANCE and loose <= ROUGH_TOLERANCE, text)
    return text, {"float32": exact, "bfloat16": loose}


def three_heads(setting: Setting) -> Found:
    """A model of task multi, with its deep heads, learns; probabilities sum to 1."""
    photos, labels = _photos(setting)
    recipe = shared.recipe(setting.checked, "auto")
    learner = shared.learner(recipe, labels, setting.device, Task.MULTI)
    with _as_shipped():
        first, *_, last = (sum(steps) / len(photos) for steps in
                           shared.train(learner, photos, 1, 4))  # fmt: skip
    said = learner.predictor()(photos, np.arange(len(photos)))
    require({h: v.shape[1] for h, v in said.items()} == HEADS[Task.MULTI], f"heads {list(said)}")
    require(all(abs(v.sum(axis=1) - 1).max() < 1e-3 for v in said.values()), "sums are not 1")
    require(last < first, f"the loss went from {first:.3f} to {last:.3f}")
    return f"loss {first:.3f} in epoch 1, {last:.3f} in epoch 4", {"losses": [first, last]}


def waits(setting: Setting) -> Found:
    """How often a step makes the program wait until the GPU is done, which leaves it idle."""
    if not setting.gpu:
        raise NotHere("no GPU")
    photos, labels = _photos(setting)
    tried: dict[str, tuple[str, Sections]] = {
        "plain": ("auto", {}),
        "class weights": ("auto", {"loss": {"class_weights": [1.0, 2.0, 3.0]}}),
        "mixing": ("auto", {"augment": {"mix": {"name": "vertical_cutmix"}}}),
        "clipping": ("auto", {"train": {"clip_grad_norm": 1.0}}),
        "float16": ("float16", {}),
    }
    counts = {}
    for name, (precision, sections) in tried.items():
        recipe = shared.recipe(setting.checked, precision, sections)
        learner = shared.learner(recipe, labels, setting.device)
        shared.train(learner, photos, 1, 1)
        items = np.arange(setting.checked.batch_size)
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            learner.step(photos[items], items, epoch=2, number=1, total=len(items))
        torch.cuda.set_sync_debug_mode("default")
        counts[name] = [f"{Path(w.filename).name}:{w.lineno}" for w in caught
                        if "synchroniz" in str(w.message)]  # fmt: skip
    told = [f"{name} {len(places)}" + (f" ({', '.join(sorted(set(places)))})" if places else "")
            for name, places in counts.items()]  # fmt: skip
    return "; ".join(told), counts


def _photos(setting: Setting, count: int | None = None) -> tuple[UInt8Array, shared.Labels]:
    return shared.drawn(setting.checked, count or (48 if setting.tiny else 90))


def _trained(learner: Learner, photos: UInt8Array, epochs: int) -> Trained:
    return learner, shared.train(learner, photos, 1, epochs)


def _agree(one: Trained, other: Trained, photos: UInt8Array) -> Found:
    (there, there_losses), (here, here_losses) = one, other
    loss = max(_apart(a, b) for a, b in zip(there_losses, here_losses, strict=True))
    weights = _weights_apart(there, here)
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


def _apart(one: list[float], other: list[float]) -> float:
    """The largest relative difference of two lists of losses."""
    a, b = np.array(one), np.array(other)
    return float((np.abs(a - b) / np.abs(a)).max())


def _weights_apart(one: Learner, other: Learner) -> float:
    a, b = (
        torch.cat([weight.detach().double().cpu().ravel() for weight in learner.model.parameters()])
        for learner in (one, other)
    )
    return float((a - b).norm() / a.norm())


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


@contextmanager
def _as_shipped() -> Iterator[None]:
    """Convolutions of float32 in TF32, as PyTorch has them unless told otherwise."""
    shared.plain_float32(tf32=True)
    try:
        yield
    finally:
        shared.plain_float32()
