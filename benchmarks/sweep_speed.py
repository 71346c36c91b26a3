"""Whole sweeps against nine conventional scripts and against the bare steps, round by round.

    python -m benchmarks.sweep_speed DATA [--rounds 5] [--people 48] [--only WAY ...]

A round runs every way once, one after the other, each as its user would start it and with nothing
prepared. Of the nine scripts (`benchmarks.conventional`) a round runs one, the next task and fold
in the next round, and counts it nine times: they are alike. The limit is what the steps of the same
jobs take on tensors in memory, with as many processes and threads as our sweep has; a round takes
one epoch of a job and counts it as often as it comes. The data-bound ways see half of the people.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import psutil
from safetensors.torch import save_file

from benchmarks import conventional, rows
from maskcls.config.load import load
from maskcls.learning import backbones
from maskcls.storage import files
from ray_jobs.data.photos import image_settings, prepare
from ray_jobs.lanes import pool

FOLDS, EPOCHS, BATCH = 3, 3, 32
TASKS = {"mask": "mask", "gender": "gender", "age": "age_band"}
LITE0 = "tf_efficientnet_lite0"
SAMPLE_S = 10.0
"""Not less: to count the pages of a sweep's processes takes a fifth of a second of a core."""


@dataclass(frozen=True)
class Setting:
    """A model and the size of what it sees."""

    model: str
    size: tuple[int, int]
    weights: str | None = None


COMPUTE = Setting(LITE0, (128, 96), "package:efficientnet_lite0")
DATA_BOUND = Setting("lcnet_035", (384, 288))
"""The backbone of timm that takes the least time on a CPU."""


@dataclass
class Spent:
    """Wall seconds and the highest memory (PSS, MB) of a command's processes."""

    seconds: float
    memory: float


