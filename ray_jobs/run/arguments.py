"""What the verbs accept beside ``key.sub=value``: the folder of a run, alone."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from maskcls.storage import uri


def words(argv: Sequence[str] | None = None, options: Mapping[str, str] | None = None) -> list[str]:
    """The command line, in which a word that names a folder has become ``run.dir=FOLDER``, and
    each of ``options`` (``--budget 30m``) the key that it stands for.

    A folder is a URI, a path with a "/" or an existing folder; so a forgotten "=" is still an
    error.
    """
    found = list(sys.argv[1:] if argv is None else argv)
    for option, key in (options or {}).items():
        found = _as_key(found, option, key)
    for number, word in enumerate(found):
        is_option = word.startswith("-") or (number > 0 and found[number - 1] == "--config")
        if is_option or "=" in word:
            continue
        if uri.is_uri(word) or "/" in word or Path(word).is_dir():
            found[number] = f"run.dir={word}"
    return found


def _as_key(words: Sequence[str], option: str, key: str) -> list[str]:
    """``--option VALUE`` and ``--option=VALUE`` as ``key=VALUE``."""
    found: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == option and rest:
            found.append(f"{key}={rest.pop(0)}")
        elif word.startswith(f"{option}="):
            found.append(f"{key}={word.partition('=')[2]}")
        else:
            found.append(word)
    return found
