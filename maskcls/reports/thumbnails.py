"""Small photos inside a page."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2

from maskcls.data.photos import ImageArray, PhotoError, decode_reduced
from maskcls.reports import page

QUALITY: Final = 80
"""Of a JPEG."""


def thumbnail(path: str, alt: str, height: int) -> str:
    """An ``img`` that holds the photo, ``height`` pixels high; words where it cannot be read."""
    try:
        image_HWC, _ = decode_reduced(Path(path).read_bytes(), height * 3 // 4)
    except (PhotoError, OSError):
        return '<span class="none">not readable</span>'
    width = round(image_HWC.shape[1] * height / image_HWC.shape[0])
    return embedded(image_HWC, alt, width=min(max(width, 1), 3 * height), height=height)


def embedded(image_HWC: ImageArray, alt: str, *, width: int, height: int) -> str:
    """An ``img`` that holds this picture, ``width`` x ``height`` pixels."""
    small_HWC = cv2.resize(image_HWC, (width, height), interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(small_HWC, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    )
    assert done, "OpenCV cannot write a JPEG"
    return page.image(data.tobytes(), "jpeg", alt)
