"""How far a run is: kept by its driver, read by anybody; nothing here starts Ray."""

import json
import os
import subprocess
import sys
import time

import pytest

from maskcls.progress import duration
from maskcls.storage.place import Place
from ray_jobs import status
from ray_jobs.lanes.queue import Event
from ray_jobs.run import lease
from ray_jobs.run import state as run_state
from ray_jobs.run.state import FILE, JobState, RunState, time_left
from tests.conftest import ROOT

NOW = 1_000_000.0


def job(name, state="waiting", epoch=0, timed_s=0.0, **values):
    values = {"task": "age", "epochs": 10, "pixels": 100.0, **values}
    return JobState(
        name=name, state=state, epoch=epoch, timed_epochs=epoch, timed_s=timed_s, **values
    )


def state(*jobs, lanes=1, **values):
    return RunState(program="sweep", phase="training", began=NOW - 60, written=NOW,
                    lanes=lanes, jobs=list(jobs), **values)  # fmt: skip


def epoch(name, number, score, seconds=2.0):
    values = {"epoch": number, "epochs": 3, "val/macro_f1": score, "seconds": seconds}
    return Event("epoch", name, 0, values)


def test_the_board_writes_down_what_it_hears(tmp_path):
    with run_state.keeping(Place(tmp_path), "sweep") as board:
        board.phase("training")
        board.expect([job("a", epochs=3), job("b", epochs=3)], lanes=1)
        board.hear([Event("started", "a", 0, {"attempt": 2}), epoch("a", 1, 0.5),
                    epoch("a", 2, 0.4, seconds=4.0),
                    Event("failed", "b", 0, {"reason": "no luck"})])  # fmt: skip
        board.phase("training")  # writes what the second between two writes held back
        a, b = run_state.read(tmp_path).jobs
        assert (a.state, a.attempt, a.epoch, a.score) == ("running", 2, 2, 0.5)
        assert (a.timed_epochs, a.timed_s) == (2, 6.0)
        assert (b.state, b.reason) == ("failed", "no luck")
        board.hear([Event("done", "a", 0, {})])
    read = run_state.read(tmp_path)
    assert read.ended == "done"
    assert read.counts() == {"done": 1, "running": 0, "waiting": 0, "failed": 1, "stopped": 0}


def test_events_in_a_burst_are_one_write(tmp_path, monkeypatch):
    with run_state.keeping(Place(tmp_path), "sweep") as board:
        board.expect([job("a", epochs=99)], lanes=1)
        writes = []
        monkeypatch.setattr(run_state.files, "write_json", lambda *what: writes.append(what))
        for number in range(50):
            board.hear([epoch("a", number, 0.1)])
        assert len(writes) <= 2  # a slow machine may take a second for this
        board._written = -10.0
        board.hear([])
        assert len(writes) >= 1


@pytest.mark.parametrize(
    ("error", "ended", "reason"),
    [
        (KeyboardInterrupt(), "interrupted", None),
        (RuntimeError("no job came to its end"), "failed", "no job came to its end"),
    ],
)
def test_how_a_program_ended_is_its_last_word(tmp_path, error, ended, reason):
    with pytest.raises(type(error)), run_state.keeping(Place(tmp_path), "sweep"):
        raise error
    read = run_state.read(tmp_path)
    assert (read.ended, read.reason) == (ended, reason)


def test_a_disk_that_is_full_ends_no_run(tmp_path, monkeypatch):
    def full(*what):
        raise OSError("no space left")

    monkeypatch.setattr(run_state.files, "write_json", full)
    with run_state.keeping(Place(tmp_path), "sweep") as board:
        board.phase("training")


def test_time_left_goes_by_the_job_s_own_epochs():
    left = time_left(state(job("a", "running", 4, 40.0, news=NOW - 3)), NOW)
    assert left.jobs == {"a": 57.0}
    assert left.total == 57.0
    # An epoch that takes longer than expected does not make the rest of them shorter.
    assert time_left(state(job("a", "running", 4, 40.0, news=NOW - 500)), NOW).total == 50.0


def test_time_left_of_waiting_jobs_goes_by_those_alike_then_by_pixels():
    jobs = [
        job("a", "running", 5, 50.0),
        job("like a"),
        job("other task, twice the pixels", task="mask", pixels=200.0),
    ]
    left = time_left(state(*jobs), NOW)
    assert left.jobs == {"a": 50.0, "like a": 100.0, "other task, twice the pixels": 200.0}
    assert left.total == 350.0


