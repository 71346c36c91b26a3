"""The table of `make bench`: a row a measure, a ratio a round, and where it should be."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One measure. ``ratios`` holds one figure a round, all taken side by side with the baseline.

    ``must`` and ``aim`` are bounds on the median: from below, or from above where the measure is
    ``at_most``. None where no bound was set.
    """

    measure: str
    baseline: str
    ratios: list[float] = field(default_factory=list)
    must: float | None = None
    aim: float | None = None
    at_most: bool = False
    note: str = ""

    @property
    def verdict(self) -> str:
        if not self.ratios:
            return "not measured"
        value = statistics.median(self.ratios)
        for bound, word in ((self.aim, "aim reached"), (self.must, "reached")):
            if bound is not None and (value <= bound if self.at_most else value >= bound):
                return word
        return "missed" if self.must is not None else ""


def add(path: Path | None, rows: Iterable[Row]) -> None:
    """Print rows, and append them to ``path`` for ``benchmarks.bench``."""
    for row in rows:
        print(line(row), flush=True)
        if path:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row)) + "\n")


def read(path: Path) -> list[Row]:
    return [Row(**json.loads(text)) for text in path.read_text(encoding="utf-8").splitlines()]


def line(row: Row) -> str:
    """The row in Markdown."""
    value = spread = ""
    if row.ratios:
        value = f"**{statistics.median(row.ratios):.2f}**"
        if len(row.ratios) > 1:
            spread = f"{min(row.ratios):.2f} to {max(row.ratios):.2f} ({len(row.ratios)} runs)"
    sign = "≤ " if row.at_most else ""
    bounds = [f"{sign}{bound:g}" if bound is not None else "" for bound in (row.must, row.aim)]
    cells = (row.measure, row.baseline, value, spread, *bounds, row.verdict, row.note)
    return "| " + " | ".join(cells) + " |"


HEADER = (
    "| measure | baseline = 1 | median | spread | must | aim | | note |\n"
    "|---|---|---|---|---|---|---|---|"
)
