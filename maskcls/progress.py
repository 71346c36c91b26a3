"""How far long work is: one line, rewritten in place on a terminal, now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

LIVE_S: Final = 0.2
"""Seconds between two updates on a terminal."""

PLAIN_S: Final = 10.0
"""Seconds between two lines where there is no terminal."""

Tell = Callable[[int, int], None]
"""Called with ``(done, total)``."""


class Progress:
    """Prints ``what: done of total, N s left`` to standard error.

    Nothing is printed for work that is over before the first line is due, unless ``always``.
    """

    def __init__(self, what: str, *, always: bool = False) -> None:
        self._what, self._always = what, always
        self._live = sys.stderr.isatty()
        self._began = self._told = time.monotonic()
        self._shown = False

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        due = now - self._told >= (LIVE_S if self._live else PLAIN_S)
        last = done >= total and (self._shown or self._always)
        if not (due or last):
            return
        self._told, self._shown = now, True
        left_s = (total - done) * (now - self._began) / max(1, done)
        line = f"{self._what}: {done:,} of {total:,}, {left_s:.0f} s left"
        # Spaces wipe out what a longer line left; the last line stays.
        end = "\r" if self._live and done < total else "\n"
        try:
            print(f"{line:60}", end=end, file=sys.stderr, flush=True)
        except OSError:  # a closed pipe or terminal; the work goes on
            silence(sys.stderr)


def silence(stream: TextIO) -> None:
    """Throw away what is printed to ``stream`` from here on: nobody reads it any more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
