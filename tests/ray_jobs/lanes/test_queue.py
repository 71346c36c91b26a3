"""The queue behind the lanes, without Ray: its class is an ordinary one."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from maskcls.config.recipe import Recipe
from maskcls.config.schema import Resources, Tracking
from maskcls.labels import Task
from ray_jobs.lanes import queue as job_queue
from ray_jobs.lanes.failures import Blame
from ray_jobs.lanes.queue import _JobQueue
from ray_jobs.lanes.records import STEP_EVENTS
from ray_jobs.training.job import Call, Job

JOB = Job(
    name="age-fold0",
    task=Task.AGE,
    fold=0,
    recipe=Recipe(),
    seed=42,
    identity="0" * 16,
    folder=Path("/nowhere"),
    train=None,
    evaluation=None,
    group="run",
    tracking=Tracking(),
)
JOBS = [replace(JOB, name=name) for name in "abc"]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(job_queue, "POLL_S", 0.05)


def in_a_loop(test):
    def run():
        asyncio.run(test())

    return run


async def take(queue, lane):
    """What the lane's present worker gets; its first one enters."""
    state = queue._lanes[lane]
    if not state.at_work:
        await queue.enter(lane)
    return await queue.take(lane, state.incarnation)


async def fail(queue, lane, name, blame, reason="why"):
    await queue.report_failure(lane, queue._lanes[lane].incarnation, name, blame, reason, "where")


async def names_of(queue):
    _, events = await queue.events(0)
    return [(event.kind, event.job) for event in events]


@in_a_loop
async def test_jobs_are_taken_in_order_and_end_when_closed():
    queue = _JobQueue(attempts=2)
    await queue.submit(JOBS[:2])
    assert (await take(queue, 0)).name == "a"
    assert (await take(queue, 1)).name == "b"
    await queue.finish("a", {})
    assert await take(queue, 0) == "wait"
    await queue.close()
    assert await take(queue, 0) is None


@in_a_loop
async def test_the_first_epoch_of_a_job_is_an_event_now_and_then():
    queue = _JobQueue(attempts=2)
    await queue.submit(JOBS[:1])
    await take(queue, 0)
    for done in range(1000):
        assert await queue.beat("a", done, 1000)
    await queue.beat("a")  # a sign of life alone
    steps = [e.values for e in (await queue.events(0))[1] if e.kind == "steps"]
    assert len(steps) == STEP_EVENTS - 1
    assert steps[0] == {"done": 20, "total": 1000}
    await queue.epoch("a", 1, {})
    await queue.beat("a", 999, 1000)
    assert (await queue.events(0))[1][-1].kind == "epoch"


@in_a_loop
async def test_a_restarted_lane_gets_its_own_job_again_until_its_attempts_are_used():
    queue = _JobQueue(attempts=2)
    await queue.submit(JOBS[:2])
    assert (await take(queue, 0)).name == "a"
    await queue.release(0, "its worker died")
    assert (await take(queue, 0)).name == "a"
    await queue.release(0, "its worker died")
    assert (await take(queue, 0)).name == "b"
    assert ("failed", "a") in await names_of(queue)


@in_a_loop
async def test_the_folds_in_training_are_those_of_jobs_that_run():
    queue = _JobQueue(attempts=2)
    trial = replace(JOB, name="trial", companions=tuple(JOBS[:2]))
    await queue.submit([trial, *JOBS[:1], Call("looks", dict), *JOBS[1:]])
    for lane, folds in enumerate((3, 4, 4, 5)):
        await take(queue, lane)
        assert await queue.folds_in_training() == folds
    await queue.finish("trial", {})
    assert await queue.folds_in_training() == 2


@in_a_loop
async def test_a_job_that_gets_on_may_lose_any_number_of_workers():
    queue = _JobQueue(attempts=2)
    await queue.submit(JOBS[:1])
    for number in range(1, 6):
        assert (await take(queue, number)).name == "a"
        await queue.epoch("a", number, {})
        await queue.release(number, "the node was taken back")
    assert ("failed", "a") not in await names_of(queue)


@in_a_loop
async def test_a_job_that_dies_behind_the_same_epoch_again_and_again_fails():
    queue = _JobQueue(attempts=2)
    await queue.submit(JOBS[:1])
    for _ in range(2):
        assert (await take(queue, 0)).name == "a"
        await queue.epoch("a", 3, {})
        await queue.release(0, "its worker process died")
    assert ("failed", "a") in await names_of(queue)


@in_a_loop
async def test_lanes_that_have_a_worker_are_known():
    queue = _JobQueue(attempts=2)
    await queue.submit(JOBS[:2])
    assert await queue.release(0, "before its first worker") == (False, None)
    await take(queue, 0)
    await take(queue, 1)
    assert await queue.release(1, "its worker died") == (True, None)
    assert await queue.release(1, "its next worker died before it asked") == (False, None)
    assert await queue.close() == {0}
    assert (await queue.end())[1] == {0}


