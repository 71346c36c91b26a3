"""Any pipeline of the library Albumentations, in the form that the library itself writes.

``albumentations.save(pipeline, "FILE.yaml", data_format="yaml")`` makes such a file;
configs/albumentations.yaml is one.
"""

from __future__ import annotations

import difflib
import os
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from maskcls.augment.operations import ImageArray


def names(pipeline: Mapping[str, Any]) -> Iterator[str]:
    """The classes that a serialized pipeline names, without importing the library.

    Raises ValueError where it has not the form that the library writes.
    """
    transform = pipeline.get("transform")
    if not isinstance(transform, Mapping):
        raise ValueError("an Albumentations pipeline is expected: its top key is 'transform'")
    waiting = [transform]
    while waiting:
        transform = waiting.pop()
        if not isinstance(transform, Mapping) or "__class_fullname__" not in transform:
            raise ValueError(f"each transform needs '__class_fullname__', got {transform!r}")
        yield str(transform["__class_fullname__"])
        waiting += transform.get("transforms", [])


def build(pipeline: Mapping[str, Any]) -> Callable[[ImageArray, np.random.Generator], ImageArray]:
    """The pipeline as an augmentation of [H, W, 3] uint8 RGB images, which keep their size.

    All randomness comes from the generator that the augmentation is called with, so pixels depend
    on neither the worker nor the order of images. Raises ValueError for a transform or option that the library does not
    know and, when called, for a pipeline that changes the size or type of an image.
    """
    # The library would ask its package index for a newer version of itself.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations
    from albumentations.core.serialization import SERIALIZABLE_REGISTRY

    for name in names(pipeline):
        if name.rpartition(".")[2] not in SERIALIZABLE_REGISTRY:
            close = difflib.get_close_matches(name, SERIALIZABLE_REGISTRY, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"Albumentations {albumentations.__version__} has no {name}{hint}")
    try:
        made: Any = albumentations.from_dict(dict(pipeline))
    except Exception as error:  # each transform checks its options with errors of its own
        raise ValueError(f"Albumentations refuses the pipeline: {error}") from error
    compose = made if isinstance(made, albumentations.Compose) else albumentations.Compose([made])

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
