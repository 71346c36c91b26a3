import io
import sys

import pytest

from maskcls import progress
from maskcls.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def seconds(monkeypatch):
    """The clock, in a box."""
    box = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: box[0])
    return box


def test_on_a_terminal_a_bar_is_rewritten_in_place(monkeypatch, seconds):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    tell = Progress("steps")
    for done in range(1, 5):
        seconds[0] += 1
        tell(done, 4)
    lines = screen.getvalue().split(progress.CLEAR)
    assert lines[2] == "steps: [##########..........] 2 of 4, 2 s left"
    assert lines[-1] == "steps: [####################] 4 of 4, 0 s left\n"


def test_the_time_left_does_not_count_what_was_before_the_first_call(monkeypatch, seconds):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    tell = Progress("steps")
    seconds[0] += 1000
    tell(10, 40)
    seconds[0] += 5
    tell(20, 40)
    assert screen.getvalue().endswith("20 of 40, 10 s left")


def test_elsewhere_lines_come_now_and_then(capsys, seconds):
    tell = Progress("photos prepared")
    for done in range(1, 26):
        seconds[0] += 1
        tell(done, 25)
        tell.wait()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        f"photos prepared: {done} of 25" for done in (10, 20, 25)
    ]


def test_short_work_prints_nothing_unless_it_always_does(capsys, seconds):
    Progress("photos prepared")(5, 5)
    assert capsys.readouterr().err == ""
    Progress("photos checked", always=True)(5, 5)
    assert capsys.readouterr().err == "photos checked: 5 of 5, 0 s left\n"


def test_waiting_is_shown_on_a_terminal_and_now_and_then_elsewhere(monkeypatch, seconds, capsys):
    line = Progress("starting workers")
    for _ in range(65):
        line.wait()
        seconds[0] += 1
    told = capsys.readouterr().err
    assert told.splitlines() == ["starting workers: 30 s", "starting workers: 60 s"]
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    line = Progress("starting workers")
    seconds[0] += 7
    line.wait()
    assert screen.getvalue() == f"{progress.CLEAR}starting workers: 7 s"
