"""Whatever is broken, nothing is lost; what a user is told about it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from maskcls.config.load import load
from ray_jobs.run import state as run_state
from ray_jobs.run.folder import claim
from tests.conftest import ROOT, command


@pytest.mark.ray
@pytest.mark.slow
def test_whatever_is_broken_the_results_are_the_same_byte_for_byte():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", "--rounds", "5", "--only",
         "driver", "worker", "ensemble", "checkpoint write", "second raylet"],
        cwd=ROOT, capture_output=True, text=True, timeout=3000,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 identical, 0 lost, 0 hung" in done.stdout, done.stdout


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_says_how_to_go_on(drawn, cache, tmp_path, sign):
    told = tmp_path / "told.txt"
    with told.open("w") as out:
        process = subprocess.Popen(
            command("sweep", f"run.dir={tmp_path / 'run'}", "tasks=[joint]", "train.epochs=99",
                    drawn=drawn, cache=cache),
            cwd=ROOT, stdout=out, stderr=subprocess.STDOUT,
            # A shell's background jobs ignore Ctrl-C, and so would what they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 400
        while "epoch 2/" not in told.read_text():
            assert process.poll() is None, told.read_text()
            assert time.monotonic() < deadline, told.read_text()
            time.sleep(0.1)
        # Looked at while it runs and holds its folder; at most a second or so behind.
        state = run_state.read(tmp_path / "run")
        assert run_state.liveness(tmp_path / "run", state, time.time()) == "alive"
        assert state.ended is None
        assert state.counts()["running"] == 1
        os.kill(process.pid, sign)
        assert process.wait(timeout=200) == 130, told.read_text()
    finally:
        process.kill()
    assert "the same command goes on from there" in told.read_text()
    assert "Traceback" not in told.read_text()
    assert run_state.read(tmp_path / "run").ended == "interrupted"


def test_two_programs_never_work_in_one_folder(tmp_path):
    config = load(words=[f"run.dir={tmp_path}"]).config
    with (
        claim(config, config.tasks),
        pytest.raises(ValueError, match="another program works in it"),
        claim(config, config.tasks),
    ):
        pass
    with claim(config, config.tasks):
        pass
