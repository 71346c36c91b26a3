"""`maskcls vote OUT A B ...`: a vote over submission files, or over finished runs.

    maskcls vote OUT.csv A.csv B.csv        each file has one vote a photo
    maskcls vote OUT RUN_A RUN_B            models of several runs, by their probabilities

The second writes vote.json, and submission.csv where the runs predicted the same photos, into the
new folder OUT. Its scores are on people who had no part in fitting the vote.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from maskcls.scoring.submission import vote_submissions
from maskcls.scoring.voting import ENSEMBLES


def main(argv: Sequence[str] | None = None) -> None:
    """Vote over submission files or runs from the command line."""
    parser = argparse.ArgumentParser(
        prog="maskcls vote",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="written; must not exist yet")
    parser.add_argument("votes", type=Path, nargs="+", metavar="A",
                        help="submission files, best one first, or folders of runs")  # fmt: skip
    parser.add_argument("--ensemble", choices=list(ENSEMBLES), help="of runs; default greedy")
    parser.add_argument("--offsets", choices=["none", "fit"], help="of runs; default none")
    arguments = parser.parse_args(argv)
    # The output comes first, so forgetting it would overwrite a submission.
    if arguments.out.exists():
        parser.error(f"{arguments.out} exists already: name a new file or folder for the vote")
    folders = [path.is_dir() for path in arguments.votes]
    if any(folders) and not all(folders):
        parser.error("expected submission files alone, or folders of runs alone")
    if not any(folders) and (arguments.ensemble or arguments.offsets):
        parser.error("--ensemble and --offsets are for runs: files hold no probabilities")
    try:
        if any(folders):
            offsets = arguments.offsets == "fit"
            _vote_runs(arguments.votes, arguments.ensemble or "greedy", offsets, arguments.out)
        else:
            voted = vote_submissions(arguments.votes, out=arguments.out)
            print(f"{len(arguments.votes)} files voted on {len(voted)} photos: {arguments.out}")
    except (ValueError, OSError) as error:
        parser.error(str(error))


def _vote_runs(folders: Sequence[Path], name: str, offsets: bool, out: Path) -> None:
    from maskcls.reports import run_vote  # seconds of imports that a vote over files can do without

    runs = run_vote.read(folders)
    vote = run_vote.fit(runs, name, offsets=offsets)
    answered = run_vote.write(runs, vote, name, out)
    print("\n".join(run_vote.lines(vote)))
    print(f"\nvote: {out / 'vote.json'}")
    if not answered:
        print("no answers: not every run has predicted photos (its data had no eval folder)")
    elif (out / "submission.csv").is_file():
        print(f"submission: {out / 'submission.csv'}")
