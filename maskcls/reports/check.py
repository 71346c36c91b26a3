"""Files of a data set's check: findings.csv, and a page with photos of what the findings say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pandas as pd

from maskcls.data.label_fixes import STEMS
from maskcls.data.status import OK
from maskcls.quality.findings import KINDS, Checked, Finding
from maskcls.reports import page, seen
from maskcls.storage import files

SHOWN: Final = 30
"""Findings of a kind on the page; findings.csv has them all."""

PHOTOS: Final = 14
"""Photos of a finding on the page."""

_ORDER: Final = {stem: place for place, stem in enumerate(STEMS)}


def write(folder: Path, checked: Checked) -> Path:
    """Write ``findings.csv`` and ``index.html`` to ``folder``; return the path of the page.

    Raises OSError naming the file that cannot be written.
    """
    table = pd.DataFrame(
        [
            {
                "level": KINDS[finding.kind].level,
                "kind": finding.kind,
                "people": " ".join(finding.people),
                "photos": ";".join(finding.photos),
                "score": "" if finding.score is None else f"{finding.score:.3f}",
                "message": finding.message,
            }
            for finding in checked.findings
        ],
        columns=["level", "kind", "people", "photos", "score", "message"],
    )
    files.write_table(folder / "findings.csv", table)
    path = folder / "index.html"
    files.write_text(path, render(checked))
    return path


def render(checked: Checked) -> str:
    """The whole page. Photos that it shows are decoded again, at a small size."""
    photos = checked.photos.set_index("key").to_dict("index")
    sides = checked.photos["side"].value_counts()
    people = checked.photos.loc[checked.photos["side"] == "train", "person"].nunique()
    by_kind = {kind: [f for f in checked.findings if f.kind == kind] for kind in KINDS}
    return page.render(
        "check.html.j2",
        name=checked.name,
        facts=[
            f"{people:,} people",
            f"{sides.get('train', 0):,} photos to train on",
            f"{sides.get('eval', 0):,} to predict",
        ],
        stops=checked.would_stop,
        views=seen.views(checked.photos),
        found=[
            {
                "name": kind,
                "about": KINDS[kind],
                "count": len(findings),
                "pictured": any(finding.photos for finding in findings),
                "shown": [_row_of(finding, photos) for finding in findings[:SHOWN]],
            }
            for kind, findings in by_kind.items()
            if findings
        ],
    )


def _row_of(finding: Finding, photos: Mapping[Any, Mapping[Any, str]]) -> dict[str, Any]:
    """A finding with its pictures, or the paths of photos that cannot be shown."""
    keys = list(finding.photos)
    unreadable = [key for key in keys if photos[key]["status"] != OK]
    if len(unreadable) == len(keys):
        pictured: list[str] = []
    elif finding.kind == "another person":  # The others are what it is unlike.
        mine = [key for key in photos if photos[key]["person"] == finding.people[0]]
        pictured = sorted(mine, key=lambda key: (_ORDER[photos[key]["stem"]], key))
    else:
        pictured = keys
    return {
        "people": ", ".join(finding.people[:PHOTOS])
        + (" …" if len(finding.people) > PHOTOS else ""),
        "message": finding.message,
        "paths": [] if pictured else keys,
        "photos": [
            {
                "key": key,
                "odd": key in keys and len(pictured) > len(keys),
                "person": photos[key]["person"] if len(finding.people) > 1 else "",
                "name": (name := page.plain(Path(key).stem)),
                "picture": page.thumbnail(
                    photos[key]["path"], f"{photos[key]['person']} {name}".strip(), 112
                ),
            }
            for key in pictured[:PHOTOS]
        ],
        "more": max(0, len(pictured) - PHOTOS),
    }
