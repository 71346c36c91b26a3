"""The tables of the automatic augmentations: operations, strengths, AutoAugment's policy."""

from __future__ import annotations

from typing import Final

import numpy as np

from maskcls.augment.operations import GEOMETRY

# Automatic policies. Levels are shares of an operation's range of magnitudes, 0 to 1.

Ranges = dict[str, tuple[float, float]]

_SIGNED: Final = {*GEOMETRY, "Brightness", "Color", "Contrast", "Sharpness"}
"""Operations whose magnitude is negated half of the time."""

RANDAUGMENT_OPERATIONS: Final = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)
"""The operations of RandAugment and TrivialAugment; AugMix has them but Identity."""

CIFAR10_POLICY: Final = (
    (("Invert", 0.1, 0), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, 0), ("Equalize", 0.9, 0)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, 0), ("Equalize", 0.5, 0)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, 0), ("AutoContrast", 0.4, 0)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, 0)),
    (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.2, 0), ("Equalize", 0.6, 0)),
    (("Color", 0.9, 9), ("Equalize", 0.6, 0)),
    (("AutoContrast", 0.8, 0), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, 0)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, 0), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, 0), ("Invert", 0.1, 0)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 0)),
)
"""The 25 sub-policies of AutoAugment: operation, probability, level out of 9."""


def _ranges(
    shear: float, shift: tuple[float, float], rotate: float, colour: float, bits: tuple[int, int]
) -> Ranges:
    """Operation -> magnitude at the lowest and at the highest level; ``shift`` is (y, x)."""
    return {
        "ShearX": (0, shear),
        "ShearY": (0, shear),
        "TranslateX": (0, shift[1]),
        "TranslateY": (0, shift[0]),
        "Rotate": (0, rotate),
        "Brightness": (0, colour),
        "Color": (0, colour),
        "Contrast": (0, colour),
        "Sharpness": (0, colour),
        "Posterize": bits,
        "Solarize": (1, 0),
    }


def standard_ranges(height: int, width: int) -> Ranges:
    """The magnitudes of AutoAugment and RandAugment."""
    return _ranges(0.3, (150 / 331 * height, 150 / 331 * width), 30, 0.9, (8, 4))


def wide_ranges(height: int, width: int) -> Ranges:
    """The magnitudes of TrivialAugment Wide; translations are in pixels at any size."""
    return _ranges(0.99, (32, 32), 135, 0.99, (8, 2))


def augmix_ranges(height: int, width: int) -> Ranges:
    """The magnitudes of AugMix."""
    return _ranges(0.3, (height / 3, width / 3), 30, 0.9, (4, 0))


def magnitude_at(name: str, level: float, ranges: Ranges, rng: np.random.Generator) -> float:
    """The magnitude of an operation at ``level`` (0 to 1), its sign drawn; 0 where it has none."""
    low, high = ranges.get(name, (0, 0))
    magnitude = low + (high - low) * level
    return -magnitude if name in _SIGNED and rng.random() < 0.5 else magnitude
