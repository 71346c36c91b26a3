"""What a lane's worker process does: take a job, run it, tell the queue, again."""

from __future__ import annotations

import logging
import time
import traceback
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
import ray.train.torch
import torch
import torch.distributed as dist

from maskcls.labels import Float32Array
from ray_jobs.cluster.nodes import node_name, why_blind
from ray_jobs.lanes import failures
from ray_jobs.training import fit, range_test, rehearsal
from ray_jobs.training.job import Assignment, Call, Job
from ray_jobs.training.session import Cancelled

BEAT_S = 2.0
"""Seconds between two signs of life."""

SHARE_OF_STALL = 0.5
"""Of ``resources.stall_timeout_s``: how long workers of a job wait for each other's gradients. Less
than all of it, so that the one that waits says which job it is, and only this job starts again."""

FIRST_WORKER_S = timedelta(days=1)
"""How long the other workers of a job wait for what the first one alone does (it predicts, writes,
or waits for a job). Whether the first one is alive is for the queue to watch."""

OF_PURPOSE: dict[str, Any] = {"train": fit, "rehearse": rehearsal, "find lr": range_test}
"""The module whose ``run`` does a job of that purpose."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Member:
    """This process among the workers of its lane."""

    queue: Any
    lane: int
    incarnation: int
    rank: int
    world: int
    node: str
    device: torch.device
    first_worker: Any = None
    """The process group for what the first worker tells the others."""

    def shared(self, value: Any) -> Any:
        """The first worker's value, on every worker."""
        return _broadcast(value, self.world, self.first_worker)


def lane_loop(config: dict[str, Any]) -> None:
    """Do the work of a lane in this process; returns when the lane is to end."""
    torch.set_num_threads(config["threads"])
    _check_shared(config["place"], config["queue"])
    member = _enter(config)
    while (job := _next_job(member)) is not None:
        try:
            report = _do(job, member, config["ensemble"])
        except Cancelled:
            continue
        except Exception as error:
            # A job that cannot be done must not take the lane, and the jobs behind it, with it.
            _report_failure(member, job, error)
            if member.world > 1 or failures.spoils_process(error):
                # The other workers wait for this one, or the process is of no more use.
                raise
        else:
            if member.rank == 0:
                ray.get(member.queue.finish.remote(job.name, report))
        _free_gpu()
    if member.world > 1:
        dist.destroy_process_group()


def choose_device(gpus: float, allow_cpu: bool) -> torch.device:
    """Where a worker that was given ``gpus`` GPUs computes.

    Raises NoAccelerator where it was given one and finds no CUDA, unless ``allow_cpu``.
    """
    if not gpus:
        return torch.device("cpu")
    if torch.cuda.is_available():
        device: torch.device = ray.train.torch.get_device()
        torch.cuda.set_device(device)
        return device
    if allow_cpu:
        return torch.device("cpu")
    raise failures.NoAccelerator(
        f"node {node_name()}: a worker was given {gpus:g} GPU(s), but finds no CUDA: look "
        "at `nvidia-smi` and at the build of PyTorch there; resources.gpus_per_worker=0 trains "
        "on CPUs, and resources.allow_cpu=true does so wherever a GPU cannot be used"
    )


def _enter(config: dict[str, Any]) -> Member:
    """Join the other workers of the lane, and tell the queue of them."""
    queue, lane = config["queue"], config["lane"]
    try:
        device = choose_device(config["gpus"], config["allow_cpu"])
    except failures.NoAccelerator as error:
        ray.get(queue.machine_failed.remote(lane, str(error)))
        raise
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    first_worker = None
    if world > 1:
        # Where they meet stands in the environment; see ``ray_internals.LaneWorkers``.
        timeout = timedelta(seconds=SHARE_OF_STALL * config["stall_timeout_s"])
        dist.init_process_group(config["backend"], timeout=timeout, world_size=world, rank=rank)
        first_worker = dist.new_group(backend="gloo", timeout=FIRST_WORKER_S)
    incarnation = None
    if rank == 0:
        actor = ray.get_runtime_context().current_actor
        incarnation = ray.get(queue.enter.remote(lane, actor))
    incarnation = _broadcast(incarnation, world, first_worker)
    return Member(queue, lane, incarnation, rank, world, node_name(), device, first_worker)


