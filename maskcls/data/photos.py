"""Photo files: decoded to RGB, or refused with the reason."""

from __future__ import annotations

import io
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import cv2
import numpy as np

from maskcls.data import file_formats
from maskcls.data.status import MISSING_FILE, OK
from maskcls.labels import UInt8Array

try:
    from PIL import ExifTags, Image, UnidentifiedImageError
except ModuleNotFoundError:  # a bundle runs without Pillow; see ``_decode_without_pillow``
    HAS_PILLOW = False
else:
    HAS_PILLOW = True

Given = TypeVar("Given")
Result = TypeVar("Result")

MAX_PIXELS: Final = 64_000_000
"""A photo with more is refused: decoded, it takes 200 MB."""

# Pillow warns of metadata that it skips: a line a photo would bury the lines of a run.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

_FORMATS: Final = ("BMP", "JPEG", "PNG", "PPM", "WEBP")


class PhotoError(ValueError):
    """A photo that cannot be used; the message says why."""


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> UInt8Array:
    """The bytes of a photo -> [height, width, 3] uint8 RGB, turned upright as EXIF or XMP say.

    Greyscale, CMYK and palette become RGB, 16 bits become 8, and transparent parts become black,
    as cut-out photos saved without transparency have them, unless nothing at all is opaque. Broken
    metadata do no harm. Raises PhotoError, also for more than ``max_pixels``. What cannot be
    noticed: bytes lost in the middle of a JPEG whose end is there.
    """
    return _decode(data, None, max_pixels)[0]


def decode_reduced(data: bytes, shortest: int) -> tuple[UInt8Array, tuple[int, int]]:
    """The same photo, maybe smaller, and the (height, width) that ``decode`` gives it.

    A plain JPEG comes at the smallest of 1/8, 1/4, 1/2 and 1 of its size at which both sides have
    at least ``shortest`` pixels: its decoder skips what such a picture does not need. Anything else
    comes whole. Raises PhotoError where ``decode`` does.
    """
    return _decode(data, shortest, MAX_PIXELS)


def _decode(
    data: bytes, shortest: int | None, max_pixels: int
) -> tuple[UInt8Array, tuple[int, int]]:
    if not data:
        raise PhotoError("empty file")
    if not HAS_PILLOW:
        return _decode_without_pillow(data, max_pixels)
    try:
        return _decode_as_it_is(data, shortest, max_pixels)
    except PhotoError:
        # Pillow stops at texts and colour profiles that are broken or large; pixels may be sound.
        bare = file_formats.without_metadata(data)
        if bare is None:
            raise
        with suppress(PhotoError):
            return _decode_as_it_is(bare, shortest, max_pixels)
        raise


