"""`maskcls eda DATA --out FOLDER`: sizes, colours and counts of a data set, as one page."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from maskcls.config.arguments import positive_int
from maskcls.data import source_arguments
from maskcls.data.label_fixes import load_fixes
from maskcls.progress import Progress
from maskcls.quality.eda import explore
from maskcls.reports.eda import write


def main(argv: Sequence[str] | None = None) -> None:
    """Explore a data set from the command line."""
    parser = argparse.ArgumentParser(
        prog="maskcls eda",
        description="Sizes, colours and counts of a data set, as one page.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    source_arguments.add(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="to write to")
    parser.add_argument("--fixes", type=Path, metavar="YAML", help="known label errors")
    parser.add_argument(
        "--threads", type=positive_int, default=os.cpu_count(), help="that decode photos"
    )
    arguments = parser.parse_args(argv)
    try:
        fixes = load_fixes(arguments.fixes) if arguments.fixes else None
        findings = explore(
            source_arguments.source(arguments),
            fixes=fixes,
            threads=arguments.threads,
            progress=Progress("photos read"),
        )
        page = write(arguments.out, findings)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    read = sum(pixels.sizes.total() for pixels in findings.pixels.values())
    total = read + sum(len(pixels.unreadable) for pixels in findings.pixels.values())
    print(f"{read:,} of {total:,} photos read, see {page}")
