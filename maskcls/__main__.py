"""maskcls: look at data, judge labels, vote, score. Nothing here needs Ray.

    maskcls eda DATA --out FOLDER         sizes, colours and counts of a data set
    maskcls check DATA --out FOLDER       what is wrong with a data set, before training
    maskcls labels RUN                    labels that a finished run doubts, to accept or reject
    maskcls table SET FOLDER --out CSV    a public set of faces as a table of photos
    maskcls vote OUT A B ...              a vote over submission files, or over finished runs
    maskcls score SUBMISSION ANSWERS      scores of a submission
    maskcls preview OUT.png PHOTO ...     what each augmentation does to photos
    maskcls predict MODEL PHOTOS ...      what a run, one of its models or a bundle says of photos
    maskcls export RUN --out BUNDLE       a run as ONNX files that need neither PyTorch nor Ray

Each takes --help. Training and tuning, and prediction of very many photos, are the verbs of
ray_jobs: python -m ray_jobs lists them.
"""

from __future__ import annotations

import difflib
import importlib
import signal
import sys
from collections.abc import Sequence
from typing import Final

from maskcls.progress import silence

VERBS: Final = (
    "eda", "check", "labels", "table", "vote", "score", "preview", "predict", "export",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; returns the status of the program, 2 for a command line that means nothing."""
    verb, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if verb in ("-h", "--help"):
        print((__doc__ or "").strip())
        return 0
    if verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"one of {', '.join(VERBS)} is expected"
        print(f"maskcls: no verb {verb!r}; {hint}", file=sys.stderr)
        return 2
    try:
        try:
            return importlib.import_module(f"maskcls.commands.{verb}").main(rest) or 0
        finally:
            sys.stdout.flush()  # here, not when the interpreter ends and prints what it meets
    except BrokenPipeError:  # `| head` has seen enough
        silence(sys.stdout)
        return 128 + signal.SIGPIPE


if __name__ == "__main__":
    sys.exit(main())
