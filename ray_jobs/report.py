"""python -m ray_jobs.report RUN [RUN ...]: write the report of a run again, or compare runs.

With one run, writes report.html in its folder; it needs only that folder and the photos. With
several, compares each with the first on the people that both have, prints the differences with
their 95 % intervals, and writes comparison.html in the folder of the last run.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from maskcls.config.checks import lost_with_the_job
from maskcls.config.schema import Config
from maskcls.data import manifest
from maskcls.reports import comparison, finished_run
from maskcls.reports import run as report
from maskcls.storage import uri
from maskcls.storage.place import Place
from ray_jobs.run import console
from ray_jobs.run.folder import RunFolder, reading


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ray_jobs.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run.dir of a sweep")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write the comparison")
    arguments = parser.parse_args(argv)
    if arguments.out is not None and len(arguments.runs) == 1:
        parser.error("--out is for a comparison of several runs; a report goes to its run's folder")
    for path in [*arguments.runs, *([str(arguments.out)] if arguments.out else [])]:
        if problem := lost_with_the_job(path):
            parser.error(problem)
    with console.report_errors("report"), ExitStack() as stack:
        places = [stack.enter_context(_fetched(run)) for run in arguments.runs]
        if len(places) == 1:
            _fetch_photos(places[0])
            print(console.name_by_uri(f"report: {report.write(places[0].local)}"))
            places[0].push(lambda name: name == "report.html")
            return
        runs = [finished_run.read(place.local) for place in places]
        path = arguments.out or places[-1].local / "comparison.html"
        found = comparison.write(path, runs)
        print(comparison.table(found).to_string(index=False))
        for one in found:
            print(one.verdict)
        print(console.name_by_uri(f"comparison: {path}"))
        places[-1].push(lambda name: name == "comparison.html")


@contextmanager
def _fetched(run: str) -> Iterator[Place]:
    """The folder of a run; of one on an object store, a fresh local copy, held for this program."""
    if not uri.is_uri(run):
        yield Place(Path(run))
        return
    with reading(Config.model_validate({"run": {"dir": uri.check_uri(run)}})) as folder:
        console.show_as_uri(folder.place)
        yield folder.place


def _fetch_photos(run: Place) -> None:
    """Photos on an object store, which this machine may not have."""
    if run.uri is not None:
        config = RunFolder(run.local).config()
        root = config.place(config.data.root)
        (root / "train").pull(manifest.of_variants(config.data.variants))


if __name__ == "__main__":
    main()
