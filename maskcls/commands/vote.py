"""`maskcls vote OUT.csv A.csv B.csv ...`: a vote over submission files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from maskcls.scoring.voting import vote_submissions


def main(argv: Sequence[str] | None = None) -> None:
    """Vote over submission files from the command line."""
    parser = argparse.ArgumentParser(prog="maskcls vote")
    parser.add_argument("out", type=Path, metavar="OUT.csv", help="written; must not exist yet")
    parser.add_argument("files", type=Path, nargs="+", metavar="A.csv", help="the best one first")
    arguments = parser.parse_args(argv)
    # The output comes first, so forgetting it would overwrite a submission.
    if arguments.out.exists():
        parser.error(f"{arguments.out} exists already: name a new file for the vote")
    try:
        voted = vote_submissions(arguments.files, out=arguments.out)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"{len(arguments.files)} files voted on {len(voted)} photos: {arguments.out}")
