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

WAIT_S: Final = 30.0
"""The same, where nothing is known but how long it has lasted."""

CLEAR: Final = "\r\x1b[K"
"""Wipes out the line of a terminal, for another one to be written."""

_BAR: Final = 20

OnProgress = Callable[[int, int], None]
"""Called with ``(done, total)``."""


class Progress:
    """Prints ``what: done of total, N s left`` to standard error, with a bar on a terminal.

    Nothing is printed for work that is over before the first line is due, unless ``always``.
    """

    def __init__(self, what: str, *, always: bool = False) -> None:
        self._what, self._always = what, always
        self._live = sys.stderr.isatty()
        self._began = self._printed = time.monotonic()
        self._first: int | None = None
        self._visible = False

    def __call__(self, done: int, total: int) -> None:
        if self._first is None:
            # What was done before the first call may have taken any time.
            self._first, self._began = min(done, total - 1), time.monotonic()
        last = done >= total and (self._visible or self._always)
        if not (self._due() or last):
            return
        left_s = (total - done) * (time.monotonic() - self._began) / max(1, done - self._first)
        full = _BAR * done // max(1, total)
        bar = f" [{'#' * full:.<{_BAR}}]" if self._live else ""
        self._print(
            f"{self._what}:{bar} {done:,} of {total:,}, {left_s:.0f} s left", last=done >= total
        )

    def wait(self) -> None:
        """Show for how many seconds this has lasted."""
        if self._due(WAIT_S):
            self._print(f"{self._what}: {time.monotonic() - self._began:.0f} s", last=False)

    def _due(self, plain_s: float = PLAIN_S) -> bool:
        pause_s = LIVE_S if self._live else plain_s
        return time.monotonic() - self._printed >= pause_s

    def _print(self, line: str, *, last: bool) -> None:
        self._printed, self._visible = time.monotonic(), True
        before, end = (CLEAR, "\n" if last else "") if self._live else ("", "\n")
        try:
            print(f"{before}{line}", end=end, file=sys.stderr, flush=True)
        except OSError:  # a closed pipe or terminal; the work goes on
            silence(sys.stderr)


def duration(seconds: float) -> str:
    """As people say it, to two units: 42 s, 3 min 20 s, 5 h 12 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def silence(stream: TextIO) -> None:
    """Throw away what is printed to ``stream`` from here on: nobody reads it any more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
