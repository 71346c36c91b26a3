"""Whatever dies, the same command goes on and ends with a complete submission."""

import json
import os
import signal
import subprocess
import time

import psutil
import pytest

from maskcls import submission
from tests.conftest import ROOT, command

pytestmark = [pytest.mark.ray, pytest.mark.slow]
WORDS = ("tasks=[joint]", "train.epochs=4", "augment.name=base")
LIMIT_S = 120


class Run:
    """A sweep in the background, started as the leader of its own group of processes."""

    def __init__(self, run_dir, drawn, cache, *words):
        self.log = open(run_dir.parent / "told.txt", "w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            command("sweep", f"run.dir={run_dir}", *WORDS, *words, drawn=drawn, cache=cache),
            cwd=ROOT, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def told(self):
        self.log.seek(0)
        return self.log.read()

    def wait_for(self, text):
        deadline = time.monotonic() + LIMIT_S
        while text not in self.told():
            assert self.process.poll() is None, self.told()
            assert time.monotonic() < deadline, self.told()
            time.sleep(0.1)

    def child(self, name):
        """A process of this run by a part of its name."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            if name in " ".join(process.cmdline()) or name in process.name():
                return process
        raise AssertionError(f"no process {name}")

    def end(self):
        """Nothing of this run is left, however it ended."""
        left = psutil.Process(self.process.pid).children(recursive=True) if self.alive() else []
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        if self.alive():
            self.process.kill()
        self.process.wait(timeout=LIMIT_S)
        self.log.close()

    def alive(self):
        return self.process.poll() is None


@pytest.fixture
def start(tmp_path, drawn, cache):
    runs = []

    def begin(*words):
        runs.append(Run(tmp_path / "run", drawn, cache, *words))
        return runs[-1]

    yield begin
    for run in runs:
        run.end()


def complete(run_dir):
    scores = json.loads((run_dir / "scores.json").read_text())
    return scores["complete"] and len(submission.read_answers(run_dir / "submission.csv")) == 42


def test_a_killed_worker_goes_on_from_its_epoch(start, tmp_path):
    run = start()
    run.wait_for("epoch 2/4")
    run.child("ray::RayTrainWorker").kill()
    assert run.process.wait(timeout=LIMIT_S) == 0, run.told()
    assert "starts again (attempt 2)" in run.told()
    assert complete(tmp_path / "run")


def test_a_killed_driver_goes_on_where_it_stopped(start, verb, tmp_path):
    run = start()
    run.wait_for("epoch 3/4")
    before = run.told()
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait(timeout=LIMIT_S)
    told = verb("sweep", f"run.dir={tmp_path / 'run'}", *WORDS)
    repeated = [line for line in told.splitlines() if "epoch 1/4" in line]
    assert len(repeated) + before.count("epoch 1/4") <= 2, (before, told)
    assert complete(tmp_path / "run")


def test_a_lost_raylet_ends_the_run_in_time_and_the_next_one_goes_on(start, verb, tmp_path):
    run = start()
    run.wait_for("epoch 2/4")
    run.child("raylet").kill()
    assert run.process.wait(timeout=LIMIT_S) != 0
    verb("sweep", f"run.dir={tmp_path / 'run'}", *WORDS)
    assert complete(tmp_path / "run")


def test_ctrl_c_says_how_to_go_on(start, verb, tmp_path):
    run = start()
    run.wait_for("epoch 1/4")
    os.kill(run.process.pid, signal.SIGINT)
    assert run.process.wait(timeout=LIMIT_S) == 130, run.told()
    assert "the same command goes on from there" in run.told()
    assert "Traceback" not in run.told()
    verb("sweep", f"run.dir={tmp_path / 'run'}", *WORDS)
    assert complete(tmp_path / "run")


def test_two_programs_never_work_in_one_folder(start, verb, tmp_path):
    run = start()
    run.wait_for("job(s) at once")
    told = verb("sweep", f"run.dir={tmp_path / 'run'}", *WORDS, ok=False)
    assert "another program works in it" in told
