"""Every private name of Ray 2.60 that this project uses or replaces, and what each is worth.

Nothing outside this file may import from a private module of Ray (tests/test_house.py), and
tests/ray_jobs/cluster/test_ray_internals.py fails where a new Ray has changed what is used here.
Figures are those of benchmarks/RESULTS.md, "Private names of Ray". A piece stays for at least 3 %
of a full sweep's time or memory, or because a run would go wrong without it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray._private.worker
import ray._raylet
from ray._common.utils import get_ray_address_file
from ray._private.authentication.authentication_token_setup import (
    maybe_enable_token_auth_if_token_available,
)
from ray.data import ExecutionResources
from ray.data._internal.cluster_autoscaler import ClusterAutoscaler
from ray.data._internal.execution import streaming_executor
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.streaming_executor import StreamingExecutor
from ray.exceptions import RayActorError
from ray.train import BackendConfig
from ray.train.backend import Backend
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import (
    ControllerCallback,
    RayTrainCallback,
    WorkerGroupCallback,
)
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from ray_jobs.cluster.errors import LaneFailed


def use_token() -> None:
    """Use the token of this user, if there is one, to join a cluster that another program started.

    Needed: Ray itself looks for a token only when it starts a cluster, so joining one fails.
    """
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def address_file() -> Path:
    """Where ``ray start`` writes the address of its cluster, in Ray's temporary folder.

    Needed: to say which file a dead cluster left behind.
    """
    return Path(get_ray_address_file(None))


def ask_gcs(address: str) -> None:
    """Ask the GCS at ``address`` for its cluster. Raises what Ray raises: AuthenticationError for
    another token, RpcError for a gRPC server that is no GCS. Has no time limit of its own.

    Needed: ``ray.init`` waits for minutes where no GCS answers.
    """
    ray._raylet.GcsClient(address=address)


def silence_worker_logs() -> None:
    """Keep warnings of raylets from the terminal, which ``log_to_driver=False`` lets through.

    Needed: no public switch does it, and they would stand between the lines of a run.
    """
    ray._private.worker._worker_logs_enabled = False


def dashboard_url() -> str | None:
    """``host:port`` of the cluster's dashboard; None without one.

    Needed: public only in the value that ``ray.init`` returned to whoever called it.
    """
    url: str = ray._private.worker.get_dashboard_url()
    return url or None


class ExecutorBackoff(ExecutionCallback):
    """Lets Ray Data's executor look around the more seldom the longer nothing has happened.

    While its output waits to be read it has nothing to wait for and spins in the trainer's own
    process, whose interpreter lock it takes (2.60). Where no output waits it looks at once.

    Worth: a full sweep takes 192 s instead of 289.
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
class FixedShare(ClusterAutoscaler):
    """A stream's equal share of the cluster as it is; never asks for nodes.

    Needed: Ray Data's own autoscalers ask for more CPUs whenever there is much to do, and so start
    nodes with GPUs that no job uses and that cost money. ``streams`` tells how many streams there
    are at the moment.
    """

    streams: Callable[[], int]

    def try_trigger_scaling(self) -> None: ...

    def on_executor_shutdown(self) -> None: ...

    def get_total_resources(self) -> ExecutionResources:
        cluster = ExecutionResources.from_resource_dict(ray.cluster_resources())
        return cluster.scale(1 / max(1, self.streams())).max(ExecutionResources(cpu=1))


def use_fixed_share(streams: Callable[[], int]) -> None:
    """Make ``FixedShare`` the autoscaler of every stream that this process starts from here on:
    Ray Data 2.60 has no setting that takes one."""
    streaming_executor.create_cluster_autoscaler = lambda *_, **__: FixedShare(streams)


class LaneTrainer(DataParallelTrainer):
    """A TorchTrainer whose driver and controller do without PyTorch, and without two callbacks.

    Public: it is a ``DataParallelTrainer`` whose backend, ``LaneWorkers``, imports no PyTorch.
    Imports of a driver take 4 s instead of 8, a controller 137 MB.

    Private: the callback that hands out ``datasets`` (ours come from the worker) and the one that
    frees reservations of a dead controller. The latter asks the dashboard's state API, which is not
    there in a cluster that ``ray.init`` started for us, and a reservation ends with its driver.
    Worth: a full sweep of two lanes takes 5.4 GB of memory instead of 5.9, and no less time (192 s
    for 188).
    """

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        unneeded = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [c for c in super()._create_default_callbacks() if not isinstance(c, unneeded)]


class LaneWorkers(BackendConfig):
    """Workers that find each other; they make up the process group themselves."""

    @property
    def backend_cls(self) -> type[Backend]:
        return _Rendezvous


class _Rendezvous(Backend):
    """Tells the workers of a lane the address and port of the first, as TorchConfig does."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        if len(worker_group) > 1:
            address, port = worker_group.execute_single(0, _free_address)
            worker_group.execute(_set_rendezvous, address, port)


def _free_address() -> tuple[str, int]:
    """The address of this node, and a port that is free on it."""
    with socket.socket() as free:
        free.bind(("", 0))
        port: int = free.getsockname()[1]
    return ray.util.get_node_ip_address(), port


def _set_rendezvous(address: str, port: int) -> None:
    os.environ.update(MASTER_ADDR=address, MASTER_PORT=str(port))


class QueueCallback(ControllerCallback, WorkerGroupCallback):
    """Hands the controller's handle to the queue, and gives back the job of a lost worker, which
    may have to wait for another node. Ends a lane whose workers die again and again before they ask
    for a job (the queue counts the attempts of each job).

    Needed: ``fit`` gives the controller's handle to nobody, and the public ``UserCallback`` hears
    neither of a controller that starts nor of workers that are replaced.
    """

    def __init__(self, queue: Any, lane: int, attempts: int) -> None:
        self._queue, self._lane, self._attempts = queue, lane, attempts
        self._started, self._fruitless = False, 0
        self._why, self._trace = WORKER_DIED, ""

    def after_controller_start(self, train_run_context: Any) -> None:
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
        # A worker that is gone explains the errors of those that it left. Ray Train wraps the error
        # where it asked the worker whether it lives.
        causes = [getattr(error, "health_check_failure", error) for error in errors.values()]
        died = any(isinstance(cause, RayActorError) for cause in causes)
        if errors:
            self._why = WORKER_DIED if died else last_line(errors[min(errors)])
            self._trace = "\n".join(str(errors[rank]) for rank in sorted(errors))


WORKER_DIED = "its worker process died (killed, out of memory, or its node was lost)"


def last_line(error: BaseException) -> str:
    """What an error says, without the tracebacks that Ray puts before it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
