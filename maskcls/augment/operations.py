"""Image operations on uint8 RGB, pixel for pixel those of torchvision."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

ImageArray = npt.NDArray[Any]
"""RGB, uint8, [H, W, 3]. (OpenCV's own annotations leave the type of pixels open.)"""
Jitter = tuple[float, float, float, float]
"""Brightness, contrast, saturation and hue, as in ``torchvision.transforms.v2.ColorJitter``."""

_LEVELS: Final = np.arange(256, dtype=np.float32)

_ROUND_DOWN: Final = -0.499
"""Added before OpenCV rounds to the nearest level, to cut off the fraction as torch does. Not a
full half, so that a result a hair below a whole number still counts as that number."""


def _look_up(image: ImageArray, levels: npt.NDArray[np.float32]) -> ImageArray:
    """Replace level ``v`` by ``levels[v]`` ([256], or [256, 3] by channel), cut to 0..255."""
    table = np.clip(levels, 0, 255).astype(np.uint8)
    return cv2.LUT(image, table.reshape(1, 256, -1))


def _grey(image: ImageArray) -> ImageArray:
    """Luma [H, W], rounded down, with torchvision's weights (which sum to 0.9999)."""
    # The luma of a grey pixel falls short of a whole number by no more than 0.0001 a level.
    return cv2.transform(image, np.array([[0.2989, 0.587, 0.114, -0.49995]]))


def strips(image: ImageArray) -> Iterator[slice]:
    """Strips of rows, for steps that turn pixels into floats.

    Their floats fit the cache, and stay below the size from which malloc asks the system for fresh
    pages every time; without, ``hue`` took four times as long on photos of 256x192 and 384x288.
    """
    step = max(1, 2**13 // image.shape[1])
    return (slice(top, top + step) for top in range(0, image.shape[0], step))


def brightness(image: ImageArray, factor: float) -> ImageArray:
    """Multiply by ``factor`` (0 is black, 1 changes nothing)."""
    return _look_up(image, _LEVELS * np.float32(factor))


def contrast(image: ImageArray, factor: float) -> ImageArray:
    """Blend with the mean luma: 0 is flat grey, 1 changes nothing."""
    mean = np.float32(cv2.mean(_grey(image))[0])
    return _look_up(image, _LEVELS * np.float32(factor) + np.float32(1 - factor) * mean)


def saturation(image: ImageArray, factor: float) -> ImageArray:
    """Blend with the luma of each pixel: 0 is black and white, 1 changes nothing."""
    grey = cv2.cvtColor(_grey(image), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(image, factor, grey, 1 - factor, _ROUND_DOWN)


def sharpness(image: ImageArray, factor: float) -> ImageArray:
    """Blend with a smoothed image: below 1 blurs, above 1 sharpens; the outermost pixels stay."""
    if min(image.shape[:2]) <= 2:
        return image
    kernel = np.full((3, 3), 1 / 13, np.float32)
    kernel[1, 1] = 5 / 13
    smooth = cv2.filter2D(image, -1, kernel)
    blended = cv2.addWeighted(image, factor, smooth, 1 - factor, _ROUND_DOWN)
    blended[[0, -1]] = image[[0, -1]]
    blended[:, [0, -1]] = image[:, [0, -1]]
    return blended


def hue(image: ImageArray, turn: float) -> ImageArray:
    """Turn the hue by ``turn`` of the colour circle (-0.5 to 0.5), in floating point."""
    turned = np.empty_like(image)
    for rows in strips(image):
        rgb = image[rows] * np.float32(1 / 255)
        hsv = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV), np.float32)
        hsv[..., 0] += 360 * (turn % 1)
        # 255.999 is torchvision's scale from floats: each level gets an equal share of [0, 1].
        turned[rows] = cv2.convertScaleAbs(
            cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), alpha=255.999, beta=_ROUND_DOWN
        )
    return turned