@dataclass
class Bench:
    """One data set, and what every round of it measured."""

    root: Path
    folder: Path
    lanes: int = 2
    threads: int = 2
    spent: dict[str, list[Spent]] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)

    def words(self, setting: Setting, run: Path) -> list[str]:
        """The sweep's words: the settings of the scripts, and nothing prepared."""
        height, width = setting.size
        weights = [f"model.weights={setting.weights}"] if setting.weights else []
        return [
            f"data.root={self.root}", f"data.cache={run / 'cache'}", f"run.dir={run}",
            f"folds.count={FOLDS}", "folds.allow_thin=true",
            f"image.size=[{height},{width}]", "image.mean=[0.5,0.5,0.5]", "image.std=[0.5,0.5,0.5]",
            f"model.name={setting.model}", *weights,
            "augment.name=autoaugment", f"train.epochs={EPOCHS}", f"train.batch_size={BATCH}",
            f"train.eval_batch_size={2 * BATCH}", "train.lr=3e-4", "optimizer.name=adamw",
            "optimizer.weight_decay=5e-4", "schedule.name=cosine", "loss.name=cross_entropy",
            f"resources.jobs_at_once={self.lanes}", f"resources.threads_per_worker={self.threads}",
        ]  # fmt: skip

    def sweep(
        self,
        name: str,
        setting: Setting,
        tasks: str = "[mask,gender,age]",
        code: Path | None = None,
    ) -> None:
        """A sweep by this project, or by the copy of it in ``code``."""
        run = self.folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        command = [sys.executable, "-m", "ray_jobs.sweep", *self.words(setting, run)]
        self.note(name, watched([*command, f"tasks={tasks}"], code))
        scores = files.read_json(run / "scores.json")["out_of_fold"]
        self.scores[name] = scores["joint"]["macro_f1"]

    def scripts(self, name: str, setting: Setting, number: int) -> None:
        """One of the scripts, nine times its time."""
        listing, weights = self.listing(setting)
        column = list(TASKS.values())[number % len(TASKS)]
        spent = watched([
            sys.executable, "-m", "benchmarks.conventional", str(listing), "--task", column,
            "--fold", str(number // len(TASKS) % FOLDS), "--out", str(self.folder / "script"),
            "--model", setting.model, "--size", *map(str, setting.size), "--epochs", str(EPOCHS),
            "--batch-size", str(BATCH), *(["--weights", str(weights)] if weights else []),
        ])  # fmt: skip
        self.note(name, Spent(len(TASKS) * FOLDS * spent.seconds, spent.memory))

    def limit(self, name: str, setting: Setting) -> None:
        """A job's bare steps in as many processes as our sweep has lanes, at the same time."""
        listing, weights = self.listing(setting)
        command = [
            sys.executable, "-m", "benchmarks.bare_steps", str(listing), "--model", setting.model,
            "--size", *map(str, setting.size), "--folds", str(FOLDS),
            "--batch-size", str(BATCH), "--threads", str(self.threads),
            *(["--weights", str(weights)] if weights else []),
        ]  # fmt: skip
        environment = {**os.environ, **pool.ON_A_CPU}
        processes = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
            for _ in range(self.lanes)
        ]
        told = [json.loads(process.communicate()[0]) for process in processes]
        epoch, prediction = (statistics.mean(seconds) for seconds in zip(*told, strict=True))
        a_job = EPOCHS * epoch + prediction
        self.note(name, Spent(a_job * len(TASKS) * FOLDS / self.lanes, 0.0))

    def listing(self, setting: Setting) -> tuple[Path, Path | None]:
        """The parquet and the weights that the scripts read; the folds are ours."""
        path, weights = (
            self.folder / "listing.parquet",
            self.folder / f"{setting.model}.safetensors",
        )
        if not path.exists():
            config = load([], self.words(setting, self.folder / "prepared")).config
            data = prepare(config, image_settings(config, config.tasks), self.folder)
            assert data.evaluation, "the data set needs an eval folder"
            conventional.write_listing(data.train.table, data.evaluation.table, path)
        if setting.weights and not weights.exists():
            model = backbones.build(setting.model, {"x": 1}, weights=setting.weights,
                                 image_size=setting.size)  # fmt: skip
            save_file(model.backbone.state_dict(), weights)
        return path, weights if setting.weights else None

    def note(self, name: str, spent: Spent) -> None:
        self.spent.setdefault(name, []).append(spent)
        print(f"  {name:24} {spent.seconds:7.1f} s  {spent.memory:6.0f} MB", flush=True)

    def ratio(self, name: str, to: str) -> list[float]:
        """Seconds of ``to`` over seconds of ``name``, round by round; none where one was left out
        (``--only``)."""
        if not {name, to} <= self.spent.keys():
            return []
        pairs = zip(self.spent[to], self.spent[name], strict=True)
        return [there.seconds / here.seconds for there, here in pairs]


def watched(command: Sequence[str], folder: Path | None = None) -> Spent:
    """Run a command; its time, and the highest memory of all its processes together."""
    began = time.monotonic()
    log = tempfile.TemporaryFile("w+")  # noqa: SIM115 -- closed with the process
    environment = {**os.environ, "RAY_AUTH_MODE": "token"}
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
    highest, ended = 0.0, threading.Event()

    def sample() -> None:
        nonlocal highest
        while not ended.wait(SAMPLE_S if highest else 1.0):
            highest = max(highest, memory_of(process.pid))

    sampler = threading.Thread(target=sample)
    sampler.start()
    code = process.wait(timeout=3600)
    ended.set()
    sampler.join()
    if code:
        log.seek(0)
        raise RuntimeError(f"{' '.join(command)} ended with {code}:\n{log.read()}")
    return Spent(time.monotonic() - began, highest)


def memory_of(pid: int) -> float:
    """PSS of a process and all that it started, in MB: shared pages count once."""
    total = 0.0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for process in processes:
        try:
            text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except OSError:
            continue  # it has ended meanwhile
        total += sum(int(row.split()[1]) for row in text.splitlines() if row.startswith("Pss:"))
    return total / 1000


