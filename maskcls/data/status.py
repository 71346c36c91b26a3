"""The status of a photo: ``OK``, or in words what is wrong with it."""

from typing import Final

OK: Final = "ok"
"""The status of a photo that nothing is wrong with."""

MISSING_FILE: Final = "missing file"
