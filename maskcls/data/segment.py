"""What belongs to the person, and what takes the place of the rest."""

from __future__ import annotations

from typing import Final, Literal

import cv2
import numpy as np

from maskcls.data.detectors import FOLDER, network
from maskcls.data.faces import Box
from maskcls.labels import Float32Array, UInt8Array

NETWORK: Final = FOLDER / "selfie_segmentation.tflite"
"""MediaPipe's selfie segmentation, general model."""

Background = Literal["black", "blur"]

_SIDE: Final = 256
_FACE_REACHES: Final = 1.1
_REDUCED: Final = 32
_BLUR: Final = 3.0


def person_mask(image_HWC: UInt8Array, face: Box) -> Float32Array:
    """How much each pixel belongs to the person, [H, W] from 0 to 1.

    A segmentation network says so, but the ellipse of the face always belongs: networks that know
    few masked people take some masks for the only object, and lose the face around it.
    """
    net = network(NETWORK)
    net.setInput(cv2.dnn.blobFromImage(image_HWC, 1 / 255, (_SIDE, _SIDE)))
    small_HW = np.asarray(net.forward(), np.float32).reshape(_SIDE, _SIDE).copy()
    left, top, width, height = (share * _SIDE for share in face)
    centre = (round(left + width / 2), round(top + height / 2))
    axes = (max(1, round(width / 2 * _FACE_REACHES)), max(1, round(height / 2 * _FACE_REACHES)))
    cv2.ellipse(small_HW, centre, axes, 0, 0, 360, 1.0, -1)
    mask_HW = cv2.resize(small_HW, image_HWC.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return np.clip(mask_HW, 0, 1)


def composited(image_HWC: UInt8Array, mask_HW: Float32Array, background: Background) -> UInt8Array:
    """The person before another background: black, as in the ``_rembg`` copies, or the photo's
    own without its detail."""
    mask_HW1 = mask_HW[:, :, None]
    person = image_HWC * mask_HW1
    if background == "black":
        return np.asarray(person + 0.5, np.uint8)
    behind = _without_detail(image_HWC, mask_HW1)
    return np.asarray(person + behind * (1 - mask_HW1) + 0.5, np.uint8)


def _without_detail(image_HWC: UInt8Array, mask_HW1: Float32Array) -> Float32Array:
    """The background blurred, without the person's colours, which would else shine around them:
    means over background pixels alone."""
    share = np.concatenate([image_HWC * (1 - mask_HW1), 1 - mask_HW1], axis=2).astype(np.float32)
    small = cv2.resize(share, (_REDUCED, _REDUCED), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), _BLUR, borderType=cv2.BORDER_REPLICATE)
    colours = small[:, :, :3] / np.maximum(small[:, :, 3:], 1e-3)
    return np.asarray(cv2.resize(colours.clip(0, 255), image_HWC.shape[1::-1]), np.float32)
