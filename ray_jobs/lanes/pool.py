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
import uuid
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
import ray.train
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig

from maskcls.config.layers import digest
from maskcls.config.schema import Resources
from ray_jobs.cluster.names import ascii_name
from ray_jobs.cluster.nodes import busy, check_shared, live_nodes, on_this_node
from ray_jobs.cluster.packing import Lane, Plan
from ray_jobs.cluster.ray_internals import LaneTrainer, LaneWorkers, QueueCallback, last_line
from ray_jobs.lanes.attempts import AttemptLog
from ray_jobs.lanes.queue import JobQueue
from ray_jobs.lanes.records import Event
from ray_jobs.training.job import Assignment, Call

log = logging.getLogger(__name__)
WATCH_S = 2.0
"""Seconds between two looks at whether jobs can still go on."""

END_S = 30.0
"""Seconds that lanes get to end by themselves when there is nothing left to do."""

ASK_S = 15.0
"""Seconds that a call waits for a lane that is free; lanes may have lost their workers."""

ABORT_S = 20.0
"""Seconds that lanes get to end when they are told to."""

KEEP_FREED = {
    "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
}  # fmt: skip
"""Makes glibc keep the memory that a process frees. It fetches large blocks from the system and
gives them back at once; activations are such blocks, and the system clears their pages anew in
every step: a fifth of the time of EfficientNet-Lite0 at 128 x 96. One arena, since Ray Train's loop
runs in a thread, and the arenas of threads give everything back. In page faults of a small
network's step: 49,089 without, 1,536 by a call of mallopt when the process runs, 0 by these. Tasks
that augment have no such blocks (1.8 faults a photo, 1.4 with these): they go without."""

ON_A_CPU = {**KEEP_FREED, "OMP_WAIT_POLICY": "PASSIVE"}
"""The environment of workers that compute on CPUs. Lanes together may have more threads than cores:
one that waits for the others must not spin on a core that another lane could use."""


@dataclass
class Outcome:
    """What became of a job: its report, or why there is none."""

    job: str
    report: dict[str, Any] | None = None
    reason: str | None = None


@dataclass(frozen=True)
class _Setting:
    """What all lanes of a run share."""

    plan: Plan
    resources: Resources
    ensemble: Any
    storage: Path
    place: Path | str


@dataclass
class Lanes:
    """Running lanes and the queue that feeds them."""

    queue: Any
    failures: dict[int, str] = field(default_factory=dict)
    threads: dict[int, threading.Thread] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)
    waits_for: str | None = None
    """What lanes cannot have at the moment, because other programs do."""

    def ask(self, call: Call) -> Outcome:
        """Have a call done by the first lane that is free, if one is within ``ASK_S``."""
        deadline, begun = time.monotonic() + ASK_S, False

        def lose_patience(events: Sequence[Event]) -> None:
            nonlocal begun
            begun = begun or bool(events)
            if not begun and time.monotonic() > deadline:
                ray.get(self.queue.cancel.remote(call.name))

        return self.run([call], lose_patience)[call.name]

    def run(
        self,
        jobs: Sequence[Assignment],
        *listeners: Callable[[Sequence[Event]], None],
        last: bool = False,
    ) -> dict[str, Outcome]:
        """Run jobs to their end, in this order. After the ``last`` ones a lane leaves as soon as
        nothing waits for it, and what it reserved is free; without GPUs one lane stays.

        ``listeners`` hear what happens meanwhile, and every few seconds that nothing did. A job
        that fails, or cannot be run, has the reason in its outcome.
        """
        seen = ray.get(self.queue.events_so_far.remote())
        ray.get(self.queue.submit.remote(list(jobs), len(jobs) if last else None))
        outcomes = {job.name: Outcome(job.name) for job in jobs}
        left = set(outcomes)
        while left:
            seen, events = ray.get(self.queue.events.remote(seen))
            for listen in listeners:
                listen(events)
            for event in events:
                if event.kind == "done":
                    outcomes[event.job].report = event.values
                elif event.kind in ("failed", "cancelled"):
                    outcomes[event.job].reason = event.values.get("reason", event.kind)
                if event.kind in ("done", "failed", "cancelled"):
                    left.discard(event.job)
        return outcomes


