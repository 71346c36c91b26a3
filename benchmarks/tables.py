"""Tables in place of folders, on a data set in the competition's layout.

    python -m benchmarks.tables DATA [key.sub=value ...] --out FOLDER [--only same mixed million]

`same`: a sweep of the folders and one of the table that `maskcls table competition` writes of them,
and whether their files agree byte for byte. `mixed`: masks known of every second person, gender and
age of the others, against all labels known, both scored on DATA/answers.csv. `million`: a table of
``--rows`` rows, links to the photos, and the seconds and the memory of `sweep --plan`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

import pandas as pd
import psutil

from maskcls.__main__ import main as maskcls
from maskcls.storage import files

CONFIG: Final = "best-cpu"
SAME: Final = ("submission.csv", "out_of_fold.parquet", "predictions.csv", "ensemble.json")
PER_FOLDER: Final = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    steps = {"same": same, "mixed": mixed, "million": million}
    parser.add_argument("--only", nargs="+", choices=list(steps), default=list(steps))
    parser.add_argument("--rows", type=int, default=1_000_000, help="of `million`")
    parser.add_argument("words", nargs="*", metavar="key.sub=value", help="of the sweeps")
    arguments = parser.parse_intermixed_args()
    out = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    photos = out / "photos.csv"
    maskcls(["table", "competition", str(arguments.data), "--out", str(photos)])
    for name in arguments.only:
        steps[name](arguments.data.absolute(), photos, out, arguments)


def same(data: Path, photos: Path, out: Path, arguments: argparse.Namespace) -> None:
    sweep(f"data.root={data}", f"run.dir={out / 'folders'}", *arguments.words)
    sweep(f"data.table={photos}", f"run.dir={out / 'table'}", *arguments.words)
    models = sorted((out / "folders").glob("jobs/*/model.safetensors"))
    names = [*SAME, *(str(path.relative_to(out / "folders")) for path in models)]
    for name in names:
        equal = (out / "folders" / name).read_bytes() == (out / "table" / name).read_bytes()
        print(f"{name}: {'the same bytes' if equal else 'DIFFERENT'}", flush=True)
    found = [
        files.read_json(out / run / "scores.json")["out_of_fold"] for run in ("folders", "table")
    ]
    print(f"scores: {'the same' if found[0] == found[1] else 'DIFFERENT'}")


def mixed(data: Path, photos: Path, out: Path, arguments: argparse.Namespace) -> None:
    rows = pd.read_csv(photos, dtype=str, keep_default_na=False)
    train = rows["split"] == "train"
    masks = rows["person"].isin(rows.loc[train, "person"].unique()[::2])
    rows.loc[train & masks, ["gender", "age"]] = ""
    rows.loc[train & ~masks, "mask"] = ""
    rows.to_csv(out / "mixed.csv", index=False)
    runs = {
        "all labels known": photos,
        "masks of one half, gender and age of the other": out / "mixed.csv",
    }
    for number, (name, table) in enumerate(runs.items()):
        run = out / f"labels-{number}"
        sweep(f"data.table={table}", f"run.dir={run}", *arguments.words)
        found = files.read_json(run / "scores.json")["out_of_fold"]
        told = ", ".join(f"{head} {found[head]['macro_f1']:.3f} ({found[head]['photos']:,} photos)"
                         for head in found)  # fmt: skip
        print(f"{name}: out of fold {told}", flush=True)
        maskcls(["score", str(run / "submission.csv"), str(data / "answers.csv")])


def million(data: Path, photos: Path, out: Path, arguments: argparse.Namespace) -> None:
    """People are told apart by the round in which the photos are repeated."""
    rows = pd.read_csv(photos, dtype=str, keep_default_na=False)
    rows = rows[rows["split"] == "train"]
    parts = []
    for turn in range(-(-arguments.rows // len(rows))):
        folder = out / "links" / f"{turn // (PER_FOLDER // len(rows)):04}"
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{turn:04}-{number:05}.jpg" for number in range(len(rows))]
        for link, target in zip(paths, rows["path"], strict=True):
            if not link.is_symlink():
                link.symlink_to(target)
        parts.append(rows.assign(path=list(map(str, paths)), person=f"{turn}-" + rows["person"]))
    table = pd.concat(parts, ignore_index=True)[: arguments.rows]
    table.to_parquet(out / "million.parquet")
    seconds, peak = sweep("--plan", f"data.table={out / 'million.parquet'}",
                          f"run.dir={out / 'million'}", *arguments.words)  # fmt: skip
    print(f"--plan of {len(table):,} rows: {seconds:.0f} s, driver {peak / 1e6:,.0f} MB at most")


def sweep(*words: str) -> tuple[float, int]:
    """Seconds of a sweep, and the most bytes that its driver had resident."""
    command = [sys.executable, "-m", "ray_jobs.sweep", "--config", CONFIG, *words]
    began = time.monotonic()
    process = subprocess.Popen(command, env={**os.environ, "RAY_AUTH_MODE": "token"})
    peak = [0]
    watch = threading.Thread(target=_watch, args=(process, peak), daemon=True)
    watch.start()
    if process.wait():
        raise SystemExit(f"{' '.join(command)}: ended with {process.returncode}")
    watch.join()
    return time.monotonic() - began, peak[0]


def _watch(process: subprocess.Popen[bytes], peak: list[int]) -> None:
    of = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            peak[0] = max(peak[0], of.memory_info().rss)
        except psutil.NoSuchProcess:
            return
        time.sleep(0.2)


if __name__ == "__main__":
    main()
