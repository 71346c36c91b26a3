"""Names that Ray can carry."""

from __future__ import annotations


def ascii_name(name: str) -> str:
    """``name`` with "_" for every letter that is not ASCII: Ray's metrics end a run whose name has
    one (2.60)."""
    return "".join(letter if letter.isascii() else "_" for letter in name)
