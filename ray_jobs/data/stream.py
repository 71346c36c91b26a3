"""Ray Data: prepared images -> augmented batches, in training order.

One stream serves all epochs of a job. Its input is a list of work orders (an epoch and a few of
its steps); each task works out the steps from ``(seed, epoch)``, reads the images from the shared
memory-mapped file and augments them. Nothing depends on which task runs where or when, so the
pixels are the same for any parallelism, and the start of a pipeline is paid once a job.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import ray.data
from ray.data import DataContext, ExecutionResources
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_jobs.cluster.ray_internals import ExecutorBackoff, use_fixed_share
from ray_jobs.data.augmented import augment_steps
from ray_jobs.data.source import Batch, EpochPlan, ImageSource

IMAGES_PER_TASK = 256
"""Enough that the pause between two tasks does not count: with tasks of 64 one of two processes
stood idle (Ray 2.60; why is not known, a shorter wait of the executor does not cure it)."""

TASKS_AHEAD = 8
"""Tasks, under way or finished, whose output may wait for the trainer; bounds memory and work in
vain. With half as many a core stands idle."""

LATE_S = 5.0
"""Seconds that a block may be late before it is asked whether its node has a free CPU."""


def batches(
    source: ImageSource,
    plan: EpochPlan,
    augment: Mapping[str, Any],
    *,
    first_epoch: int,
    last_epoch: int,
    title: str,
    streams: Callable[[], int] = lambda: 1,
    wait_for_cpu: Callable[[], None] = lambda: None,
) -> Iterator[Batch]:
    """The batches of epochs ``first_epoch`` to ``last_epoch`` (both included), step by step.

    ``title`` is what Ray's dashboard shows of the data set and of its tasks. ``streams`` tells,
    asked once a second, how many there are at the moment, which share the cluster's CPUs.
    ``wait_for_cpu`` is called every second in which a batch is late since no CPU is free.
    """
    steps_per_task = max(1, round(IMAGES_PER_TASK * plan.world / plan.batch_size))
    orders = [
        {"epoch": epoch, "first": first, "last": min(first + steps_per_task, plan.steps)}
        for epoch in range(first_epoch, last_epoch + 1)
        for first in range(0, plan.steps, steps_per_task)
    ]
    height, width = source.preprocessing.height, source.preprocessing.width
    task_bytes = steps_per_task * (plan.batch_size // plan.world + 1) * height * width * 3
    _configure(task_bytes, streams)

    def named(orders: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        return augment_steps(orders, source=source, plan=plan, augment=augment)

    named.__name__ = title
    stream = ray.data.from_items(orders, override_num_blocks=len(orders)).map_batches(
        named, batch_size=None, num_cpus=1, scheduling_strategy=on_node_of_caller()
    )
    stream.set_name(title)
    blocks = stream.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1)
    for block in _watched(iter(blocks), wait_for_cpu):
        edges = np.flatnonzero(np.diff(block["step"]) | np.diff(block["epoch"])) + 1
        bounds = [0, *edges.tolist(), len(block["step"])]
        for start, stop in itertools.pairwise(bounds):
            yield Batch(
                epoch=int(block["epoch"][start]),
                step=int(block["step"][start]),
                items_B=block["item"][start:stop],
                images_BHWC=block["image"][start:stop],
            )


def _watched(blocks: Iterator[Any], wait_for_cpu: Callable[[], None]) -> Iterator[Any]:
    """The same blocks; a thread looks after each that is late."""
    while True:
        came = threading.Event()
        look = threading.Timer(LATE_S, _look_for_cpu, (came, wait_for_cpu))
        look.daemon = True
        look.start()
        try:
            block = next(blocks)
        except StopIteration:
            return
        finally:
            came.set()
            look.cancel()
        yield block


def _look_for_cpu(came: threading.Event, wait_for_cpu: Callable[[], None]) -> None:
    """Until the block ``came``: call ``wait_for_cpu`` while a task that asks for what those of the
    stream ask for, and does nothing, cannot run either."""
    while not came.is_set():
        probe = _nothing.options(scheduling_strategy=on_node_of_caller()).remote()
        # Not cancelled when the block has come: Ray 2.60 ends a process that cancels a task which
        # has just run ("Tried to complete task that was not pending").
        while not came.is_set() and not ray.wait([probe], timeout=1.0)[0]:
            wait_for_cpu()
        came.wait(LATE_S)


@ray.remote(num_cpus=1, max_retries=0)
def _nothing() -> None:
    """See ``_look_for_cpu``."""


def on_node_of_caller() -> NodeAffinitySchedulingStrategy:
    """Tasks run on the node of the worker that reads them, where the images are prepared, and
    elsewhere only if that node has no CPU at all."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)


def _configure(task_bytes: int, streams: Callable[[], int]) -> None:
    use_fixed_share(streams)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.custom_execution_callback_classes = [ExecutorBackoff]
    # A task's output must stay one block: a split inside a step would tear the step apart.
    context.target_max_block_size = max(128 * 2**20, 4 * task_bytes)
    context.execution_options.preserve_order = True
    # Before the first output Ray Data knows of no memory, only of CPUs.
    context.execution_options.resource_limits = ExecutionResources(
        cpu=TASKS_AHEAD, object_store_memory=TASKS_AHEAD * task_bytes
    )
