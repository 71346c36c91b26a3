"""A small sweep that something happens to: where it runs, what it has told, its processes."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
RAY = str(Path(sys.executable).parent / "ray")
WORDS = (
    "tasks=[joint,multi]", "folds.count=2", "image.size=[32,24]", "model.name=test_efficientnet",
    "train.lr=3e-3", "augment.name=autoaugment",
)  # fmt: skip
RESULTS = ("submission.csv", "out_of_fold.parquet")
LIMIT_S = 600.0
"""Longest time of one command; after it the round counts as hung."""


class Missed(Exception):  # noqa: N818 -- no error: the sweep was faster
    """The sweep ended before its victim was there."""


class Hung(Exception):  # noqa: N818 -- the finding of a round
    """Something took longer than LIMIT_S."""


@dataclass(frozen=True)
class Sweep:
    """What is swept: its words, and how many jobs and epochs a job these make."""

    words: tuple[str, ...] = WORDS
    jobs: int = 4
    epochs: int = 4
    workers: int = 1

    def all_words(self) -> list[str]:
        """All of its configuration. A job that is killed several times is still trained."""
        return [*self.words, f"train.epochs={self.epochs}", "resources.attempts=5",
                f"resources.workers_per_job={self.workers}"]  # fmt: skip


@dataclass
class Round:
    """One sweep that something happens to. ``folder`` is short: it holds Ray's sockets."""

    folder: Path
    data: Path
    rng: random.Random
    where: str
    sweep: Sweep = Sweep()
    address: str | None = None
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def environment(self) -> dict[str, str]:
        # Everything that this round starts carries its folder, and is found by it.
        env = {**os.environ, "RAY_TMPDIR": str(self.folder), "HOME": str(self.folder),
               "RAY_AUTH_MODE": "token"}  # fmt: skip
        env.pop("RAY_ADDRESS", None)
        return env | ({"RAY_ADDRESS": self.address} if self.address else {})

    def start(self) -> None:
        """The sweep, in the background."""
        words = [sys.executable, "-m", "ray_jobs.sweep", f"data.root={self.data}",
                 f"data.cache={self.cache}", f"run.dir={self.run_dir}",
                 *self.sweep.all_words()]  # fmt: skip
        if self.where == "job":
            words = [RAY, "job", "submit", "--working-dir", str(ROOT), "--", *words]
        with (self.folder / "told.txt").open("ab") as output:
            self.process = subprocess.Popen(
                words, cwd=ROOT, env=self.environment, stdout=output, stderr=subprocess.STDOUT
            )

    def wait(self) -> int:
        """The exit code of the sweep."""
        try:
            return self.process.wait(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            raise Hung("the sweep did not end") from None

    def until(self, seen: Callable[[], Any], what: str) -> Any:
        """What ``seen`` returns as soon as that is something, looked at many times a second."""
        deadline = time.monotonic() + LIMIT_S
        while not (found := seen()):
            if self.process.poll() is not None:
                raise Missed(what)
            if time.monotonic() > deadline:
                raise Hung(f"there never was {what}")
            time.sleep(0.02)
        return found

    def told(self) -> str:
        return (self.folder / "told.txt").read_text(encoding="utf-8", errors="replace")

    def epochs(self) -> Counter[tuple[str, int]]:
        """How often each epoch of each job was told."""
        path = self.run_dir / "run.log"
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        lines = re.findall(r"INFO (\S+)\s+epoch (\d+)/", text)
        return Counter((job, int(number)) for job, number in lines)

    def processes(self) -> list[psutil.Process]:
        """Every process that this round started, directly or not, and that still lives."""
        mine = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                alive = process.status() != psutil.STATUS_ZOMBIE
                if alive and process.environ().get("RAY_TMPDIR") == str(self.folder):
                    mine.append(process)
        return mine

    def named(self, name: str) -> list[psutil.Process]:
        """Those of a name; not the shell, or the command, that brings a program on its way."""
        those = []
        for process in self.processes():
            with suppress(psutil.Error):
                program = " ".join(process.cmdline()).split(" -- ")[0]
                if name in program and not program.startswith(("/bin/sh", "bash")):
                    those.append(process)
        return those

    def find(self, name: str) -> psutil.Process:
        """One of the processes of a name, as soon as there is one."""
        those: list[psutil.Process] = self.until(lambda: self.named(name), f"a process {name}")
        return self.rng.choice(those)


@contextmanager
def a_round(data: Path, rng: random.Random, where: str, sweep: Sweep) -> Iterator[Round]:
    """A folder, and the cluster or the disk that the round needs; all is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="f", dir="/tmp"))
    this = Round(folder, data, rng, where, sweep)
    try:
        if where == "small disk":
            this.run_dir.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", this.run_dir],
                           check=True)  # fmt: skip
        if where in ("two raylets", "job"):
            start_cluster(this)
        yield this
    finally:
        stop_cluster(this)
        if where == "small disk":
            subprocess.run(["umount", this.run_dir], check=True)
        shutil.rmtree(this.folder, ignore_errors=True)


def start_cluster(this: Round, own_disk: Path | None = None) -> None:
    """A head by ``ray start``, and, for two raylets, a second node on this machine.

    At ``own_disk`` the second node sees an empty disk of its own, for which one must be root.
    """
    token = ["get-auth-token", "--generate"]
    # Ray Train needs the dashboard to notice that a controller died with its node.
    dashboard = free_port()
    head = ["start", "--head", "--node-name=head", f"--port={(port := free_port())}",
            f"--dashboard-port={dashboard}"]  # fmt: skip
    this.address = f"127.0.0.1:{port}"
    second = ["start", f"--address={this.address}", "--node-name=second"]
    commands = [token, head, second] if this.where == "two raylets" else [token, head]
    cpus = 1 if this.where == "two raylets" else 2
    for words in commands:
        if words[0] == "start":
            # Two nodes on one machine collide on these otherwise.
            words = [*words, f"--num-cpus={cpus}", "--disable-usage-stats",
                     f"--dashboard-agent-listen-port={free_port()}",
                     f"--dashboard-agent-grpc-port={free_port()}",
                     f"--metrics-export-port={free_port()}"]  # fmt: skip
        line = [RAY, *words]
        if own_disk and "--node-name=second" in words:
            mounted = 'mount -t tmpfs tmpfs "$0" && exec "$@"'
            line = ["unshare", "--mount", "sh", "-c", mounted, str(own_disk), *line]
        done = subprocess.run(
            line, env=this.environment, capture_output=True, text=True, timeout=LIMIT_S
        )
        assert done.returncode == 0, done.stdout + done.stderr
    if this.where == "job":
        this.address = f"http://127.0.0.1:{dashboard}"


def stop_cluster(this: Round) -> None:
    """End everything that the round started; `ray stop` would end other people's clusters too."""
    while alive := this.processes():
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=10)


def answer_of(output: str) -> Any:
    """What a program has printed behind "FOUND", as JSON; Ray may print warnings after it."""
    return json.loads(output.rpartition("FOUND ")[2].splitlines()[0])


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port
