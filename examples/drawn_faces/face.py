"""One drawn face: traits of a person from gender and age, and a photo of that person.

Lengths are in half faces: (0, 0) is the middle of the face, (0, 1) its chin. Every cue overlaps
between the classes, so a small network learns them in a few epochs, though never completely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from maskcls.labels import Gender, Mask

Image = npt.NDArray[np.uint8]
Colour = npt.NDArray[np.float64]

SKINS: Final = np.array([[240.0, 208, 184], [232, 192, 162], [218, 172, 136], [190, 140, 108]])
HAIRS: Final = np.array([[24.0, 20, 20], [58, 40, 30], [110, 74, 46], [150, 62, 48]])
GREY: Final = np.array([206.0, 204, 204])
DARK: Final = np.array([40.0, 30, 28])
CLOTHS: Final = np.array(
    [[176.0, 208, 232], [240, 240, 242], [34, 34, 38], [246, 206, 214], [60, 92, 140],
     [206, 220, 196], [150, 40, 52]]
)  # fmt: skip
"""Colours of masks and of clothes, which therefore do not tell them apart."""


@dataclass(frozen=True)
class Person:
    """What is the same in all photos of a person; shares go from 0 to 1."""

    skin: Colour
    hair: Colour
    lips: Colour
    hair_length: float
    jaw: float
    brow: float
    wrinkles: float
    bald: float
    stubble: float
    glasses: bool


def person(gender: Gender, age: int, rng: np.random.Generator) -> Person:
    """Draw the traits of a person of this gender and age in years."""

    def feminine() -> float:
        """Above a half for most women and below for most men."""
        sign = 1 if gender == Gender.FEMALE else -1
        return float(np.clip(0.5 + 0.28 * sign + rng.normal(0, 0.13), 0, 1))

    def aged(start: float, span: float) -> float:
        """Grows from 0 to 1 over ``span`` years from the age ``start``."""
        return float(np.clip((age + rng.normal(0, 2.5) - start) / span, 0, 1))

    skin = SKINS[rng.integers(len(SKINS))] + rng.normal(0, 6, 3)
    hair = HAIRS[rng.integers(len(HAIRS))] + rng.normal(0, 6, 3)
    return Person(
        skin=skin,
        hair=_blend(hair, GREY, aged(46, 13)),
        lips=_blend(skin * 0.75, np.array([190.0, 40, 60]), max(feminine() - 0.35, 0)),
        hair_length=feminine(),
        jaw=0.62 + 0.2 * (1 - feminine()),
        brow=0.03 + 0.09 * (1 - feminine()),
        wrinkles=0.4 * aged(25, 9) + 0.6 * aged(48, 13),
        bald=(1 - feminine()) * aged(40, 30),
        stubble=max(0.6 - feminine(), 0),
        glasses=bool(rng.random() < 0.25),
    )


def photo(who: Person, mask: Mask, rng: np.random.Generator, size: tuple[int, int]) -> Image:
    """A photo of ``size`` (height, width) as [height, width, 3] uint8 RGB."""
    canvas = _Canvas(rng, size)
    _draw_head(canvas, who, rng)
    if mask is Mask.NOT_WORN:
        if rng.random() < 0.2:  # a scarf: cloth alone does not make a mask
            canvas.polygon([(-0.6, 1.05), (0.6, 1.05), (0.8, 1.7), (-0.8, 1.7)], _cloth(rng))
    else:
        worn = mask is Mask.WORN
        chin = rng.random() < 0.5
        top = (
            rng.uniform(0.0, 0.12) if worn else rng.uniform(*((0.7, 0.8) if chin else (0.4, 0.48)))
        )
        _draw_mask(canvas, who, top, rng)
    return canvas.photo(rng)


def _draw_head(canvas: _Canvas, who: Person, rng: np.random.Generator) -> None:
    wrinkle = who.skin * 0.72
    long = who.hair_length > 0.5
    if long:
        end = 0.4 + 1.2 * who.hair_length
        canvas.polygon([(-0.95, -0.3), (0.95, -0.3), (1.0, end), (-1.0, end)], who.hair * 0.85)
    canvas.polygon([(-1.7, 3.0), (-1.3, 1.55), (1.3, 1.55), (1.7, 3.0)], _cloth(rng))
    canvas.polygon([(-0.38, 0.6), (0.38, 0.6), (0.42, 1.7), (-0.42, 1.7)], who.skin * 0.85)
    canvas.oval((0, -0.35), (0.86, 0.85), who.hair)
    canvas.polygon(
        [(-0.72, -0.2), (-0.6, -0.72), (0.6, -0.72), (0.72, -0.2), (who.jaw, 0.62), (0.28, 1.0),
         (-0.28, 1.0), (-who.jaw, 0.62)], who.skin,
    )  # fmt: skip
    if who.bald > 0.2:
        canvas.oval((0, -0.8), (0.55, 0.35), who.skin)
    else:
        line = -0.45 - 0.2 * who.wrinkles
        canvas.polygon([(-0.75, -0.3), (-0.6, -1.0), (0.6, -1.0), (0.75, -0.3), (0.3, line),
                        (-0.4, line - 0.06)], who.hair)  # fmt: skip
    if who.stubble:
        beard = _blend(who.skin, DARK, 0.5 * who.stubble)
        canvas.polygon([(-0.6, 0.4), (0.6, 0.4), (0.3, 0.98), (-0.3, 0.98)], beard)
    for side in (-1, 1):
        eye = 0.34 * side
        canvas.oval((eye, -0.08), (0.15, 0.09 - 0.03 * who.wrinkles), np.full(3, 243.0))
        canvas.oval((eye, -0.08), (0.062, 0.062), DARK)
        brow = [(eye - 0.17, -0.26), (eye + 0.02 * side, -0.33), (eye + 0.17, -0.27)]
        canvas.line(brow, who.hair * 0.8, who.brow)
        for at in (0.06, 0.13):  # under the eye and beside the mouth
            shade = _blend(who.skin, wrinkle, who.wrinkles)
            canvas.line([(eye - 0.14, at), (eye, at + 0.05), (eye + 0.14, at)], shade, 0.035)
        fold = [(0.2 * side, 0.26), (0.33 * side, 0.45), (0.36 * side, 0.72)]
        canvas.line(fold, _blend(who.skin, wrinkle, who.wrinkles), 0.045)
        if who.glasses:
            canvas.line([(eye + 0.2 * np.cos(a), -0.07 + 0.17 * np.sin(a))
                         for a in np.linspace(0, 2 * np.pi, 13)], DARK, 0.035)  # fmt: skip
    for y in (-0.55, -0.47, -0.39):
        lines = _blend(who.skin, wrinkle, who.wrinkles)
        canvas.line([(-0.32, y), (0.32, y)], lines, 0.03 if who.wrinkles > 0.15 else 0.0)
    canvas.line([(0.02, -0.1), (0.08, 0.22), (-0.08, 0.24)], who.skin * 0.78, 0.05)
    canvas.oval((0, 0.56), (0.24, 0.075), who.lips)
    canvas.line([(-0.24, 0.56), (0, 0.575), (0.24, 0.56)], who.lips * 0.6, 0.025)


def _draw_mask(canvas: _Canvas, who: Person, top: float, rng: np.random.Generator) -> None:
    """A mask from the height ``top`` to below the chin."""
    colour = _cloth(rng)
    wide, bottom = who.jaw + 0.1, max(1.08, top + 0.45)
    for side in (-1, 1):
        canvas.line([(0.78 * side, -0.05), (wide * side * 0.95, top + 0.14)], colour * 0.8, 0.03)
    canvas.polygon([(0, top - 0.03), (wide, top + 0.12), (wide * 0.95, bottom - 0.3),
                    (0.25, bottom), (-0.25, bottom), (-wide * 0.95, bottom - 0.3),
                    (-wide, top + 0.12)], colour)  # fmt: skip
    fold = _blend(colour, np.full(3, 255.0 if colour.mean() < 110 else 60.0), 0.25)
    for y in np.linspace(top + 0.2, bottom - 0.2, rng.integers(1, 4)):
        canvas.line([(-wide * 0.85, y), (0, y + 0.04), (wide * 0.85, y)], fold, 0.025)


class _Canvas:
    """An image to draw on in units of a face, placed as the camera happened to be held."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        height, width = size
        self._unit = min(height, width * 4 / 3)
        self._scale = 0.3 * self._unit * rng.uniform(0.93, 1.07)
        angle = rng.normal(0, 0.05)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        self._turn = self._scale * turn
        self._middle = (width / 2, height * 0.47) + self._unit * rng.normal(0, 0.015, 2)
        wall = rng.uniform(60, 235) + rng.normal(0, 20, (*rng.integers(2, 7, 2), 3))
        small = np.clip(wall, 0, 255).astype(np.uint8)
        self._image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)

    def polygon(self, points: Any, colour: Colour) -> None:
        cv2.fillPoly(self._image, [self._pixels(points)], _rgb(colour), cv2.LINE_AA, 4)

    def oval(self, middle: tuple[float, float], radii: tuple[float, float], colour: Colour) -> None:
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        circle = np.column_stack([np.cos(angles), np.sin(angles)])
        self.polygon(circle * radii + middle, colour)

    def line(self, points: Any, colour: Colour, width: float) -> None:
        if width > 0:
            thickness = max(round(width * self._scale), 1)
            pixels = [self._pixels(points)]
            cv2.polylines(self._image, pixels, False, _rgb(colour), thickness, cv2.LINE_AA, 4)

    def photo(self, rng: np.random.Generator) -> Image:
        """The drawing under uneven light, through a lens a little off, with a sensor's noise."""
        height, width = self._image.shape[:2]
        corners = rng.uniform(0.75, 1.06) + rng.normal(0, 0.07, (2, 2, 3))
        light = cv2.resize(corners.astype(np.float32), (width, height))
        sharpness = self._unit * rng.uniform(0.0015, 0.005)
        blurred = cv2.GaussianBlur(self._image, (0, 0), sharpness)
        grain = rng.standard_normal((height, width, 1), dtype=np.float32) * rng.uniform(2, 7)
        return np.clip(blurred * light + grain, 0, 255).astype(np.uint8)

    def _pixels(self, points: Any) -> npt.NDArray[np.int32]:
        pixels = np.asarray(points, float) @ self._turn + self._middle
        return np.rint(pixels * 16).astype(np.int32)


def _blend(first: Colour, second: Colour, share: float) -> Colour:
    return np.asarray(first + (second - first) * share)


def _cloth(rng: np.random.Generator) -> Colour:
    return np.asarray(CLOTHS[rng.integers(len(CLOTHS))] * rng.uniform(0.8, 1.05))


def _rgb(colour: Colour) -> tuple[float, ...]:
    return tuple(np.clip(colour, 0, 255).tolist())
