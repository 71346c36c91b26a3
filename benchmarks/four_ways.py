"""Whether all ways to use an ensemble give the same answers, on every photo of a folder.

    python -m benchmarks.four_ways RUN PHOTOS

RUN is a finished run, PHOTOS a folder of photos (not the root of a competition). Its models by
PyTorch (`maskcls.load`) against its bundle, against `ray_jobs.predict` and against the service,
both with the bundle: photos with another class, and the largest difference of a probability. Exit
code 1 beyond 1e-4 or with another class.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd

import maskcls
from benchmarks import serve_load
from maskcls.export import bundle
from maskcls.inference.inputs import photos_under

LIMIT = 1e-4
AT_ONCE = 16
"""Photos in one request."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("photos", type=Path)
    given = parser.parse_args()
    photos = list(photos_under(given.photos))
    expected = maskcls.load(given.run, device="cpu").predict(photos)
    print(f"{len(photos):,} photos, {(expected['status'] == 'ok').sum():,} of them readable")
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        packed = bundle.write(given.run, Path(name) / "bundle").path
        answers = {
            "bundle": maskcls.load(packed).predict(photos),
            "ray_jobs.predict": by_ray(packed, given.photos, Path(name) / "out"),
            "ray_jobs.serve": pd.DataFrame(by_http(packed, photos)),
        }
    for way, table in answers.items():
        others, difference = compared(expected, table)
        print(f"{way}: {others} other classes, probabilities within {difference:.1e}", flush=True)
        worst = max(worst, difference, float(others))
    sys.exit(worst > LIMIT)


def compared(expected: pd.DataFrame, table: pd.DataFrame) -> tuple[int, float]:
    """Photos with another class, and the largest difference of a probability."""
    for column in ("photo", "status"):
        found, wanted = ([Path(text).name for text in t[column]] for t in (table, expected))
        assert found == wanted, column
    one, other = (t["ans"].fillna(-1).to_numpy(float) for t in (expected, table))
    names = list(expected.filter(like="p_"))
    differences = table[names].to_numpy(float) - expected[names].to_numpy(float)
    return int((one != other).sum()), float(np.nanmax(np.abs(differences)))


def by_ray(packed: Path, photos: Path, out: Path) -> pd.DataFrame:
    command = [sys.executable, "-m", "ray_jobs.predict", f"run.dir={packed}",
               f"data.root={photos.absolute()}", f"answers.out={out}"]  # fmt: skip
    subprocess.run(command, check=True)
    parts = map(pd.read_parquet, sorted(out.glob("*/part-*.parquet")))
    return pd.concat(parts, ignore_index=True)


def by_http(packed: Path, photos: list[Path]) -> Iterator[dict[str, Any]]:
    """Rows of the service. Raises HTTPStatusError where it refuses a photo."""
    address = f"http://127.0.0.1:{serve_load.PORT}/predict"
    with serve_load.service(packed, [f"serve.port={serve_load.PORT}"]), httpx.Client() as http:
        for start in range(0, len(photos), AT_ONCE):
            files = [("photos", (path.name, path.read_bytes()))
                     for path in photos[start : start + AT_ONCE]]  # fmt: skip
            answer = http.post(address, files=files, timeout=120)
            answer.raise_for_status()
            yield from answer.json()["photos"]


if __name__ == "__main__":
    main()
