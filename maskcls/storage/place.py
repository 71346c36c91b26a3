"""A folder to work in, and where it lives: on this machine or on an object store."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from maskcls.progress import OnProgress
from maskcls.storage import files
from maskcls.storage.remote import (
    LOCK,
    Store,
    Wanted,
    file_state,
    in_threads,
    is_copy,
    local_names,
    prune,
    with_retries,
)


@dataclass(frozen=True)
class Place:
    """A folder: ``local`` is where it is worked on, ``uri`` where it lives, if on a store.

    All methods do nothing where there is no ``uri``. They raise StorageError, after some tries
    where that may help, for what the store refuses or does not answer.
    """

    local: Path
    uri: str | None = None

    @staticmethod
    def of(location: Path | str, cache: Path) -> Place:
        """The place that a path or a URI names; local copies are kept in ``cache/remote``."""
        if isinstance(location, Path):
            return Place(location)
        digest = hashlib.blake2b(location.encode(), digest_size=8).hexdigest()
        return Place(cache / "remote" / digest / location.rsplit("/", 1)[1], location)

    def __truediv__(self, name: str) -> Place:
        return Place(self.local / name, self.uri and f"{self.uri}/{name}")

    def pull(
        self,
        wanted: Wanted = lambda name: True,
        progress: OnProgress = lambda done, total: None,
    ) -> None:
        """Make the local copy what the store has: fetch what differs, remove what is not there.

        Files that are not ``wanted`` are not fetched, and old copies of them are removed. Nothing
        hidden (``.name``) is touched. ``progress`` is called with
        ``(done, total)`` after each file.
        """
        if self.uri is None:
            return
        store = Store(self.uri)
        self.local.mkdir(parents=True, exist_ok=True)
        with files.lock(self.local / LOCK, files.LOCK_WAIT_S, "fetching the same folder"):
            there = with_retries(store.listing)
            differ = [
                name for name, state in there.items() if file_state(self.local / name) != state
            ]
            here = list(local_names(self.local))
            for name in [name for name in here if name not in there] + differ:
                if name not in there or not wanted(name):
                    (self.local / name).unlink(missing_ok=True)
            prune(self.local)
            in_threads(
                lambda name: store.fetch(name, self.local / name, there[name]),
                [name for name in differ if wanted(name)],
                progress,
            )

    def fetch(self, name: str) -> None:
        """Bring the local copy of one file up to date."""
        if self.uri is None:
            return
        store = Store(self.uri)
        self.local.mkdir(parents=True, exist_ok=True)
        with files.lock(self.local / LOCK, files.LOCK_WAIT_S, "fetching the same folder"):
            state = with_retries(lambda: store.state(name))
            if file_state(self.local / name) != state:
                store.fetch(name, self.local / name, state)

    def push(
        self,
        wanted: Wanted = lambda name: True,
        *,
        last: Sequence[str] = (),
        gone: Collection[str] = (),
    ) -> None:
        """Send the ``wanted`` files that differ from the store's, then remove those ``gone``.

        Files named in ``last`` go when all others are there, in that order: whoever finds them
        finds the rest.
        """
        if self.uri is None:
            return
        store = Store(self.uri)
        there = with_retries(store.listing)
        differ = [
            name
            for name in local_names(self.local)
            if wanted(name) and not is_copy(self.local / name, there.get(name))
        ]
        for names in ([n for n in differ if n not in last], *([n] for n in last if n in differ)):
            in_threads(lambda name: store.send(self.local / name, name), names)
        for name in there.keys() & set(gone):
            store.remove(name)
