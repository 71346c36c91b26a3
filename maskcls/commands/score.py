"""`maskcls score SUBMISSION.csv ANSWERS.csv`: the scores of a submission."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from maskcls.scoring.submission import score


def main(argv: Sequence[str] | None = None) -> None:
    """Score a submission from the command line."""
    parser = argparse.ArgumentParser(prog="maskcls score")
    parser.add_argument("submission", type=Path, metavar="SUBMISSION.csv")
    parser.add_argument("answers", type=Path, metavar="ANSWERS.csv")
    arguments = parser.parse_args(argv)
    try:
        by_head = score(arguments.submission, arguments.answers)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(pd.DataFrame(by_head).T.to_string(float_format="{:.4f}".format))
