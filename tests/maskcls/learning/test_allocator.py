"""Freed memory is kept where that is known to help, and the reason is told."""

import json
import os
import subprocess
import sys

import pytest

from maskcls.learning import allocator

FAULTS = """
import json, resource, torch
from maskcls.learning import allocator

def faults():
    for _ in range(8):
        torch.ones(16 * 2**20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults()
allocator.keep_freed("cpu")
print(json.dumps([given_back, faults()]))
"""


@pytest.mark.skipif(allocator.platform.libc_ver()[0] != "glibc", reason="only glibc gives it back")
def test_large_tensors_use_the_same_pages_again():
    # In a process of its own, since there is no way back.
    done = subprocess.run([sys.executable, "-c", FAULTS], stdout=subprocess.PIPE, text=True,
                          timeout=120, check=True)  # fmt: skip
    given_back, kept = json.loads(done.stdout)
    assert kept < given_back / 2


THREAD = f"""
from threading import Thread

def work():
    exec({FAULTS!r}, {{}})

thread = Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(allocator.platform.libc_ver()[0] != "glibc", reason="only glibc gives it back")
def test_a_thread_keeps_them_too_where_there_is_one_arena():
    environment = os.environ | allocator.ONE_ARENA
    done = subprocess.run([sys.executable, "-c", THREAD], stdout=subprocess.PIPE, text=True,
                          timeout=120, check=True, env=environment)  # fmt: skip
    given_back, kept = json.loads(done.stdout)
    assert kept < given_back / 2


def test_the_reason_is_told():
    assert "cuda" in allocator.keep_freed("cuda")
