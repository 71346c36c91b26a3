"""Every measure of speed side by side, as a table in RESULTS.md: what `make bench` runs.

    python -m benchmarks.bench DATA [--only PART ...] [--quick]

Each part is a program of its own with a limit of time; `--quick` runs each once at a size that says
nothing about speed, and writes no table. Exit status 1 where a part failed.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from benchmarks import rows
from examples.drawn_faces import draw
from maskcls.learning import checkpoint
from maskcls.storage import files

RESULTS = Path(__file__).with_name("RESULTS.md")
BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"


@dataclass(frozen=True)
class Part:
    """A program, its words and its limit in seconds. ``{data}`` stands for the data set, ``{left}``
    for the seconds that it may plan with of those that are left of ``TOTAL_S``.
    """

    module: str
    words: str
    quick: str
    limit_s: float


TOTAL_S = 3500.0
"""Seconds of a whole bench; whoever waits for it was told an hour."""

LEAST_S = 900.0
"""Seconds that a part gets, be the bench late or not: a round of the sweeps on a slow machine."""

PARTS = {
    "pipeline": Part("pipeline_speed", "{data}",
                     "{data} --photos 128 --size 64 48 --rounds 1", 450),
    "predict": Part("predict_speed", "{data}", "{data} --photos 40 --models 3 --rounds 1", 600),
    "packing": Part("packing", "", "--gpus 1 2 --mean 0.1 --rounds 1", 600),
    "scale": Part("scale", "", "--jobs 5 10 --people 60 90 --rounds 1", 600),
    "startup": Part("startup", "", "--rounds 1", 400),
    "steps": Part("step_choices", "", "--steps 1 --rounds 1", 240),
    "profile": Part("profile_sweep", "{data} --people 24",
                    "{data} --people 18 --out {folder}/profile.png", 400),
    "sweep": Part("sweep_speed", "{data} --limit {left:.0f}",
                  "{data} --people 18 --rounds 1", 3600),
}  # fmt: skip
"""Limits are wide: what the others leave of the hour is for the rounds of the sweeps."""


def run(part: Part, words: str, rows_file: Path, data: Path, left_s: float) -> str:
    """Run a part; why it failed, or nothing."""
    # A part for which nothing is left is still tried.
    limit_s = min(part.limit_s, max(left_s, LEAST_S))
    command = [sys.executable, "-m", f"benchmarks.{part.module}"]
    command += words.format(data=data, folder=rows_file.parent, left=0.85 * limit_s).split()
    if part.module != "profile_sweep":
        command += ["--rows", str(rows_file)]
    print("$ " + " ".join(command[1:]), flush=True)
    # A session of its own, so that a part that is too slow takes its workers with it.
    process = subprocess.Popen(command, start_new_session=True)
    try:
        code = process.wait(limit_s)
        return f"ended with {code}" if code else ""
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return f"took longer than {limit_s:.0f} s"


def measure(names: Sequence[str], data: Path, quick: bool) -> tuple[list[rows.Row], list[str]]:
    """The rows of these parts, and what failed."""
    failures, ends = [], time.monotonic() + TOTAL_S
    with tempfile.TemporaryDirectory() as name:
        rows_file = Path(name) / "rows.jsonl"
        rows_file.touch()
        for name in names:
            part = PARTS[name]
            failure = run(part, part.quick if quick else part.words, rows_file, data,
                          ends - time.monotonic())  # fmt: skip
            if failure:
                failures.append(f"{name} {failure}")
                rows.add(rows_file, [rows.Row(name, "", note=f"failed: {failure}")])
        return rows.read(rows_file), failures


def report(found: Sequence[rows.Row], command: str, seconds: float) -> str:
    """The part of RESULTS.md between the marks."""
    judged = [rows.line(row) for row in found if row.must is not None or not row.ratios]
    others = [rows.line(row) for row in found if row.must is None and row.ratios]
    versions = ", ".join(f"{name} {version}" for name, version in checkpoint.versions().items())
    when = f"{datetime.date.today()}, {seconds / 60:.0f} minutes"
    text = [f"`{command}`, {when}. {machine()}. {versions}.", "", rows.HEADER, *judged]
    if others:
        text += ["", "Choices, each against going without:", "", rows.HEADER, *others]
    return "\n".join(text)


def machine() -> str:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{os.cpu_count()} cores ({model[1] if model else 'unknown'}, "
        f"{torch.backends.cpu.get_cpu_capability()}), "
        f"{psutil.virtual_memory().total / 1e9:.0f} GB, {gpu}"
    )


def put(text: str, path: Path = RESULTS) -> None:
    """Replace what stands between the marks."""
    before, rest = path.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    files.write_text(path, f"{before}{BEGIN}\n{text}\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path, help="drawn there, where it does not exist")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if not arguments.data.exists():
        print(f"drawing faces into {arguments.data}", flush=True)
        size = {"people": 42, "eval_people": 6, "height": 64, "width": 48} if arguments.quick else {
            "people": 240, "eval_people": 60}  # fmt: skip
        draw.draw(arguments.data, **size)
    began = time.monotonic()
    found, failures = measure(arguments.only, arguments.data.absolute(), arguments.quick)
    if not arguments.quick:
        words = ["--only", *arguments.only] if arguments.only != list(PARTS) else []
        put(report(found, " ".join(["python -m benchmarks.bench DATA", *words]),
                   time.monotonic() - began))  # fmt: skip
        print(f"table: {RESULTS}")
    if failures:
        sys.exit("failed: " + "; ".join(failures))


if __name__ == "__main__":
    main()