@in_a_loop
async def test_a_lost_lane_gives_its_job_to_another():
    queue = _JobQueue(attempts=2)
    await queue.submit(JOBS[:1])
    await take(queue, 0)
    await queue.release(0, "the node went away")
    assert (await take(queue, 1)).name == "a"
    await queue.release(1, "the node went away")
    assert ("failed", "a") in await names_of(queue)


@in_a_loop
async def test_what_is_said_twice_counts_once():
    queue = _JobQueue(attempts=1)
    await queue.submit(JOBS[:1])
    await queue.submit(JOBS[:1])
    await take(queue, 0)
    await queue.finish("a", {})
    await queue.finish("a", {})
    await fail(queue, 0, "a", Blame.JOB)
    assert await names_of(queue) == [("started", "a"), ("done", "a")]


@in_a_loop
async def test_a_job_that_has_ended_may_come_again():
    queue = _JobQueue(attempts=1)
    await queue.submit(JOBS)
    for lane in range(3):
        await take(queue, lane)
    await queue.finish("a", {})
    await fail(queue, 1, "b", Blame.JOB)
    await queue.cancel("c")
    await queue.submit(JOBS)
    assert [(await take(queue, lane)).name for lane in range(3)] == ["a", "b", "c"]


@in_a_loop
async def test_a_waiting_lane_is_woken_by_a_new_job():
    job_queue.POLL_S = 5.0
    queue = _JobQueue(attempts=1)
    waiting = asyncio.create_task(take(queue, 0))
    await asyncio.sleep(0.01)
    await queue.submit(JOBS[:1])
    assert (await asyncio.wait_for(waiting, 1)).name == "a"


@in_a_loop
async def test_a_supervised_job_waits_for_its_verdict_and_stops_when_cancelled():
    queue = _JobQueue(attempts=1)
    await queue.submit(JOBS[:1])
    await take(queue, 0)
    assert await queue.verdict("a", 1) == "wait"
    assert await queue.silent(60) == {}
    await queue.decide("a", 1, go_on=True)
    assert await queue.verdict("a", 1) is True
    await queue.cancel("a")
    assert await queue.verdict("a", 2) is False
    assert await queue.beat("a") is False


@in_a_loop
async def test_a_silent_job_costs_its_worker_and_an_attempt_and_no_other_job():
    queue = _JobQueue(attempts=2)
    await queue.submit(JOBS[:2])
    for attempt in range(2):
        await queue.lane_started(0, "controller")
        incarnation = await queue.enter(0, f"worker {attempt}")
        assert (await queue.take(0, incarnation)).name == "a"
        assert await queue.silent(0.04) == {}
        await asyncio.sleep(0.05)
        assert await queue.trouble(Resources(), True) is None
        assert await queue.silent(0.04) == {0: ("a", f"worker {attempt}")}
        await queue.release(0, "its worker process died")
    _, events = await queue.events(0)
    (failed,) = [e for e in events if e.kind == "failed"]
    assert failed.job == "a"
    assert "no sign of life for 0.04 s" in failed.values["reason"]
    assert (await take(queue, 0)).name == "b"


@in_a_loop
async def test_where_to_kill_a_silent_worker_does_not_help_its_controller_ends():
    queue = _JobQueue(attempts=2)
    await queue.submit(JOBS[:1])
    await queue.lane_started(0, "controller")
    await queue.take(0, await queue.enter(0, "worker"))
    await asyncio.sleep(0.02)
    assert await queue.silent(0.01) == {0: ("a", "worker")}
    await asyncio.sleep(0.02)
    assert await queue.silent(0.01) == {0: ("a", "controller")}


@in_a_loop
async def test_jobs_that_nobody_takes_are_trouble_but_an_empty_queue_is_not():
    queue = _JobQueue(attempts=1)
    limits = Resources(start_timeout_s=0.04)
    await asyncio.sleep(0.05)
    assert await queue.trouble(limits, True) is None
    await queue.submit(JOBS[:1])
    await asyncio.sleep(0.05)
    assert "no worker took one" in await queue.trouble(limits, True)


@in_a_loop
async def test_a_node_that_must_start_is_waited_for_longer_and_then_the_worker_anew():
    queue = _JobQueue(attempts=1)
    await queue.submit(JOBS[:1])
    slow = Resources(start_timeout_s=0.04, node_timeout_s=60)
    await asyncio.sleep(0.05)
    assert await queue.trouble(slow, False) is None
    assert await queue.trouble(slow, True) is None
    await asyncio.sleep(0.05)
    assert "no worker took one" in await queue.trouble(slow, True)
    impatient = Resources(node_timeout_s=0.04)
    told = await queue.trouble(impatient, False)
    assert "no node for them came within 0.04 s (resources.node_timeout_s)" in told


