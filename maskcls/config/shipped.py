"""The configurations that come with the package, by name from any folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import maskcls

NO_CONFIGURATIONS: Final = {"label_fixes", "albumentations"}
"""Files beside the configurations that these name."""


def folder() -> Path:
    """Where they lie: inside an installed package, or beside it in a clone."""
    package = Path(maskcls.__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """What ``--config`` takes: ``sweep``, ``tasks/age``, ..."""
    paths = [*folder().glob("*.yaml"), *folder().glob("tasks/*.yaml")]
    found = (path.relative_to(folder()).with_suffix("").as_posix() for path in paths)
    return sorted(set(found) - NO_CONFIGURATIONS)


def find(text: str) -> Path:
    """The file that ``--config`` names: a path, or else the name of a shipped configuration.

    Raises FileNotFoundError with the shipped names.
    """
    path = Path(text)
    if path.is_file():
        return path
    if text in names():
        return folder() / f"{text}.yaml"
    raise FileNotFoundError(
        f"--config {text}: no such file (looked in {Path.cwd()}), and no shipped configuration; "
        f"these are {', '.join(names())}"
    )
