"""What happens to a photo before it is stored, in training and in prediction alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from maskcls.data.faces import Box, cut_out, find_face
from maskcls.data.photos import ImageArray

if TYPE_CHECKING:
    from maskcls.config.recipe import Image


@dataclass(frozen=True)
class Preprocessing:
    """What happens to a photo before it is stored, in training and in prediction alike.

    ``crop="face"`` cuts out the largest face (see ``find_face``) with ``crop_margin`` times its
    size around it; a photo without one stays whole. ``background="grabcut"`` blackens what is not
    the person (see ``cut_out``). ``zoom`` keeps the centre of what is left, 1 / zoom of it in each
    direction. ``height`` and ``width`` in pixels.
    """

    height: int
    width: int
    crop: Literal["none", "face"] = "none"
    crop_margin: float = 0.3
    background: Literal["keep", "grabcut"] = "keep"
    zoom: float = 1.0

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1 or self.crop_margin < 0:
            raise ValueError(f"sizes must be at least 1 and the margin at least 0, got {self}")
        if self.crop not in ("none", "face") or self.background not in ("keep", "grabcut"):
            raise ValueError(f"crop is none or face, background keep or grabcut, got {self}")

        if not 1 <= self.zoom < float("inf"):
            raise ValueError(f"zoom is 1 (the whole photo) or more, got {self}")

    @property
    def name(self) -> str:
        """Part of file names: the same for all recipes that give the same pixels."""
        crop = f"-face{self.crop_margin:g}" if self.crop == "face" else ""
        background = f"-{self.background}" if self.background != "keep" else ""
        zoom = f"-zoom{self.zoom:g}" if self.zoom > 1 else ""
        return f"{self.height}x{self.width}{crop}{background}{zoom}"


def from_settings(image: Image) -> Preprocessing:
    """How photos are prepared for a model that sees ``image``."""
    return Preprocessing(
        height=image.size[0],
        width=image.size[1],
        crop=image.crop,
        crop_margin=image.crop_margin,
        background=image.background,
        zoom=image.zoom,
    )


def apply(
    image_HWC: ImageArray, recipes: Sequence[Preprocessing]
) -> tuple[list[ImageArray], Box | None]:
    """One decoded photo -> its image under each recipe, and the face if a recipe looked for it."""
    face = find_face(image_HWC) if any(recipe.crop == "face" for recipe in recipes) else None
    person = image_HWC
    if any(recipe.background == "grabcut" for recipe in recipes):
        person = cut_out(image_HWC)
    images = []
    for recipe in recipes:
        picture = person if recipe.background == "grabcut" else image_HWC
        if recipe.crop == "face" and face is not None:
            picture = _cropped(picture, face, recipe)
        if recipe.zoom > 1:
            picture = _centre(picture, recipe.zoom)
        shrinks = picture.shape[0] >= recipe.height and picture.shape[1] >= recipe.width
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        resized = cv2.resize(picture, (recipe.width, recipe.height), interpolation=method)
        images.append(np.asarray(resized, np.uint8))
    return images, face


def _cropped(image_HWC: ImageArray, face: Box, recipe: Preprocessing) -> ImageArray:
    """The face and its margin, widened to the recipe's shape and moved to lie in the picture."""
    x, y, face_width, face_height = face
    picture_height, picture_width = image_HWC.shape[:2]
    aspect = recipe.height / recipe.width
    height = max(face_height, face_width * aspect) * (1 + 2 * recipe.crop_margin)
    height = min(height, picture_height, picture_width * aspect)
    width = height / aspect
    top = np.clip(y + face_height / 2 - height / 2, 0, picture_height - height)
    left = np.clip(x + face_width / 2 - width / 2, 0, picture_width - width)
    rows = slice(int(top), int(top) + max(1, round(height)))
    columns = slice(int(left), int(left) + max(1, round(width)))
    return np.ascontiguousarray(image_HWC[rows, columns])


def _centre(image_HWC: ImageArray, zoom: float) -> ImageArray:
    height, width = (max(1, round(size / zoom)) for size in image_HWC.shape[:2])
    top, left = (image_HWC.shape[0] - height) // 2, (image_HWC.shape[1] - width) // 2
    return np.ascontiguousarray(image_HWC[top : top + height, left : left + width])
