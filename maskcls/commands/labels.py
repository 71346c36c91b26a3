"""`maskcls labels RUN`: labels that a finished run doubts, as a table and a page to decide on."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from maskcls.config.arguments import positive_int
from maskcls.reports.label_errors import find, write
from maskcls.storage.uri import on_this_machine


def main(argv: Sequence[str] | None = None) -> None:
    """Find likely label errors from the command line."""
    parser = argparse.ArgumentParser(
        prog="maskcls labels",
        description="Which labels of a finished run are likely wrong: label_errors.csv, and "
        "label_errors.html to decide on them and export label fixes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "run", type=on_this_machine, metavar="RUN", help="run.dir of a finished sweep"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="to write to, instead of RUN")
    parser.add_argument(
        "--top", type=positive_int, default=100, help="labels of each task on the page"
    )
    parser.add_argument(
        "--data", type=on_this_machine, metavar="DATA_ROOT", help="where the photos are now"
    )
    parser.add_argument("--fixes", type=Path, metavar="YAML", help="where the run's fixes are now")
    arguments = parser.parse_args(argv)
    try:
        suspects = find(arguments.run, data=arguments.data, fixes=arguments.fixes)
        table, page = write(arguments.out or arguments.run, suspects, top=arguments.top)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    for task, rows in suspects.table.groupby("task", sort=False):
        flagged = rows["flagged"].sum()
        print(f"{task}: models are confident of another class for {flagged:,} of {len(rows):,}")
    print(f"all labels: {table}\nto decide:  {page}")