def queue_name(folder: Path) -> str:
    """The name of a run's queue actor, for those who cannot be handed its handle."""
    return f"maskcls-queue-{ascii_name(folder.name)}-{digest(folder)}"


@contextmanager
def lanes(
    plan: Plan,
    resources: Resources,
    *,
    folder: Path,
    ensemble: Any | None = None,
    uri: str | None = None,
) -> Iterator[Lanes]:
    """Start the lanes of a plan; at the end their workers are gone, and their reservations at the
    latest with this program (that of a lane which has to be killed before it has a worker).

    ``folder`` keeps what Ray Train itself writes, and is removed. Lanes start in the background.
    Where no worker can come, every job fails with the reason: nothing waits without a limit.
    Raises Refused where a node does not see ``folder`` or, with ``uri``, its object store.
    """
    storage = folder / ".ray_train"
    storage.mkdir(parents=True, exist_ok=True)
    # A file of this run: another node may have a folder of the same name that is its own.
    mark = storage / f"seen-{uuid.uuid4().hex}"
    mark.touch()
    place = uri or mark
    check_shared(place)
    options = {"name": queue_name(folder), "label_selector": on_this_node()}
    # A lane on CPUs keeps nothing from others, and later calls find their imports done.
    keep = 0 if plan.gpus_per_worker else 1
    queue = JobQueue.options(**options).remote(resources.attempts, keep)
    running = Lanes(queue)
    setting = _Setting(plan, resources, ensemble, storage, place)
    for lane in plan.lanes:
        _start(running, setting, lane)
    record = AttemptLog(queue)
    watch = threading.Thread(target=_watch, args=(running, setting, record), daemon=True)
    watch.start()
    try:
        yield running
        # Only on the way out of a finished run: an interrupted one does not wait for its jobs.
        at_work = ray.get(queue.close.remote())
        deadline = time.monotonic() + END_S
        for lane_number in at_work.difference(running.failures):
            running.threads[lane_number].join(max(0.0, deadline - time.monotonic()))
    finally:
        running.ended.set()
        # A thread that still asks Ray something when this program ends would end it with status 1.
        _abort(running)
        watch.join(ABORT_S)
        with suppress(ray.exceptions.RayError):  # a lost queue has nothing more to tell
            record.update()
        ray.kill(queue)
        shutil.rmtree(storage, ignore_errors=True)


def _abort(running: Lanes) -> None:
    """End the lanes that still run, as Ray Train itself does at Ctrl-C in its main thread."""
    if not any(thread.is_alive() for thread in running.threads.values()):
        return
    with suppress(ray.exceptions.RayError):  # a lost queue or cluster has no lanes to end
        controllers, at_work = ray.get(running.queue.end.remote(), timeout=ABORT_S)
        for number, controller in controllers.items():
            if number in at_work:
                controller.abort.remote()
            else:
                # It waits for a worker, perhaps for a node, and hears nothing meanwhile.
                ray.kill(controller)
        deadline = time.monotonic() + ABORT_S
        for number, thread in running.threads.items():
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive() and number in controllers:
                ray.kill(controllers[number])
                thread.join(1.0)


def _start(running: Lanes, setting: _Setting, lane: Lane) -> None:
    thread = threading.Thread(target=_run_lane, args=(lane, setting, running), daemon=True)
    running.threads[lane.number] = thread
    thread.start()


def _watch(running: Lanes, setting: _Setting, record: AttemptLog) -> None:
    """Restart what is silent, and fail all jobs as soon as it is clear that they cannot go on."""
    plan, resources, queue = setting.plan, setting.resources, running.queue
    while not running.ended.wait(WATCH_S):
        try:
            record.update()
            live = live_nodes()
            _give_up_lost_nodes(running, plan, {node.id for node in live})
            _kill_silent(queue, resources.stall_timeout_s)
            _call_back(running, setting)
            _note_busy(running, plan)
            has_node, waits = plan.lanes_on(live) > 0, running.waits_for is not None
            reason = ray.get(queue.trouble.remote(resources, has_node, waits))
            if len(running.failures) == len(running.threads):
                reason = "no worker is left: " + "; ".join(sorted(set(running.failures.values())))
            if reason:
                ray.get(queue.abort.remote(reason))
                return
        except ray.exceptions.RayError:
            return  # The queue is gone, and whoever asks it next hears of that.


