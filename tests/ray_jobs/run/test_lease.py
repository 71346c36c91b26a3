"""The lease of a run in a folder; that of one on a store is in tests/maskcls/storage."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from maskcls.storage.place import Place
from ray_jobs.run import lease
from ray_jobs.run.lease import FILE, FREE, held
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(lease, "BEAT_S", 0.05)
    monkeypatch.setattr(lease, "SILENCE_S", 1.0)
    monkeypatch.setattr(lease, "WATCH_S", 0.1)


HOLD = """
import sys, time
from pathlib import Path
from maskcls.storage.place import Place
from ray_jobs.run import lease
with lease.held(Place(Path(sys.argv[1]))):
    print("holds", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other(tmp_path):
    """Another program that holds the run in ``tmp_path``."""
    command = [sys.executable, "-c", HOLD, tmp_path]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "holds\n"
        yield process
        process.kill()


def test_one_program_holds_a_run_and_is_seen_to_live(tmp_path, other):
    with pytest.raises(ValueError, match=rf"another program .* \(process {other.pid} on "):
        held(Place(tmp_path)).__enter__()
    assert lease.liveness(Place(tmp_path), time.time() + 10**6) == "alive"
    other.kill()
    other.wait()
    assert lease.liveness(Place(tmp_path), time.time()) == "gone"
    began = time.monotonic()
    with held(Place(tmp_path)):  # the lock says that it is dead: nobody waits
        assert time.monotonic() - began < lease.SILENCE_S
    assert (tmp_path / FILE).read_bytes() == FREE
    assert lease.liveness(Place(tmp_path), time.time()) == "gone"


def of_another_machine(beats):
    return json.dumps({"id": "x", "machine": "y", "host": "far", "process": 7, "beats": beats})


def test_a_living_holder_on_a_file_system_without_locks_is_seen_by_its_beats(tmp_path):
    path, ended = tmp_path / FILE, threading.Event()

    def beat():
        beats = 0
        while not ended.wait(0.05):
            beats += 1
            with path.open("r+") as file:  # in place: it is never seen empty
                file.write(of_another_machine(beats))

    path.write_text(of_another_machine(0))
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(ValueError, match=r"another program .* \(process 7 on far\)"):
            held(Place(tmp_path)).__enter__()
    finally:
        ended.set()
        thread.join()
    assert json.loads(path.read_text())["id"] == "x"
    with held(Place(tmp_path)):  # silent for SILENCE_S: dead
        assert json.loads(path.read_text())["process"] == os.getpid()


def test_a_damaged_lease_is_watched_not_believed(tmp_path):
    (tmp_path / FILE).write_text("{ no")
    began = time.monotonic()
    with held(Place(tmp_path)):
        assert time.monotonic() - began >= lease.SILENCE_S


def test_who_finds_another_name_in_its_lease_stops(tmp_path):
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as cluster.connect does
    try:
        with pytest.raises(KeyboardInterrupt), held(Place(tmp_path)) as lost:
            (tmp_path / FILE).write_text(of_another_machine(1))
            time.sleep(10)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert lost.is_set()
    assert json.loads((tmp_path / FILE).read_text())["id"] == "x"
