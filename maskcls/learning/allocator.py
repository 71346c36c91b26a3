"""What becomes of memory that is freed and asked for again, as activations are in every step."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h
_MOST = 2**31 - 1
"""The largest number that mallopt takes."""

ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}
"""The environment of a process whose threads shall all keep what they free: only the arena of the
main thread can. Other threads get arenas that give everything back, and Ray Train's loop runs in
one: predictions took 1.3 times as long."""


def keep_freed(device: str) -> str:
    """On a CPU, let the C library keep what this process frees; returns what was decided, and why.

    glibc fetches large blocks from the system and gives them back at once. Activations and batches
    are such blocks, and the system clears their pages anew in every step: a fifth of the time of
    EfficientNet-Lite0 at 128 x 96. From now on the process keeps the most that it ever had; other
    threads than the first only where it was started with ``ONE_ARENA``.
    ``device`` is the type of a torch device.
    """
    if device != "cpu":
        return f"freed memory is given back: tensors live on {device}"
    if platform.libc_ver()[0] != "glibc":
        return "freed memory is left to the C library, which is not glibc"
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, _MOST)
    return "freed memory is kept: glibc would fetch large tensors from the system in every step"