def _broadcast(value: Any, world: int, group: Any) -> Any:
    if world == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=group)
    return box[0]


def _do(job: Assignment, member: Member, ensemble: Any) -> dict[str, Any]:
    """The report of a job, which is that of its first worker."""
    if isinstance(job, Call):
        return {"answer": job.function()} if member.rank == 0 else {}
    session = LaneSession(job, member, ensemble)
    report: dict[str, Any] = OF_PURPOSE[job.purpose].run(job, session)
    return report


def _report_failure(member: Member, job: Assignment, error: Exception) -> None:
    blame, trace = failures.classify(error), traceback.format_exc()
    log.warning("%s failed (%s)", job.name, blame, exc_info=True)
    call = member.queue.report_failure.remote(
        member.lane, member.incarnation, job.name, blame, failures.reason(error), trace
    )
    ray.get(call)


def _check_shared(place: Path | str, queue: Any) -> None:
    """End the run where this node, which may be younger than the run, does not see its folder."""
    if fault := why_blind(place):
        reason = (
            f"{place} is not seen by node {ray.get_runtime_context().get_node_id()} ({fault}): put "
            "data and run.dir on storage that every node mounts at the same path"
        )
        ray.get(queue.abort.remote(reason))
        raise FileNotFoundError(reason)


class LaneSession:
    """A job's view of its lane; see ``training.session.Session``.

    Its calls are named after the job: a lane takes many, and Ray shows only what each call is.
    """

    def __init__(self, job: Job, member: Member, ensemble: Any) -> None:
        self.rank, self.world, self.node = member.rank, member.world, member.node
        self.device = member.device
        self._job, self._member, self._ensemble = job, member, ensemble
        self._queue = member.queue
        self._last_beat = 0.0

    def beat(self, done: int = 0, total: int = 0) -> None:
        now = time.monotonic()
        if self.rank != 0 or now - self._last_beat < BEAT_S:
            return
        self._last_beat = now
        call = self._queue.beat.options(name=self._job.title)
        wanted = ray.get(call.remote(self._job.name, done, total))
        # Workers that share a job can only stop together, after an epoch.
        if not wanted and self.world == 1:
            raise Cancelled

    def wait_for_cpu(self) -> None:
        if self.rank == 0:
            what = f"a CPU of node {self.node}: all are reserved"
            ray.get(self._queue.wait_for.remote(self._job.name, what))

    def epoch(self, number: int, values: dict[str, float]) -> None:
        if self.rank == 0:
            call = self._queue.epoch.options(name=f"{self._job.title} epoch {number}")
            ray.get(call.remote(self._job.name, number, values))

    def streams(self) -> int:
        return self.world * int(ray.get(self._queue.folds_in_training.remote()))

    def shared(self, value: Any) -> Any:
        return self._member.shared(value)

    def go_on(self, number: int) -> bool:
        answer: bool | str = "wait"
        while self.rank == 0 and answer == "wait":
            answer = ray.get(self._queue.verdict.remote(self._job.name, number))
        return bool(self.shared(answer))

    def vote(self, job: Job, keys: list[str], probabilities: dict[str, Float32Array]) -> None:
        ray.get(self._ensemble.add.remote(str(job.task), job.fold, keys, probabilities))

    def has_voted(self, job: Job) -> bool:
        return bool(ray.get(self._ensemble.has.remote(str(job.task), job.fold)))


def _next_job(member: Member) -> Assignment | None:
    answer: Any = "wait"
    while answer == "wait":
        if member.rank == 0:
            answer = ray.get(member.queue.take.remote(member.lane, member.incarnation))
        answer = member.shared(answer)
    job: Assignment | None = answer
    return job


def _free_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
