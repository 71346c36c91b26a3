"""What a cache knows photos by: their keys and bytes; and how they are worked through."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import cv2

from maskcls.data.photos import read_bytes


def digests_of(paths: Sequence[str], threads: int) -> list[bytes]:
    """A digest of the bytes of each photo, or of what is wrong with it; reads every file."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda path: _digest(*read_bytes(path)), paths))


def name_of(keys: Sequence[str], digests: Sequence[bytes], version: int) -> str:
    """Sixteen digits that change when a photo, its key, their order or ``version`` does."""
    return hashlib.blake2b(repr((version, keys, digests)).encode(), digest_size=8).hexdigest()


def read_unchanged(path: str, digest: bytes) -> tuple[bytes, str]:
    """As ``read_bytes``. Raises ValueError where the bytes are no longer those of the digest."""
    data, status = read_bytes(path)
    if _digest(data, status) != digest:
        raise ValueError(f"{path}: changed while it was prepared; start again")
    return data, status


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Photos are spread over threads already; OpenCV's own would only compete with them."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _digest(data: bytes, status: str) -> bytes:
    return hashlib.blake2b(status.encode() + b"\0" + data, digest_size=16).digest()
