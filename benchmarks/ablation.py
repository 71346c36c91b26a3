"""What each part of a recipe is worth: out-of-fold scores with and without it, and what it takes.

    python -m benchmarks.ablation DATA --out FOLDER [--list benchmarks/ablation.yaml]
                                  [--only NAME ...] [--against NAME] [--seeds 42 43] [--show]

The list holds `base`, words of `ray_jobs.sweep`, and `overlays`, a name with the words that it adds
to those; the name of an overlay above it stands for that one's words. Each is one sweep a seed: the
same people, folds and order for all. The gain over the base, or over the variant that ``--against``
names, is paired, its 95 % interval is over people, who bring the answers of all their seeds along;
seconds are those of the whole command. The same command goes on where it stopped; `--show` only
writes the table of what there is: FOLDER/ablation.md.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from maskcls.config.load import load
from maskcls.config.shipped import find
from maskcls.labels import ATTRIBUTES, NUM_JOINT
from maskcls.reports import analysis, finished_run
from maskcls.reports.finished_run import TARGETS
from maskcls.scoring import metrics
from maskcls.storage import files, yaml_files

LIST = Path(__file__).with_name("ablation.yaml")
BASE = "base"
CLASSES = {"joint": NUM_JOINT, **{name: len(values) for name, values in ATTRIBUTES.items()}}


@dataclass(frozen=True)
class Overlays:
    """A configuration, and what each variant adds to it."""

    config: str
    words: Mapping[str, Sequence[str]]

    @classmethod
    def read(cls, path: Path) -> Overlays:
        """Read the list, and every configuration in it: a typo must not show after an hour.

        Raises what ``config.load.load`` raises.
        """
        content = yaml_files.read(path)
        base = content["base"]
        words: dict[str, list[str]] = {}
        for name, added in content["overlays"].items():
            words[name] = [word for one in added for word in words.get(one, [one])]
        added_to_base = {name: [*base, *of_name] for name, of_name in words.items()}
        overlays = cls(content["config"], {BASE: base, **added_to_base})
        for each in overlays.words.values():
            load([find(overlays.config)], each)
        return overlays


def sweep(overlays: Overlays, name: str, data: Path, folder: Path, seed: int) -> None:
    """Run one variant, or what is left of it, and add its seconds to those it took before."""
    command = [sys.executable, "-m", "ray_jobs.sweep", "--config", overlays.config]
    command += [*overlays.words[name], f"data.root={data}", f"run.dir={folder}", f"run.seed={seed}"]
    began = time.monotonic()
    code = subprocess.run(command, check=False).returncode
    seconds = read_seconds(folder) + time.monotonic() - began
    files.write_json(folder.with_suffix(".json"), {"seconds": seconds, "words": command[5:]})
    if code:
        sys.exit(f"{name}, seed {seed}: the sweep ended with {code}; the same command tries again")


def read_seconds(folder: Path) -> float:
    path = folder.with_suffix(".json")
    return float(files.read_json(path)["seconds"]) if path.is_file() else 0.0


def folder_of(out: Path, name: str, seed: int) -> Path:
    return out / f"{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}-{seed}"


def is_done(folder: Path) -> bool:
    return (folder / "scores.json").is_file()


def answers_of(folders: Mapping[int, Path]) -> pd.DataFrame:
    """The out-of-fold answers of all seeds (seed -> run), below each other, in a stable order."""
    parts = [finished_run.read(run).answers.assign(seed=seed) for seed, run in folders.items()]
    return pd.concat(parts).sort_values(["seed", "photo"], ignore_index=True)


def row(name: str, runs: Mapping[int, Path], base: Mapping[int, Path]) -> dict[str, str]:
    """One line of the table: scores, gains over ``base`` on the seeds that both have, seconds."""
    shared = sorted(runs.keys() & base.keys())
    ours, first = (answers_of({seed: of[seed] for seed in shared}) for of in (runs, base))
    cells = {"variant": name, "seeds": str(len(shared)), **compared(ours, first, runs == base)}
    seconds = statistics.mean(read_seconds(runs[seed]) for seed in shared)
    return {**cells, "seconds": f"{seconds:.0f}"}


def compared(ours: pd.DataFrame, first: pd.DataFrame, same: bool) -> dict[str, str]:
    """Scores of a variant's answers, and its gains over those of the ``first``, unless it is the
    ``same``. Raises ValueError where the two are about different photos."""
    if not ours[["seed", "photo"]].equals(first[["seed", "photo"]]):
        raise ValueError("two variants to compare were scored on different photos")
    cells = {}
    for target in TARGETS:
        truth, answers = (ours[f"{target}_{kind}"].to_numpy() for kind in ("truth", "predicted"))
        cells[target] = (
            f"{metrics.macro_f1(metrics.confusion(truth, answers, CLASSES[target])):.3f}"
        )
    for target in ("joint", "age"):
        truth, people = ours[f"{target}_truth"].to_numpy(), ours["person"].to_numpy()
        before, now = (answers[f"{target}_predicted"].to_numpy() for answers in (first, ours))
        gain = analysis.difference(truth, before, now, people, classes=CLASSES[target], seed=0)
        interval = f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
        cells[f"{target}, gain"] = "" if same else interval
    return cells


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows as Markdown."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(cells.values()) for cells in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--list", type=Path, default=LIST)
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--against", default=BASE, metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[42])
    parser.add_argument("--show", action="store_true")
    arguments = parser.parse_args()
    overlays = Overlays.read(arguments.list)
    if unknown := {*(arguments.only or []), arguments.against} - overlays.words.keys():
        parser.error(f"no such variant: {', '.join(unknown)}; known: {', '.join(overlays.words)}")
    out = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    for seed in [] if arguments.show else arguments.seeds:
        for name in arguments.only or overlays.words:
            folder = folder_of(out, name, seed)
            if not is_done(folder):
                sweep(overlays, name, arguments.data.absolute(), folder, seed)
    runs = {
        name: {s: run for s in arguments.seeds if is_done(run := folder_of(out, name, s))}
        for name in overlays.words
    }
    base = runs[arguments.against]
    rows = [row(name, of, base) for name, of in runs.items() if of.keys() & base.keys()]
    if rows:
        files.write_text(out / "ablation.md", table(rows))
        print(table(rows))


if __name__ == "__main__":
    main()
