"""Why a job's workers were lost, in its folder and in the run's log; without Ray."""

import asyncio
import logging
from dataclasses import replace
from types import SimpleNamespace

from ray_jobs.lanes import attempts
from ray_jobs.lanes.attempts import AttemptLog
from ray_jobs.lanes.failures import Blame
from ray_jobs.lanes.queue import _JobQueue
from ray_jobs.run import console
from tests.ray_jobs.lanes.test_queue import JOB, fail, take


async def two_attempts(folder):
    """A queue whose job lost a worker and then failed by itself."""
    queue = _JobQueue(attempts=3)
    await queue.submit([replace(JOB, name="a", folder=folder / "a")])
    await take(queue, 2)
    await queue.release(2, "its worker process died", "The actor is dead:\n  killed by SIGKILL")
    await take(queue, 0)
    await fail(queue, 0, "a", Blame.JOB, "ValueError: no such layer")
    await queue.submit([replace(JOB, name="b", folder=folder / "b")])
    await take(queue, 0)
    report = {"scores": {"macro_f1": 1.0}, "best_epoch": 1, "views": ["plain"], "seconds": 1.0}
    await queue.finish("b", report)
    return queue


def test_every_cause_and_traceback_stands_in_the_folder_of_the_job(tmp_path, monkeypatch):
    queue = asyncio.run(two_attempts(tmp_path))
    actor = SimpleNamespace(
        events=SimpleNamespace(remote=lambda *a, **kw: asyncio.run(queue.events(*a, **kw)))
    )
    monkeypatch.setattr(attempts.ray, "get", lambda answer: answer)
    record = AttemptLog(actor)
    record.update()
    record.update()
    text = (tmp_path / "a" / "attempts.log").read_text(encoding="utf-8")
    lost, *trace, failed, where = text.splitlines()
    assert lost.endswith(" UTC  attempt 1 on lane 2: its worker process died")
    assert trace == ["    The actor is dead:", "      killed by SIGKILL"]
    assert failed.endswith(" UTC  attempt 2 on lane 0: ValueError: no such layer")
    assert where == "    where"
    assert not (tmp_path / "b").exists()
    # The same command again: what was written stays.
    AttemptLog(actor).update()
    assert (tmp_path / "a" / "attempts.log").read_text(encoding="utf-8").startswith(text)


def test_the_log_says_why_a_job_starts_again(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(console.log, "propagate", True)
    _, events = asyncio.run(asyncio.run(two_attempts(tmp_path)).events(0))
    with caplog.at_level(logging.INFO):
        console.JobLines(2)(events)
    assert caplog.messages[1:3] == [
        "a  attempt 1 was lost: its worker process died",
        "a  starts again (attempt 2)",
    ]
