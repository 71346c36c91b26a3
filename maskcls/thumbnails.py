"""Small photos inside a page."""

from __future__ import annotations

from pathlib import Path

import cv2

from maskcls import page
from maskcls.images import PhotoError, decode_reduced


def thumbnail(path: str, alt: str, height: int) -> str:
    """An ``img`` that holds the photo, ``height`` pixels high; words where it cannot be read."""
    try:
        image_HWC, _ = decode_reduced(Path(path).read_bytes(), height * 3 // 4)
    except (PhotoError, OSError):
        return '<span class="none">not readable</span>'
    width = round(image_HWC.shape[1] * height / image_HWC.shape[0])
    size = min(max(width, 1), 3 * height), height
    small_HWC = cv2.resize(image_HWC, size, interpolation=cv2.INTER_AREA)
    bgr_HWC = cv2.cvtColor(small_HWC, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr_HWC, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return page.image(data.tobytes(), "jpeg", alt)
