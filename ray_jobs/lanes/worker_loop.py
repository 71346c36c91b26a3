"""What a lane's worker process does: take a job, run it, tell the queue, again."""

from __future__ import annotations

import logging
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
import ray.train.torch
import torch
import torch.distributed as dist

from maskcls.learning import allocator
from maskcls.storage.remote import StorageError
from ray_jobs.cluster.nodes import node_name, why_blind
from ray_jobs.training import fit, rehearsal
from ray_jobs.training.job import Assignment, Errand, Job
from ray_jobs.training.session import Cancelled, FloatArray, shared

BEAT_S = 2.0
"""Seconds between two signs of life."""

log = logging.getLogger(__name__)


def lane_loop(config: dict[str, Any]) -> None:
    """Do the work of a lane in this process; returns when the queue is closed and empty."""
    torch.set_num_threads(config["threads"])
    log.info("%s", allocator.keep_freed(_device().type))
    _check_shared(config["place"], config["queue"])
    context = ray.train.get_context()
    rank, world, node = context.get_world_rank(), context.get_world_size(), node_name()
    if torch.cuda.is_available():
        torch.cuda.set_device(_device())
    if world > 1:
        # Where they meet stands in the environment; see ``lane_trainer._Meeting``.
        timeout = timedelta(seconds=config["timeout_s"])
        dist.init_process_group(config["backend"], timeout=timeout, world_size=world, rank=rank)
    while (job := _next_job(config["queue"], config["lane"], rank, world)) is not None:
        try:
            if isinstance(job, Errand):
                report = {"answer": job.do()} if rank == 0 else {}
            else:
                session = LaneSession(job, config["queue"], config["ensemble"], rank, world, node)
                report = (rehearsal.run if job.rehearsal else fit.run)(job, session)
        except Cancelled:
            continue
        except Exception as error:
            # A job that cannot be done must not take the lane, and the jobs behind it, with it.
            log.warning("%s failed", job.name, exc_info=True)
            ray.get(config["queue"].fail.remote(job.name, _reason(error)))
            if world > 1 or isinstance(error, torch.AcceleratorError):
                # The other workers are waiting for this one, or the GPU context is broken: only
                # a restart of the lane helps.
                raise
        else:
            if rank == 0:
                ray.get(config["queue"].finish.remote(job.name, report))
        _free_gpu()
    if world > 1:
        dist.destroy_process_group()


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
    """A job's view of its lane; see ``worker.Session``.

    Its calls are named after the job: a lane takes many, and Ray shows only what each call is.
    """

    def __init__(
        self, job: Job, queue: Any, ensemble: Any, rank: int, world: int, node: str
    ) -> None:
        self.rank, self.world, self.node = rank, world, node
        self.device = _device()
        self._job, self._queue, self._ensemble = job, queue, ensemble
        self._last_beat = 0.0

    def beat(self) -> None:
        now = time.monotonic()
        if self.rank != 0 or now - self._last_beat < BEAT_S:
            return
        self._last_beat = now
        call = self._queue.beat.options(name=self._job.title)
        wanted = ray.get(call.remote(self._job.name))
        # Workers that share a job can only stop together, after an epoch.
        if not wanted and self.world == 1:
            raise Cancelled

    def epoch(self, number: int, values: dict[str, float]) -> None:
        if self.rank == 0:
            call = self._queue.epoch.options(name=f"{self._job.title} epoch {number}")
            ray.get(call.remote(self._job.name, number, values))

    def streams(self) -> int:
        return self.world * int(ray.get(self._queue.folds_in_training.remote()))

    def go_on(self, number: int) -> bool:
        answer: bool | str = "wait"
        while self.rank == 0 and answer == "wait":
            answer = ray.get(self._queue.verdict.remote(self._job.name, number))
        return bool(shared(answer, self.world))

    def vote(self, job: Job, keys: list[str], probabilities: dict[str, FloatArray]) -> None:
        ray.get(self._ensemble.add.remote(str(job.task), job.fold, keys, probabilities))

    def has_voted(self, job: Job) -> bool:
        return bool(ray.get(self._ensemble.has.remote(str(job.task), job.fold)))


def _next_job(queue: Any, lane: int, rank: int, world: int) -> Assignment | None:
    answer: Any = "wait"
    while answer == "wait":
        if rank == 0:
            answer = ray.get(queue.take.remote(lane))
        answer = shared(answer, world)
    job: Assignment | None = answer
    return job


def _device() -> torch.device:
    # Asked of torch, not of Ray: a GPU may be logical only, on a machine that has none.
    return ray.train.torch.get_device() if torch.cuda.is_available() else torch.device("cpu")


def _free_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _reason(error: Exception) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    known = isinstance(error, ValueError | OSError | FloatingPointError | StorageError)
    where = "" if known else f" ({place.filename}:{place.lineno})"
    return f"{type(error).__name__}: {error}{where}"
