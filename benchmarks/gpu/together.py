"""Two processes on one GPU: two jobs side by side, and two workers of one job."""

from __future__ import annotations

import datetime
import functools
import time

import numpy as np
import torch
import torch.distributed as dist

from benchmarks.gpu import setting as shared
from benchmarks.gpu import speed
from benchmarks.gpu.agreement import LOSS_TOLERANCE, PROBABILITY_TOLERANCE
from benchmarks.gpu.findings import Crew, Found, NotHere, Rows, require
from benchmarks.gpu.setting import Model, Setting

WINDOW_S = 4.0
"""Seconds that jobs train side by side."""


def jobs(setting: Setting, crew: Crew) -> Rows:
    """The pace of two jobs against that of one."""
    return {
        f"two jobs of {model}": functools.partial(two_jobs, setting, crew, model)
        for model in (setting.small, setting.large)
    }


def two_jobs(setting: Setting, crew: Crew, model: Model) -> Found:
    """The project's step, fed from uint8: in the first process alone, in both at once, and in the
    second one alone."""
    speed.clean(setting)
    work = speed.Work(setting, model, speed.ours(setting))
    work.learner.normalize = work.fed
    work.steps(2 if setting.tiny else 8)
    paces: list[list[float]] = []
    for training in ((0,), (0, 1), (1,)):
        crew.meet.wait()
        mine = pace(work, model, setting) if crew.rank in training else 0.0
        crew.meet.wait()  # nobody reads the values of before any more
        crew.values[crew.rank] = mine
        crew.meet.wait()
        paces.append([crew.values[rank] for rank in training])
    (first,), each, (second,) = paces
    ratio = 2 * sum(each) / (first + second)
    told = " + ".join(f"{value:.0f}" for value in each)
    return (
        f"{told} images/s against {first:.0f} and {second:.0f} alone: {ratio:.2f} times",
        {"alone": [first, second], "each": each, "ratio": ratio, **speed.peak_memory(setting)},
    )


def pace(work: speed.Work, model: Model, setting: Setting) -> float:
    """Images a second over a window of time."""
    count, some, window = 0, *((2, 0.3) if setting.tiny else (8, WINDOW_S))
    began = time.perf_counter()
    while time.perf_counter() - began < window:
        work.steps(some)  # waits for the GPU, so that no queue of work outlasts the window
        count += some
    return count * model.batch_size / (time.perf_counter() - began)


def workers(setting: Setting, crew: Crew) -> Rows:
    """One job shared by two processes."""
    return {"two workers of a job": functools.partial(shared_job, setting, crew)}


def shared_job(setting: Setting, crew: Crew) -> Found:
    """Half of each batch a worker gives what whole batches give one worker: gradients are averaged,
    and batch norm counts all photos. Gloo, since NCCL wants a GPU each."""
    if not setting.gpu:
        raise NotHere("no GPU")
    shared.plain_float32()
    photos, labels = shared.drawn(setting.checked, 4 * setting.checked.batch_size)
    recipe = shared.recipe(setting.checked)
    dist.init_process_group(
        "gloo", init_method=f"file://{setting.folder}/meeting-{setting.began}", rank=crew.rank,
        world_size=crew.world, timeout=datetime.timedelta(seconds=60),
    )  # fmt: skip
    ours = shared.learner(recipe, labels, setting.device, world=crew.world)
    steps = shared.train(ours, photos, 1, 1, crew.rank, crew.world)[0]
    shares = [torch.tensor(steps) for _ in range(crew.world)]
    dist.all_gather(shares, torch.tensor(steps))
    rows = np.arange(len(photos))
    said = ours.predictor()(photos, rows)["mask"]
    dist.destroy_process_group()
    alone = shared.learner(recipe, labels, setting.device)
    expected = np.array(shared.train(alone, photos, 1, 1)[0])
    found = torch.stack(shares).mean(dim=0).numpy()
    loss = float((np.abs(found - expected) / expected).max())
    chance = float(np.abs(alone.predictor()(photos, rows)["mask"] - said).max())
    text = (
        f"losses differ by {loss:.1e}, probabilities by {chance:.1e}; allowed are "
        f"{LOSS_TOLERANCE:g} and {PROBABILITY_TOLERANCE:g}"
    )
    require(loss <= LOSS_TOLERANCE and chance <= PROBABILITY_TOLERANCE, text)
    return text, {"loss": loss, "probability": chance}
