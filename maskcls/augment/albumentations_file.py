"""Any pipeline of the library Albumentations as an augmentation, seeded a photo."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import numpy as np

from maskcls.augment.operations import ImageArray
from maskcls.config import pipelines


def build(pipeline: str) -> Callable[[ImageArray, np.random.Generator], ImageArray]:
    """A pipeline, as JSON, as an augmentation of [H, W, 3] uint8 RGB images, which keep their size.

    All randomness comes from the generator that the augmentation is called with, so pixels depend
    on neither the worker nor the order of images. Raises ValueError for a transform or option that
    the library does not know and, when called, for a pipeline that changes the size or type of an
    image.
    """
    compose = pipelines.compose(json.loads(pipeline))

    def augment(image: ImageArray, rng: np.random.Generator) -> ImageArray:
        # Not set_random_seed: it gives every transform the same seed (2.0.8), so that all draw the
        # same first number and a photo gets either all transforms or none.
        compose.set_random_state(rng, random.Random(int(rng.integers(2**32))))
        result = compose(image=image)["image"]
        if result.shape != image.shape or result.dtype != np.uint8:
            raise ValueError(
                f"augment.pipeline made {result.dtype} {result.shape} of a uint8 image of "
                f"{image.shape}: sizes and types must stay, so leave out resizing, cropping "
                "without resizing, Normalize and ToFloat"
            )
        return np.ascontiguousarray(result)

    return augment
