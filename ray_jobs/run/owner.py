"""That one program alone works in a run on an object store, as far as such a store can tell.

Stores have no locks. Whoever works in a run keeps an object there and changes it every few
seconds; another program watches it for longer than that before it takes the run over. A program
that finds somebody else's name in its place stops. What remains: two programs that start within
the same second may both work until the first sign of life, and do the same work twice.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from maskcls.storage import files
from maskcls.storage.place import Place
from maskcls.storage.remote import StorageError, Store

log = logging.getLogger(__name__)
OBJECT = ".owner.json"
BEAT_S = 5.0
"""Seconds between two signs of life."""
SILENCE_S = 30.0
"""Seconds without a sign of life after which an owner counts as dead."""
SETTLE_S = 1.0
"""Seconds after which whoever wrote at the same time is seen."""


@contextmanager
def owned(place: Place) -> Iterator[threading.Event]:
    """Hold a run for this program; only for who holds the lock of its local copy. The event is set
    when another program has taken the run over; nothing happens where it is no object store's.

    Raises ValueError where another program works in it. An owner that was killed is noticed after
    ``SILENCE_S``, or at once where it worked in the same local copy.
    """
    lost = threading.Event()
    if place.uri is None:
        yield lost
        return
    store = Store(place.uri)
    owner = _Owner(store, place.uri, _name_of(place.local))
    owner.wait_until_free()
    owner.sign()
    time.sleep(SETTLE_S)
    if not owner.is_me():
        raise ValueError(owner.taken())
    ended = threading.Event()
    thread = threading.Thread(target=owner.beat, args=(ended, lost), daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        ended.set()
        thread.join()
        if not lost.is_set():
            owner.leave()


class _Owner:
    """The object that says who works in a run; ``copy`` is the name of this program's copy."""

    def __init__(self, store: Store, uri: str, copy: str) -> None:
        self._store, self._uri = store, uri
        self._me = {"id": uuid.uuid4().hex, "copy": copy, "host": socket.gethostname(),
                    "process": os.getpid()}  # fmt: skip
        self._beats = 0

    def now(self) -> dict[str, Any]:
        """What the object says; nothing where there is none."""
        content = self._store.read(OBJECT)
        if content is None:
            return {}
        try:
            return {"id": None, **json.loads(content)}
        except (ValueError, TypeError):
            return {"id": None}

    def is_me(self) -> bool:
        return self.now().get("id") == self._me["id"]

    def taken(self) -> str:
        owner = self.now()
        return (
            f"run.dir={self._uri}: another program works in it (process {owner.get('process')} on "
            f"{owner.get('host')}); wait for it or choose another"
        )

    def wait_until_free(self) -> None:
        """Watch an owner that is there already."""
        first = self.now()
        if not first or first.get("copy") == self._me["copy"]:
            return
        log.info("%s: another program began here and did not end; looking for %g s whether it "
                 "lives", self._uri, SILENCE_S)  # fmt: skip
        deadline = time.monotonic() + SILENCE_S
        while time.monotonic() < deadline:
            time.sleep(1.0)
            now = self.now()
            if not now:
                return
            if now != first:
                raise ValueError(self.taken())

    def sign(self) -> None:
        """Give a sign of life."""
        self._beats += 1
        self._store.write(OBJECT, json.dumps({**self._me, "beats": self._beats}).encode())

    def beat(self, ended: threading.Event, lost: threading.Event) -> None:
        """Give signs of life until ``ended``; stop the program where another has taken over."""
        while not ended.wait(BEAT_S):
            try:
                if self.is_me():
                    self.sign()
                    continue
                log.error("%s", self.taken())
                lost.set()
                _stop()
                return
            except StorageError as error:
                # The work itself will fail of it, or the store comes back.
                log.warning("no sign of life could be given: %s", error)

    def leave(self) -> None:
        """Let the next program begin at once."""
        try:
            if self.is_me():
                self._store.remove(OBJECT)
        except StorageError as error:
            log.warning("%s; the next program will look for this one", error)


def _stop() -> None:
    """As SIGTERM from outside; the main thread, since a signal to another would not wake it."""
    thread = threading.main_thread().ident
    assert thread is not None
    signal.pthread_kill(thread, signal.SIGTERM)


def _name_of(copy: Path) -> str:
    """A name that a local copy keeps for as long as it lies there."""
    path = copy / ".copy"
    if not path.is_file():
        files.write_text(path, uuid.uuid4().hex)
    return path.read_text(encoding="utf-8")
