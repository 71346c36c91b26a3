"""Photo files: decoded to RGB, or refused with the reason."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from maskcls.data.manifest import OK

ImageArray = npt.NDArray[np.uint8]
Result = TypeVar("Result")

MAX_PIXELS: Final = 64_000_000
"""A photo with more is refused: decoded, it takes 200 MB."""
_FORMATS: Final = ("BMP", "JPEG", "PNG", "PPM", "WEBP")


class PhotoError(ValueError):
    """A photo that cannot be used; the message says why."""


def decode(data: bytes) -> ImageArray:
    """The bytes of a photo -> [height, width, 3] uint8 RGB, turned upright as its EXIF says.

    Greyscale, CMYK and palette become RGB, 16 bits become 8, and transparent parts become black,
    as cut-out photos saved without transparency have them. Raises PhotoError. What cannot be
    noticed: bytes lost in the middle of a JPEG whose end is there.
    """
    return _decode(data, shortest=None)[0]


def decode_reduced(data: bytes, shortest: int) -> tuple[ImageArray, tuple[int, int]]:
    """The same photo, maybe smaller, and the (height, width) that ``decode`` gives it.

    A plain JPEG comes at the smallest of 1/8, 1/4, 1/2 and 1 of its size at which both sides have
    at least ``shortest`` pixels: its decoder skips what such a picture does not need. Anything else
    comes whole. Raises PhotoError where ``decode`` does.
    """
    return _decode(data, shortest)


def _decode(data: bytes, shortest: int | None) -> tuple[ImageArray, tuple[int, int]]:
    if not data:
        raise PhotoError("empty file")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise PhotoError(f"too large to decode: {image.width} x {image.height} pixels")
            # OpenCV is faster, but some versions fill truncated photos up with grey and say
            # nothing: it gets the plain ones that have their end-of-image marker.
            plain = image.format == "JPEG" and image.mode in ("L", "RGB")
            if plain and data.endswith(b"\xff\xd9"):
                flag = cv2.IMREAD_COLOR if shortest is None else _flag(min(image.size), shortest)
                decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
                if decoded is not None:
                    # Turned by its EXIF, which OpenCV reads; Pillow's reader stops at more of it.
                    height, width = decoded.shape[:2]
                    turned = (height < width) != (image.height < image.width)
                    size = image.size if turned else image.size[::-1]
                    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8), size
            image_HWC = _decode_strictly(image)
            return image_HWC, image_HWC.shape[:2]
    except (PhotoError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise PhotoError("not an image, or cut off in its header") from None
    except Exception as error:  # Decoders raise anything from SyntaxError to struct.error.
        raise PhotoError(f"cannot be decoded: {error}") from error


def _flag(side: int, shortest: int) -> int:
    reduced = {
        8: cv2.IMREAD_REDUCED_COLOR_8,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        2: cv2.IMREAD_REDUCED_COLOR_2,
    }
    return next((f for by, f in reduced.items() if side >= by * shortest), cv2.IMREAD_COLOR)


def _decode_strictly(image: Image.Image) -> ImageArray:
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits; convert() would clip them to 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, "black")
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def ahead(
    pool: ThreadPoolExecutor, function: Callable[[str], Result], paths: Iterable[str], window: int
) -> Iterator[Future[Result]]:
    """``function`` of each path, in order; never more than ``window`` begun and not yet taken."""
    waiting: deque[Future[Result]] = deque()
    for path in paths:
        waiting.append(pool.submit(function, path))
        if len(waiting) == window:
            yield waiting.popleft()
    yield from waiting


def read_bytes(path: str) -> tuple[bytes, str]:
    """The bytes of a photo and ``ok``, or none and what is wrong."""
    try:
        return Path(path).read_bytes(), OK
    except FileNotFoundError:
        return b"", "missing file"
    except OSError as error:
        return b"", f"cannot be read: {error.strerror}"
