"""python -m ray_jobs.status RUN: how far a run is, from any machine that sees its folder.

On a terminal the table follows the run until that ends or Ctrl-C; anywhere else, and with --once,
it is printed once. Nothing is asked of Ray, and it also says that a run has ended or was killed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from maskcls.config.load import with_flags
from maskcls.progress import duration
from maskcls.storage.place import Place
from maskcls.storage.remote import StorageError
from ray_jobs.run import arguments, lease
from ray_jobs.run import state as run_state
from ray_jobs.run.lease import Liveness
from ray_jobs.run.state import JobState, RunState

LOOK_S, LOOK_AT_STORE_S = 1.0, 10.0
"""Seconds between two looks at the file; an object store gets it every ``SEND_S``."""

PLAIN_WIDTH = 160
"""Columns of the table where there is no terminal."""

ORDER = ("running", "failed", "waiting", "stopped", "done")
STYLES = {"running": "bold", "failed": "red", "interrupted": "yellow", "done": "green"}


def main(argv: Sequence[str] | None = None) -> None:
    config, flags = with_flags(
        __doc__ or "", {"once": "print the table once, also on a terminal"}, arguments.words(argv)
    )
    place = config.place(config.run.dir)
    screen = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)
    try:
        if screen.is_terminal and "once" not in flags:
            follow(place, screen)
        else:
            screen.print(look(place)[0])
    except (ValueError, OSError, StorageError) as error:
        sys.exit(f"status: {error}")  # not as other verbs, which import Ray for that: seconds


def follow(place: Place, screen: Console) -> None:
    """Show the table until the run ends, in place."""
    table, alive = look(place)
    with Live(table, console=screen, auto_refresh=False) as live:
        try:
            while alive:
                time.sleep(LOOK_AT_STORE_S if place.uri else LOOK_S)
                table, alive = look(place)
                live.update(table, refresh=True)
        except KeyboardInterrupt:
            return  # the last table stays


def look(place: Place) -> tuple[RenderableType, bool]:
    """The table of the run in ``place``, and whether there may be news.

    Raises FileNotFoundError where there is no run, ValueError where its state is damaged and
    StorageError where its object store refuses it.
    """
    place.fetch(run_state.FILE)
    state = run_state.read(place.local)
    now = time.time()
    liveness: Liveness = "gone" if state.ended else lease.liveness(place, now)
    return render(place.uri or str(place.local), state, liveness, now), liveness == "alive"


def render(folder: str, state: RunState, liveness: Liveness, now: float) -> RenderableType:
    """A run as sentences and a table: running jobs first, those that are done last."""
    left = run_state.time_left(state, now)
    lines = [f"{folder}: {state.program}, {_phase(state, liveness, now)}"]
    killed = liveness == "gone" and not state.ended
    refused = state.ended == "failed" and not state.jobs  # before any job: nothing to go on with
    if killed or (state.ended in ("failed", "interrupted") and not refused):
        lines.append("The same command goes on from there.")
    counts = [f"{number} {_word(name, liveness)}"
              for name, number in state.counts().items() if number]  # fmt: skip
    if counts:
        about = f"; about {duration(left.total)} left" if left.total and liveness == "alive" else ""
        lines.append(", ".join(counts) + about)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("job", "state", "attempt", "epoch", "macro F1", "left", ""):
        table.add_column(heading, justify="right" if heading in ("attempt", "epoch") else "left")
    for job in sorted(state.jobs, key=lambda job: ORDER.index(job.state)):
        table.add_row(*_row(job, left.jobs[job.name], liveness))
    parts: list[RenderableType] = [Text(line) for line in lines]
    return Group(*parts, table) if state.jobs else Group(*parts)


def _phase(state: RunState, liveness: Liveness, now: float) -> str:
    took = duration(max(0.0, state.written - state.began))
    if state.ended == "done":
        return f"done after {took}"
    if state.ended == "interrupted":
        return f"interrupted after {took}"
    if state.ended == "failed":
        # Only what was wrong as a whole: each job has its own reason in the table.
        reason = (state.reason or "").partition("\n")[0]
        return f"failed after {took}: {reason.rstrip(':')}"
    ago = f"last news {duration(max(0.0, now - state.written))} ago"
    if liveness == "gone":
        return f"its program was killed while {state.phase}, {ago}"
    if liveness == "silent":
        return (
            f"{state.phase}, {ago}: the program has ended without saying so, or its machine cannot "
            "write here"
        )
    waits = f", waiting for {state.waits_for}" if state.waits_for else ""
    return f"{state.phase}{waits}, began {duration(max(0.0, now - state.began))} ago, {ago}"


def _word(state: str, liveness: Liveness) -> str:
    """What a job's state means: none runs any more where the program has ended."""
    return "interrupted" if state == "running" and liveness != "alive" else state


def _row(job: JobState, left: float | None, liveness: Liveness) -> list[Text | str]:
    word = _word(job.state, liveness)
    return [
        Text(job.name),
        Text(word, STYLES.get(word, "")),
        str(job.attempt or ""),
        f"{job.epoch}/{job.epochs}",
        "" if job.score is None else f"{job.score:.3f}",
        duration(left) if left is not None and liveness == "alive" else "",
        Text(job.reason or "", "dim"),
    ]


if __name__ == "__main__":
    main()
