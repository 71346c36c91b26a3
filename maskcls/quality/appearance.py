"""What a photo looks like, in about a kilobyte: enough to find it again, or out of place.

The thresholds were chosen on drawn faces and on real ones with rendered masks by
``python -m benchmarks.data_checks``; benchmarks/RESULTS.md has what they find and miss.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image

from maskcls.data.photos import PhotoError, decode_reduced, prefetch
from maskcls.labels import FloatArray, IntArray
from maskcls.progress import OnProgress

COPY_BITS: Final = 26
"""Bits of 255. Photos of two people differ by more; copies that were encoded again, resized,
brightened or cut by a hundredth mostly by less."""

SAME_BITS: Final = 6
SAME_COLOURS: Final = 3.0
"""Bits, and grey levels of a thumbnail, up to which two photos of one person are one photo. The
seven are alike by nature, so only copies that were encoded again or resized pass."""

OUTLIER: Final = 2.25
"""Times the usual distance from which a photo looks like another person's (see
``outlier_scores``)."""

FLAT: Final = 4.0
"""Standard deviation in grey levels below which a photo shows nothing."""

MIN_PHOTOS: Final = 4
"""Photos of one person that it takes to tell which of them is the odd one."""

_SIZE: Final = (128, 96)
_HEAD: Final = np.s_[16:52, 28:68]
"""Hair, forehead and eyes in a photo of ``_SIZE``: what no mask hides and little background."""

_BLOCK: Final = 256

Hashes = npt.NDArray[np.uint64]
Pairs = tuple[IntArray, IntArray, IntArray]
"""Rows of one photo, rows of the other, and the bits in which they differ; the first is lower."""


class Fingerprint(NamedTuple):
    """What is kept of a photo."""

    size: tuple[int, int]
    """Height and width in pixels, as it lies on disk but upright."""
    digest: bytes
    """Of the file's bytes."""
    hash_W: Hashes
    """Perceptual hash: 256 bits in four words."""
    colours_D: npt.NDArray[np.uint8]
    """A thumbnail of 16 x 12 RGB pixels, flattened."""
    head_D: npt.NDArray[np.float32]
    """Mean L*a*b* of 6 x 6 cells over hair, forehead and eyes, flattened."""
    contrast: float
    """Standard deviation of its grey levels."""


def fingerprint(path: str) -> Fingerprint:
    """Decode a photo once and keep what it looks like. Raises PhotoError where that fails."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise PhotoError(f"cannot be read: {error.strerror}") from error
    image_HWC, size = decode_reduced(data, shortest=_SIZE[1])
    small_HWC = cv2.resize(image_HWC, _SIZE[::-1], interpolation=cv2.INTER_AREA)
    grey_HW = cv2.cvtColor(small_HWC, cv2.COLOR_RGB2GRAY)
    thumbnail_HWC = cv2.resize(small_HWC, (12, 16), interpolation=cv2.INTER_AREA)
    lab_HWC = cv2.cvtColor(small_HWC[_HEAD].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    cells_HWC = cv2.resize(lab_HWC, (6, 6), interpolation=cv2.INTER_AREA)
    return Fingerprint(
        size=size,
        digest=hashlib.blake2b(data, digest_size=16).digest(),
        hash_W=perceptual_hash(grey_HW),
        colours_D=np.asarray(thumbnail_HWC, np.uint8).ravel(),
        head_D=np.asarray(cells_HWC, np.float32).ravel(),
        contrast=float(grey_HW.std()),
    )


def fingerprints(
    paths: Sequence[str], threads: int, progress: OnProgress
) -> list[Fingerprint | str]:
    """What each photo looks like, or why it cannot be read. ``threads`` decode."""
    found: list[Fingerprint | str] = []
    with ThreadPoolExecutor(threads) as pool:
        for photo in prefetch(pool, fingerprint, paths, window=4 * threads):
            try:
                found.append(photo.result())
            except PhotoError as error:
                found.append(str(error))
            progress(len(found), len(paths))
    return found


def perceptual_hash(grey_HW: npt.NDArray[Any]) -> Hashes:
    """The DCT hash of ``imagehash``: which of 16 x 16 low frequencies lie above their median.

    The usual 8 x 8 are not enough: portraits hardly differ in them. The mean of a picture is always
    above the median, so 255 bits tell.
    """
    found = imagehash.phash(Image.fromarray(grey_HW), hash_size=16, highfreq_factor=2)
    return np.packbits(found.hash).view(np.uint64)


def near_pairs(hashes_NW: Hashes, limit: int) -> Iterator[Pairs]:
    """Pairs of photos that differ by at most ``limit`` bits, a few hundred photos against all
    later ones at a time."""
    for start in range(0, len(hashes_NW), _BLOCK):
        block, rest = hashes_NW[start : start + _BLOCK], hashes_NW[start:]
        bits = np.zeros((len(block), len(rest)), np.uint16)
        for word in range(hashes_NW.shape[1]):
            bits += np.bitwise_count(block[:, word, None] ^ rest[None, :, word])
        first, second = np.nonzero(bits <= limit)
        once = first < second
        first, second = first[once], second[once]
        yield first + start, second + start, bits[first, second].astype(np.int64)


def outlier_scores(heads_ND: npt.NDArray[np.float32], person_N: npt.ArrayLike) -> FloatArray:
    """How many times farther than usual each photo lies from the others of its person, [N].

    The distance of a photo is the median, over the person's other photos, of the mean difference of
    their cells. Usual is the geometric mean of two medians: of this person's photos, since some
    people vary more, and of everybody's, since seven distances say little. NaN for people with
    fewer than ``MIN_PHOTOS`` photos.
    """
    _, group_N = np.unique(np.asarray(person_N), return_inverse=True)
    distance_N, own_N = np.full(len(group_N), np.nan), np.full(len(group_N), np.nan)
    order = np.argsort(group_N, kind="stable")
    for rows in np.split(order, np.cumsum(np.bincount(group_N))[:-1]):
        if len(rows) >= MIN_PHOTOS:
            distance_N[rows] = _to_others(heads_ND[rows])
            own_N[rows] = np.median(distance_N[rows])
    if np.isnan(distance_N).all():
        return distance_N
    # One unit of L*a*b* is what an encoder changes: nothing is strange below it.
    everybody = max(float(np.nanmedian(distance_N)), 1.0)
    return distance_N / np.sqrt(np.maximum(own_N, 1.0) * everybody)


def _to_others(heads_PD: npt.NDArray[np.float32]) -> FloatArray:
    between_PP = np.abs(heads_PD[:, None] - heads_PD[None]).mean(axis=2).astype(float)
    np.fill_diagonal(between_PP, np.nan)
    return np.nanmedian(between_PP, axis=1)