def _note_busy(running: Lanes, plan: Plan) -> None:
    """Say what lanes wait for where other programs have it, once for each time."""
    gpus = plan.gpus_per_worker * plan.workers_per_job
    waits_for = busy(gpus) or ray.get(running.queue.waits_for.remote())
    if waits_for and not running.waits_for:
        log.info("waiting for %s; this run goes on when it has what it needs", waits_for)
    running.waits_for = waits_for


def _kill_silent(queue: Any, timeout_s: float) -> None:
    """End the worker of a job that gives no sign of life: Ray Train starts another."""
    for number, (job, actor) in ray.get(queue.silent.remote(timeout_s)).items():
        log.info(
            "%s  no sign of life for %g s (resources.stall_timeout_s): the worker of lane %d is "
            "started again", job, timeout_s, number,
        )  # fmt: skip
        if actor is not None:
            ray.kill(actor)


def _call_back(running: Lanes, setting: _Setting) -> None:
    """Start a lane that has left, where a job has come back that waits for one."""
    left = [
        lane
        for lane in setting.plan.lanes
        if lane.number not in running.failures and not running.threads[lane.number].is_alive()
    ]
    if left and ray.get(running.queue.waiting.remote()):
        _start(running, setting, left[0])


def _give_up_lost_nodes(running: Lanes, plan: Plan, alive: Container[str | None]) -> None:
    """Ray Train would wait for ever for a node that its lane is pinned to."""
    for lane in plan.lanes:
        if lane.node and lane.node not in alive and lane.number not in running.failures:
            running.failures[lane.number] = reason = f"lane {lane.number}: its node was lost"
            log.warning("%s", reason)
            ray.get(running.queue.close_lane.remote(lane.number, reason))


def _run_lane(lane: Lane, setting: _Setting, running: Lanes) -> None:
    """One lane from its start to its end, whatever ends it."""
    try:
        _trainer(lane, setting, running.queue).fit()
    except Exception as error:
        # Whatever ends a lane, its job must go back to the queue and the run must hear of it.
        reason = f"lane {lane.number}: {last_line(error)}"
        running.failures[lane.number] = reason
        if not running.ended.is_set():
            log.warning("%s", reason)
            log.debug("lane %d", lane.number, exc_info=True)
            with suppress(ray.exceptions.RayError):  # the queue may have gone with the lane
                ray.get(running.queue.close_lane.remote(lane.number, reason))


def _trainer(lane: Lane, setting: _Setting, queue: Any) -> LaneTrainer:
    plan, resources, storage = setting.plan, setting.resources, setting.storage
    name = f"{ascii_name(storage.parent.name)}-lane-{lane.number}"
    return LaneTrainer(
        lane_loop,
        train_loop_config={
            "queue": queue,
            "ensemble": setting.ensemble,
            "lane": lane.number,
            "threads": plan.threads,
            "backend": plan.backend,
            "gpus": plan.gpus_per_worker,
            "allow_cpu": resources.allow_cpu,
            "stall_timeout_s": resources.stall_timeout_s,
            "place": setting.place,
        },
        backend_config=LaneWorkers(),
        scaling_config=ScalingConfig(
            num_workers=plan.workers_per_job,
            use_gpu=plan.gpus_per_worker > 0,
            resources_per_worker=plan.worker_resources(),
            label_selector={"ray.io/node-id": lane.node} if lane.node else None,
        ),
        run_config=RunConfig(
            name=name,
            storage_path=str(storage),
            failure_config=FailureConfig(
                max_failures=-1,  # the queue counts those of each job, our callback the others
                controller_failure_limit=resources.attempts,
            ),
            logging_config=LoggingConfig(log_level="ERROR"),
            worker_runtime_env={"env_vars": {} if plan.gpus_per_worker else ON_A_CPU},
            callbacks=[QueueCallback(queue, lane.number, resources.attempts)],
        ),
    )


def lane_loop(config: dict[str, Any]) -> None:
    """The ``train_loop_per_worker`` of a lane."""
    from ray_jobs.lanes import worker_loop  # imports PyTorch, which the driver has no use for

    worker_loop.lane_loop(config)
