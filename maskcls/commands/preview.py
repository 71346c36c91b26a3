"""`maskcls preview OUT.png PHOTO ...`: a picture of what each augmentation does to some photos."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from maskcls.augment.operations import ImageArray
from maskcls.augment.preview import preview
from maskcls.data.photos import PhotoError, decode


def main(argv: Sequence[str] | None = None) -> None:
    """Draw every augmentation on some photos."""
    parser = argparse.ArgumentParser(prog="maskcls preview", description=main.__doc__)
    parser.add_argument("out", type=Path, metavar="OUT.png")
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTO")
    arguments = parser.parse_args(argv)
    try:
        preview([_read(path) for path in arguments.photos], arguments.out)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(arguments.out)


def _read(path: Path) -> ImageArray:
    try:
        return decode(path.read_bytes())
    except PhotoError as error:
        raise ValueError(f"{path}: {error}") from None
