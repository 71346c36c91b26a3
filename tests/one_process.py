"""A worker's surroundings without Ray: nobody listens, and batches come from a plain loop."""

import torch

from ray_jobs.data import source as pipeline
from ray_jobs.data import stream


class Alone:
    """The session of a worker that nobody listens to; ``told`` is what it said."""

    rank, world, node, device = 0, 1, "here", torch.device("cpu")

    def __init__(self):
        self.told = []

    def beat(self):
        self.told.append("beat")

    def epoch(self, number, values):
        self.told.append("epoch")

    def streams(self):
        return 1

    def shared(self, value):
        return value

    def go_on(self, number):
        self.told.append("go on?")
        return True


def batches(source, plan, augment, *, first_epoch, last_epoch, title, streams):
    """In place of ``pipeline.batches``."""
    for epoch in range(first_epoch, last_epoch + 1):
        for step in range(plan.steps):
            orders = {"epoch": [epoch], "first": [step], "last": [step + 1]}
            made = stream.augment_steps(orders, source=source, plan=plan, augment=augment)
            yield pipeline.Batch(epoch, step, made["item"], made["image"])
