import os
import subprocess
import sys

from tests.conftest import ROOT

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