@in_a_loop
async def test_after_an_abort_every_job_fails_for_its_reason_also_a_later_one():
    queue = _JobQueue(attempts=1)
    await queue.submit(JOBS[:2])
    await take(queue, 0)
    await queue.abort("the power is out")
    await queue.submit(JOBS[2:])
    _, events = await queue.events(0)
    failed = {e.job: e.values["reason"] for e in events if e.kind == "failed"}
    assert failed == dict.fromkeys("abc", "the power is out")


@in_a_loop
async def test_events_tell_what_happened_where_and_to_which_attempt():
    queue = _JobQueue(attempts=2)
    await queue.submit([*JOBS[:2], Call("looks", dict)])
    for lane in (3, 4, 5):
        await take(queue, lane)
    await queue.epoch("a", 1, {"loss": 0.5})
    await queue.release(3, "its worker died", "a traceback")
    await take(queue, 3)
    await queue.finish("a", {"epochs": 2})
    await fail(queue, 4, "b", Blame.JOB)
    await queue.cancel("looks")
    _, events = await queue.events(0)
    assert [(e.kind, e.job, e.lane, e.values) for e in events] == [
        ("started", "a", 3, {"attempt": 1}),
        ("started", "b", 4, {"attempt": 1}),
        ("started", "looks", 5, {"attempt": 1}),
        ("epoch", "a", 3, {"epoch": 1, "loss": 0.5}),
        ("lost", "a", 3, {"reason": "its worker died", "traceback": "a traceback", "attempt": 1}),
        ("started", "a", 3, {"attempt": 2}),
        ("done", "a", 3, {"epochs": 2}),
        ("failed", "b", 4, {"reason": "why", "traceback": "where", "attempt": 1}),
        ("cancelled", "looks", 5, {}),
    ]
    assert [e.place for e in events] == [None if e.job == "looks" else JOB.place for e in events]
    assert await queue.why_failed("b") == "why"
    assert await queue.why_failed("a") is None
    assert await queue.beat("looks") is False


@in_a_loop
async def test_events_of_one_job_or_of_all_from_a_number_on():
    queue = _JobQueue(attempts=1)
    await queue.submit(JOBS[:2])
    assert await queue.events(0, wait=False) == (0, [])
    await take(queue, 0)
    await take(queue, 1)
    assert [e.job for e in (await queue.events(0, "b"))[1]] == ["b"]
    assert [e.job for e in (await queue.events(1))[1]] == ["b"]
    assert await queue.events_so_far() == 2
    assert await queue.events(2) == (2, [])  # after a while
    job_queue.POLL_S = 5.0
    asked = asyncio.create_task(queue.events(2, "a"))
    await asyncio.sleep(0.01)
    await queue.epoch("b", 1, {})
    await asyncio.sleep(0.01)
    assert not asked.done()
    await queue.epoch("a", 1, {})
    assert [e.kind for e in (await asyncio.wait_for(asked, 1))[1]] == ["epoch"]


@in_a_loop
async def test_a_lane_without_a_job_hides_no_silent_one_and_a_job_that_runs_is_no_trouble():
    queue = _JobQueue(attempts=1)
    await queue.submit(JOBS[:3])
    await queue.enter(0)
    await queue.take(1, await queue.enter(1, "worker"))
    await take(queue, 2)
    await asyncio.sleep(0.05)
    await queue.epoch("b", 1, {})
    assert await queue.silent(0.04) == {1: ("a", "worker")}
    limits = Resources(start_timeout_s=0.01)
    await asyncio.sleep(0.02)
    assert await queue.trouble(limits, True) is None
    await queue.finish("a", {})
    await queue.finish("b", {})
    await queue.trouble(limits, True)
    await asyncio.sleep(0.02)
    assert "1 job(s) wait" in await queue.trouble(limits, True)
    assert await queue.trouble(limits, True, busy=True) is None


@in_a_loop
async def test_a_closed_lane_gives_its_job_back_and_gets_no_other():
    queue = _JobQueue(attempts=2)
    await queue.submit(JOBS[:2])
    await take(queue, 0)
    await queue.close_lane(0, "its node was lost")
    _, events = await queue.events(0)
    assert (events[-1].kind, events[-1].values["reason"]) == ("lost", "its node was lost")
    assert await queue.take(0, await queue.enter(0)) is None
    assert await queue.release(0, "again") == (True, "its node was lost")
    await queue.close_lane(0, "something else")
    assert await queue.release(0, "again") == (False, "its node was lost")
    assert (await take(queue, 1)).name == "a"


@in_a_loop
async def test_a_lane_that_starts_after_the_end_is_not_wanted():
    queue = _JobQueue(attempts=3)
    assert await queue.lane_started(0, "controller")
    assert await queue.end() == ({0: "controller"}, set())
    assert not await queue.lane_started(1, "late")


def test_what_ray_s_dashboard_shows_of_a_job_is_ascii():
    job = replace(JOB, name="age-fold0", group="run é 1")
    assert job.title == "run _ 1:age-fold0"
    assert replace(job, name="a1b2_00003").title == "run _ 1:a1b2_00003:age-fold0"
