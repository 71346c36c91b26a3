"""What happens to a decoded photo before a model sees it, in training and in prediction alike.

A pure function of the photo and of settings that each checkpoint has. Needs NumPy and OpenCV alone,
so that what reads an exported model can use it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from maskcls.data import detectors, segment
from maskcls.data.faces import CENTRE, Box, find_face
from maskcls.labels import UInt8Array

if TYPE_CHECKING:
    from maskcls.config.recipe import Image


@dataclass(frozen=True)
class Preprocessing:
    """What happens to a photo: background, crop, zoom, fit, in this order.

    ``background``: ``black`` or ``blur`` takes the place of what is not the person. ``crop="face"``
    cuts out the face (see ``faces.find_face``) with ``crop_margin`` times its size around it;
    ``fallback`` is taken for the face where ``detector`` finds none. ``zoom`` keeps the centre of
    what is left, 1 / zoom of it in each direction. ``fit`` says how a picture of another shape
    becomes one of ``height`` x ``width`` pixels: stretched, padded with black, or its middle cut
    out.
    """

    height: int
    width: int
    crop: Literal["none", "face"] = "none"
    crop_margin: float = 0.3
    background: Literal["keep", "black", "blur"] = "keep"
    zoom: float = 1.0
    fit: Literal["stretch", "pad", "crop"] = "stretch"
    detector: str = "centerface"
    fallback: Box | None = None

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1 or self.crop_margin < 0:
            raise ValueError(f"sizes must be at least 1 and the margin at least 0, got {self}")
        if self.crop not in ("none", "face") or self.background not in ("keep", "black", "blur"):
            raise ValueError(f"crop is none or face, background keep, black or blur, got {self}")
        if self.fit not in ("stretch", "pad", "crop"):
            raise ValueError(f"fit is stretch, pad or crop, got {self}")
        if not 1 <= self.zoom < float("inf"):
            raise ValueError(f"zoom is 1 (the whole photo) or more, got {self}")
        if self.fallback is not None:  # JSON has lists alone
            left, top, width, height = self.fallback
            object.__setattr__(self, "fallback", (left, top, width, height))

    @classmethod
    def of(cls, image: Image) -> Preprocessing:
        """That of the section ``image`` of a checkpoint, or of a configuration whose crop is
        decided: raises ValueError for ``auto``."""
        if image.crop == "auto":
            raise ValueError("image.crop=auto is decided by photos, which are not looked at here")
        return cls(
            height=image.size[0],
            width=image.size[1],
            crop=image.crop,
            crop_margin=image.crop_margin,
            background=image.background,
            zoom=image.zoom,
            fit=image.fit,
            detector=image.detector,
            fallback=image.fallback,
        )

    @property
    def needs_face(self) -> bool:
        """Whether the pixels depend on where the face is."""
        return self.crop == "face" or self.background != "keep"

    @property
    def name(self) -> str:
        """Part of file names: the same for all settings that give the same pixels."""
        parts = [f"{self.height}x{self.width}"]
        if self.crop == "face":
            parts.append(f"face{self.crop_margin:g}")
        if self.background != "keep":
            parts.append(self.background)
        if self.needs_face:
            parts.append(detectors.key_of(self.detector))
            if self.fallback is not None:
                parts.append(
                    hashlib.blake2b(repr(self.fallback).encode(), digest_size=4).hexdigest()
                )
        if self.zoom > 1:
            parts.append(f"zoom{self.zoom:g}")
        if self.fit != "stretch":
            parts.append(self.fit)
        return "-".join(parts)


def preprocess(image_HWC: UInt8Array, settings: Preprocessing) -> UInt8Array:
    """A decoded photo [H, W, 3] uint8 RGB -> what a model sees, [height, width, 3] uint8 RGB.

    Raises FileNotFoundError or ValueError where the detector's file cannot be used.
    """
    return preprocess_each(image_HWC, [settings])[0]


def preprocess_each(
    image_HWC: UInt8Array,
    settings: Sequence[Preprocessing],
    faces: Sequence[Box | None] | None = None,
) -> list[UInt8Array]:
    """The same for several models: faces and person are looked for once.

    ``faces`` has, for each of the settings, where the face is, where that is known already.
    """
    found: dict[str, Box | None] = {}
    cut: dict[tuple[Box, str], UInt8Array] = {}
    images = []
    for one, known in zip(settings, faces or [None] * len(settings), strict=True):
        picture, face = image_HWC, known or CENTRE
        if one.needs_face and known is None:
            if one.detector not in found:
                looked = find_face(image_HWC, one.detector)
                found[one.detector] = looked.box if looked else None
            face = found[one.detector] or one.fallback or CENTRE
        if one.background != "keep":
            if (face, one.background) not in cut:
                mask_HW = segment.person_mask(image_HWC, face)
                cut[face, one.background] = segment.composited(image_HWC, mask_HW, one.background)
            picture = cut[face, one.background]
        if one.crop == "face":
            rows, columns = crop_window(picture.shape[:2], face, one)
            picture = picture[rows, columns]
        if one.zoom > 1:
            picture = _centre(picture, *(size / one.zoom for size in picture.shape[:2]))
        images.append(_fitted(picture, one))
    return images


def crop_window(shape: tuple[int, int], face: Box, settings: Preprocessing) -> tuple[slice, slice]:
    """Rows and columns of a photo of this height and width that hold the face and its margin,
    widened to the shape of the settings and moved to lie in the photo."""
    picture_height, picture_width = shape
    x, face_width = face[0] * picture_width, face[2] * picture_width
    y, face_height = face[1] * picture_height, face[3] * picture_height
    aspect = settings.height / settings.width
    height = max(face_height, face_width * aspect) * (1 + 2 * settings.crop_margin)
    height = min(height, picture_height, picture_width * aspect)
    width = height / aspect
    top = np.clip(y + face_height / 2 - height / 2, 0, picture_height - height)
    left = np.clip(x + face_width / 2 - width / 2, 0, picture_width - width)
    rows = slice(int(top), int(top) + max(1, round(height)))
    columns = slice(int(left), int(left) + max(1, round(width)))
    return rows, columns


def _centre(image_HWC: UInt8Array, height: float, width: float) -> UInt8Array:
    rows, columns = max(1, round(height)), max(1, round(width))
    top, left = (image_HWC.shape[0] - rows) // 2, (image_HWC.shape[1] - columns) // 2
    return image_HWC[top : top + rows, left : left + columns]


def _fitted(image_HWC: UInt8Array, settings: Preprocessing) -> UInt8Array:
    """The picture at the size of the settings, whatever its shape."""
    height, width = settings.height, settings.width
    picture_height, picture_width = image_HWC.shape[:2]
    if settings.fit == "crop":
        aspect = height / width
        image_HWC = _centre(
            image_HWC,
            min(picture_height, picture_width * aspect),
            min(picture_width, picture_height / aspect),
        )
    if settings.fit != "pad":
        return _resized(image_HWC, height, width)
    scale = min(height / picture_height, width / picture_width)
    rows, columns = max(1, round(picture_height * scale)), max(1, round(picture_width * scale))
    top, left = (height - rows) // 2, (width - columns) // 2
    padded = np.zeros((height, width, 3), np.uint8)
    padded[top : top + rows, left : left + columns] = _resized(image_HWC, rows, columns)
    return padded


def _resized(image_HWC: UInt8Array, height: int, width: int) -> UInt8Array:
    shrinks = image_HWC.shape[0] >= height and image_HWC.shape[1] >= width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(np.ascontiguousarray(image_HWC), (width, height), interpolation=method)
    return np.asarray(resized, np.uint8)
