"""What the GPU check found: a line a check or measure, kept in a file as it goes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from multiprocessing.sharedctypes import SynchronizedArray
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

Found = tuple[str, dict[str, Any]]
"""What a check or measure says, and its figures by name."""

Rows = dict[str, Callable[[], Found]]
"""The checks or measures of a part by name. A check that fails raises."""

PASSED, FAILED, MEASURED, UNMEASURED = "passed", "failed", "measured", "not measured"


class Disagreement(Exception):  # noqa: N818 -- what a check says, not a bug of its own
    """A check found what it should not have."""


class NotHere(Exception):  # noqa: N818 -- no error
    """What a row needs is not on this machine."""


@dataclass(frozen=True)
class Finding:
    """One row. ``text`` is what was found, or why it failed or is missing."""

    part: str
    name: str
    status: str
    text: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Crew:
    """What the processes of a part share. ``ready`` says that a part which starts early waits for
    its turn, ``go`` gives it; ``values`` holds a figure a process."""

    rank: int
    world: int
    ready: Event
    go: Event
    meet: Barrier
    values: SynchronizedArray[float]


def require(holds: bool, text: str) -> None:
    """Raise ``Disagreement`` with the text unless it holds."""
    if not holds:
        raise Disagreement(text)


def work_off(
    part: str, rows: Mapping[str, Callable[[], Found]], done: str, path: Path,
    began: float, ends: float, crew: Crew,
) -> None:  # fmt: skip
    """Do the rows one after another, tell each at once, and stop when time is over. Of several
    processes the first one tells; any other only prints what failed."""
    for name, function in rows.items():
        if time.monotonic() > ends:
            return
        try:
            text, figures = function()
            finding = Finding(part, name, done, text, figures)
        except NotHere as missing:
            finding = Finding(part, name, UNMEASURED, str(missing))
        except Exception as error:
            finding = Finding(part, name, FAILED, _reason(error))
            crew.meet.abort()  # the others would wait for this one
        if crew.rank == 0:
            add(path, finding, began)
        elif finding.status == FAILED:
            print(f"process {crew.rank}: {line(finding)}", flush=True)


def _reason(error: Exception) -> str:
    words = " ".join(str(error).split())
    told = words if isinstance(error, Disagreement) else f"{type(error).__name__}: {words}"
    if isinstance(error, Disagreement) or (trace := error.__traceback__) is None:
        return told[:600]
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return f"{told[:600]} ({Path(code.co_filename).name}:{trace.tb_lineno})"


def add(path: Path, finding: Finding, began: float) -> None:
    """Print a finding and append it to the file."""
    print(f"[{time.monotonic() - began:4.0f} s] {line(finding)}", flush=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(finding)) + "\n")


def line(finding: Finding) -> str:
    return f"{finding.status:>12}  {finding.part}: {finding.name}: {finding.text}"


def read(path: Path) -> list[Finding]:
    """The findings of a file, none where it is missing. A killed process may leave half a line."""
    if not path.exists():
        return []
    found = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(Finding(**json.loads(text)))
        except json.JSONDecodeError:
            continue
    return found


def of(findings: Iterable[Finding], *parts: str) -> list[Finding]:
    return [finding for finding in findings if finding.part in parts]
