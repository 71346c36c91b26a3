"""Where the face is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from maskcls.data.detectors import detect
from maskcls.labels import Float32Array, UInt8Array

Box = tuple[float, float, float, float]
"""Left, top, width and height, as shares of the photo's width and height."""

CENTRE: Final[Box] = (0.2, 0.2, 0.6, 0.6)
"""Taken for the face where a face is needed and no photo of the data set shows one."""

LOWEST_SCORE: Final = 0.2
"""Lower than usual (.5), since a mask takes half of the evidence away: see docs/faces.md."""

_OVERLAP: Final = 0.3
_LARGEST: Final = 1.5  # of the photo's width or height
_BELOW_EYES: Final = 0.13  # of the box's height: under the eyelids, above any mask
_SAME: Final = 0.4  # of the box's size between the middles of two boxes of one face
_ASPECT: Final = 1.2  # of a face, height to width
_REGIONS: Final[tuple[Box, ...]] = ((-0.3, -0.3, 1.6, 1.6), (0.15, 0.1, 0.7, 0.7))
"""Parts of a photo without a face to look in: masked faces that fill a photo are found better when
they are small, and those of people far away when they are large."""


@dataclass(frozen=True)
class Face:
    """A face and how sure the detector is of it, from 0 to 1."""

    box: Box
    score: float


def find_face(image_HWC: UInt8Array, detector: str) -> Face | None:
    """The face of the person whom the photo is of: the largest near the centre.

    Of several, the one with the largest product of area, nearness (1 at the centre of the photo, 0
    in its corners) and score squared. Its box is that of a second look, which sees nothing below
    the eyes: else a mask moves and stretches it, and the crop alone tells whether one is worn. For
    the same reason its height goes by its width. A photo without a face is looked at again as a
    whole within a grey frame, and then its middle alone. Raises what ``detectors.detect`` raises.
    """
    looks = (_find_within(image_HWC, region, detector) for region in _REGIONS)
    return _find(image_HWC, detector) or next(filter(None, looks), None)


def _find_within(image_HWC: UInt8Array, region: Box, detector: str) -> Face | None:
    """The same in a part of the photo, grey where it goes beyond it."""
    height, width = image_HWC.shape[:2]
    left, top = round(region[0] * width), round(region[1] * height)
    right, bottom = left + round(region[2] * width), top + round(region[3] * height)
    inside = image_HWC[max(0, top) : bottom, max(0, left) : right]
    around = (max(0, -top), max(0, bottom - height), max(0, -left), max(0, right - width))
    part = cv2.copyMakeBorder(inside, *around, cv2.BORDER_CONSTANT, value=(128, 128, 128))
    face = _find(np.asarray(part, np.uint8), detector)
    if face is None:
        return None
    shares_4 = np.array(part.shape[1::-1] * 2) / np.array((width, height) * 2)
    start_4 = np.array((left / width, top / height, 0, 0))
    return Face(_rounded(np.array(face.box) * shares_4 + start_4), face.score)


def _find(image_HWC: UInt8Array, detector: str) -> Face | None:
    likely = detect(image_HWC, detector)
    # On what is no photo of anything, networks also answer with boxes as large as a country.
    sane_N = (likely.boxes_N4[:, 2:] <= _LARGEST).all(axis=1)
    kept = np.flatnonzero((likely.scores_N >= LOWEST_SCORE) & sane_N)
    if not len(kept):
        return None
    boxes_N4, scores_N = likely.boxes_N4[kept], likely.scores_N[kept]
    distinct = cv2.dnn.NMSBoxes(boxes_N4.tolist(), scores_N.tolist(), 0.0, _OVERLAP)
    boxes_N4, scores_N, kept = boxes_N4[distinct], scores_N[distinct], kept[distinct]
    from_centre_N2 = (boxes_N4[:, :2] + boxes_N4[:, 2:] / 2 - 0.5) * 2
    nearness_N = np.clip(1 - np.linalg.norm(from_centre_N2, axis=1) / np.sqrt(2), 0, 1)
    best = int(np.argmax(boxes_N4[:, 2] * boxes_N4[:, 3] * nearness_N * scores_N**2))
    box_4 = _without_mask(image_HWC, detector, boxes_N4[best], likely.eyes_N[kept[best]])
    height, width = image_HWC.shape[:2]
    box_4[3] = box_4[2] * _ASPECT * width / height
    return Face(_rounded(box_4), round(float(scores_N[best]), 4))


def _without_mask(
    image_HWC: UInt8Array, detector: str, box_4: Float32Array, eyes: float
) -> Float32Array:
    """The box of the same face as it is found where all below the eyes is grey; the box as it is
    where it is not found so."""
    covered = image_HWC.copy()
    covered[max(0, round(float(eyes + _BELOW_EYES * box_4[3]) * len(covered))) :] = 128
    again = detect(covered, detector)
    middle_2, size_2 = box_4[:2] + box_4[2:] / 2, box_4[2:]
    away_N2 = abs(again.boxes_N4[:, :2] + again.boxes_N4[:, 2:] / 2 - middle_2) / size_2
    wider_N = again.boxes_N4[:, 2] / size_2[0]
    same = np.flatnonzero((away_N2 < _SAME).all(axis=1) & (wider_N > 0.5) & (wider_N < 2))
    return (again.boxes_N4[same[again.scores_N[same].argmax()]] if len(same) else box_4).copy()


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
