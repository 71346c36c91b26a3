"""A worker's surroundings without Ray Train: nobody listens, or a thread is the worker of a lane,
and batches come from a plain loop."""

from types import SimpleNamespace

import ray.train
import torch
from ray.runtime_context import RuntimeContext

from ray_jobs.data import augmented, stream
from ray_jobs.data import source as pipeline


class Alone:
    """The session of a worker that nobody listens to; ``told`` is what it said."""

    rank, world, node, device = 0, 1, "here", torch.device("cpu")

    def __init__(self):
        self.told = []

    def beat(self, done=0, total=0):
        self.told.append("beat")

    def epoch(self, number, values):
        self.told.append("epoch")

    def streams(self):
        return 1

    def wait_for_cpu(self):
        self.told.append("no CPU")

    def shared(self, value):
        return value

    def go_on(self, number):
        self.told.append("go on?")
        return True


def batches(source, plan, augment, *, first_epoch, last_epoch, title, streams, wait_for_cpu):
    """In place of ``pipeline.batches``, with no CPU free at first."""
    wait_for_cpu()
    for epoch in range(first_epoch, last_epoch + 1):
        for step in range(plan.steps):
            orders = {"epoch": [epoch], "first": [step], "last": [step + 1]}
            made = augmented.augment_steps(orders, source=source, plan=plan, augment=augment)
            yield pipeline.Batch(epoch, step, made["item"], made["image"])


class LaneHere:
    """In place of ``pool.LaneTrainer``: the lane's worker is a thread of this process.

    A Train run costs ten seconds of imports in two new processes. Queue, verdicts, the worker's own
    loop and the training are the real ones.
    """

    def __init__(self, loop, *, train_loop_config, **options):
        self._loop, self._config = loop, train_loop_config

    def fit(self):
        self._loop(self._config)


def use_lanes_here(patch):
    """Make lanes threads of this process, each with one worker."""
    from ray_jobs.lanes import pool, worker_loop

    context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    patch.setattr(ray.train, "get_context", lambda: context)
    patch.setattr(RuntimeContext, "current_actor", None)  # only an actor has one
    patch.setattr(pool, "LaneTrainer", LaneHere)
    patch.setattr(pool, "ABORT_S", 2.0)  # a thread cannot be ended from outside
    patch.setattr(stream, "batches", batches)
    # Why a job failed goes to the log of a worker, which nobody reads here.
    patch.setattr(worker_loop.log, "disabled", True)
