"""What a user gives to a model -> photos by name, each decoded, or refused with the reason.

Paths, folders, bytes, images of Pillow's and arrays; one of them, or many. Only NumPy and OpenCV
are needed, and Pillow for whatever is no plain JPEG.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskcls.data import photos
from maskcls.data.file_formats import EXTENSIONS
from maskcls.data.photos import PhotoError
from maskcls.data.status import OK
from maskcls.labels import UInt8Array


@dataclass(frozen=True)
class GivenPhoto:
    """One photo as it was given. ``name`` is its path, or ``#3`` for the fourth thing given."""

    name: str
    content: Any
    max_pixels: int = photos.MAX_PIXELS

    def load(self) -> tuple[UInt8Array | None, str]:
        """The decoded photo, [height, width, 3] uint8 RGB, and ``ok``; or None and the reason."""
        try:
            return _decoded(self.content, self.max_pixels), OK
        except PhotoError as error:
            return None, str(error)


def sources(given: Any) -> Iterator[GivenPhoto]:
    """The photos among what was given, in order; those of a folder, with its sub-folders, by name.

    ``given`` is a path (str or Path) of a photo or a folder, the bytes of a photo, an image of
    Pillow's, an array [height, width, 3 or 1] or [height, width] of uint8 (RGB), an array
    [N, height, width, 3], or an iterable of such things. Nothing is opened here.

    Raises TypeError for anything else and FileNotFoundError for a folder without photos.
    """
    if _is_one(given):
        given = [given]
    elif isinstance(given, np.ndarray) and given.ndim == 4:
        given = list(given)
    elif not isinstance(given, Iterable):
        raise TypeError(_expected(given))
    for number, one in enumerate(given):
        if isinstance(one, str | os.PathLike):
            yield from _of_path(Path(one))
        elif _is_one(one):
            yield GivenPhoto(f"#{number}", one)
        else:
            raise TypeError(f"#{number}: {_expected(one)}")


def photos_under(folder: Path) -> Iterator[Path]:
    """Photo files of a folder and its sub-folders, by name; nothing that begins with a dot."""
    with os.scandir(folder) as entries:
        visible = sorted(
            (entry for entry in entries if not entry.name.startswith(".")),
            key=lambda entry: entry.name,
        )
    for entry in visible:
        # A link to a folder is not followed: it may lead back here.
        if entry.is_dir(follow_symlinks=False):
            yield from photos_under(Path(entry.path))
        elif entry.name.lower().endswith(EXTENSIONS):
            yield Path(entry.path)


def _of_path(path: Path) -> Iterator[GivenPhoto]:
    if not path.is_dir():
        yield GivenPhoto(str(path), path)
        return
    found = False
    for photo in photos_under(path):
        found = True
        yield GivenPhoto(str(photo), photo)
    if not found:
        raise FileNotFoundError(f"{path}: no photo here; photos end in {', '.join(EXTENSIONS)}")


def _is_one(given: Any) -> bool:
    if isinstance(given, np.ndarray):
        return given.ndim in (2, 3)
    return isinstance(given, str | bytes | bytearray | os.PathLike) or _is_of_pillow(given)


def _is_of_pillow(given: Any) -> bool:
    if not photos.HAS_PILLOW:
        return False
    from PIL import Image

    return isinstance(given, Image.Image)


def _decoded(content: Any, max_pixels: int) -> UInt8Array:
    if isinstance(content, Path):
        data, status = photos.read_bytes(str(content))
        if status != OK:
            raise PhotoError(status)
        return photos.decode(data, max_pixels)
    if isinstance(content, bytes | bytearray):
        return photos.decode(bytes(content), max_pixels)
    if isinstance(content, np.ndarray):
        return _of_array(content)
    return photos.from_pillow(content)


def _of_array(array: np.ndarray) -> UInt8Array:
    if array.dtype != np.uint8:
        raise PhotoError(f"an array of {array.dtype}; numbers of uint8 from 0 to 255 are expected")
    image_HWC = array[:, :, None] if array.ndim == 2 else array
    if image_HWC.shape[2] not in (1, 3) or not image_HWC.size:
        raise PhotoError(f"an array of shape {array.shape}; [height, width, 3] (RGB) is expected")
    if image_HWC.shape[0] * image_HWC.shape[1] > photos.MAX_PIXELS:
        raise PhotoError(f"too large: {image_HWC.shape[1]} x {image_HWC.shape[0]} pixels")
    return np.ascontiguousarray(np.broadcast_to(image_HWC, (*image_HWC.shape[:2], 3)))


def _expected(given: Any) -> str:
    return (
        f"{type(given).__name__} is no photo: a path, a folder, bytes, an image of Pillow's or an "
        "array [height, width, 3] of uint8 is expected"
    )
