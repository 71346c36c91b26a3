"""One photo, from what a user gave to what the models take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from maskcls.data import preprocess
from maskcls.data.faces import Box
from maskcls.data.photos import ImageArray
from maskcls.data.preprocess import Preprocessing
from maskcls.data.status import OK
from maskcls.inference.inputs import Source


@dataclass(frozen=True)
class PreparedPhoto:
    """One photo as the models want it: ``images`` of each kind of preprocessing, in the order of
    ``Model.recipes``; none where it cannot be read, and then ``status`` is the reason.

    ``box`` is the face in pixels of the photo, where a kind of preprocessing looks for one.
    """

    name: str
    status: str
    images: list[ImageArray]
    box: Box | None
    size: tuple[int, int]
    """Height and width of the photo in pixels; zeros where it cannot be read."""


def prepare(source: Source, recipes: Sequence[Preprocessing]) -> PreparedPhoto:
    """Decode and preprocess one photo, as training does."""
    image_HWC, status = source.load()
    if image_HWC is None:
        return PreparedPhoto(source.name, status, [], None, (0, 0))
    images, box = preprocess.apply(image_HWC, recipes)
    return PreparedPhoto(source.name, OK, images, box, (image_HWC.shape[0], image_HWC.shape[1]))
