"""Ray Data: prepared images -> augmented batches, in training order.

One stream serves all epochs of a job. Its input is a list of work orders (an epoch and a few of
its steps); each task works out the steps from ``(seed, epoch)``, reads the images from the shared
memory-mapped file and augments them. Nothing depends on which task runs where or when, so the
pixels are the same for any parallelism, and the start of a pipeline is paid once a job.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import ray
import ray.data
from ray.data import DataContext, ExecutionResources
from ray.data._internal.cluster_autoscaler import ClusterAutoscaler
from ray.data._internal.execution import streaming_executor
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.streaming_executor import StreamingExecutor

from maskcls import allocator, images, sampling, transforms
from maskcls.images import Prepared, Preprocessing
from maskcls.storage import Place

IMAGES_PER_TASK = 256
"""Enough that the pause between two tasks does not count: with tasks of 64 one of two processes
stood idle (Ray 2.60; why is not known, a shorter wait of the executor does not cure it)."""

TASKS_AHEAD = 8
"""Tasks, under way or finished, whose output may wait for the trainer; bounds memory and work in
vain. With half as many a core stands idle."""

EPOCHS_KEPT = 8
"""Epochs whose order a process keeps: jobs side by side share Ray's processes."""

UInt8Array = npt.NDArray[np.uint8]

_epochs: dict[tuple[str, int], sampling.Epoch] = {}


@dataclass(frozen=True)
class ImageSource:
    """Prepared images that any node can open; where they are missing or damaged, it
    prepares them.

    ``table`` is the parquet of the photos, one a row in the order of the images. ``tables`` is the
    folder of it, and ``root`` that of the photos, where they lie on an object store: a node that
    lacks the images fetches photos, which are smaller.
    """

    folder: Path
    table: Path
    preprocessing: Preprocessing
    tables: Place | None = None
    root: Place | None = None

    def open(self) -> UInt8Array:
        """Images [N, H, W, 3], memory-mapped."""
        prepared = Prepared(self.folder)
        try:
            return prepared.open()
        except (FileNotFoundError, ValueError):
            if self.root is not None:
                self.root.pull(set(self.photos()["key"]).__contains__)
            images.prepare(self.photos(), [self.preprocessing], self.folder.parent, threads=2)
            return prepared.open()

    def photos(self) -> pd.DataFrame:
        """The table."""
        if self.tables is not None:
            self.tables.fetch(self.table.name)
        return pd.read_parquet(self.table)


