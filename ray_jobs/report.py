"""python -m ray_jobs.report RUN [RUN ...]: a run's report again, or what is better of several.

With one run, writes report.html in its folder, from that folder and the photos alone. With several,
compares each with the first on the people they have in common, prints the differences with their
95 % intervals and writes comparison.html in the folder of the last.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from maskcls import comparison, finished_run, report
from ray_jobs import console


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ray_jobs.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run.dir of a sweep")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="of a comparison, instead of comparison.html"
    )
    arguments = parser.parse_args(argv)
    if arguments.out is not None and len(arguments.runs) == 1:
        parser.error("--out is for a comparison of several runs; a report goes to its run's folder")
    with console.answering_in_words("report"):
        if len(arguments.runs) == 1:
            print(f"report: {report.write(arguments.runs[0])}")
            return
        runs = [finished_run.read(folder) for folder in arguments.runs]
        path = arguments.out or arguments.runs[-1] / "comparison.html"
        found = comparison.write(path, runs)
        print(comparison.table(found).to_string(index=False))
        for one in found:
            print(one.verdict)
        print(f"comparison: {path}")


if __name__ == "__main__":
    main()
