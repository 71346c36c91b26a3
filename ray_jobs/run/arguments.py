"""What the verbs accept beside ``key.sub=value``: the folder of a run, alone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from maskcls.storage import uri


def words(argv: Sequence[str] | None = None) -> list[str]:
    """The command line, in which a word that names a folder has become ``run.dir=FOLDER``.

    That is a URI, a path with a "/" or an existing folder; so a forgotten "=" is still an error.
    """
    found = list(sys.argv[1:] if argv is None else argv)
    for number, word in enumerate(found):
        option = word.startswith("-") or (number > 0 and found[number - 1] == "--config")
        if option or "=" in word:
            continue
        if uri.is_uri(word) or "/" in word or Path(word).is_dir():
            found[number] = f"run.dir={word}"
    return found
