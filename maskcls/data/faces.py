"""Where the face is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from maskcls.data.detectors import ImageArray, detect

Box = tuple[float, float, float, float]
"""Left, top, width and height, as shares of the photo's width and height."""

CENTRE: Final[Box] = (0.2, 0.2, 0.6, 0.6)
"""Taken for the face where a face is needed and no photo of the data set shows one."""

LOWEST_SCORE: Final = 0.2
"""Lower than usual (.5), since a mask takes half of the evidence away: see docs/faces.md."""

_OVERLAP: Final = 0.3
_LARGEST: Final = 1.5  # of the photo's width or height


@dataclass(frozen=True)
class Face:
    """A face and how sure the detector is of it, from 0 to 1."""

    box: Box
    score: float


def find_face(image_HWC: ImageArray, detector: str) -> Face | None:
    """The face of the person whom the photo is of: the largest near the centre.

    Of several, the one with the largest product of area, nearness (1 at the centre of the photo, 0
    in its corners) and score. Raises what ``detectors.detect`` raises.
    """
    boxes_N4, scores_N = detect(image_HWC, detector)
    # On what is no photo of anything, networks also answer with boxes as large as a country.
    kept = (scores_N >= LOWEST_SCORE) & (boxes_N4[:, 2:] <= _LARGEST).all(axis=1)
    boxes_N4, scores_N = boxes_N4[kept], scores_N[kept]
    if not len(boxes_N4):
        return None
    distinct = cv2.dnn.NMSBoxes(boxes_N4.tolist(), scores_N.tolist(), LOWEST_SCORE, _OVERLAP)
    boxes_N4, scores_N = boxes_N4[distinct], scores_N[distinct]
    from_centre_N2 = (boxes_N4[:, :2] + boxes_N4[:, 2:] / 2 - 0.5) * 2
    nearness_N = np.clip(1 - np.linalg.norm(from_centre_N2, axis=1) / np.sqrt(2), 0, 1)
    best = int(np.argmax(boxes_N4[:, 2] * boxes_N4[:, 3] * nearness_N * scores_N))
    return Face(_rounded(boxes_N4[best]), round(float(scores_N[best]), 4))


def median_box(boxes_N4: npt.NDArray[np.floating]) -> Box | None:
    """The box at the median place with the median size, within the photo; None of none."""
    if not len(boxes_N4):
        return None
    centre = np.median(boxes_N4[:, :2] + boxes_N4[:, 2:] / 2, axis=0)
    size = np.median(boxes_N4[:, 2:], axis=0)
    start, end = np.clip(centre - size / 2, 0, 1), np.clip(centre + size / 2, 0, 1)
    return _rounded(np.concatenate([start, end - start]))


def _rounded(box_4: npt.NDArray[np.floating]) -> Box:
    # A twentieth of a pixel of most photos; computers that round sums otherwise agree on it.
    left, top, width, height = (round(float(share), 4) for share in box_4)
    return left, top, width, height
