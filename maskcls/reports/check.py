"""Files of a data set's check: findings.csv and the page."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from maskcls.quality.findings import KINDS, Checked
from maskcls.reports import check_page
from maskcls.storage import files


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
    with files.replacing(folder / "findings.csv") as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    path = folder / "index.html"
    files.write_text(path, check_page.render(checked, KINDS))
    return path
