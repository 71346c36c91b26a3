"""`maskcls predict MODEL PHOTOS...`: what an ensemble says of photos, without Ray."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from maskcls.config.arguments import positive_int
from maskcls.data.status import OK
from maskcls.inference import model as inference
from maskcls.inference.inputs import sources
from maskcls.inference.loading import load
from maskcls.progress import Progress
from maskcls.storage import files
from maskcls.storage.uri import on_this_machine

SHOWN = 20
"""Rows that are printed where no file is asked for."""


def main(argv: Sequence[str] | None = None) -> int:
    """Predict from the command line; 1 where no photo at all could be read."""
    parser = argparse.ArgumentParser(
        prog="maskcls predict",
        description="Class, mask, gender and age of each photo, with probabilities: a table, "
        "printed or written. Photos that cannot be read are rows with the reason.",
    )
    parser.add_argument(
        "model", type=on_this_machine, metavar="MODEL", help="a finished run, a job, or a bundle"
    )
    parser.add_argument(
        "photos", type=on_this_machine, nargs="+", metavar="PHOTOS", help="photos and folders"
    )
    parser.add_argument("--out", type=Path, metavar="TABLE", help="a .csv or .parquet to write")
    parser.add_argument("--batch-size", type=positive_int, default=inference.BATCH, metavar="N",
                        help="photos that go through the models together")  # fmt: skip
    parser.add_argument("--boxes", action="store_true",
                        help="look for faces also where the models need none")  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--threads", type=positive_int, help="CPU threads; default: all")
    given = parser.parse_args(argv)
    if given.out is not None and given.out.suffix not in (".csv", ".parquet"):
        parser.error(f"--out {given.out}: a name that ends in .csv or .parquet is expected")
    try:
        if given.out is not None and not _is_free(given.out):
            parser.error(f"--out {given.out}: there is another file of that name; choose a new one")
        found = list(sources(given.photos))
        model = load(given.model, device=given.device, threads=given.threads)
        progress = Progress("photos predicted")
        table = model.predict(
            given.photos,
            batch_size=given.batch_size,
            threads=given.threads,
            boxes=given.boxes,
            progress=lambda done: progress(done, len(found)),
        )
        if given.out is not None:
            files.write_table(given.out, table, float_format="%.6f")
    except (ValueError, OSError, ModuleNotFoundError) as error:
        parser.error(str(error))
    _show(table, given.out)
    return int(not (table["status"] == OK).any())


def _is_free(out: Path) -> bool:
    """Whether there is no file, or one that an earlier prediction wrote: it begins with its first
    column. Parquet tables are not looked into."""
    if not out.exists() or out.suffix == ".parquet":
        return True
    with out.open("rb") as file:
        return file.readline().startswith(b"photo,")


def _show(table: pd.DataFrame, out: Path | None) -> None:
    bad = table[table["status"] != OK]
    if out is None:
        chosen = [name for name in ("ans", "mask", "gender", "age") if name in table]
        print(table[["photo", *chosen, "status"]].head(SHOWN).to_string(index=False, na_rep="-"))
        if len(table) > SHOWN:
            print(f"and {len(table) - SHOWN:,} more; --out TABLE.csv writes all with probabilities")
        return
    print(f"{len(table):,} photos, {len(bad):,} that cannot be read: {out}")
    for photo, reason in bad[["photo", "status"]].head(SHOWN).itertuples(index=False):
        print(f"  {photo}: {reason}", file=sys.stderr)
