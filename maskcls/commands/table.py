"""`maskcls table SET FOLDER --out photos.csv`: a public set of faces as a table of photos."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from maskcls.data.public_sets import SETS, table_of
from maskcls.storage import files
from maskcls.storage.uri import on_this_machine


def main(argv: Sequence[str] | None = None) -> None:
    """Write a table from the command line."""
    parser = argparse.ArgumentParser(
        prog="maskcls table",
        description="A public set of faces, as it is published, as a table for data.table. Prints "
        "the licence of the set and what to cite.",
    )
    parser.add_argument("set", choices=SETS, help="which set")
    parser.add_argument("folder", type=on_this_machine, metavar="FOLDER", help="where it lies")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="TABLE", help="to write: .csv or .parquet"
    )
    arguments = parser.parse_args(argv)
    out: Path = arguments.out.absolute()
    if out.suffix.lower() not in (".csv", ".parquet"):
        parser.error(f"--out ends in .csv or .parquet, got {out.name}")
    try:
        table, notes = table_of(arguments.set, arguments.folder)
        # A table beside its photos, or above them, may be moved with them.
        start = f"{out.parent}/"
        if table["path"].str.startswith(start).all():
            table["path"] = table["path"].str.removeprefix(start)
        files.write_table(out, table)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    for note in notes:
        print(note)
    known = SETS[arguments.set]
    print(f"licence of {known.title}: {known.licence}")
    print(f"please cite: {known.citation}")
    print(f"{len(table):,} photos: {out}")
    print(f"to train on them: data.table={out}")
