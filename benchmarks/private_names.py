"""What the private names of Ray that are there for speed are worth, on whole sweeps in turns.

    python -m benchmarks.private_names DATA [--rounds 2] [--people 240] [--tasks [gender]]

A sweep runs as it is, and from copies of this project with one piece of
`ray_jobs/cluster/ray_internals.py` taken out each; round by round, nothing prepared, all with the
settings of `benchmarks.sweep_speed`. A piece stays where it is worth 3 %.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks import rows
from benchmarks.sweep_speed import COMPUTE, EPOCHS, FOLDS, Bench, people_of

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Piece:
    """Lines of a file, and what stands there when the piece is taken out."""

    name: str
    file: str
    lines: str
    instead: str


PIECES = (
    Piece("ExecutorBackoff", "ray_jobs/data/stream.py",
          "    context.custom_execution_callback_classes = [ExecutorBackoff]\n", ""),
    Piece("the choice of callbacks", "ray_jobs/cluster/ray_internals.py",
          "    def _create_default_callbacks(self)", "    def _all_callbacks_stay(self)"),
)  # fmt: skip


def without(piece: Piece, out: Path) -> Path:
    """A copy of the packages and configurations in ``out`` that lacks the piece.

    Raises ValueError where the piece is not found once.
    """
    for name in ("maskcls", "ray_jobs", "configs"):
        shutil.copytree(ROOT / name, out / name, ignore=shutil.ignore_patterns("__pycache__"))
    file = out / piece.file
    text = file.read_text(encoding="utf-8")
    if text.count(piece.lines) != 1:
        raise ValueError(f"{piece.file}: {piece.name} stands there {text.count(piece.lines)} times")
    file.write_text(text.replace(piece.lines, piece.instead), encoding="utf-8")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--people", type=int, default=240)
    parser.add_argument("--tasks", default="[gender]")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench = Bench(people_of(given.data, given.people, folder / "data"), folder)
        ways = {"as it is": ROOT}
        for number, piece in enumerate(PIECES):
            ways[f"without {piece.name}"] = without(piece, folder / f"copy{number}")
        for number in range(given.rounds):
            print(f"round {number + 1} of {given.rounds}", flush=True)
            # There and back: what gets slower meanwhile is not charged to one way.
            for way in [*ways] if number % 2 == 0 else [*reversed(ways)]:
                bench.sweep(way, COMPUTE, given.tasks, code=ways[way])
    shape = f"{given.people} people, {given.tasks}, {FOLDS} folds, {EPOCHS} epochs"
    rows.add(None, [
        rows.Row(f"sweep without {piece.name}, wall time", "as it is",
                 bench.ratio("as it is", f"without {piece.name}"), note=shape)
        for piece in PIECES
    ])  # fmt: skip


if __name__ == "__main__":
    main()