def test_waiting_jobs_are_dealt_to_lanes_in_their_order():
    jobs = [job("a", "running", 5, 50.0), job("b"), job("c")]
    assert time_left(state(*jobs, lanes=2), NOW).total == 150.0
    assert time_left(state(*jobs, lanes=3), NOW).total == 100.0


def test_trials_to_come_are_expected_to_take_what_those_that_ended_took():
    jobs = [job("a", "stopped", 1, 10.0, pixels=None), job("b", "done", 3, 30.0, pixels=None)]
    assert time_left(state(*jobs, to_come=2), NOW).total == 40.0
    assert time_left(state(to_come=2), NOW).total is None


def test_nothing_is_guessed_before_the_first_epoch_or_after_the_end():
    assert time_left(state(job("a", "running"), job("b")), NOW).total is None
    assert time_left(state(job("a", "running", 5, 50.0), ended="failed"), NOW).total is None


def written(folder, machine=None, **values):
    folder.mkdir(exist_ok=True)
    (folder / lease.FILE).write_text(
        json.dumps({"id": "i", "machine": machine or lease.this_machine()})
    )
    one = state(job("age-fold0", "running", 4, 40.0, attempt=2, score=0.5), job("age-fold1"))
    one = one.model_copy(update=values)
    (folder / FILE).write_text(one.model_dump_json())
    return one


@pytest.fixture
def told(tmp_path, capsys):
    """What ``status`` prints about the run in ``tmp_path``."""

    def told():
        status.main([f"run.dir={tmp_path}"])
        return " ".join(capsys.readouterr().out.split())

    return told


def test_status_shows_a_living_run_while_it_holds_its_lock(tmp_path):
    written(tmp_path)
    with lease.held(Place(tmp_path)):
        done = subprocess.run(
            [sys.executable, "-m", "ray_jobs.status", f"run.dir={tmp_path}", "--once"],
            cwd=ROOT, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1 running, 1 waiting" in done.stdout
    assert "left" in done.stdout
    row = next(line.split() for line in done.stdout.splitlines() if "fold0" in line)
    assert row[:5] == ["age-fold0", "running", "2", "4/10", "0.500"]


def test_status_says_that_a_program_was_killed(tmp_path, told):
    written(tmp_path)
    said = told()
    assert "its program was killed while training" in said
    assert "The same command goes on from there" in said
    assert "age-fold0 interrupted 2 4/10 0.500 age-fold1 waiting 0/10" in said


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"ended": "done"}, "sweep, done after 1 min 0 s"),
        ({"ended": "interrupted"}, "interrupted after 1 min 0 s The same command goes on"),
        ({"ended": "failed", "reason": "2 of 9 models"}, "failed after 1 min 0 s: 2 of 9 models"),
        ({"ended": "failed", "jobs": []}, "failed after 1 min 0 s"),  # before there were jobs
    ],
)
def test_status_says_how_a_run_ended(tmp_path, told, values, words):
    written(tmp_path, **values)
    said = told()
    assert words in said
    goes_on = values["ended"] != "done" and values.get("jobs") != []
    assert ("The same command goes on" in said) == goes_on


def test_where_no_lock_can_be_seen_the_age_of_the_file_tells(tmp_path, told):
    written(tmp_path, machine="another")
    assert lease.liveness(Place(tmp_path), time.time()) == "alive"
    os.utime(tmp_path / lease.FILE, (NOW, NOW))
    assert lease.liveness(Place(tmp_path), time.time()) == "silent"
    assert "ended without saying so" in told()


def test_a_folder_without_a_run_is_refused(tmp_path, told):
    with pytest.raises(SystemExit, match=r"status: run\.dir=.*: no state\.json"):
        told()


@pytest.mark.parametrize("text", ["", "[]", '{"program": "sweep"}', "{", "\0"])
def test_a_damaged_state_is_refused_by_name(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ValueError, match=r"state\.json"):
        run_state.read(tmp_path)


def test_a_state_survives_being_written_and_read(tmp_path):
    one = written(tmp_path)
    assert run_state.read(tmp_path) == one
    assert json.loads((tmp_path / FILE).read_text())["jobs"][0]["attempt"] == 2


def test_durations_read_well():
    assert [duration(s) for s in (0.4, 61, 3600 * 5 + 720)] == [
        "0 s", "1 min 1 s", "5 h 12 min"
    ]  # fmt: skip
