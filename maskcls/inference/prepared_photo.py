"""One photo, from what a user gave to what the models take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from maskcls.data.faces import CENTRE, Face, find_face
from maskcls.data.preprocess import Preprocessing, preprocess_each
from maskcls.data.status import OK
from maskcls.inference.inputs import GivenPhoto
from maskcls.labels import UInt8Array

PixelBox = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""


@dataclass(frozen=True)
class PreparedPhoto:
    """One photo as the models want it: ``images`` of each kind of preprocessing, in the order of
    ``Model.recipes``; none where it cannot be read, and then ``status`` is the reason.

    ``box`` is the face in pixels of the photo, where one was looked for and found.
    """

    name: str
    status: str
    images: list[UInt8Array]
    box: PixelBox | None
    size: tuple[int, int]
    """Height and width of the photo in pixels; zeros where it cannot be read."""


def prepare(
    source: GivenPhoto, recipes: Sequence[Preprocessing], *, boxes: bool = False
) -> PreparedPhoto:
    """Decode and preprocess one photo, as training does. With ``boxes`` its face is looked for also
    where no kind of preprocessing needs it."""
    image_HWC, status = source.load()
    if image_HWC is None:
        return PreparedPhoto(source.name, status, [], None, (0, 0))
    detectors = [recipe.detector for recipe in recipes if recipe.needs_face or boxes]
    found = {detector: find_face(image_HWC, detector) for detector in dict.fromkeys(detectors)}
    crops = [
        (face.box if (face := found[recipe.detector]) else recipe.fallback or CENTRE)
        if recipe.needs_face
        else None
        for recipe in recipes
    ]
    size = image_HWC.shape[0], image_HWC.shape[1]
    face = next(filter(None, found.values()), None)
    images = preprocess_each(image_HWC, recipes, crops)
    return PreparedPhoto(source.name, OK, images, in_pixels(face, size), size)


def in_pixels(face: Face | None, size: tuple[int, int]) -> PixelBox | None:
    """The box of a face in a photo of ``size`` (height, width), None of none."""
    if face is None:
        return None
    (left, top, width, height), (rows, columns) = face.box, size
    return round(left * columns), round(top * rows), round(width * columns), round(height * rows)
