"""What this project uses of Ray's private parts is still there, and shaped as it expects; nothing
here starts Ray. When one of these fails after an upgrade, see ray_jobs/cluster/ray_internals.py."""

import inspect
from types import SimpleNamespace

import pytest
import ray
import ray._private.worker
import ray._raylet
from ray.data._internal.cluster_autoscaler import ClusterAutoscaler
from ray.data._internal.execution import streaming_executor
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.streaming_executor import StreamingExecutor
from ray.exceptions import RayActorError
from ray.train import RunConfig, ScalingConfig
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.train.v2._internal.execution import callback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from ray_jobs.cluster import ray_internals


def parameters(function):
    return list(inspect.signature(function).parameters)


def source(thing):
    return inspect.getsource(thing)


def test_the_names_that_connecting_uses():
    assert isinstance(ray._private.worker._worker_logs_enabled, bool)
    assert "if not _worker_logs_enabled" in source(ray._private.worker)
    assert parameters(ray._private.worker.get_dashboard_url) == []
    assert ray_internals.address_file().name == "ray_current_cluster"
    assert callable(ray._raylet.GcsClient)
    assert "warn_if_disabled" in parameters(
        ray_internals.maybe_enable_token_auth_if_token_available
    )


def test_the_executor_of_ray_data_makes_its_autoscaler_by_the_name_that_is_replaced():
    made = source(StreamingExecutor)
    assert "create_cluster_autoscaler(" in made
    assert callable(streaming_executor.create_cluster_autoscaler)
    assert ClusterAutoscaler.__abstractmethods__ == {
        "try_trigger_scaling", "on_executor_shutdown", "get_total_resources"
    }  # fmt: skip


def test_the_executor_of_ray_data_has_what_its_callback_looks_at():
    assert parameters(ExecutionCallback.on_execution_step) == ["self", "executor"]
    made = source(StreamingExecutor)
    assert "self._topology" in made
    assert parameters(StreamingExecutor._consumer_idling) == ["self"]


def test_a_trainer_has_the_two_callbacks_that_lanes_leave_out(tmp_path):
    arguments = {
        "backend_config": ray_internals.LaneWorkers(),
        "scaling_config": ScalingConfig(num_workers=1),
        "run_config": RunConfig(name="x", storage_path=str(tmp_path)),
    }

    def kinds(trainer):
        made = trainer(lambda: None, **arguments)._create_default_callbacks()
        return {type(one).__name__ for one in made}

    left_out = kinds(DataParallelTrainer) - kinds(ray_internals.LaneTrainer)
    assert left_out == {"DatasetsCallback", "PlacementGroupCleanerCallback"}


def test_a_lane_hears_of_its_controller_and_workers_by_these_methods():
    for base, name in (
        (callback.ControllerCallback, "after_controller_start"),
        (callback.WorkerGroupCallback, "before_worker_group_start"),
        (callback.WorkerGroupCallback, "after_worker_group_training_start"),
        (callback.WorkerGroupCallback, "after_worker_group_poll_status"),
    ):
        ours = getattr(ray_internals.QueueCallback, name)
        assert parameters(ours) == parameters(getattr(base, name)), name


def test_workers_meet_at_an_address_that_is_free():
    host, port = ray_internals._free_address()
    assert host.count(".") == 3 or ":" in host
    assert 1024 < port < 65536


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_dead_worker_is_said_in_a_few_words_and_what_ray_says_is_kept(wrapped):
    error = RayActorError(None, error_msg="The actor is dead because. And a page of advice.")
    if wrapped:
        error = WorkerHealthCheckFailedError("A worker health check failed.", error)
    callback = ray_internals.QueueCallback(None, 0, 3)
    callback.after_worker_group_poll_status(SimpleNamespace(errors={1: error, 0: ValueError("x")}))
    assert callback._why == ray_internals.WORKER_DIED
    assert "a page of advice" in callback._trace
