"""Every private name of Ray 2.60 that this project uses or replaces, and why it is worth it.

Nothing outside this file may import from a private module of Ray; a test holds that, and another
fails where a new Ray no longer has what is replaced here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import ray
import ray.data
from ray.data import ExecutionResources
from ray.data._internal.cluster_autoscaler import ClusterAutoscaler
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.streaming_executor import StreamingExecutor
from ray.exceptions import RayActorError
from ray.train import BackendConfig, Result
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import (
    ControllerCallback,
    RayTrainCallback,
    WorkerGroupCallback,
)
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import state, worker_group
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from ray_jobs.cluster.errors import LaneFailed


class ExecutorBackoff(ExecutionCallback):
    """Lets Ray Data's executor look around the more seldom the longer nothing has happened.

    While its output waits to be read it has nothing to wait for and spins (2.60: 80 % of a core),
    in the trainer's own process, whose interpreter lock it takes. A look costs 1 to 3 ms: 200 a
    second took a third of the pace of training. Where no output waits there is a hurry.
    """

    def __init__(self) -> None:
        self._seen: list[tuple[int, int]] = []
        self._changed = 0.0

    def on_execution_step(self, executor: StreamingExecutor) -> None:
        assert executor._topology is not None
        seen = [
            (operator.num_active_tasks(), len(state.output_queue))
            for operator, state in executor._topology.items()
        ]
        now = time.monotonic()
        if seen != self._seen:
            self._seen, self._changed = seen, now
        until = now + min(0.25, 0.2 * (now - self._changed))
        time.sleep(0.005)
        while time.monotonic() < until and not executor._consumer_idling():
            time.sleep(0.005)


@dataclass(frozen=True)
class NoScaling(ClusterAutoscaler):
    """Takes its share of the cluster as it is. Ray Data would ask the autoscaler for more CPUs, and
    so for nodes with GPUs, whenever it has much to do, and so does a task that has to wait for a
    CPU: how many nodes there are is for the lanes to decide. It would do so through an actor, a
    process that is up seconds later.
    """

    streams: Callable[[], int]

    def try_trigger_scaling(self) -> None: ...

    def on_executor_shutdown(self) -> None: ...

    def get_total_resources(self) -> ExecutionResources:
        cluster = ExecutionResources.from_resource_dict(ray.cluster_resources())
        return cluster.scale(1 / max(1, self.streams())).max(ExecutionResources(cpu=1))


class LaneTrainer(DataParallelTrainer):
    """A TorchTrainer whose driver and controller do without PyTorch: they compute nothing.

    Left out are the actors that hand out ``datasets`` (ours come from the worker), that free what a
    lane reserved (it is free at the latest when the driver ends) and that ask the autoscaler
    for nodes (a reservation that waits asks for its node itself).
    """

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        unneeded = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [c for c in super()._create_default_callbacks() if not isinstance(c, unneeded)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Result:
        arguments["scaling_policy"] = _NoScalingRequests(self.scaling_config)
        return super()._initialize_and_run_controller(**arguments)


class LaneWorkers(BackendConfig):
    """Workers that find each other; they make up the process group themselves."""

    @property
    def backend_cls(self) -> type[Backend]:
        return _Rendezvous


class QueueCallback(ControllerCallback, WorkerGroupCallback):
    """Hands the controller's handle to the queue, since ``fit`` gives it to nobody, and gives back
    the job of a lost worker, which may have to wait for another node.

    It ends a lane whose workers die again and again before they ask for a job (the queue counts the
    attempts of each job). In the controller's process it also takes away Ray Train's actor for
    synchronization, and gives the lane's workers the lane's name, which Ray shows of them.
    """

    def __init__(self, queue: Any, lane: int, name: str, attempts: int) -> None:
        self._queue, self._lane, self._name, self._attempts = queue, lane, name, attempts
        self._started, self._fruitless = False, 0
        self._why, self._trace = WORKER_DIED, ""

    def after_controller_start(self, train_run_context: Any) -> None:
        # This process is the controller's own; Ray Train has settings for neither.
        worker_group.WorkerGroup._worker_cls = _named(
            worker_group.WorkerGroup._worker_cls, self._name
        )
        _without_synchronization()
        controller = ray.get_runtime_context().current_actor
        if not ray.get(self._queue.lane_started.remote(self._lane, controller)):
            raise LaneFailed("the run was ended before this lane began")

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        # The workers before these, if there were any, are gone by now.
        release = self._queue.release.remote(self._lane, self._why, self._trace)
        asked, closed = ray.get(release)
        self._fruitless = 0 if asked else self._fruitless + self._started
        self._started = False
        if closed:
            raise LaneFailed(closed)
        if self._fruitless >= self._attempts:
            raise LaneFailed(
                f"its worker failed {self._fruitless} times before it asked for a job: {self._why}"
            )
        self._why, self._trace = WORKER_DIED, ""

    def after_worker_group_training_start(self, worker_group: Any) -> None:
        self._started = True

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        errors = worker_group_status.errors
        # A worker that is gone explains the errors of those that it left.
        died = [error for error in errors.values() if isinstance(error, RayActorError)]
        if errors:
            self._why = WORKER_DIED if died else last_line(errors[min(errors)])
            self._trace = "\n".join(str(errors[rank]) for rank in sorted(errors))


WORKER_DIED = "its worker process died (killed, out of memory, or its node was lost)"


def last_line(error: BaseException) -> str:
    """What an error says, without the tracebacks that Ray puts before it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


class _NoScalingRequests(FixedScalingPolicy):
    """Asks for the lane's workers and nobody for nodes."""

    def after_controller_start(self, train_run_context: Any) -> None: ...

    def _maybe_send_resource_request(self) -> None: ...


class _Rendezvous(Backend):
    """Tells the workers of a lane where to meet, as TorchConfig does."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        if len(worker_group) > 1:
            address, port = worker_group.execute_single(0, get_address_and_port)
            worker_group.execute(_set_rendezvous, address, port)


def _set_rendezvous(address: str, port: int) -> None:
    os.environ.update(MASTER_ADDR=address, MASTER_PORT=str(port))


def _without_synchronization() -> None:
    worker_group.SynchronizationActor = _NoActor()
    state._shutdown_sync_actor = lambda actor: None


class _NoActor:
    """Stands for the actor through which the workers of a run wait for each other in
    ``ray.train.report``, which lanes do not call."""

    def options(self, **options: Any) -> Self:
        return self

    def remote(self, **arguments: Any) -> Self:
        return self


def _named(worker: type, name: str) -> type:
    """The class of a worker that calls itself ``name``."""
    return type(worker.__name__, (worker,), {"__repr__": lambda self: name})
