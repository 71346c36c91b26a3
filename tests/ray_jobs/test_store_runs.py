"""A sweep whose photos and run lie on an object store, on nodes that share no disk."""

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import disturbed
from benchmarks.disturbed import RESULTS, Hung, Missed, Round
from maskcls.scoring import submission
from tests.conftest import ROOT
from tests.object_store import KEYS, ObjectStore
from tests.ray_jobs.conftest import THE_SAME

RUN, DATA = "s3://bucket/runs/first", "s3://bucket/data"


class OnStore(Round):
    """A sweep on a store; what the two nodes have on disk is all in ``cache``."""

    def start(self):
        with (self.folder / "told.txt").open("ab") as told:
            self.process = subprocess.Popen(
                self.line("sweep"), cwd=ROOT, env=self.environment, stdout=told, stderr=told
            )

    def line(self, verb, *words):
        return [sys.executable, "-m", f"ray_jobs.{verb}", f"data.root={DATA}", f"run.dir={RUN}",
                f"data.cache={self.cache}", *self.sweep.all_words(), *words]  # fmt: skip

    def until(self, seen, what):
        try:
            return super().until(seen, what)
        except (Missed, Hung) as error:
            pytest.fail(f"{what}: {error!r}\n{self.told()}")

    def epochs(self):
        lines = re.findall(r"^(\S+)\s+epoch (\d+)/", self.told(), re.MULTILINE)
        return Counter((job, int(number)) for job, number in lines)

    def once(self, line):
        done = subprocess.run(
            line, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def store(drawn, monkeypatch):
    """A store with the drawn faces, named by the environment."""
    store = ObjectStore()
    for path in drawn.rglob("*"):
        if path.is_file():
            store.put(f"data/{path.relative_to(drawn).as_posix()}", path.read_bytes())
    for name, value in store.environment().items():
        monkeypatch.setenv(name, value)
    yield store
    store.server.stop()


@pytest.fixture
def this(drawn):
    """Two nodes, the second with a disk of its own in place of ``cache``."""
    if os.geteuid() != 0:
        pytest.skip("a node gets a disk of its own from root only")
    this = OnStore(Path(tempfile.mkdtemp(prefix="s", dir="/tmp")), drawn, random.Random(0),
                   "two raylets", THE_SAME)  # fmt: skip
    yield this
    disturbed.stop_cluster(this)
    shutil.rmtree(this.folder, ignore_errors=True)


@pytest.mark.ray
def test_a_sweep_on_a_store_gives_the_bytes_of_a_local_one_whatever_is_lost(
    undisturbed, store, this
):
    expected = undisturbed
    this.cache.mkdir()
    disturbed.start_cluster(this, own_disk=this.cache)
    second = this_raylet(this, "second")
    seen_there = Path(f"/proc/{second.pid}/root{this.cache}")
    assert seen_there.stat().st_dev != this.cache.stat().st_dev

    this.start()
    this.until(lambda: len({job for job, _ in this.epochs()}) == 2, "a job on each node")
    assert list(seen_there.glob("remote/*/data/train/images/*/*"))
    assert not list(seen_there.glob("remote/*/*/run.log"))
    driver = this.find("ray_jobs.sweep")
    second.kill()
    driver.kill()
    this.wait()
    until_gone(this, "ray::RayTrainWorker")
    (copy,) = this.cache.glob("remote/*/first")
    shutil.rmtree(copy)

    # Both jobs go on from the store alone, one of them on another node than before.
    this.start()
    assert this.wait() == 0, this.told()
    for name in RESULTS:
        assert store.get(f"runs/first/{name}") == expected[name]
    again = [job for job, times in this.epochs().items() if times > 1 + (job[1] == THE_SAME.epochs)]
    assert not again, this.told()
    # Each node has read each photo once, a prepared one not at all.
    read = Counter(times for (method, key), times in store.requests.items()
                   if method == "GET" and key.startswith("data/train/images/"))  # fmt: skip
    assert set(read) == {2}, read
    left = store.names("runs/first/")
    assert not [key for key in left if key.endswith(("resume.pt", ".lock"))]
    assert f"submission: {RUN}/submission.csv" in this.told()
    assert "remote/" not in this.told()

    # From another machine: what is needed comes from the store, results go there.
    this.cache.rename(this.folder / "old")
    told = this.once([sys.executable, "-m", "ray_jobs.report", RUN])
    assert told == f"report: {RUN}/report.html\n"
    assert b"data:image/jpeg" in store.get("runs/first/report.html")
    this.once(this.line("predict"))
    (written,) = [key for key in store.names("runs/first/predictions/") if "submission" in key]
    local = this.folder / "predicted.csv"
    local.write_bytes(store.get(written))
    assert submission.read_answers(local).equals(
        submission.read_answers(write(this.folder / "first.csv", expected["submission.csv"]))
    )
    no_secret_in(this, store)


def this_raylet(this, name):
    (raylet,) = this.named(f"--node-name={name}")
    return raylet


def until_gone(this, name):
    """Ray ends the workers of a driver that was killed a moment later: until then they write."""
    deadline = time.monotonic() + disturbed.LIMIT_S
    while left := this.named(name):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def write(path, content):
    path.write_bytes(content)
    return path


def no_secret_in(this, store):
    """The secret key stands in no result, and in nothing that was told or logged."""
    secret = KEYS["AWS_SECRET_ACCESS_KEY"].encode()
    assert secret not in this.told().encode()
    assert not [key for key in store.names("runs/") if secret in store.get(key)]
    logs = [path for path in this.folder.glob("**/logs/**/*") if path.is_file()]
    assert logs
    assert not [path for path in logs if secret in path.read_bytes()]