@dataclass(frozen=True)
class EpochPlan:
    """What every task of a stream needs to work out any step of any epoch."""

    rows: Mapping[str, npt.NDArray[Any]]
    labels_N: npt.NDArray[np.int64]
    shares: npt.NDArray[np.float64] | None
    batch_size: int
    seed: int
    rank: int = 0
    world: int = 1
    name: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def steps(self) -> int:
        return -(-len(self.labels_N) // self.batch_size)

    def epoch(self, number: int) -> sampling.Epoch:
        """Worked out once a process: every task of an epoch asks for it, and to shuffle all its
        items for 64 of them would cost as the square of their number."""
        key = (self.name, number)
        if key not in _epochs:
            while len(_epochs) >= EPOCHS_KEPT:
                del _epochs[next(iter(_epochs))]
            _epochs[key] = sampling.epoch(
                self.labels_N,
                shares=self.shares,
                batch_size=self.batch_size,
                seed=self.seed,
                number=number,
            )
        return _epochs[key]


@dataclass(frozen=True)
class Batch:
    """A training step's share of one process: ``items_B`` index the training table."""

    epoch: int
    step: int
    items_B: npt.NDArray[np.int64]
    images_BHWC: UInt8Array


def training_rows(table: pd.DataFrame) -> dict[str, npt.NDArray[Any]]:
    """The columns of a training table that say where pixels come from."""
    return {name: table[name].to_numpy() for name in ("row", "row2", "weight2", "key")}


def augment_steps(
    orders: Mapping[str, npt.NDArray[Any]],
    *,
    source: ImageSource,
    plan: EpochPlan,
    augment: Mapping[str, Any],
) -> dict[str, npt.NDArray[Any]]:
    """The Ray Data task: work orders -> augmented images, in order."""
    cv2.setNumThreads(0)  # tasks run side by side already
    allocator.keep_freed("cpu")
    parts: dict[str, list[npt.NDArray[Any]]] = {"epoch": [], "step": [], "item": [], "draw": []}
    for number, first, last in zip(orders["epoch"], orders["first"], orders["last"], strict=True):
        epoch = plan.epoch(int(number))
        for step in range(int(first), int(last)):
            chosen = epoch.step(step, plan.rank, plan.world)
            items = epoch.items_N[chosen]
            parts["item"].append(items)
            parts["draw"].append(epoch.draws_N[chosen])
            parts["epoch"].append(np.full(len(items), number, np.int32))
            parts["step"].append(np.full(len(items), step, np.int32))
    columns = {name: np.concatenate(values) for name, values in parts.items()}
    drawn = columns["epoch"], columns["item"], columns.pop("draw")
    apply = transforms.build(**augment)
    return {**columns, "image": _augmented(source.open(), plan, *drawn, apply)}


def _augmented(
    photos_NHWC: UInt8Array,
    plan: EpochPlan,
    epochs_B: npt.NDArray[np.int32],
    items_B: npt.NDArray[np.int64],
    draws_B: npt.NDArray[np.int64],
    apply: transforms.Augmentation,
) -> UInt8Array:
    images_BHWC = np.empty((len(items_B), *photos_NHWC.shape[1:]), np.uint8)
    for place, (epoch, item, draw) in enumerate(zip(epochs_B, items_B, draws_B, strict=True)):
        image = photos_NHWC[plan.rows["row"][item]]
        if plan.rows["row2"][item] >= 0:
            weight = float(plan.rows["weight2"][item])
            second = photos_NHWC[plan.rows["row2"][item]]
            image = cv2.addWeighted(image, 1 - weight, second, weight, 0.0)
        key = int(plan.rows["key"][item])
        rng = np.random.default_rng((plan.seed, int(epoch), key, int(draw)))
        images_BHWC[place] = apply(np.ascontiguousarray(image), rng)
    return images_BHWC


def batches(
    source: ImageSource,
    plan: EpochPlan,
    augment: Mapping[str, Any],
    *,
    first_epoch: int,
    last_epoch: int,
    title: str,
    streams: Callable[[], int] = lambda: 1,
) -> Iterator[Batch]:
    """The batches of epochs ``first_epoch`` to ``last_epoch`` (both included), step by step.

    ``title`` is what Ray's dashboard shows of the data set and of its tasks. ``streams`` tells,
    asked once a second, how many there are at the moment, which share the cluster's CPUs.
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
        named, batch_size=None, num_cpus=1
    )
    stream.set_name(title)
    for block in stream.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1):
        edges = np.flatnonzero(np.diff(block["step"]) | np.diff(block["epoch"])) + 1
        bounds = [0, *edges.tolist(), len(block["step"])]
        for start, stop in itertools.pairwise(bounds):
            yield Batch(
                epoch=int(block["epoch"][start]),
                step=int(block["step"][start]),
                items_B=block["item"][start:stop],
                images_BHWC=block["image"][start:stop],
            )


class _Unhurried(ExecutionCallback):
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
class _NoScaling(ClusterAutoscaler):
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


def _configure(task_bytes: int, streams: Callable[[], int]) -> None:
    # Ray Data 2.60 offers two autoscalers, both with that actor, and no way to bring a third.
    streaming_executor.create_cluster_autoscaler = lambda *_, **__: _NoScaling(streams)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.custom_execution_callback_classes = [_Unhurried]
    # A task's output must stay one block: a split inside a step would tear the step apart.
    context.target_max_block_size = max(128 * 2**20, 4 * task_bytes)
    context.execution_options.preserve_order = True
    # Before the first output Ray Data knows of no memory, only of CPUs.
    context.execution_options.resource_limits = ExecutionResources(
        cpu=TASKS_AHEAD, object_store_memory=TASKS_AHEAD * task_bytes
    )