def posterize(image: ImageArray, bits: int) -> ImageArray:
    """Keep the ``bits`` highest bits of each level."""
    return image & np.uint8(256 - (1 << (8 - bits)))


def solarize(image: ImageArray, threshold: float) -> ImageArray:
    """Invert levels from ``threshold`` (0 to 255) up."""
    return _look_up(image, np.where(threshold <= _LEVELS, 255 - _LEVELS, _LEVELS))


def autocontrast(image: ImageArray) -> ImageArray:
    """Stretch each channel to the full range."""
    tables = np.tile(_LEVELS[:, None], 3)
    for channel, plane in enumerate(cv2.split(image)):
        low, high = cv2.minMaxLoc(plane)[:2]
        if low < high:
            scale = np.float32(high - low) * np.float32(1 / 255)
            tables[:, channel] = (_LEVELS - np.float32(low)) / scale
    return _look_up(image, tables)


def equalize(image: ImageArray) -> ImageArray:
    """Spread the levels of each channel evenly, by Pillow's integer scheme."""
    tables = np.tile(_LEVELS[:, None], 3)
    for channel in range(3):
        counts = cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel().astype(np.int64)
        step = (counts.sum() - counts[counts.nonzero()[0][-1]]) // 255
        if step:
            tables[1:, channel] = (counts.cumsum()[:-1] + step // 2) // step
    return _look_up(image, tables)


# Operations with a magnitude, as the automatic policies use them. The names are torchvision's.

Matrix = npt.NDArray[np.float64]

_COLOUR: Final[dict[str, Callable[[ImageArray, float], ImageArray]]] = {
    "Identity": lambda image, _: image,
    "Brightness": lambda image, magnitude: brightness(image, 1 + magnitude),
    "Color": lambda image, magnitude: saturation(image, 1 + magnitude),
    "Contrast": lambda image, magnitude: contrast(image, 1 + magnitude),
    "Sharpness": lambda image, magnitude: sharpness(image, 1 + magnitude),
    "Posterize": lambda image, magnitude: posterize(image, round(magnitude)),
    "Solarize": lambda image, magnitude: solarize(image, 255 * magnitude),
    "AutoContrast": lambda image, _: autocontrast(image),
    "Equalize": lambda image, _: equalize(image),
    "Invert": lambda image, _: ~image,
}


def _rotation(degrees: float, height: int, width: int) -> Matrix:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = (width - 1) / 2, (height - 1) / 2
    return np.array([[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]])


GEOMETRY: Final[dict[str, Callable[[float, int, int], Matrix]]] = {
    # Shears turn about the corner of the top left pixel, half a pixel from its centre.
    "ShearX": lambda shear, _h, _w: np.array([[1, shear, shear / 2], [0, 1, 0]]),
    "ShearY": lambda shear, _h, _w: np.array([[1, 0, 0], [shear, 1, shear / 2]]),
    "TranslateX": lambda pixels, _h, _w: np.array([[1.0, 0, -int(pixels)], [0, 1, 0]]),
    "TranslateY": lambda pixels, _h, _w: np.array([[1.0, 0, 0], [0, 1, -int(pixels)]]),
    "Rotate": _rotation,
}
"""Magnitude, height, width -> the matrix that takes a result's pixel (x, y, 1) to its source."""


def operate(
    image: ImageArray, name: str, magnitude: float = 0.0, interpolation: int = cv2.INTER_NEAREST
) -> ImageArray:
    """Apply one operation by torchvision's name; what lies outside the image comes in black.

    ``magnitude``: slope (shears), pixels (translations), degrees counter-clockwise (Rotate), change
    of the factor 1 (Brightness, Color, Contrast, Sharpness), bits (Posterize), share of 255
    (Solarize); the others have none. Raises KeyError for an unknown name.
    """
    if name not in GEOMETRY:
        return _COLOUR[name](image, magnitude)
    height, width = image.shape[:2]
    matrix = GEOMETRY[name](magnitude, height, width)
    flags = interpolation | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, (width, height), flags=flags)
