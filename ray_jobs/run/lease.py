"""The lease of a run: that one program alone works in its folder, and that it is alive.

Whoever works in a run holds ``.lease.json`` there, which says who that is and changes every few
seconds. In a folder its holder also has the lock of the file, which the system releases when the
process ends; on an object store the file is an object that is only replaced by who has seen its
present content, so of two programs that start at once one gets it. A lease that nobody gave back is
watched for longer than its holder could be silent before it is taken over; not where the lock says
that the holder is dead. A program that finds another name in its lease stops.

Nothing here imports Ray: ``python -m ray_jobs.status`` reads leases on any machine.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from maskcls.config import layers
from maskcls.storage.conditional import ConditionalObject
from maskcls.storage.files import LEASE as FILE
from maskcls.storage.place import Place
from maskcls.storage.remote import StorageError

log = logging.getLogger(__name__)

BEAT_S = 5.0
"""Seconds between two signs of life."""

SILENCE_S = 30.0
"""Seconds without a sign of life after which a holder counts as dead."""

ALIVE_S = 90.0
"""The same for who looks only once, by the clock of another machine."""

WATCH_S = 1.0
"""Seconds between two looks at a lease that somebody may hold."""

FREE = b"{}\n"

Liveness = Literal["alive", "gone", "silent"]
"""``silent``: no lock can be seen from here, and the last sign of life is old."""


class _Copy(Protocol):
    """Where a lease is written."""

    def read(self) -> bytes:
        """Its content; empty where there is none."""

    def replace(self, content: bytes) -> bool:
        """Replace what was read or written last; False where that is not there any more."""


class _LockedFile:
    """A lease in a folder, whose lock this program has. Some file systems do not carry locks to
    other machines: what is replaced is looked at again."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._seen = b""

    def read(self) -> bytes:
        self._seen = os.pread(self._descriptor, 2**16, 0)
        return self._seen

    def replace(self, content: bytes) -> bool:
        before = self._seen
        if self.read() != before:
            return False
        os.pwrite(self._descriptor, content, 0)
        os.ftruncate(self._descriptor, len(content))
        self._seen = content
        return True


@contextmanager
def held(place: Place) -> Iterator[threading.Event]:
    """Hold the run in ``place`` for this program. The event is set when another program has taken
    the run over, in which case this one gets SIGTERM.

    Raises ValueError where another program works in it, OSError where the folder cannot be written
    and StorageError where its store refuses it.
    """
    descriptor = os.open(place.local / FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        file = _LockedFile(descriptor)
        if not _locked(descriptor):
            raise _taken(place, file.read())
        copies: list[_Copy] = [file]
        if place.uri:
            copies.append(ConditionalObject(place.uri, FILE))
        holder = _Holder(place, copies)
        # This program has the lock, so whoever held the lease here before it is dead.
        before = parse(file.read())
        holder.take(before.get("id") if before.get("machine") == this_machine() else None)
        lost, ended = threading.Event(), threading.Event()
        thread = threading.Thread(target=holder.beat, args=(ended, lost), daemon=True)
        thread.start()
        try:
            yield lost
        finally:
            ended.set()
            thread.join()
            if not lost.is_set():
                holder.leave()
    finally:
        os.close(descriptor)


class _Holder:
    def __init__(self, place: Place, copies: Sequence[_Copy]) -> None:
        self._place, self._copies = place, copies
        self._me = {"id": uuid.uuid4().hex, "machine": this_machine(),
                    "host": socket.gethostname(), "process": os.getpid()}  # fmt: skip
        self._beats = 0

    def take(self, dead: str | None) -> None:
        """Take every copy of the lease that is free, or was that of ``dead``, or of a holder that
        gives no sign of life. Raises ValueError where somebody lives or another was faster."""
        taken: list[_Copy] = []
        for copy in self._copies:
            self._wait_until_free(copy, dead)
            if not copy.replace(self._sign()):
                for other in taken:
                    other.replace(FREE)
                raise _taken(self._place, copy.read())
            taken.append(copy)

    def _wait_until_free(self, copy: _Copy, dead: str | None) -> None:
        first = copy.read()
        owner = parse(first)
        if not owner or (dead and owner["id"] == dead):
            return
        log.info(
            "%s: another program began here and did not end; looking for %g s whether it is alive",
            self._place.uri or self._place.local, SILENCE_S,
        )  # fmt: skip
        deadline = time.monotonic() + SILENCE_S
        while time.monotonic() < deadline:
            time.sleep(WATCH_S)
            now = copy.read()
            if not parse(now):
                return
            if now != first:
                raise _taken(self._place, now)

    def _sign(self) -> bytes:
        return json.dumps({**self._me, "beats": self._beats}).encode() + b"\n"

    def beat(self, ended: threading.Event, lost: threading.Event) -> None:
        """Give signs of life until ``ended``; stop the program where another has taken over."""
        while not ended.wait(BEAT_S):
            self._beats += 1
            for copy in self._copies:
                try:
                    if copy.replace(self._sign()):
                        continue
                    log.error("%s", _taken(self._place, copy.read()))
                except (OSError, StorageError) as error:
                    # The work itself will fail of it, or the storage comes back.
                    log.warning("no sign of life could be given: %s", error)
                    continue
                lost.set()
                _stop()
                return

    def leave(self) -> None:
        """Let the next program begin at once."""
        for copy in self._copies:
            try:
                copy.replace(FREE)
            except (OSError, StorageError) as error:
                log.warning("%s; the next program will look for this one", error)


def parse(content: bytes) -> dict[str, Any]:
    """What a lease says; empty where nobody holds it."""
    if not content:
        return {}
    try:
        owner = json.loads(content)
        return {"id": None, **owner} if owner else {}
    except (ValueError, TypeError):
        return {"id": None}


def liveness(place: Place, now: float) -> Liveness:
    """Whether the program that holds the lease still lives.

    Its lock tells, where this machine sees that; else the age of its last sign of life, at the
    time ``now``, must do. Raises StorageError where a store does not answer.
    """
    path = place.local / FILE
    if _is_locked(path):
        return "alive"
    here = parse(path.read_bytes()) if path.is_file() else {}
    if place.uri:
        copy = ConditionalObject(place.uri, FILE)
        owner, changed = parse(copy.read()), copy.changed
    else:
        owner, changed = here, path.stat().st_mtime if here else 0.0
    if not owner:
        return "gone"
    if owner["id"] == here.get("id") and owner.get("machine") == this_machine():
        return "gone"
    return "alive" if now - changed < ALIVE_S else "silent"


def this_machine() -> str:
    """Says whether two programs run under the same kernel, and so see each other's locks."""
    try:
        name = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        name = socket.gethostname()
    return layers.digest(name)


def _taken(place: Place, content: bytes) -> ValueError:
    owner = parse(content)
    who = f" (process {owner.get('process')} on {owner.get('host')})" if owner else ""
    return ValueError(
        f"run.dir={place.uri or place.local}: another program works in it{who}; wait for it or "
        "choose another"
    )


def _locked(descriptor: int) -> bool:
    """Take the lock, unless another program has it for longer than ``status`` looks at it."""
    for _ in range(5):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.05)
    return False


def _is_locked(path: Path) -> bool:
    """Whether a program holds the lock of the file, as far as can be seen from here."""
    try:
        with path.open() as file:
            # Let go at once; ``_locked`` tries more than once because of this.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # no such file, or no locks on this file system
    return False


def _stop() -> None:
    """As SIGTERM from outside; the main thread, since a signal to another would not wake it."""
    thread = threading.main_thread().ident
    assert thread is not None
    signal.pthread_kill(thread, signal.SIGTERM)
