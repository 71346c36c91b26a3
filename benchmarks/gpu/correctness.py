"""Whether training, resuming and predicting on a GPU give what they give on a CPU."""

from __future__ import annotations

import functools
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu import resume
from benchmarks.gpu import setting as shared
from benchmarks.gpu.agreement import (
    LOSS_TOLERANCE,
    SECOND_TOLERANCE,
    agree,
    apart,
    as_shipped,
    contiguous,
    some_photos,
    trained,
)
from benchmarks.gpu.findings import Crew, Found, NotHere, Rows, require
from benchmarks.gpu.setting import Model, Sections, Setting
from maskcls.labels import HEADS, Task

MUST_FALL_TO = 0.8
"""Share of the first epoch's loss that the last epoch's may have."""


LOSSES: dict[str, tuple[Task, dict[str, Any]]] = {
    "cross_entropy": (Task.MASK, {"class_weights": [1.0, 2.0, 3.0]}),
    "label_smoothing": (Task.GENDER, {}),
    "focal": (Task.JOINT, {}),
    "focal_smoothing": (Task.AGE, {}),
    "soft_f1": (Task.MASK, {}),
    "class_balanced_focal": (Task.MASK, {}),
    "logit_adjusted": (Task.AGE, {}),
    "age_regression": (Task.AGE, {}),
}
MIXERS = ("mixup", "cutmix", "vertical_cutmix")
OPTIMIZERS = ("adam", "rmsprop", "sgd")


def rows(setting: Setting, crew: Crew) -> Rows:
    """The checks by name."""
    shared.plain_float32()
    resumed = {
        f"resume, {precision}": functools.partial(resume.resumes, setting, precision)
        for precision in ("float32", "bfloat16", "float16")
    }
    learns = {
        f"{precision} learns": functools.partial(learns_in, setting, precision)
        for precision in ("float32", "bfloat16", "float16")
    }
    return {
        "one epoch, CPU and here": functools.partial(one_epoch, setting),
        "two steps of the models timed": functools.partial(two_steps, setting),
        "every loss, mixer and optimiser": functools.partial(names, setting),
        "channels_last and contiguous": functools.partial(layouts, setting),
        **learns,
        **resumed,
        "resume, kernels as they are": functools.partial(resume.roughly, setting),
        "a checkpoint from here on a CPU": functools.partial(resume.travels, setting),
        "three heads": functools.partial(three_heads, setting),
        "waits of a step": functools.partial(waits, setting),
    }


def one_epoch(setting: Setting) -> Found:
    """The same epoch on a CPU, and on the device at hand."""
    photos, labels = some_photos(setting)
    recipe = shared.recipe(setting.checked)
    there = trained(shared.learner(recipe, labels, torch.device("cpu")), photos, 1)
    return agree(there, trained(shared.learner(recipe, labels, setting.device), photos, 1), photos)


def two_steps(setting: Setting) -> Found:
    """The first losses of the large and the small model, whose second tells of the gradient."""
    losses_apart = {}
    for model in (setting.small, setting.large):
        half = Model(model.name, setting.small.size, max(4, model.batch_size // 2))
        photos, labels = shared.drawn(half, 2 * half.batch_size)
        recipe = shared.recipe(half, sections={"train": {"lr": 1e-4}})
        losses = [
            shared.train(shared.learner(recipe, labels, device), photos, 1, 1)[0]
            for device in (torch.device("cpu"), setting.device)
        ]
        losses_apart[model.name] = [apart([a], [b]) for a, b in zip(*losses, strict=True)]
    text = ", ".join(f"{name} by {a:.1e} and {b:.1e}" for name, (a, b) in losses_apart.items())
    text = f"losses differ: {text}; allowed are {LOSS_TOLERANCE:g} and {SECOND_TOLERANCE:g}"
    within = all(a <= LOSS_TOLERANCE and b <= SECOND_TOLERANCE for a, b in losses_apart.values())
    require(within, text)
    return text, losses_apart


def layouts(setting: Setting) -> Found:
    """Contiguous weights and photos against channels_last ones, which the learner makes."""
    photos, labels = some_photos(setting)
    recipe = shared.recipe(setting.checked)
    plain = contiguous(shared.learner(recipe, labels, setting.device))
    ours = shared.learner(recipe, labels, setting.device)
    found = agree(trained(plain, photos, 1), trained(ours, photos, 1), photos)
    weight = next(weight for weight in ours.model.parameters() if weight.ndim == 4)
    require(weight.is_contiguous(memory_format=torch.channels_last), "weights lost channels_last")
    return found


def names(setting: Setting) -> Found:
    """Two steps of each on the CPU and here: the second loss tells of the first step's gradient."""
    photos, labels = some_photos(setting, 2 * setting.checked.batch_size)
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
        worst[name] = apart(*losses)
    far = {name: value for name, value in worst.items() if not value <= LOSS_TOLERANCE}
    require(not far, f"losses differ by more than {LOSS_TOLERANCE:g}: {far}")
    return f"{len(tried)} names; losses differ by {max(worst.values()):.1e} at most", worst


def learns_in(setting: Setting, precision: str) -> Found:
    """The loss is a number and falls."""
    photos, labels = some_photos(setting)
    learner = shared.learner(shared.recipe(setting.learning, precision), labels, setting.device)
    with as_shipped():
        epochs = shared.train(learner, photos, 1, 4)
    means = [sum(steps) / len(photos) for steps in epochs]
    require(all(map(math.isfinite, means)), f"the loss became {means}")
    text = f"loss {means[0]:.3f} in epoch 1, {means[-1]:.3f} in epoch 4"
    require(means[-1] < MUST_FALL_TO * means[0], f"{text}: it should fall by a fifth")
    scale = learner.state()["scaler"].get("scale")
    return text + (f", loss scale {scale:g}" if scale else ""), {"losses": means, "scale": scale}


def three_heads(setting: Setting) -> Found:
    """A model of task multi, with its deep heads, learns; probabilities sum to 1."""
    photos, labels = some_photos(setting)
    recipe = shared.recipe(setting.learning, "auto")
    learner = shared.learner(recipe, labels, setting.device, Task.MULTI)
    with as_shipped():
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
    photos, labels = some_photos(setting)
    tried: dict[str, tuple[str, Sections]] = {
        "plain": ("auto", {}),
        "class weights": ("auto", {"loss": {"class_weights": [1.0, 2.0, 3.0]}}),
        "mixing": ("auto", {"augment": {"mix": {"name": "vertical_cutmix"}}}),
        "clipping": ("auto", {"train": {"clip_grad_norm": 1.0}}),
        "float16": ("float16", {}),
    }
    counts = {}
    for name, (precision, sections) in tried.items():
        recipe = shared.recipe(setting.learning, precision, sections)
        learner = shared.learner(recipe, labels, setting.device)
        shared.train(learner, photos, 1, 1)
        items = np.arange(setting.checked.batch_size)
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            learner.step(photos[items], items, epoch=2, number=1)
        torch.cuda.set_sync_debug_mode("default")
        counts[name] = [f"{Path(w.filename).name}:{w.lineno}" for w in caught
                        if "synchroniz" in str(w.message)]  # fmt: skip
    told = [f"{name} {len(places)}" + (f" ({', '.join(sorted(set(places)))})" if places else "")
            for name, places in counts.items()]  # fmt: skip
    return "; ".join(told), counts
