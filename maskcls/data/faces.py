"""Where the face is, and what belongs to the person."""

from __future__ import annotations

import threading
from typing import Any, Final

import cv2
import numpy as np

from maskcls.data.photos import ImageArray

Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""
_CASCADES: Final = ("haarcascade_frontalface_alt2.xml", "haarcascade_frontalface_default.xml")
_DETECTION_SIDE: Final = 192
_SEGMENT_SIZE: Final = (128, 96)

_local = threading.local()


def find_face(image_HWC: ImageArray) -> Box | None:
    """The largest face that OpenCV's frontal Haar cascades find, in pixels of the image.

    They look for eyes, nose and mouth, so a mask hides some faces from them. Raises RuntimeError
    where OpenCV comes without cascades.
    """
    scale = min(1.0, _DETECTION_SIDE / min(image_HWC.shape[:2]))
    grey_HW = cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey_HW, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    small = cv2.equalizeHist(small)
    smallest = max(1, min(small.shape) // 4)
    # The first cascade is the more exact, the second, at finer steps, sees more masked faces.
    for cascade, step in zip(_cascades(), (1.1, 1.05), strict=True):
        faces = cascade.detectMultiScale(small, step, 1, minSize=(smallest, smallest))
        if len(faces):
            x, y, width, height = max(faces, key=lambda face: face[2] * face[3]) / scale
            return round(x), round(y), round(width), round(height)
    return None


def _cascades() -> list[Any]:
    # A cascade keeps state while it searches: each thread needs its own.
    if not hasattr(_local, "cascades"):
        if not hasattr(cv2, "CascadeClassifier"):
            raise RuntimeError(
                f"image.crop=face needs the Haar cascades of OpenCV 4, this is {cv2.__version__}: "
                "pip install 'opencv-python-headless<5', or set image.crop=none"
            )
        folder = cv2.data.haarcascades  # type: ignore[attr-defined]
        _local.cascades = [cv2.CascadeClassifier(folder + name) for name in _CASCADES]
    return _local.cascades


def cut_out(image_HWC: ImageArray) -> ImageArray:
    """The photo with everything black that GrabCut takes for background.

    Needs no weights, and knows nothing of people: it takes the middle of the photo for the person
    and goes on from there by colour. It keeps the face and the mask, and often loses hair and
    shoulders; a segmentation network (the ``_rembg`` copies) is better where one can be had.
    Rother et al., "GrabCut", SIGGRAPH 2004.
    """
    height, width = _SEGMENT_SIZE
    small = cv2.resize(image_HWC, (width, height), interpolation=cv2.INTER_AREA)
    centre = (width // 2, height // 2)
    guess = np.full(_SEGMENT_SIZE, cv2.GC_BGD, np.uint8)
    guess[height // 16 :, width // 16 : -width // 16] = cv2.GC_PR_BGD
    cv2.ellipse(guess, centre, (width * 3 // 8, height * 3 // 8), 0, 0, 360, cv2.GC_PR_FGD, -1)
    cv2.ellipse(guess, centre, (width // 4, height // 4), 0, 0, 360, cv2.GC_FGD, -1)
    cv2.setRNGSeed(0)  # GrabCut starts from k-means, which draws from OpenCV's own generator.
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(small, guess, (0, 0, 1, 1), *models, 2, cv2.GC_INIT_WITH_MASK)
    person = np.isin(guess, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
    mask_HW = cv2.resize(person, image_HWC.shape[1::-1]) > 0.5
    return image_HWC * mask_HW[:, :, None]
