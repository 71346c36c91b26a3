"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    import pandas as pd


_PREFIX = ".tmp-"

LEASE = ".lease.json"
"""In every folder of a run: who works in it."""

LOCK_WAIT_S = 3600.0
"""How long to wait for another process of this node that is doing the same work."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; it becomes ``path`` when the block succeeds.

    Readers see the old file or the new one, never half of it. Raises OSError naming ``path`` where
    the folder cannot be written (read-only, full).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_PREFIX, suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            with temporary.open("rb") as written:
                os.fsync(written.fileno())  # else a power cut may leave an empty file of that name
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(
            error.errno or errno.EIO,  # some writers (pyarrow) give no number
            f"cannot write {path}: {error.strerror or error}; "
            "free space there, make it writable or choose another folder",
        ) from error


@contextmanager
def lock(path: Path, wait_s: float, what: str) -> Iterator[None]:
    """Hold the lock of ``path``; the system releases it when the process ends, however it does.

    Raises TimeoutError where another process, which is doing ``what``, holds it for ``wait_s``
    seconds.
    """
    held = FileLock(path, timeout=wait_s, poll_interval=0.1)
    try:
        held.acquire()
    except Timeout:
        raise TimeoutError(
            f"{path}: another process has been {what} for {wait_s:g} s; "
            "wait for it, or set data.cache to another folder"
        ) from None
    try:
        yield
    finally:
        held.release()


def remove_cut_off(folder: Path) -> None:
    """Remove the temporary files that killed writers left; for who alone works in ``folder``.

    Not in folders below it that have a lease: those are other runs, which may be writing.
    """
    for entry in folder.iterdir():
        if entry.name.startswith(_PREFIX):
            entry.unlink(missing_ok=True)
        elif entry.is_dir() and not (entry / LEASE).exists():
            remove_cut_off(entry)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON-able value, indented, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_table(path: Path, table: pd.DataFrame, **csv: Any) -> None:
    """Write a table, without its index, whole or not at all: as CSV where ``path`` ends in .csv,
    with these options of pandas, else as parquet."""
    with replacing(path) as temporary:
        if path.suffix.lower() == ".csv":
            table.to_csv(temporary, index=False, lineterminator="\n", **csv)
        else:
            table.to_parquet(temporary, index=False)


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises ValueError naming the file when it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error}); delete it to start over") from None


def read_parquet(path: Path) -> pd.DataFrame:
    """Read a table. Raises FileNotFoundError, and ValueError naming the file when it is damaged."""
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise
    except Exception as error:  # pyarrow raises anything for a damaged file
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path}: damaged ({reason}); delete it and run what made it again"
        ) from None
