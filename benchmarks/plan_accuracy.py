"""What `sweep --plan` foretells, against what then happens: the wall time of the demo sweep.

    python -m benchmarks.plan_accuracy [--rounds 1] [--rows FILE] [key.sub=value ...]

Each round plans and then runs the same command on drawn faces with nothing prepared. The figure is
how far the estimate is off, as a factor of at least 1.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import rows
from examples.drawn_faces import draw
from maskcls.storage import files

ROOT = Path(__file__).parents[1]


def timed(folder: Path, *words: str) -> float:
    """Seconds of a sweep as a user starts it, in a run folder of its own."""
    command = [
        sys.executable, "-m", "ray_jobs.sweep", "--config", str(ROOT / "configs" / "demo.yaml"),
        f"data.root={folder / 'data'}", f"data.cache={folder / 'cache'}",
        f"run.dir={folder / 'run'}", *words,
    ]  # fmt: skip
    began = time.monotonic()
    environment = {**os.environ, "RAY_AUTH_MODE": "token"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    if "--plan" in words:
        print(done.stdout, flush=True)
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("words", nargs="*", metavar="key.sub=value")
    arguments = parser.parse_intermixed_args()
    off, notes = [], []
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            draw.draw(folder / "data", people=120, eval_people=30, height=192, width=144)
            planning = timed(folder, "--plan", *arguments.words)
            plan = files.read_json(folder / "run" / "plan.json")
            actual = timed(folder, *arguments.words)
            happened = files.read_json(folder / "run" / "scores.json")["phases"]
        estimated = plan["seconds"]
        print("estimated", plan["phases"], "\nhappened ", happened, f"\nin all {actual:.1f} s")
        off.append(max(estimated / actual, actual / estimated))
        notes.append(f"{estimated:.0f} s said, {actual:.0f} s taken, {planning:.0f} s to plan")
    rows.add(arguments.rows, [
        rows.Row("`sweep --plan` of the demo, off by a factor", "wall time that it took", off,
                 1.25, 1.1, at_most=True, note="; ".join(notes)),
    ])  # fmt: skip


if __name__ == "__main__":
    main()
