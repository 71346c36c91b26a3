"""The environment of a lane's worker makes glibc keep what it frees; no Ray is needed to see it."""

import os
import platform
import subprocess
import sys

import pytest

from ray_jobs.lanes import pool

IN_A_THREAD = """
import resource, threading, torch

def work():
    for _ in range(8):
        torch.ones(16 * 2**20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(16 * 2**20)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=work)  # as Ray Train's loop
thread.start()
thread.join()
"""


def faults(environment):
    done = subprocess.run(
        [sys.executable, "-c", IN_A_THREAD], env=os.environ | environment,
        stdout=subprocess.PIPE, text=True, timeout=120, check=True,
    )  # fmt: skip
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives it back")
def test_large_tensors_use_the_same_pages_again():
    assert faults(pool.ON_A_CPU) < faults({}) / 2
