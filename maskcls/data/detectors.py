"""Networks that find faces: read from files, run by OpenCV, their outputs turned into boxes.

Two kinds of file are known: ONNX of CenterFace's kind (Xu et al., "CenterFace: Joint Face Detection
and Alignment Using Face as Point", 2019) and TFLite of BlazeFace's kind, short range (Bazarevsky
et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs", 2019). Needs NumPy and
OpenCV alone.
"""

from __future__ import annotations

import hashlib
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from maskcls.labels import Float32Array, UInt8Array

FOLDER: Final = Path(__file__).parent / "networks"
"""The files that come with the installation; LICENSES.md beside them says whose they are."""

DETECTORS: Final = {
    "centerface": FOLDER / "centerface.onnx",
    "blazeface": FOLDER / "blazeface_short_range.tflite",
}
_CENTERFACE_SHAPES: Final = ((224, 160), (160, 224), (192, 192))
"""Multiples of 32; a network takes as long as it has pixels."""

_CENTERFACE_OUTPUTS: Final = ("537", "538", "539", "540")
_CENTERFACE_CHANNELS: Final = [1, 2, 2, 10]
_BLAZEFACE_SIDE: Final = 128
_BLAZEFACE_STRIDES: Final = ((8, 2), (16, 6))  # pixels, anchors a cell

_local = threading.local()


def file_of(detector: str) -> Path:
    """The file of a detector, a name of ``DETECTORS`` or the path of another.

    Raises FileNotFoundError where there is none.
    """
    path = DETECTORS.get(detector, Path(detector))
    if not path.is_file():
        known = ", ".join(DETECTORS)
        raise FileNotFoundError(f"image.detector={detector}: no such file, nor one of {known}")
    return path


def key_of(detector: str) -> str:
    """What cached boxes are known by: the name, or a digest of the file's content."""
    if detector in DETECTORS:
        return detector
    path = file_of(detector)
    changed = path.stat()
    return _digest(path, changed.st_mtime_ns, changed.st_size)


@lru_cache(maxsize=8)
def _digest(path: Path, _changed: int, _size: int) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=4).hexdigest()


class Likely(NamedTuple):
    """Likely faces, many of them of one and the same: ``boxes_N4`` (left, top, width, height), the
    height of the eyes ``eyes_N``, all as shares of the photo, which they may leave, and
    ``scores_N`` from 0 to 1."""

    boxes_N4: Float32Array
    eyes_N: Float32Array
    scores_N: Float32Array


def detect(image_HWC: UInt8Array, detector: str) -> Likely:
    """Every likely face, as the network has them.

    Raises FileNotFoundError where there is no such detector, and ValueError where its file is of
    another kind.
    """
    path = file_of(detector)
    run = _blazeface if path.suffix == ".tflite" else _centerface
    return run(image_HWC, path)


def network(path: Path, shape: tuple[int, int] = (0, 0)) -> Any:
    """The network of a file, for inputs of one ``shape``. One a thread: it keeps what it computes.

    Raises ValueError where OpenCV cannot read it.
    """
    # OpenCV 4.14 answers wrongly, from then on, once a network has had inputs of two shapes.
    nets: dict[tuple[Path, tuple[int, int]], Any] = _local.__dict__.setdefault("nets", {})
    if (path, shape) not in nets:
        read = cv2.dnn.readNetFromTFLite if path.suffix == ".tflite" else cv2.dnn.readNetFromONNX
        try:
            nets[path, shape] = read(str(path))
        except cv2.error as error:
            raise ValueError(f"{path}: OpenCV cannot read this network: {error.err}") from None
    return nets[path, shape]


