"""`maskcls export RUN --out BUNDLE`: a run as files that need neither PyTorch nor Ray."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from maskcls.progress import Progress
from maskcls.storage.uri import on_this_machine


def main(argv: Sequence[str] | None = None) -> None:
    """Export from the command line."""
    parser = argparse.ArgumentParser(
        prog="maskcls export",
        description="ONNX models, preprocessing, vote, label schema and model card in one folder; "
        "maskcls.load and maskcls predict read it with onnxruntime, NumPy and OpenCV.",
    )
    parser.add_argument(
        "run", type=on_this_machine, metavar="RUN", help="a finished run, or one job of it"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="to write to")
    parser.add_argument(
        "--float16", action="store_true", help="store weights in float16: half the size"
    )
    parser.add_argument(
        "--single-file", action="store_true", help="BUNDLE is one ZIP file, not a folder"
    )
    given = parser.parse_args(argv)
    try:
        from maskcls.export import bundle  # PyTorch, seconds that --help does without

        made = bundle.write(
            given.run,
            given.out,
            half=given.float16,
            single_file=given.single_file,
            progress=Progress("models exported"),
        )
    except (ValueError, OSError, ModuleNotFoundError) as error:
        parser.error(str(error))
    print(
        f"{made.path}: {made.megabytes:.1f} MB, {made.photo_ms:.1f} ms a photo on one CPU thread, "
        f"probabilities within {made.difference:.0e} of PyTorch's"
    )