def _decode_as_it_is(
    data: bytes, shortest: int | None, max_pixels: int
) -> tuple[UInt8Array, tuple[int, int]]:
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise PhotoError(f"too large to decode: {image.width} x {image.height} pixels")
            # OpenCV is faster, but some versions fill truncated photos up with grey and say
            # nothing: it gets the plain ones that have their end-of-image marker.
            plain = image.format == "JPEG" and image.mode in ("L", "RGB")
            decoded = None
            if plain and data.endswith(b"\xff\xd9"):
                flag = cv2.IMREAD_COLOR if shortest is None else _flag(min(image.size), shortest)
                decoded = cv2.imdecode(
                    np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION
                )
            if decoded is not None:
                image_HWC = np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
            else:
                image_HWC = _decode_strictly(image)
            # After decoding: a PNG may have its EXIF behind the pixels.
            orientation = _orientation(image)
            size = image.size if orientation >= 5 else image.size[::-1]
            return _upright(image_HWC, orientation), size
    except (PhotoError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise PhotoError(file_formats.what_it_is(data)) from None
    except Exception as error:  # Decoders raise anything from SyntaxError to struct.error.
        raise PhotoError(f"cannot be decoded: {error}") from error


def _decode_without_pillow(data: bytes, max_pixels: int) -> tuple[UInt8Array, tuple[int, int]]:
    """A plain whole JPEG by OpenCV alone, which gives the pixels that the usual way gives.

    Turned upright as EXIF says; XMP is not read. Anything else is refused.
    """
    shape = file_formats.jpeg_shape(data)
    if shape is None or shape[2] not in (1, 3) or not data.endswith(b"\xff\xd9"):
        raise PhotoError(
            "without Pillow only whole JPEG files of RGB or grey are read: pip install pillow, or "
            + file_formats.CONVERT
        )
    if shape[0] * shape[1] > max_pixels:
        raise PhotoError(f"too large to decode: {shape[1]} x {shape[0]} pixels")
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        raise PhotoError("cannot be decoded: a broken JPEG")
    image_HWC = np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
    return image_HWC, (image_HWC.shape[0], image_HWC.shape[1])


def from_pillow(image: Image.Image) -> UInt8Array:
    """An image of Pillow's, of any mode -> [height, width, 3] uint8 RGB, as ``decode`` gives it.

    Raises PhotoError for one that is too large or that cannot be read.
    """
    if image.width * image.height > MAX_PIXELS:
        raise PhotoError(f"too large to decode: {image.width} x {image.height} pixels")
    try:
        return _upright(_decode_strictly(image), _orientation(image))
    except PhotoError:
        raise
    except Exception as error:  # Decoders raise anything from SyntaxError to struct.error.
        raise PhotoError(f"cannot be decoded: {error}") from error


def _flag(side: int, shortest: int) -> int:
    reduced = {
        8: cv2.IMREAD_REDUCED_COLOR_8,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        2: cv2.IMREAD_REDUCED_COLOR_2,
    }
    return next((f for by, f in reduced.items() if side >= by * shortest), cv2.IMREAD_COLOR)


def _decode_strictly(image: Image.Image) -> UInt8Array:
    image.load()
    if image.mode == "F":
        raise PhotoError("floating-point pixels, whose scale is not known: convert it to 8 bits")
    if image.mode.startswith("I"):  # 16 bits; convert() would clip them to 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        # Some programs write an alpha channel of zeros and mean nothing by it.
        if image.getchannel("A").getextrema() != (0, 0):
            image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    return np.array(image.convert("RGB"))


def _orientation(image: Image.Image) -> int:
    """How the picture is stored, 1 (upright) to 8, as EXIF counts; from EXIF, or else from XMP.

    Read here for both decoders: OpenCV knows only EXIF, and Pillow alone XMP and what ImageMagick
    writes. 1 where metadata are broken.
    """
    exif = Image.Exif()
    # Broken metadata raise anything.
    with suppress(Exception):
        exif.load(image.info.get("exif", b""))
    found: Any = exif.get(ExifTags.Base.Orientation)
    if found is None:
        with suppress(Exception):
            found = image.getexif().get(ExifTags.Base.Orientation)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _upright(image_HWC: UInt8Array, orientation: int) -> UInt8Array:
    if orientation >= 5:
        image_HWC = image_HWC.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image_HWC = image_HWC[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image_HWC = image_HWC[::-1]
    return np.ascontiguousarray(image_HWC)


def prefetch(
    pool: ThreadPoolExecutor,
    function: Callable[[Given], Result],
    given: Iterable[Given],
    window: int,
) -> Iterator[Future[Result]]:
    """``function`` of each thing, in order; never more than ``window`` begun and not yet taken."""
    waiting: deque[Future[Result]] = deque()
    for one in given:
        waiting.append(pool.submit(function, one))
        if len(waiting) == window:
            yield waiting.popleft()
    yield from waiting


def read_bytes(path: str) -> tuple[bytes, str]:
    """The bytes of a photo and ``ok``, or none and what is wrong."""
    try:
        return Path(path).read_bytes(), OK
    except FileNotFoundError:
        return b"", MISSING_FILE
    except OSError as error:
        return b"", f"cannot be read: {error.strerror}"
