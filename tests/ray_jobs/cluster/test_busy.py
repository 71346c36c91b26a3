"""What a run says of a cluster whose GPUs others have; nothing here starts Ray."""

import asyncio
from types import SimpleNamespace

import pytest

from maskcls.config.schema import Resources
from ray_jobs.cluster import nodes
from ray_jobs.cluster.packing import Lane, Plan
from ray_jobs.lanes import patience, pool
from ray_jobs.lanes.queue import _JobQueue
from ray_jobs.training.job import Call


@pytest.mark.parametrize(
    ("gpus", "total", "free", "state", "waits"),
    [
        (1.0, 4, 0, "PENDING", "1 GPU(s): 4 of 4 are in use"),
        (1.0, 4, 0.5, "PENDING", "3.5 of 4"),
        (1.0, 4, 0, "CREATED", None),  # its workers start, or die as they start
        (1.0, 4, 2, "PENDING", None),
        (4.0, 4, 2, "PENDING", "4 GPU(s): 2 of 4 are in use"),  # a job of four workers
        (1.0, 0, 0, "PENDING", None),  # nodes are to come
        (0.0, 4, 0, "PENDING", None),
    ],
)
def test_waiting_for_gpus_that_are_in_use(gpus, total, free, state, waits, monkeypatch):
    monkeypatch.setattr(nodes.ray, "cluster_resources", lambda: {"GPU": total})
    monkeypatch.setattr(nodes.ray, "available_resources", lambda: {"GPU": free})
    monkeypatch.setattr(nodes.ray.util, "placement_group_table", lambda: {"a": {"state": state}})
    found = nodes.busy(gpus)
    assert found is None if waits is None else waits in found


def test_a_lane_wants_the_gpus_of_all_its_workers_and_its_jobs_the_cpus(monkeypatch, caplog):
    asked, job_waits = [], "a CPU"
    monkeypatch.setattr(pool, "busy", asked.append)
    monkeypatch.setattr(pool.ray, "get", lambda answer: answer)
    monkeypatch.setattr(pool.log, "propagate", True)
    remote = SimpleNamespace(remote=lambda: job_waits)
    running = SimpleNamespace(waits_for=None, queue=SimpleNamespace(waits_for=remote))
    with caplog.at_level("INFO"):
        for _ in range(2):
            pool._note_busy(running, Plan([Lane(0)], 4, 1, 0.5, "nccl", "one lane"))
    assert asked == [2.0, 2.0]
    assert running.waits_for == "a CPU"
    assert caplog.text.count("waiting for a CPU") == 1
    job_waits = None
    pool._note_busy(running, Plan([Lane(0)], 4, 1, 0.5, "nccl", "one lane"))
    assert running.waits_for is None


@pytest.mark.parametrize("busy", [True, False])
def test_a_run_waits_for_a_busy_cluster_without_a_limit(busy, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: clock[0])
    limits = Resources(start_timeout_s=10)

    async def wait():
        queue = _JobQueue(3)
        await queue.submit([Call("a", print)])
        for clock[0] in (0.0, 9.0, 18.0, 27.0):
            reason = await queue.trouble(limits, True, busy)
        return reason

    reason = asyncio.run(wait())
    assert (reason is None) == busy
