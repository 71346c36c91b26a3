"""`maskcls check DATA --out FOLDER`: what is wrong with a data set, before training on it.

Ends with status 1 where a run with the same settings would stop, and 0 where it would not.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from maskcls.config.arguments import of_key, positive_int
from maskcls.config.schema import Data, Folds
from maskcls.data import source_arguments
from maskcls.data.label_fixes import load_fixes
from maskcls.progress import Progress
from maskcls.quality import faceless
from maskcls.quality.checks import check
from maskcls.quality.findings import KINDS, Checked
from maskcls.reports.check import write


def main(argv: Sequence[str] | None = None) -> int:
    """Check a data set from the command line; the status of the program."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    faces = None
    if arguments.faces:
        faces = functools.partial(
            faceless.locate, detector=arguments.faces, cache=arguments.cache,
            threads=arguments.threads, progress=Progress("faces looked for", always=True),
        )  # fmt: skip
    try:
        checked = check(
            source_arguments.source(arguments, arguments.variants),
            fixes=load_fixes(arguments.fixes) if arguments.fixes else None,
            folds=arguments.folds,
            max_bad_share=arguments.max_bad_share,
            threads=arguments.threads,
            progress=Progress("photos checked", always=True),
            faces=faces,
        )
        page = write(arguments.out, checked)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    _print_findings(checked)
    print(f"{len(checked.photos):,} photos checked, see {page}")
    return int(checked.would_stop)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="maskcls check",
        description="What is wrong with a data set: a page with thumbnails and findings.csv. "
        "Status 1 where a run would stop, else 0.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    source_arguments.add(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="to write to")
    parser.add_argument("--fixes", type=Path, metavar="YAML", help="known label errors")
    parser.add_argument(
        "--variants", nargs="+", choices=["original", "rembg"], default=["original"],
        help="of the photos to train on, as in data.variants",
    )  # fmt: skip
    parser.add_argument(
        "--folds", type=of_key(Folds, "count"), default=Folds().count, help="folds.count"
    )
    parser.add_argument(
        "--max-bad-share", type=of_key(Data, "max_bad_share"), default=Data().max_bad_share,
        metavar="SHARE", help="data.max_bad_share",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=positive_int, default=os.cpu_count(), help="that decode photos"
    )
    parser.add_argument(
        "--faces", nargs="?", const="centerface", metavar="DETECTOR",
        help="also look for faces, and show what image.crop and image.background make of some "
        "photos; with a detector other than centerface as in image.detector",
    )  # fmt: skip
    parser.add_argument(
        "--cache", type=Path, default=Data().cache, help="data.cache, which keeps where faces are"
    )
    return parser


def _examples(checked: Checked, kind: str) -> str:
    """The first photos of a kind of finding, where it has any."""
    found = [finding.photos[0] for finding in checked.findings
             if finding.kind == kind and finding.photos]  # fmt: skip
    return f" ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''})" if found else ""


def _print_findings(checked: Checked) -> None:
    counts = Counter(finding.kind for finding in checked.findings)
    for kind, (level, title, _) in KINDS.items():
        if counts[kind]:
            print(f"{level:8} {title}: {counts[kind]:,}{_examples(checked, kind)}")
    for finding in checked.findings:
        if KINDS[finding.kind].level == "error":
            about = finding.photos[0] + ": " if finding.photos else ""
            print(f"error    {about}{finding.message}", file=sys.stderr)
