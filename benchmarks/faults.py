"""Break one part of a small sweep at a seeded moment, again and again, and look at what is left.

    python -m benchmarks.faults --rounds 40 [--seed 0] [--only driver worker ...] [--epochs 4]
                                [--workers 1 2]

Every victim has its turn with one worker a job and with two (gloo). A round whose victim was gone
before it could be broken is repeated at another moment. Each round ends with the system's own
recovery, or with the same command again where the program itself died. Then submission.csv and
out_of_fold.parquet must be, byte for byte, those of a sweep that nobody disturbed; no epoch behind
a checkpoint may have been trained twice; and no process, actor, reservation or temporary file may
be left. Exit code 1 if anything was not as it should be.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.disturbed import (
    LIMIT_S,
    RESULTS,
    Hung,
    Missed,
    Round,
    Sweep,
    a_round,
    answer_of,
    start_cluster,
    stop_cluster,
)
from examples.drawn_faces import draw

MOMENTS = 5
"""Times that a round is tried whose victim was gone already."""


def kill(name: str) -> Callable[[Round], None]:
    def victim(this: Round) -> None:
        # Gone before it could be killed: another one will come.
        while True:
            with suppress(psutil.NoSuchProcess):
                this.find(name).kill()
                return

    return victim


def send(by: signal.Signals) -> Callable[[Round], None]:
    def victim(this: Round) -> None:
        this.find("ray_jobs.sweep").send_signal(by)

    return victim


def in_the_middle_of_a_checkpoint(this: Round) -> None:
    """Stop a worker while a temporary file is there, and kill it if the file still is."""
    while True:
        worker = this.find("ray::RayTrainWorker")
        half = this.until(lambda: list(this.run_dir.glob("jobs/*/.tmp-*")), "a half-written file")
        with suppress(psutil.NoSuchProcess):
            worker.suspend()
            if any(map(Path.exists, half)):
                worker.kill()
                return
            worker.resume()


def lose_prepared(this: Round) -> None:
    (folder,) = this.rng.sample(sorted(this.cache.glob("*-*x*")), 1)
    shutil.rmtree(folder)


def damage_prepared(this: Round) -> None:
    (file,) = this.rng.sample(sorted(this.cache.glob("*-*x*/images.npy")), 1)
    os.truncate(file, file.stat().st_size // 2)


def fill_disk(this: Round) -> None:
    """Fill the disk until the sweep has ended; whoever runs it again has made room before."""
    ballast = this.run_dir / "ballast"
    with suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(bytes(2**20))
    with suppress(OSError), ballast.open("ab") as file:
        while True:
            file.write(b"0")
            file.flush()
    this.wait()
    ballast.unlink()


def lose_cluster(name: str) -> Callable[[Round], None]:
    """Kill a process of the head and wait until the sweep has noticed."""

    def victim(this: Round) -> None:
        kill(name)(this)
        this.wait()

    return victim


@dataclass(frozen=True)
class Victim:
    """What is broken, and where the sweep runs: by itself, on two raylets, or as a job."""

    breaks: Callable[[Round], None]
    where: str = "alone"


VICTIMS: dict[str, Victim] = {
    "driver": Victim(kill("ray_jobs.sweep")),
    "worker": Victim(kill("ray::RayTrainWorker")),
    "controller": Victim(kill("ray::TrainController")),
    "data task": Victim(kill("ray::MapBatches")),
    "ensemble": Victim(kill("ray::_Ensemble")),
    "queue": Victim(kill("ray::_JobQueue")),
    "second raylet": Victim(kill("--node-name=second"), "two raylets"),
    "head raylet": Victim(lose_cluster("--node-name=head"), "two raylets"),
    "gcs": Victim(lose_cluster("gcs_server"), "two raylets"),
    "checkpoint write": Victim(in_the_middle_of_a_checkpoint),
    "full disk": Victim(fill_disk, "small disk"),
    "lost images": Victim(lose_prepared),
    "damaged images": Victim(damage_prepared),
    "SIGTERM": Victim(send(signal.SIGTERM), "job"),
    "SIGINT": Victim(send(signal.SIGINT), "job"),
}
NEEDS_NEW_CLUSTER = ("head raylet", "gcs")


@dataclass(frozen=True)
class Case:
    """What is broken of which sweep."""

    kind: str
    sweep: Sweep

    def __str__(self) -> str:
        workers = self.sweep.workers
        return f"{self.kind} ({workers} worker{'s' * (workers > 1)})"


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="faults") as name:
        data = draw.draw(Path(name) / "data", people=42, eval_people=6, seed=1, height=64, width=48)
        sweeps = [Sweep(epochs=arguments.epochs, workers=number) for number in arguments.workers]
        expected = {sweep: undisturbed(data, sweep) for sweep in sweeps}
        cases = [Case(kind, sweep) for kind in arguments.only if possible(kind)
                 for sweep in sweeps]  # fmt: skip
        rng = random.Random(arguments.seed)
        order: list[Case] = []
        while len(order) < arguments.rounds:
            order += rng.sample(cases, len(cases))  # each as often as the others
        order = order[: arguments.rounds]
        findings: Counter[str] = Counter()
        for number, case in enumerate(order, 1):
            began = time.monotonic()
            found, moments = until_hit(case, data, f"{arguments.seed}/{number}", expected)
            findings[re.split("[:,]", found)[0]] += 1
            took = f"{time.monotonic() - began:.0f} s, moment {moments}"
            print(f"[{number}/{arguments.rounds}] {case}: {found} ({took})", flush=True)
    kills = Counter(map(str, order))
    by_kind = ", ".join(f"{kind} {number}" for kind, number in sorted(kills.items()))
    counts = ", ".join(
        f"{findings[kind]} {kind}" for kind in ("identical", "lost", "hung", "missed")
    )
    print(f"{arguments.rounds} rounds ({by_kind}): {counts}")
    sys.exit(findings["identical"] != arguments.rounds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(VICTIMS), default=list(VICTIMS))
    parser.add_argument("--epochs", type=int, default=Sweep.epochs)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    return parser.parse_args()


def possible(kind: str) -> bool:
    if VICTIMS[kind].where == "small disk" and os.geteuid() != 0:
        print(f"left out: {kind}, which needs root to mount a small disk")
        return False
    return True


def undisturbed(data: Path, sweep: Sweep) -> dict[str, bytes]:
    """The results of a sweep that nobody disturbs."""
    with a_round(data, random.Random(0), "alone", sweep) as this:
        this.start()
        assert this.wait() == 0, this.told()
        return {name: (this.run_dir / name).read_bytes() for name in RESULTS}


def until_hit(
    case: Case, data: Path, seed: str, expected: Mapping[Sweep, dict[str, bytes]]
) -> tuple[str, int]:
    """Rounds at other moments until the victim was there to be broken, at most ``MOMENTS``: what
    the last one found, and how many it took."""
    for moment in range(MOMENTS):
        found = play(case, data, random.Random(f"{seed}/{moment}"), expected[case.sweep])
        if not found.startswith("missed"):
            break
    return found, moment + 1


def play(case: Case, data: Path, rng: random.Random, expected: dict[str, bytes]) -> str:
    """One round; ``identical``, or ``missed: ...``, ``lost: ...`` or ``hung: ...`` with what was
    wrong."""
    victim = VICTIMS[case.kind]
    with a_round(data, rng, victim.where, case.sweep) as this:
        try:
            this.start()
            # Not in the last epochs: what dies there may have nothing left to lose.
            epochs = rng.randrange(max(1, (case.sweep.epochs - 1) * case.sweep.jobs))
            try:
                this.until(lambda: this.epochs().total() >= epochs and "at once" in this.told(),
                           f"epoch {epochs}")  # fmt: skip
                time.sleep(rng.random())
                victim.breaks(this)
            except Missed as error:
                return f"missed: there was no {error} any more"
            reruns = 0
            while this.wait() != 0:
                if reruns == 2:
                    return f"lost: it failed {reruns + 1} times\n{this.told()}"
                reruns += 1
                if case.kind in NEEDS_NEW_CLUSTER:
                    stop_cluster(this)
                    start_cluster(this)
                this.start()
        except Hung as error:
            return f"hung: {error}\n{this.told()}"
        wrong = [name for name in RESULTS if (this.run_dir / name).read_bytes() != expected[name]]
        if wrong:
            return f"lost: {', '.join(wrong)} differ"
        return left(this) or twice(this) or f"identical, {reruns} rerun(s)"


def left(this: Round) -> str | None:
    """What the sweep left behind that it should not have."""
    files = [*this.run_dir.rglob(".tmp-*"), *this.run_dir.glob(".ray_train"),
             *this.cache.glob("*.tmp")]  # fmt: skip
    if files:
        return f"lost: temporary files are left: {', '.join(map(str, files))}"
    deadline = time.monotonic() + 30
    while True:
        rest = in_cluster(this) if this.address else [str(p) for p in this.processes()]
        if not rest or time.monotonic() > deadline:
            return f"lost: left behind: {rest}" if rest else None
        time.sleep(0.5)


def in_cluster(this: Round) -> list[str]:
    """What lives or is reserved in a cluster that outlives the sweep."""
    code = textwrap.dedent("""
        import json, logging, ray
        from ray._private.state import actors
        from ray.util import placement_group_table
        ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
        # The service actors of Ray Data and Train stay as long as the cluster does.
        service = ("_StatsActor", "_UsageCollectionActor", "_AutoscalingCoordinatorActor",
                   "TrainStateActor", "JobSupervisor")
        alive = [a["ActorClassName"] for a in actors().values() if a["State"] == "ALIVE"]
        groups = [g["name"] for g in placement_group_table().values() if g["state"] != "REMOVED"]
        print("FOUND", json.dumps([n for n in alive if n.split(".")[-1] not in service] + groups))
    """)
    environment = this.environment
    if this.where == "job":
        environment.pop("RAY_ADDRESS")  # that is the dashboard's; the folder names the cluster
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True,
                          text=True, timeout=LIMIT_S)  # fmt: skip
    assert done.returncode == 0, done.stderr
    rest: list[str] = answer_of(done.stdout)
    return rest


def twice(this: Round) -> str | None:
    """Epochs that were trained again although a checkpoint lay behind them.

    An epoch is told when its checkpoint is there; the last one has none, only the job's end.
    """
    again = [f"{job} epoch {number}" for (job, number), times in this.epochs().items()
             if times > (2 if number == this.sweep.epochs else 1)]  # fmt: skip
    return f"lost: trained twice: {', '.join(again)}" if again else None


if __name__ == "__main__":
    main()
