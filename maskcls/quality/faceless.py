"""Photos in which no face is found."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from maskcls.data import face_table
from maskcls.progress import OnProgress
from maskcls.quality.findings import Finding


def locate(
    photos: pd.DataFrame,
    detector: str,
    cache: Path,
    threads: int,
    progress: OnProgress,
) -> pd.DataFrame:
    """``Checked.photos`` with the columns of ``face_table.locate``.

    Each side on its own, as a run does, which then finds the boxes in ``cache``. Raises what
    ``face_table.locate`` raises.
    """
    sides = [
        face_table.locate(side, detector, cache, threads=threads, progress=progress)
        for _, side in photos.groupby("side", sort=False)
    ]
    return pd.concat(sides) if sides else photos


def faceless(located: pd.DataFrame) -> list[Finding]:
    """A finding a person, or one for the photos to predict."""
    missed = located[face_table.missed(located)]
    findings = []
    for (side, person), rows in missed.groupby(["side", "person"]):
        of = len(located[(located["side"] == side) & (located["person"] == person)])
        message = f"no face found in {len(rows)} of {of} photos"
        people = (str(person),) if person else ()
        findings.append(Finding("no face", message, people, tuple(rows["key"])))
    return findings
