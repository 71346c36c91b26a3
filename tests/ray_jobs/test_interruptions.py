"""Whatever is broken, nothing is lost; what a user is told about it."""

import os
import signal
import subprocess
import time

import pytest

from benchmarks import faults
from maskcls.config.load import load
from maskcls.learning import tracking
from maskcls.storage.place import Place
from ray_jobs.run import lease
from ray_jobs.run import state as run_state
from ray_jobs.run.folder import claim
from tests.conftest import ROOT, command
from tests.ray_jobs.conftest import THE_SAME


@pytest.mark.parametrize("victim", ["worker", "second raylet"])
def test_whatever_is_broken_the_results_are_the_same_byte_for_byte(undisturbed, drawn, victim):
    # All victims, round after round: `make soak`.
    case = faults.Case(victim, THE_SAME)
    found, _ = faults.until_hit(case, drawn, f"0/{victim}", {THE_SAME: undisturbed})
    assert found.startswith("identical"), found


def test_ctrl_c_says_how_to_go_on(verb, monkeypatch, tmp_path):
    def interrupt(*told):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(tracking, "console_line", interrupt)
    # Tests that a shell runs in the background ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        told = verb("sweep", f"run.dir={tmp_path}", "tasks=[joint]", "train.epochs=3", ok=False)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "the same command goes on from there" in told
    assert run_state.read(tmp_path).ended == "interrupted"


def test_a_sweep_that_is_told_to_end_says_how_to_go_on(cluster, drawn, cache, tmp_path):
    told = tmp_path / "told.txt"
    with told.open("w") as out:
        process = subprocess.Popen(
            command("sweep", f"run.dir={tmp_path / 'run'}", "tasks=[joint]", "train.epochs=99",
                    drawn=drawn, cache=cache),
            cwd=ROOT, stdout=out, stderr=subprocess.STDOUT,
            env={**os.environ, "RAY_ADDRESS": cluster},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 400
        while "epoch 2/" not in told.read_text():
            assert process.poll() is None, told.read_text()
            assert time.monotonic() < deadline, told.read_text()
            time.sleep(0.1)
        # Looked at while it runs and holds its folder; at most a second or so behind.
        state = run_state.read(tmp_path / "run")
        assert lease.liveness(Place(tmp_path / "run"), time.time()) == "alive"
        assert state.ended is None
        assert state.counts()["running"] == 1
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(timeout=200) == 130, told.read_text()
    finally:
        process.kill()
    assert "the same command goes on from there" in told.read_text()
    again = told.read_text().rpartition("\n  python -m ray_jobs.sweep ")[2].splitlines()[0]
    assert f"run.dir={tmp_path / 'run'}" in again
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