def people_of(root: Path, count: int, out: Path) -> Path:
    """A data set of links to the first ``count`` people of ``root``, with all photos to predict."""
    table = pd.read_csv(root / "train" / "train.csv").head(count)
    (out / "train" / "images").mkdir(parents=True)
    table.to_csv(out / "train" / "train.csv", index=False)
    for name in table["path"]:
        (out / "train" / "images" / name).symlink_to((root / "train" / "images" / name).absolute())
    (out / "eval").symlink_to((root / "eval").absolute())
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--people", type=int, default=48)
    parser.add_argument("--lanes", type=int, default=Bench.lanes)
    parser.add_argument("--threads", type=int, default=Bench.threads)
    parser.add_argument("--limit", type=float, default=3600, help="seconds; a round that would "
                        "not end by then is not begun (3600)")  # fmt: skip
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--only", nargs="+", default=[], metavar="WAY")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        bench, bound = (
            Bench(people_of(arguments.data, people, Path(name) / size / "data"),
                  Path(name) / size, arguments.lanes, arguments.threads)
            for size, people in (("all", arguments.people), ("half", arguments.people // 2))
        )  # fmt: skip
        ways: dict[str, Callable[[int], None]] = {
            "limit": lambda _: bench.limit("limit", COMPUTE),
            "sweep": lambda _: bench.sweep("sweep", COMPUTE),
            "scripts": lambda number: bench.scripts("scripts", COMPUTE, number),
            "multi": lambda _: bench.sweep("multi", COMPUTE, "[multi]"),
            "data-bound sweep": lambda _: bound.sweep("data-bound sweep", DATA_BOUND),
            "data-bound scripts": lambda n: bound.scripts("data-bound scripts", DATA_BOUND, n),
        }
        began = time.monotonic()
        for number in range(arguments.rounds):
            if number and time.monotonic() - began > arguments.limit * number / (number + 1):
                print(f"no time for a round more within {arguments.limit:g} s", flush=True)
                break
            print(f"round {number + 1} of {arguments.rounds}", flush=True)
            for way in arguments.only or ways:
                ways[way](number)
        rows.add(arguments.rows, table(bench, bound, arguments.people))


def table(bench: Bench, bound: Bench, people: int) -> list[rows.Row]:
    """The rows of `make bench` that whole sweeps give."""
    shape = f"{people} people, {EPOCHS} epochs, {bench.lanes} x {bench.threads} thread(s)"
    f1 = {name: f"{score:.3f}" for name, score in bench.scores.items()}
    memory = [
        ours.memory / bench.lanes / theirs.memory
        for ours, theirs in zip(bench.spent.get("sweep", []), bench.spent.get("scripts", []),
                                strict=False)
    ]  # fmt: skip
    over = [1 / ratio for ratio in bench.ratio("sweep", "limit")]
    return [
        rows.Row("sweep 3 x 3, Lite0 128 x 96, wall time", "its own steps on tensors in memory",
                 over, 1.25, 1.08, at_most=True, note=shape),
        rows.Row("the same sweep, times faster", "nine serial scripts",
                 bench.ratio("sweep", "scripts"), 1.6, 1.9,
                 note=f"joint macro F1 {f1.get('sweep', '')}"),
        rows.Row("the `multi` route, times faster", "nine serial scripts",
                 bench.ratio("multi", "scripts"), 4, 5.5,
                 note=f"joint macro F1 {f1.get('multi', '')}"),
        rows.Row("data-bound sweep (lcnet_035, 384 x 288), times faster", "nine serial scripts",
                 bound.ratio("data-bound sweep", "data-bound scripts"), 2.5, 3,
                 note=f"{people // 2} people"),
        rows.Row("peak memory, all processes, a job at a time", "conventional script", memory,
                 1.3, 1, at_most=True,
                 note=f"PSS, every {SAMPLE_S:g} s; ours with Ray's own processes"),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
