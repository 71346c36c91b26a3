"""File names that are no text, or no text to print."""

from __future__ import annotations

from collections.abc import Iterable


def is_text(name: str) -> bool:
    """Whether a file name is UTF-8: others can be opened, but neither printed nor stored."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    """A file name with bytes that are not UTF-8, line breaks and control characters escaped."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def some(names: Iterable[str]) -> str:
    """``12 (a, b, ...)``: how many, and the first ten, printable; ``0`` for none."""
    every = [printable(name) for name in names]
    more = ", ..." if len(every) > 10 else ""
    return f"{len(every)} ({', '.join(every[:10])}{more})" if every else "0"
