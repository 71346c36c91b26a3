"""What every part of the GPU check shares: sizes, drawn photos, learners and a clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from maskcls.config.recipe import Recipe
from maskcls.labels import Task
from maskcls.learning.learner import Learner

UInt8Array = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]
Labels = dict[str, IntArray]
Sections = dict[str, dict[str, Any]]
"""Parts of a recipe by name."""


@dataclass(frozen=True)
class Model:
    """A backbone with the size of its photos, (height, width), and of a batch."""

    name: str
    size: tuple[int, int]
    batch_size: int

    def __str__(self) -> str:
        return f"{self.name} {self.size[0]} x {self.size[1]}, batch {self.batch_size}"


@dataclass(frozen=True)
class Setting:
    """What is checked, where and until when. ``ends`` and ``began`` are of ``time.monotonic``."""

    device_name: str
    tiny: bool
    folder: Path
    began: float
    ends: float

    @property
    def device(self) -> torch.device:
        return torch.device(self.device_name)

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def patience(self) -> float:
        """What limits of time are multiplied with: tiny runs are for tests, on busy machines."""
        return 5.0 if self.tiny else 1.0

    @property
    def large(self) -> Model:
        if self.tiny:
            return Model("test_efficientnet", (48, 32), 4)
        return Model("tf_efficientnetv2_m", (384, 288), 32)

    @property
    def small(self) -> Model:
        if self.tiny:
            return Model("test_efficientnet", (32, 24), 4)
        return Model("tf_efficientnet_lite0", (128, 96), 32)

    @property
    def checked(self) -> Model:
        """The model that is trained to compare results. Small ones with random weights on small
        photos multiply what rounding does, EfficientNet-Lite0 ten thousand times; this one not."""
        return Model("test_efficientnet", (64, 48), 16)

    @property
    def learning(self) -> Model:
        """The model of checks that compare nothing, or bytes."""
        return Model(self.checked.name if self.tiny else self.small.name, (64, 48), 16)

    def wait(self) -> None:
        """Let the device finish what it was given."""
        if self.gpu:
            torch.cuda.synchronize()


def recipe(model: Model, precision: str = "float32", sections: Sections | None = None) -> Recipe:
    """A recipe with random weights; ``sections`` go over these defaults."""
    given = sections or {}
    tree: dict[str, dict[str, Any]] = {
        "model": {"name": model.name, "pretrained": False},
        "image": {"size": model.size, "mean": (0.5,) * 3, "std": (0.5,) * 3},
        "schedule": {"name": "constant"},
    }
    train = {"batch_size": model.batch_size, "lr": 1e-3, "precision": precision, "epochs": 1000}
    tree["train"] = {**train, **given.get("train", {})}
    return Recipe.model_validate({**tree, **given, "train": tree["train"]})


def drawn(model: Model, count: int, seed: int = 0) -> tuple[UInt8Array, Labels]:
    """Photos [N, H, W, 3] of noise with a bright bar, whose place tells the mask class."""
    rng = np.random.default_rng(seed)
    height, width = model.size
    photos = rng.integers(0, 128, (count, height, width, 3), np.uint8)
    mask = np.arange(count) % 3
    for photo, place in zip(photos, mask, strict=True):
        top = int(place) * height // 3
        photo[top : top + height // 3] += np.uint8(100)
    age = 20 + 25 * rng.integers(0, 3, count)
    gender, age_band = np.arange(count) % 2, np.searchsorted((30, 60), age, side="right")
    joint = mask * 6 + gender * 3 + age_band
    return photos, {
        "mask": mask, "gender": gender, "age_band": age_band, "age": age, "joint": joint,
    }  # fmt: skip


def learner(
    wanted: Recipe, labels: Labels, device: torch.device, task: Task = Task.MASK, world: int = 1
) -> Learner:
    """The project's learner from the same first weights each time."""
    torch.manual_seed(0)
    steps = -(-len(labels["mask"]) // wanted.train.batch_size)
    return Learner(task, wanted, labels, steps_per_epoch=steps, device=device, seed=0, world=world)


def train(
    learns: Learner, photos: UInt8Array, first: int, last: int, rank: int = 0, world: int = 1
) -> list[list[float]]:
    """Train epochs ``first`` to ``last``; the summed loss of each step of each epoch."""
    epochs = []
    size = learns.recipe.train.batch_size
    for epoch in range(first, last + 1):
        learns.start_epoch(epoch, rank)
        order = np.random.default_rng((0, epoch)).permutation(len(photos))
        steps = list(batched(order, size))
        totals = []
        for place, items in enumerate(steps):
            mine = items[rank::world]
            number = (epoch - 1) * len(steps) + place
            loss = learns.step(photos[mine], mine, epoch=epoch, number=number)
            totals.append(len(items) * loss)
        epochs.append([float(total) for total in totals])
    return epochs


def batched(items_N: IntArray, size: int) -> Iterator[IntArray]:
    """``items_N`` in pieces of ``size``."""
    for start in range(0, len(items_N), size):
        yield items_N[start : start + size]


def plain_float32(tf32: bool = False) -> None:
    """How a GPU multiplies float32: with 10 bits of fraction in convolutions, or with all 23."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = tf32
