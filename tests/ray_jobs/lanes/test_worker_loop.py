"""What a lane's worker does before it takes a job, and beside its jobs."""

import functools
import os
import platform
import resource
from types import SimpleNamespace

import psutil
import pytest

from maskcls.config.schema import Resources
from ray_jobs.cluster import packing
from ray_jobs.cluster.nodes import nodes
from ray_jobs.lanes import pool, worker_loop
from ray_jobs.lanes.queue import JobQueue
from ray_jobs.training.job import Call
from tests.ray_jobs.lanes.test_queue import JOB


def test_a_node_that_does_not_see_the_run_folder_ends_the_run(monkeypatch, tmp_path):
    told = []
    queue = SimpleNamespace(abort=SimpleNamespace(remote=told.append))
    monkeypatch.setattr(worker_loop.ray, "get", lambda answer: answer)
    context = SimpleNamespace(get_node_id=lambda: "late")
    monkeypatch.setattr(worker_loop.ray, "get_runtime_context", lambda: context)
    worker_loop._check_shared(tmp_path, queue)
    assert told == []
    with pytest.raises(FileNotFoundError):
        worker_loop._check_shared(tmp_path / "elsewhere", queue)
    place = tmp_path / "elsewhere"
    assert told == [
        f"{place} is not seen by node late (no such path): put data and run.dir on storage that "
        "every node mounts at the same path"
    ]


@pytest.mark.ray
def test_a_lane_whose_workers_fail_before_they_take_a_job_is_not_restarted_for_ever(
    cluster, monkeypatch, tmp_path
):
    def broken(config):
        raise RuntimeError("the driver of the GPU is too old")

    monkeypatch.setattr(pool, "lane_loop", broken)
    resources = Resources(jobs_at_once=1, attempts=2)
    plan = packing.plan(resources, 1, nodes())
    with pool.lanes(plan, resources, folder=tmp_path) as lanes:
        (outcome,) = lanes.run([JOB]).values()
    assert outcome.reason == (
        "no worker is left: lane 0: its worker failed 2 times before it asked for a job: "
        "the driver of the GPU is too old"
    )


@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 2])
def test_a_lane_runs_calls_and_keeps_the_memory_that_they_free(cluster, tmp_path, workers):
    resources = Resources(jobs_at_once=1, workers_per_job=workers)
    plan = packing.plan(resources, 1, nodes())
    calls = [
        # With two workers this ends both, and two others must find each other.
        Call("fails", functools.partial(int, "no number")),
        Call("faults", page_faults),
        Call("neighbours", neighbours),
        Call("waits", functools.partial(os.getenv, "OMP_WAIT_POLICY")),
    ]
    with pool.lanes(plan, resources, folder=tmp_path) as lanes:
        outcomes = lanes.run(calls)
        assert lanes.ask(Call("adds", functools.partial(max, 3, 4))).report == {"answer": 4}
    assert outcomes["fails"].report is None
    assert "no number" in outcomes["fails"].reason
    if platform.libc_ver()[0] == "glibc":
        assert outcomes["faults"].report["answer"] < PAGES / 2
    assert outcomes["waits"].report == {"answer": "PASSIVE"}
    running = outcomes["neighbours"].report["answer"]
    assert any("TrainController" in name for name in running), running


@pytest.mark.ray
def test_a_call_does_not_wait_for_ever(cluster, monkeypatch, tmp_path):
    monkeypatch.setattr(pool, "ASK_S", 1.0)
    outcome = pool.Lanes(JobQueue.remote(1)).ask(Call("waits", dict))
    assert outcome.report is None
    assert outcome.reason == "cancelled"


PAGES = 4 * 64 * 2**20 // resource.getpagesize()
"""Those of four tensors of 64 MB."""


def page_faults():
    import torch

    for _ in range(8):
        torch.ones(16 * 2**20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def neighbours():
    """What the node's processes call themselves."""
    raylet = psutil.Process().parent()
    return [" ".join(process.cmdline()) for process in raylet.children()]
