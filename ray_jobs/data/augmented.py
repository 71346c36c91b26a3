"""Work orders -> augmented images: what a task of the stream does, which takes no Ray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from maskcls.augment import augmentations
from maskcls.labels import UInt8Array
from ray_jobs.data.source import EpochPlan, ImageSource


def augment_steps(
    orders: Mapping[str, npt.NDArray[Any]],
    *,
    source: ImageSource,
    plan: EpochPlan,
    augment: Mapping[str, Any],
) -> dict[str, npt.NDArray[Any]]:
    """Each order is an epoch and some of its steps, from ``first`` to before ``last``: the columns
    ``epoch``, ``step``, ``item`` and ``image`` of their items, in order."""
    cv2.setNumThreads(0)  # tasks run side by side already
    parts: dict[str, list[npt.NDArray[Any]]] = {"epoch": [], "step": [], "item": [], "draw": []}
    for number, first, last in zip(orders["epoch"], orders["first"], orders["last"], strict=True):
        epoch = plan.epoch(int(number))
        for step in range(int(first), int(last)):
            chosen = epoch.step(step, plan.rank, plan.world)
            items = epoch.items_N[chosen]
            parts["item"].append(items)
            parts["draw"].append(epoch.draws_N[chosen])
            parts["epoch"].append(np.full(len(items), number, np.int32))
            parts["step"].append(np.full(len(items), step, np.int32))
    columns = {name: np.concatenate(values) for name, values in parts.items()}
    drawn = columns["epoch"], columns["item"], columns.pop("draw")
    apply = augmentations.build(**augment)
    return {**columns, "image": _augmented(source.open(), plan, *drawn, apply)}


def _augmented(
    photos_NHWC: UInt8Array,
    plan: EpochPlan,
    epochs_B: npt.NDArray[np.int32],
    items_B: npt.NDArray[np.int64],
    draws_B: npt.NDArray[np.int64],
    apply: augmentations.Augmentation,
) -> UInt8Array:
    images_BHWC = np.empty((len(items_B), *photos_NHWC.shape[1:]), np.uint8)
    for place, (epoch, item, draw) in enumerate(zip(epochs_B, items_B, draws_B, strict=True)):
        image = photos_NHWC[plan.rows["row"][item]]
        if plan.rows["row2"][item] >= 0:
            weight = float(plan.rows["weight2"][item])
            second = photos_NHWC[plan.rows["row2"][item]]
            image = cv2.addWeighted(image, 1 - weight, second, weight, 0.0)
        key = int(plan.rows["key"][item])
        rng = np.random.default_rng((plan.seed, int(epoch), key, int(draw)))
        images_BHWC[place] = apply(np.ascontiguousarray(image), rng)
    return images_BHWC
