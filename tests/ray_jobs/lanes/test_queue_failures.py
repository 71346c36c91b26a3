"""What becomes of a job when its worker, its machine or its peer fails; without Ray."""

import asyncio

import pytest

from ray_jobs.lanes import queue as job_queue
from ray_jobs.lanes.failures import Blame
from ray_jobs.lanes.queue import _JobQueue
from tests.ray_jobs.lanes.test_queue import JOBS, fail, in_a_loop, names_of, take


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(job_queue, "POLL_S", 0.05)


@in_a_loop
async def test_what_a_dead_worker_still_asks_for_is_not_given_to_it():
    job_queue.POLL_S = 5.0
    queue = _JobQueue(attempts=3)
    dead = asyncio.create_task(queue.take(0, await queue.enter(0)))
    await asyncio.sleep(0.01)
    await queue.release(0, "its worker process died")
    await queue.submit(JOBS[:1])
    assert await asyncio.wait_for(dead, 1) is None
    assert (await take(queue, 0)).name == "a"


@in_a_loop
async def test_a_job_whose_lane_does_not_know_of_it_goes_back():
    queue = _JobQueue(attempts=3)
    await queue.submit(JOBS[:1])
    incarnation = await queue.enter(0)
    assert (await queue.take(0, incarnation)).name == "a"
    # The answer was lost, and the worker asks again; then it is replaced, and its successor asks.
    assert (await queue.take(0, incarnation)).name == "a"
    assert (await queue.take(0, await queue.enter(0))).name == "a"
    assert await queue.take(0, incarnation) is None
    _, events = await queue.events(0)
    assert [event.values["reason"] for event in events if event.kind == "lost"] == [
        "its lane does not know of it",
        "its worker was replaced",
    ]


@in_a_loop
async def test_a_peer_s_error_does_not_end_the_job():
    queue = _JobQueue(attempts=3)
    await queue.submit(JOBS[:1])
    await take(queue, 0)
    await fail(queue, 0, "a", Blame.PEER)
    await queue.release(0, "its worker process died")
    assert (await take(queue, 0)).name == "a"
    await fail(queue, 0, "a", Blame.JOB)
    assert (await names_of(queue))[-1] == ("failed", "a")


@in_a_loop
async def test_the_machine_s_failure_is_the_cause_whichever_worker_reports_first():
    queue = _JobQueue(attempts=3)
    await queue.submit(JOBS[:1])
    await take(queue, 0)
    await fail(queue, 0, "a", Blame.PEER, "connection closed by peer")
    await fail(queue, 0, "a", Blame.MACHINE, "the GPU is broken")
    await fail(queue, 0, "a", Blame.PEER, "connection closed by peer")
    await queue.release(0, "its worker process died")
    _, events = await queue.events(0)
    assert events[-1].kind == "lost"
    assert events[-1].values == {"reason": "the GPU is broken", "traceback": "where", "attempt": 1}


@in_a_loop
async def test_a_job_whose_machine_failed_is_tried_on_another_lane():
    queue = _JobQueue(attempts=3)
    await queue.submit(JOBS[:3])
    assert (await take(queue, 0)).name == "a"
    assert (await take(queue, 1)).name == "b"
    await fail(queue, 0, "a", Blame.MACHINE)
    await queue.release(0, "its worker process died")
    assert (await take(queue, 0)).name == "c"
    await queue.finish("b", {})
    assert (await take(queue, 1)).name == "a"


@in_a_loop
async def test_where_there_is_no_other_lane_it_is_tried_on_the_same():
    queue = _JobQueue(attempts=3)
    await queue.submit(JOBS[:1])
    await take(queue, 0)
    await fail(queue, 0, "a", Blame.MACHINE)
    await queue.release(0, "its worker process died")
    assert (await take(queue, 0)).name == "a"


@in_a_loop
async def test_after_two_failures_of_its_machine_a_lane_is_closed_and_says_so():
    queue = _JobQueue(attempts=5)
    await queue.submit(JOBS)
    for times in (1, 2):
        job = await take(queue, 0)
        await fail(queue, 0, job.name, Blame.MACHINE, "CUDA error: unspecified launch failure")
        _, closed = await queue.release(0, "its worker process died")
        assert bool(closed) == (times == 2)
    assert closed == (
        "closed after 2 failures of its machine: CUDA error: unspecified launch failure"
    )
    assert await queue.take(0, await queue.enter(0)) is None
    assert (await take(queue, 1)).name == "a"


@in_a_loop
async def test_a_finished_job_clears_the_machine():
    queue = _JobQueue(attempts=5)
    await queue.submit(JOBS)
    for name in "abc":
        assert (await take(queue, 0)).name == name
        await fail(queue, 0, name, Blame.MACHINE)
        assert await queue.release(0, "its worker process died") == (True, None)
        assert (await take(queue, 0)).name == name
        await queue.finish(name, {})


@in_a_loop
async def test_what_a_replaced_worker_says_of_its_job_does_not_count():
    queue = _JobQueue(attempts=5)
    await queue.submit(JOBS[:1])
    before = await queue.enter(0)
    await queue.take(0, before)
    await queue.take(0, await queue.enter(0))
    await queue.report_failure(0, before, "a", Blame.JOB, "why", "where")
    assert ("failed", "a") not in await names_of(queue)


@in_a_loop
async def test_lanes_leave_as_soon_as_nothing_waits_for_them():
    # One lane stays unless something else is said.
    for queue, last_answer in ((_JobQueue(3, keep=0), None), (_JobQueue(3), "wait")):
        await queue.submit(JOBS[:2], of=2)
        await take(queue, 0)
        await take(queue, 1)
        await queue.finish("a", {})
        assert await take(queue, 0) is None
        await queue.finish("b", {})
        assert await take(queue, 1) == last_answer
        assert await queue.waiting() == 0


@in_a_loop
async def test_trials_come_one_by_one_and_lanes_stay_until_the_last_has_come():
    queue = _JobQueue(attempts=3, keep=0)
    await queue.submit(JOBS[:1], of=2)
    await take(queue, 0)
    assert await take(queue, 1) == "wait"
    await queue.submit(JOBS[1:2], of=2)
    assert await take(queue, 1) == JOBS[1]
    await queue.finish("a", {})
    assert await take(queue, 0) is None
    await queue.finish("b", {})
    assert await take(queue, 1) is None


@in_a_loop
async def test_lanes_stay_while_more_jobs_may_come():
    queue = _JobQueue(attempts=3, keep=0)
    await queue.submit(JOBS[:1])
    await take(queue, 0)
    await queue.finish("a", {})
    assert await take(queue, 0) == "wait"


def test_a_job_that_waits_for_what_others_have_is_not_silent(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(job_queue.time, "monotonic", lambda: clock[0])
    asyncio.run(wait_for_others(clock))


async def wait_for_others(clock):
    queue = _JobQueue(attempts=1)
    await queue.submit(JOBS[:1])
    await take(queue, 0)
    for clock[0] in (8.0, 16.0, 60.0):
        await queue.wait_for("a", "a CPU")
        # What starts has the CPUs for a while as well.
        assert await queue.waits_for() is None
    assert await queue.silent(9.0) == {}
    clock[0] = 68.0
    await queue.wait_for("a", "a CPU")
    assert await queue.waits_for() == "a CPU"
    await queue.beat("a")
    assert await queue.waits_for() is None
    clock[0] = 78.0
    assert list(await queue.silent(9.0)) == [0]
