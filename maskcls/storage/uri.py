"""URIs of folders on an object store: what is one, and which are accepted."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Final

_URI: Final = re.compile(r"(s3|gs)://[A-Za-z0-9][A-Za-z0-9._-]*(/[^/?#@]+)*")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")


def is_uri(text: str) -> bool:
    """Whether something begins like a URI, also where a ``Path`` made one slash of two."""
    return _SCHEME.match(text) is not None


def on_this_machine(text: str) -> Path:
    """For a command line: a path. Raises ArgumentTypeError, which argparse shows, for a URI."""
    if is_uri(text):
        raise argparse.ArgumentTypeError(
            f"{text} is no folder of this machine: copy it here first; run.dir and data.root of "
            "the ray_jobs verbs, and report, take URIs"
        )
    return Path(text)


def check_uri(uri: str) -> str:
    """The URI of a folder without a slash at its end.

    Raises ValueError for another scheme and for anything but a bucket and names, such as keys or
    options; what was given is not repeated then, as it may hold a secret.
    """
    clean = uri.rstrip("/")
    names = clean.split("/")[3:]
    if not _URI.fullmatch(clean) or any(name.startswith(".") for name in names):
        raise ValueError(
            "a folder, s3://bucket/name or gs://bucket/name is expected; keys and endpoints "
            "come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...), never a URI"
        )
    return clean
