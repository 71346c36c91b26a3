"""``attempts.log`` in the folder of a job: why its workers were lost, and their tracebacks.

Ray's own logs have them too, on the node where they happened and for as long as it lives.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import ray

from maskcls.storage import files
from maskcls.storage.place import Place
from maskcls.storage.remote import StorageError
from ray_jobs.lanes.records import Event

FILE = "attempts.log"
log = logging.getLogger(__name__)


class AttemptLog:
    """Writes down what the queue tells of attempts that failed; a job without any has no file."""

    def __init__(self, queue: Any) -> None:
        self._queue, self._seen = queue, 0
        self._texts: dict[Place, str] = {}

    def update(self) -> None:
        """Write what is new."""
        self._seen, events = ray.get(self._queue.events.remote(self._seen, wait=False))
        for event in events:
            if event.kind in ("lost", "failed") and event.place is not None:
                try:
                    self._write(event.place, entry_of(event))
                except (OSError, StorageError) as error:  # no reason to end a run
                    log.warning("%s  %s: %s", event.job, FILE, error)

    def _write(self, place: Place, entry: str) -> None:
        path = place.local / FILE
        if place not in self._texts:
            place.local.mkdir(parents=True, exist_ok=True)
            with suppress(StorageError):  # it has none so far
                place.fetch(FILE)
            self._texts[place] = path.read_text(encoding="utf-8") if path.is_file() else ""
        # Whole, not appended to: a worker on this node removes what the store does not have.
        self._texts[place] += entry
        files.write_text(path, self._texts[place])
        place.push(lambda name: name == FILE)


def entry_of(event: Event) -> str:
    """One attempt that failed: when, which, where and why, then the traceback."""
    values = event.values
    which = f"attempt {values['attempt']}" if "attempt" in values else "failed"
    where = f" on lane {event.lane}" if event.lane is not None else ""
    first = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC  {which}{where}: {values['reason']}\n"
    trace = values.get("traceback", "").rstrip()
    return first + "".join(f"    {line}\n" for line in trace.splitlines())
