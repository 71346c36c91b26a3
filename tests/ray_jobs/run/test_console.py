import io
import logging
import os
import subprocess
import sys

import pytest

from maskcls import progress
from maskcls.learning import tracking
from ray_jobs.lanes.records import Event
from ray_jobs.run import console, jobs
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def new_loggers(monkeypatch):
    """Neither what other tests set up, nor what these do, stays."""
    for name in console.LOGGERS:
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)


LONG_RUN = """
import logging, sys
from pathlib import Path
from ray_jobs.run import console
with console.report_errors("prepare"):
    console.setup(Path(sys.argv[1]))
    for number in range(100):
        logging.getLogger("ray_jobs").info("line %d", number)
"""


def test_a_run_goes_on_when_nobody_reads_its_lines(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", LONG_RUN, tmp_path / "run.log"],
        cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run.log").read_text().count("line ") == 100


def test_a_short_command_ends_quietly_when_nobody_reads_its_lines():
    code = "from ray_jobs.run import console\nwith console.report_errors('status'): print(1)"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def steps(job, done, total=40):
    return Event("steps", job, 0, {"done": done, "total": total})


@pytest.fixture
def seconds(monkeypatch):
    box = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: box[0])
    return box


def test_the_first_epoch_shows_how_far_all_its_jobs_are(capsys, seconds):
    hear = console.JobLines(4)
    hear([])
    hear([Event("started", "age-fold0", 0, {"attempt": 1}), steps("age-fold0", 1)])
    seconds[0] += 20
    hear([steps("age-fold0", 11), steps("age-fold1", 9)])
    assert capsys.readouterr().err == "steps of this epoch: 20 of 80, 63 s left\n"
    values = {"epoch": 1.0, "epochs": 2.0, "seconds": 9.0, "train/loss": 1.0, "val/loss": 1.0,
              "train/lr": 1e-3, "val/macro_f1": 0.5, "val/accuracy": 0.5}  # fmt: skip
    hear([Event("epoch", "age-fold0", 0, values)])
    seconds[0] += 20
    hear([steps("age-fold1", 30)])
    assert capsys.readouterr().err == ""  # from here on there are the lines of epochs


def test_predictions_count_the_models_that_have_not_begun(capsys, seconds):
    hear = console.JobLines(3, trains=False)
    hear([steps("age-fold0", 0), steps("age-fold1", 0)])
    seconds[0] += 20
    hear([steps("age-fold0", 20), steps("age-fold1", 10)])
    assert capsys.readouterr().err == "predicting: 30 of 120, 60 s left\n"


def test_a_long_reason_is_told_whole_only_at_the_end(caplog):
    caplog.set_level("INFO")
    reason = "model 'x' cannot be built: " + ", ".join(f"layer{n}.weight" for n in range(99))
    names = ["age-fold0", "age-fold1"]
    hear = console.JobLines(2)
    hear([Event("failed", name, 0, {"reason": reason, "attempt": 1}) for name in names])
    assert "[2/2] age-fold1  failed: model 'x' cannot" in caplog.text
    text = caplog.text + jobs.listed(dict.fromkeys(names, reason))
    assert text.count("layer98.weight") == 1


def test_on_a_terminal_the_silence_before_has_a_line(monkeypatch, seconds):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    hear = console.JobLines(1)
    seconds[0] += 5
    hear([])
    hear([Event("started", "age-fold0", 0, {"attempt": 1})])
    seconds[0] += 5
    hear([])
    seconds[0] += 5
    hear([steps("age-fold0", 20)])
    seconds[0] += 5
    hear([steps("age-fold0", 30)])
    assert screen.getvalue().split(progress.CLEAR)[1:] == [
        "starting workers: 5 s",
        "first batches: 5 s",
        "steps of this epoch: [###############.....] 30 of 40, 5 s left",
    ]


def test_a_line_takes_the_place_of_the_bar(monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", screen)
    console.setup()
    logging.getLogger("ray_jobs").info("an epoch")
    assert screen.getvalue() == f"{progress.CLEAR}an epoch\n"


def test_the_log_of_a_run_has_the_tracebacks_that_the_terminal_is_spared(tmp_path, capsys):
    console.setup(tmp_path / "run.log")
    log = logging.getLogger("ray_jobs.lanes.pool")
    try:
        raise RuntimeError("the worker died as it started")
    except RuntimeError:
        log.debug("lane %d ended", 3, exc_info=True)
    log.info("after it")
    assert capsys.readouterr().out == "after it\n"
    written = (tmp_path / "run.log").read_text()
    assert "DEBUG lane 3 ended" in written
    assert "RuntimeError: the worker died as it started" in written


def test_each_epoch_says_how_long_the_run_lasts_yet(caplog):
    values = {**dict.fromkeys(tracking.COLUMNS, 0.5), "epoch": 1.0, "epochs": 5.0}
    epoch = Event("epoch", "age-fold0", 0, values)
    with caplog.at_level("INFO"):
        console.JobLines(2, time_left=lambda: 421.0)([epoch])
        console.JobLines(2)([epoch])
    first, second = caplog.messages
    assert first == f"{second}; about 7 min 1 s left"
