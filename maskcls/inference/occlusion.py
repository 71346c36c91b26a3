"""What in a photo spoke for an answer: how much its probability falls where a part is hidden.

Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 4.2.
It asks the ensemble as a whole, votes included, so it works for any model that answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from maskcls.inference.model import BATCH, Model
from maskcls.inference.prepared_photo import PreparedPhoto
from maskcls.labels import ATTRIBUTES, FloatArray

GRID: Final = (8, 6)
"""Parts, down and across."""


def support(model: Model, photo: PreparedPhoto) -> dict[str, FloatArray]:
    """Attribute -> [8, 6]: how much of the answered class's probability each part carries.

    Each part in turn is painted in the photo's mean colour; negative where hiding a part makes the
    answer surer. ``photo`` must be readable. 49 passes through each model.
    """
    hidden = [_with_parts_hidden(image_HWC) for image_HWC in photo.images]
    found: dict[str, list[FloatArray]] = {}
    answered: dict[str, int] = {}
    for start in range(0, len(hidden[0]), BATCH):
        answers = model.answer_images(
            dict(
                zip(
                    model.recipes,
                    (images[start : start + BATCH] for images in hidden),
                    strict=True,
                )
            )
        )
        for attribute in ATTRIBUTES:
            if attribute not in answers:
                continue
            probabilities_NK = answers[attribute].probabilities_NK
            if probabilities_NK is not None:
                answered.setdefault(attribute, int(answers[attribute].classes_N[0]))
                found.setdefault(attribute, []).append(probabilities_NK)
    return {
        attribute: (whole := np.concatenate(parts)[:, answered[attribute]])[0]
        - whole[1:].reshape(GRID)
        for attribute, parts in found.items()
    }


def _with_parts_hidden(image_HWC: np.ndarray) -> np.ndarray:
    """The image, then with each part hidden: [1 + parts, H, W, 3]."""
    rows = _edges(image_HWC.shape[0], GRID[0])
    columns = _edges(image_HWC.shape[1], GRID[1])
    mean_3 = image_HWC.reshape(-1, 3).mean(axis=0).astype(np.uint8)
    images = np.repeat(image_HWC[None], 1 + GRID[0] * GRID[1], axis=0)
    for number in range(GRID[0] * GRID[1]):
        r, c = divmod(number, GRID[1])
        images[1 + number, rows[r] : rows[r + 1], columns[c] : columns[c + 1]] = mean_3
    return images


def _edges(size: int, parts: int) -> Sequence[int]:
    return [round(size * k / parts) for k in range(parts + 1)]
