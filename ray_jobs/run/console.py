"""What the user reads: one line an epoch or job, and the same lines, dated, in the run's log."""

from __future__ import annotations

import errno
import gc
import logging
import shlex
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import ray.exceptions

from maskcls.config.schema import Config
from maskcls.learning import tracking
from maskcls.progress import CLEAR, Progress, duration, silence
from maskcls.storage.place import Place

if TYPE_CHECKING:
    from ray_jobs.lanes.records import Event


log = logging.getLogger(__name__)
LOGGERS = ("maskcls", "ray_jobs", "__main__")
INTERRUPTED = "Interrupted: what is finished is kept; the same command goes on from there:\n  %s"

REASON = 160
"""Characters of a reason in the line of a job that failed."""

_uris: dict[str, str] = {}


def show_as_uri(place: Place) -> None:
    """From here on, messages name the local copy of a folder on an object store by its URI."""
    if place.uri:
        _uris[str(place.local)] = place.uri


def name_by_uri(text: str) -> str:
    """``text`` with local copies named by the URIs of what they are copies of."""
    for local, uri in _uris.items():
        text = text.replace(local, uri)
    return text


def _filter(record: logging.LogRecord) -> bool:
    record.msg, record.args = name_by_uri(record.getMessage()), ()
    return True


class _Terminal(logging.StreamHandler[TextIO]):
    """Lines for who looks on. Where nobody does any more (`| head`, a closed terminal), a run
    goes on without them. A line takes the place of how far the work was."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self.stream.isatty():
                self.stream.write(CLEAR)
        except (OSError, ValueError):
            self.handleError(record)
        else:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.EIO):
            silence(self.stream)
        else:
            super().handleError(record)


def setup(log_file: Path | None = None) -> None:
    """Send the lines of both packages to the terminal and, dated, to ``log_file``, which also gets
    what is too long for a terminal, such as the traceback of a lane that has ended."""
    handlers: list[logging.Handler] = [_Terminal(sys.stdout)]
    handlers[0].setLevel(logging.INFO)
    handlers[0].setFormatter(logging.Formatter("%(message)s"))
    if log_file is not None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(log_file, encoding="utf-8"))
        handlers[1].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for handler in handlers:
        handler.addFilter(_filter)
    for room in LOGGERS:
        logger = logging.getLogger(room)
        logger.setLevel(logging.DEBUG)
        logger.handlers = handlers
        logger.propagate = False


class JobLines:
    """Lines about a run's jobs, as the events come, and how far the first epoch is, and before
    that how long workers and first batches take: later each epoch has its line.

    ``trains`` is False where jobs only predict: then how far all of them are. ``time_left`` tells
    about how many seconds the run lasts yet, where that is known.
    """

    def __init__(
        self,
        total: int,
        done: int = 0,
        trains: bool = True,
        time_left: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._time_left = time_left
        self._total, self._done, self._trains = total, done, trains
        self._left = total - done
        self._steps: dict[str, tuple[int, int]] = {}
        self._line: Progress | None = Progress("starting workers")

    def __call__(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.kind == "started" and self._line and not self._steps:
                self._line = Progress("first batches")
            elif event.kind == "steps":
                if not self._steps:
                    self._line = Progress("steps of this epoch" if self._trains else "predicting")
                self._steps[event.job] = event.values["done"], event.values["total"]
            elif event.kind == "epoch":
                self._line = None
            self._tell(event)
        if self._line and not self._steps:
            self._line.wait()
        elif self._line and any(event.kind == "steps" for event in events):
            done, total = (sum(numbers) for numbers in zip(*self._steps.values(), strict=True))
            if not self._trains:  # those that have not begun have as many photos
                total = total * self._left // len(self._steps)
            self._line(done, total)

    def _tell(self, event: Event) -> None:
        values = event.values
        if event.kind == "started" and values["attempt"] > 1:
            log.info("%s  starts again (attempt %d)", event.job, values["attempt"])
        elif event.kind == "started":
            what = "first batches" if self._trains else "predicting"
            if self._trains and event.place and (event.place.local / "resume.pt").is_file():
                what = "goes on from its last epoch"
            log.info("%s  starts in lane %s: %s", event.job, event.lane, what)
        elif event.kind == "lost":
            log.info("%s  attempt %d was lost: %s", event.job, values["attempt"], values["reason"])
        elif event.kind == "epoch":
            left_s = self._time_left()
            about = f"; about {duration(left_s)} left" if left_s else ""
            log.info("%s%s", tracking.console_line(event.job, values), about)
        elif event.kind in ("done", "failed", "cancelled"):
            self._done += 1
            # The whole reason follows at the end, once for all jobs that have it.
            result = textwrap.shorten(values.get("reason", event.kind), REASON, placeholder=" ...")
            if event.kind == "done" and not self._trains:
                result = "its photos are predicted"
            elif event.kind == "done":
                # The line of the epoch had the score of the plain photo.
                views = " + ".join(values["views"])
                result = (
                    f"macro F1 {values['scores']['macro_f1']:.3f} in epoch {values['best_epoch']}, "
                    f"{'' if views == 'plain' else f'{views} together, '}{values['seconds']:.1f} s"
                )
            log.info("[%d/%d] %s  %s: %s", self._done, self._total, event.job, event.kind, result)


@contextmanager
def report_errors(program: str, config: Config | None = None) -> Iterator[None]:
    """End the program with a sentence instead of a traceback for what a user can mend.

    With ``config``, log lines are printed from here on, and name its folders as it does.
    """
    if config is not None:
        setup()
        show_as_uri(config.place(config.run.dir))
        show_as_uri(config.place(config.data.root))
    try:
        yield
        sys.stdout.flush()  # here, not when the interpreter ends and prints what it meets
    except BrokenPipeError:  # `| head` has seen enough
        silence(sys.stdout)
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        # By Ctrl-C, or by SIGTERM, which `ray job stop` sends; see ``cluster.connect``.
        log.info(INTERRUPTED, shlex.join(["python", *sys.orig_argv[1:]]))
        sys.exit(128 + signal.SIGINT)
    except ray.exceptions.RayError as error:
        lost = f"the cluster was lost ({type(error).__name__}); what is finished is kept"
        print(f"{program}: {lost}, the same command goes on from there", file=sys.stderr)
        sys.exit(1)
    except (ValueError, OSError, RuntimeError) as error:
        log.debug("refused", exc_info=True)
        print(f"{program}: {name_by_uri(str(error))}", file=sys.stderr)
        sys.exit(1)
    finally:
        # The interpreter would look through a million objects of PyTorch's before it ends: seconds.
        gc.freeze()