def _centerface(image_HWC: UInt8Array, path: Path) -> Likely:
    """Heat map of centres, sizes (log) and offsets, at a quarter of the input's resolution."""
    # The first in which the photo is largest: the square, which takes longer, only for squares.
    shape = max(_CENTERFACE_SHAPES, key=lambda shape: _scale(image_HWC, shape))
    canvas, fill_4 = _letterboxed(image_HWC, shape)
    net = network(path, shape)
    net.setInput(cv2.dnn.blobFromImage(canvas))
    try:
        heat, size, offset, points = net.forward(list(_CENTERFACE_OUTPUTS))
    except cv2.error:
        raise _other_kind(path, "CenterFace's kind") from None
    if [part.shape[1] for part in (heat, size, offset, points)] != _CENTERFACE_CHANNELS:
        raise _other_kind(path, "CenterFace's kind")
    rows, columns = np.nonzero(heat[0, 0] > _LEAST)
    heights_N, widths_N = np.exp(size[0, :, rows, columns].T) * 4
    down_N, right_N = offset[0, :, rows, columns].T
    centre_x, centre_y = (columns + right_N + 0.5) * 4, (rows + down_N + 0.5) * 4
    left_N, top_N = centre_x - widths_N / 2, centre_y - heights_N / 2
    eyes_N = top_N + points[0, [0, 2]][:, rows, columns].mean(axis=0) * heights_N
    boxes_N4 = np.stack([left_N, top_N, widths_N, heights_N], axis=1) / fill_4
    return Likely(
        boxes_N4.astype(np.float32),
        (eyes_N / fill_4[1]).astype(np.float32),
        heat[0, 0, rows, columns],
    )


def _blazeface(image_HWC: UInt8Array, path: Path) -> Likely:
    """Boxes relative to 896 anchors, on a square that the photo fills from the top left."""
    side = _BLAZEFACE_SIDE
    square, fill_4 = _letterboxed(image_HWC, (side, side))
    net = network(path)
    net.setInput(cv2.dnn.blobFromImage(square, 1 / 127.5, (side, side), (127.5,) * 3))
    try:
        outputs = net.forward(net.getUnconnectedOutLayersNames())
    except cv2.error:
        raise _other_kind(path, "BlazeFace's kind, short range") from None
    anchors_N2 = _anchors()
    count = len(anchors_N2)
    by_size = {output.size: output for output in outputs}
    if by_size.keys() != {count * 16, count}:
        raise _other_kind(path, "BlazeFace's kind, short range")
    raw_N16, logits_N = by_size[count * 16].reshape(count, 16), by_size[count].reshape(count)
    scores_N = 1 / (1 + np.exp(-logits_N.clip(-80, 80)))
    centres_N2, sizes_N2 = raw_N16[:, :2] / side + anchors_N2, raw_N16[:, 2:4] / side
    eyes_N = raw_N16[:, [5, 7]].mean(axis=1) / side + anchors_N2[:, 1]
    boxes_N4 = np.concatenate([centres_N2 - sizes_N2 / 2, sizes_N2], axis=1) * (side / fill_4)
    likely_N = scores_N > _LEAST
    return Likely(
        boxes_N4[likely_N].astype(np.float32),
        (eyes_N[likely_N] * side / fill_4[1]).astype(np.float32),
        scores_N[likely_N].astype(np.float32),
    )


_LEAST: Final = 0.05
"""Scores below are noise: thousands a photo."""


@lru_cache(maxsize=1)
def _anchors() -> Float32Array:
    """Centres [N, 2] (x, y as shares) of the cells, row by row, each as often as it has anchors."""
    parts = []
    for stride, repeats in _BLAZEFACE_STRIDES:
        cells = _BLAZEFACE_SIDE // stride
        y, x = np.indices((cells, cells)).reshape(2, -1)
        parts.append(np.repeat((np.stack([x, y], axis=1) + 0.5) / cells, repeats, axis=0))
    return np.concatenate(parts).astype(np.float32)


def _scale(image_HWC: UInt8Array, shape: tuple[int, int]) -> float:
    """The largest that a photo can be scaled by to fit into a shape."""
    return min(shape[0] / image_HWC.shape[0], shape[1] / image_HWC.shape[1])


def _letterboxed(
    image_HWC: UInt8Array, shape: tuple[int, int]
) -> tuple[UInt8Array, npt.NDArray[np.float64]]:
    """The photo at the top left of a black picture of this shape, and the pixels that it fills:
    width, height, width, height."""
    scale = _scale(image_HWC, shape)
    height, width = (max(1, round(length * scale)) for length in image_HWC.shape[:2])
    canvas = np.zeros((*shape, 3), np.uint8)
    canvas[:height, :width] = cv2.resize(image_HWC, (width, height), interpolation=cv2.INTER_AREA)
    return canvas, np.array([width, height, width, height], np.float64)


def _other_kind(path: Path, kind: str) -> ValueError:
    return ValueError(f"{path}: not a face detector of {kind}, see docs/faces.md")
