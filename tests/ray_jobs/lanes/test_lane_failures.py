"""What a lane does when parts of it fail, with real workers."""

import functools
import os
import signal
import time
from contextlib import suppress

import pytest
import ray
import torch

from maskcls.config.schema import Resources
from ray_jobs.cluster import packing
from ray_jobs.cluster.nodes import nodes
from ray_jobs.lanes import pool
from ray_jobs.training.job import Call

pytestmark = pytest.mark.ray


def once(mark, act):
    """``act``, but only in the first process that comes here."""
    if not mark.exists():
        mark.touch()
        act()
    return "done"


def stop():
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(100)  # other threads may stop first, and the job would be done by then


def break_gpu():
    raise torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_silent_worker_is_replaced_and_other_jobs_go_on(cluster, monkeypatch, tmp_path, workers):
    monkeypatch.setattr(pool, "WATCH_S", 0.5)
    resources = Resources(jobs_at_once=1, workers_per_job=workers, stall_timeout_s=4)
    plan = packing.plan(resources, 1, nodes())
    heard = []
    with pool.lanes(plan, resources, folder=tmp_path / "run") as lanes:
        silent = Call("silent", functools.partial(once, tmp_path / "mark", stop))
        outcomes = lanes.run([silent, Call("next", dict)], heard.extend)
    assert [o.reason for o in outcomes.values()] == [None, None]
    (lost,) = [e for e in heard if e.kind == "lost"]
    assert lost.job == "silent"
    assert lost.values["reason"] == "no sign of life for 4 s (resources.stall_timeout_s)"


def test_a_broken_gpu_is_left_after_two_failures_and_its_jobs_go_elsewhere(
    cluster, monkeypatch, tmp_path, caplog
):
    resources = Resources(jobs_at_once=2, attempts=5)
    plan = packing.plan(resources, 2, nodes())
    heard = []
    monkeypatch.setattr(pool.log, "propagate", True)
    folder = tmp_path / "told"
    folder.mkdir()
    with pool.lanes(plan, resources, folder=tmp_path / "run") as lanes:
        # The lane that takes the first call is the broken one.
        calls = [Call(f"call{n}", functools.partial(on_broken_lane, folder)) for n in range(4)]
        outcomes = lanes.run(calls, heard.extend)
        reasons = [o.reason for o in outcomes.values()]
    assert reasons == [None] * 4, reasons
    lost = [e for e in heard if e.kind == "lost"]
    assert len(lost) == 2
    assert len({e.lane for e in lost}) == 1
    assert "uncorrectable ECC error" in lost[0].values["reason"]
    assert "break_gpu" in lost[0].values["traceback"]
    assert f"lane {lost[0].lane}: closed after 2 failures of its machine" in caplog.text


def on_broken_lane(folder):
    """Fails on one lane, as if its GPU were broken; the other one waits for that."""
    lane = ray.train.get_context().get_experiment_name()
    first = folder / "first"
    with suppress(FileExistsError), first.open("x") as file:
        file.write(lane)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        if first.read_text() == lane:
            (folder / f"failure {time.monotonic_ns()}").touch()
            break_gpu()
        if len(list(folder.glob("failure *"))) == 2:
            return "done"
        time.sleep(0.1)
    raise TimeoutError("the broken lane took no second job")


@pytest.fixture(scope="module")
def logical_gpus(others_cluster):
    """This process on a cluster that was told of two GPUs on a machine that has none."""
    ray.shutdown()
    ray.init(others_cluster, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("allow_cpu", [False, True])
def test_a_lane_with_a_gpu_and_no_cuda_is_refused_unless_cpus_are_allowed(
    logical_gpus, tmp_path, allow_cpu
):
    resources = Resources(allow_cpu=allow_cpu, jobs_at_once=1)
    plan = packing.plan(resources, 2, nodes())
    assert plan.gpus_per_worker == 1
    with pool.lanes(plan, resources, folder=tmp_path) as lanes:
        jobs = [Call("one", dict), Call("two", dict)]
        reasons = [o.reason for o in lanes.run(jobs, last=True).values()]
        if allow_cpu:
            # What the lanes reserved is free while the driver goes on.
            deadline = time.monotonic() + 30
            while ray.available_resources().get("GPU") != 2 and time.monotonic() < deadline:
                time.sleep(0.1)
            assert ray.available_resources()["GPU"] == 2
            # A lane comes back where there is something to do after all.
            assert lanes.run([Call("three", dict)])["three"].report == {"answer": {}}
    if allow_cpu:
        assert reasons == [None, None]
    else:
        assert all("resources.allow_cpu=true" in reason for reason in reasons), reasons
