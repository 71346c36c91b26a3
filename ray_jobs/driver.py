"""Lanes: long-lived Ray Train runs whose workers take one job after the other.

A Train run costs seconds of imports before its loop and is paid here once a lane, not once a job;
the CUDA context and compiled kernels stay warm too. A lane that dies is restarted by Ray Train and
takes its own job again, which goes on from its last epoch.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from maskcls.config import Resources, digest
from ray_jobs.cluster import Lane, Plan
from ray_jobs.job import Job
from ray_jobs.job_queue import Event, JobQueue
from ray_jobs.lane import lane_loop

log = logging.getLogger(__name__)


class RunFailed(RuntimeError):  # noqa: N818 -- an answer to the user, not a bug
    """The run cannot go on; says why. What is finished is kept."""


@dataclass
class Outcome:
    """What became of a job: its report, or why there is none."""

    job: str
    report: dict[str, Any] | None = None
    reason: str | None = None


@dataclass
class Lanes:
    """Running lanes and the queue that feeds them."""

    queue: Any
    resources: Resources
    failures: dict[int, str] = field(default_factory=dict)
    threads: list[threading.Thread] = field(default_factory=list)
    started: bool = False

    def run(
        self, jobs: Sequence[Job], on_event: Callable[[Event], None] = lambda event: None
    ) -> dict[str, Outcome]:
        """Run jobs to their end, in this order; ``on_event`` hears what happens meanwhile.

        A job that fails is told in its outcome. Raises RunFailed when nothing can go on.
        """
        ray.get(self.queue.submit.remote(list(jobs)))
        outcomes = {job.name: Outcome(job.name) for job in jobs}
        for event in self.listen(lambda: any(_open(o) for o in outcomes.values())):
            on_event(event)
            if event.kind == "done":
                outcomes[event.job].report = event.values
            elif event.kind in ("failed", "cancelled"):
                outcomes[event.job].reason = event.values.get("reason", event.kind)
        return outcomes

    def listen(self, go_on: Callable[[], bool]) -> Iterator[Event]:
        """Events of all jobs while ``go_on()``; every wait in here has a limit."""
        seen, began = 0, time.monotonic()
        while go_on():
            seen, events = ray.get(self.queue.events.remote(seen))
            self.started = self.started or bool(events)
            yield from events
            self.check(began)

    def check(self, began: float) -> None:
        """Raise RunFailed where waiting longer is in vain."""
        if len(self.failures) == len(self.threads):
            raise RunFailed("no worker is left: " + "; ".join(sorted(set(self.failures.values()))))
        waited = time.monotonic() - began
        if not self.started and waited > self.resources.start_timeout_s:
            raise RunFailed(
                f"no worker started within {waited:.0f} s (resources.start_timeout_s): is the "
                f"cluster busy? free now: {_readable(ray.available_resources())}"
            )
        stalled = ray.get(self.queue.stalled.remote(self.resources.stall_timeout_s))
        if stalled:
            raise RunFailed(
                f"no sign of life from {', '.join(stalled)} for "
                f"{self.resources.stall_timeout_s:g} s (resources.stall_timeout_s); "
                "the same command goes on from the last epoch"
            )


def queue_name(folder: Path) -> str:
    """The name of a run's queue actor, for those who cannot be handed its handle."""
    return f"maskcls-queue-{digest(folder)}"


@contextmanager
def lanes(
    plan: Plan, resources: Resources, *, folder: Path, ensemble: Any | None = None
) -> Iterator[Lanes]:
    """Start the lanes of a plan; at the end their workers and reservations are gone.

    ``folder`` keeps what Ray Train itself writes, and is removed. Lanes start in the background:
    use the time.
    """
    queue = JobQueue.options(name=queue_name(folder)).remote(resources.attempts)
    running = Lanes(queue, resources)
    storage = folder / ".ray_train"
    for lane in plan.lanes:
        thread = threading.Thread(
            target=_run_lane,
            args=(lane, plan, running, ensemble, storage),
            name=f"lane-{lane.number}",
            daemon=True,
        )
        running.threads.append(thread)
        thread.start()
    try:
        yield running
    finally:
        ray.get(queue.close.remote())
        deadline = time.monotonic() + 30
        for thread in running.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        ray.kill(queue)
        shutil.rmtree(storage, ignore_errors=True)


def _run_lane(lane: Lane, plan: Plan, running: Lanes, ensemble: Any, storage: Path) -> None:
    trainer = TorchTrainer(
        lane_loop,
        train_loop_config={
            "queue": running.queue,
            "ensemble": ensemble,
            "lane": lane.number,
            "threads": plan.threads,
        },
        torch_config=TorchConfig(
            backend=plan.backend, timeout_s=int(running.resources.stall_timeout_s)
        ),
        scaling_config=ScalingConfig(
            num_workers=plan.workers_per_job,
            use_gpu=plan.gpus_per_worker > 0,
            resources_per_worker=plan.worker_resources(),
            label_selector={"ray.io/node-id": lane.node} if lane.node else None,
        ),
        run_config=RunConfig(
            name=f"lane-{lane.number}",
            storage_path=str(storage),
            failure_config=FailureConfig(
                # The queue counts the attempts of each job; this only ends a lane whose worker
                # dies before it takes one.
                max_failures=1000,
                controller_failure_limit=running.resources.attempts,
            ),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        trainer.fit()
    except Exception as error:
        # Whatever ends a lane, its job must go back to the queue and the run must hear of it.
        reason = f"lane {lane.number}: {_last_line(error)}"
        log.debug("lane %d ended", lane.number, exc_info=True)
        running.failures[lane.number] = reason
        ray.get(running.queue.release.remote(lane.number, reason))


def _open(outcome: Outcome) -> bool:
    return outcome.report is None and outcome.reason is None


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def _readable(resources: dict[str, float]) -> str:
    return ", ".join(f"{resources.get(name, 0):g} {name}" for name in ("CPU", "GPU"))
