"""Very many photos through `ray_jobs.predict`, against the bare loop; killed, and gone on with.

    python -m benchmarks.predict_many MODEL PHOTOS [--count 100000] [--out FOLDER]

The photos are links to those in PHOTOS. Prints the photos a second by tenths of the run, the
driver's memory and that of all of Ray's processes at each, the share of what a loop over the same
code gets with all cores, and whether a run that was killed gives the same rows in the end.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil

import maskcls
from benchmarks.rows import Row, add
from maskcls.inference.inputs import photos_under


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--kill", type=int, default=10_000, help="photos of the run to kill")
    parser.add_argument("--loop", type=float, default=20.0, help="seconds of the bare loop")
    parser.add_argument("--rows", type=Path, help="append the table's rows to this file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        links(list(photos_under(given.photos)), given.count, folder / "photos")
        loop = bare(given.model, given.photos, given.loop)
        print(f"bare loop: {loop:.1f} photos/s", flush=True)
        rate = watched(given.model, folder, given.count)
        what = f"prediction of {given.count:,} photos"
        row = Row(what, "bare loop", [rate / loop], 0.8, 0.8, note=f"{rate:.1f} photos/s")
        add(given.rows, [row])
        shutil.rmtree(folder / "photos")
        links(list(photos_under(given.photos)), given.kill, folder / "photos")
        killed(given.model, folder)


def links(photos: list[Path], count: int, folder: Path) -> None:
    """``count`` links to the photos, a thousand a folder."""
    for number in range(count):
        if number % 1000 == 0:
            (folder / f"{number // 1000:04}").mkdir(parents=True)
        photo = photos[number % len(photos)].absolute()
        (folder / f"{number // 1000:04}" / f"{number:07}{photo.suffix}").symlink_to(photo)


def bare(path: Path, photos: Path, seconds: float) -> float:
    """Photos a second of ``Model.predict``, which decodes in threads, batch after batch."""
    model = maskcls.load(path, device="cpu")
    given = list(photos_under(photos))[:64]
    model.predict(given[:32])
    done, began = 0, time.monotonic()
    while time.monotonic() - began < seconds:
        done += len(model.predict(given))
    return done / (time.monotonic() - began)


def command(model: Path, folder: Path, out: str) -> list[str]:
    return [sys.executable, "-m", "ray_jobs.predict", f"run.dir={model.absolute()}",
            f"data.root={folder / 'photos'}", f"answers.out={folder / out}"]  # fmt: skip


def watched(model: Path, folder: Path, count: int) -> float:
    """Photos a second between the first file of answers and the last; prints how it went."""
    process = subprocess.Popen(command(model, folder, "whole"), stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    seen: list[tuple[float, int, float, float]] = []
    while process.poll() is None:
        time.sleep(1.0)
        files = list((folder / "whole").glob("*/part-*.parquet"))
        if files and (not seen or len(files) > seen[-1][1]):
            seen.append((time.monotonic(), len(files), *megabytes(process.pid)))
    assert process.returncode == 0
    (out,) = (folder / "whole").iterdir()
    total = sum(1 for _ in out.glob("part-*.parquet"))
    a_file = count / total
    for at in range(len(seen) // 10, len(seen), max(1, len(seen) // 10)):
        moment, files_, driver, all_ = seen[at]
        rate = a_file * (files_ - seen[0][1]) / max(1e-9, moment - seen[0][0])
        print(f"  {int(a_file * files_):>8,} photos  {rate:6.1f} photos/s so far  "
              f"driver {driver:5.0f} MB  all {all_:6.0f} MB", flush=True)  # fmt: skip
    return a_file * (seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0])


def megabytes(driver: int) -> tuple[float, float]:
    """Resident memory of the driver, and of it with Ray's workers."""
    own = psutil.Process(driver).memory_info().rss / 1e6
    workers = sum(
        process.info["memory_info"].rss
        for process in psutil.process_iter(["cmdline", "memory_info"])
        if " ".join(process.info["cmdline"] or []).startswith("ray::")
    )
    return own, own + workers / 1e6


def killed(model: Path, folder: Path) -> None:
    """Kill a run in the middle, go on, and compare with one that nobody disturbed."""
    subprocess.run(command(model, folder, "undisturbed"), capture_output=True, check=True)
    (whole,) = (folder / "undisturbed").iterdir()
    process = subprocess.Popen(command(model, folder, "killed"), stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    half = sum(1 for _ in whole.glob("part-*")) // 2
    while len(list((folder / "killed").glob("*/part-*"))) < half:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = len(list((folder / "killed").glob("*/part-*")))
    done = subprocess.run(command(model, folder, "killed"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (again,) = (folder / "killed").iterdir()
    same = all(pd.read_parquet(a).equals(pd.read_parquet(again / a.name)) for a in parts(whole))
    print(f"killed after {before} files of answers and gone on with: the same rows: {same}")
    shutil.rmtree(again)


def parts(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.glob("part-*.parquet"))


if __name__ == "__main__":
    main()
