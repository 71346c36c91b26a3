"""A job of two workers on two nodes: only the first one has the files of the job."""

import multiprocessing
import socket
from dataclasses import replace

import pytest
import torch.distributed as dist

from maskcls.data import folds
from ray_jobs.data import stream
from ray_jobs.training import fit
from tests import one_process
from tests.ray_jobs.test_chance import Photos, make_photos
from tests.ray_jobs.training.test_fit import job_of_two_folds

pytestmark = pytest.mark.slow


class Pair(one_process.Alone):
    """One of two workers."""

    world = 2

    def __init__(self, rank):
        super().__init__()
        self.rank = rank

    def shared(self, value):
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


def work(rank, port, folder, epochs, answers):
    """A worker process; answers with its report."""
    store = dist.TCPStore("127.0.0.1", port, 2, is_master=rank == 0)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    stream.batches = one_process.batches
    table, images_NHWC = make_photos(seed=3)
    fold_of = folds.assign(table, 2, seed=1)
    photos = Photos(table.assign(fold=table["person"].map(fold_of)), images_NHWC)
    job = job_of_two_folds(folder / f"node{rank}", photos)
    train = job.recipe.train.model_copy(update={"epochs": epochs})
    job = replace(
        job, companions=(), supervised=False, recipe=job.recipe.model_copy(update={"train": train})
    )
    answers.put((rank, fit.run(job, Pair(rank))))


def run(folder, epochs):
    """The reports of both workers."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    processes = [
        context.Process(target=work, args=(rank, port, folder, epochs, answers))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(200)
    assert [process.exitcode for process in processes] == [0, 0]
    return dict(answers.get(timeout=5) for _ in processes)


def test_the_second_worker_never_reads_what_the_first_wrote(tmp_path):
    reports = run(tmp_path, epochs=1)
    assert reports[0]["epochs"] == 1
    assert reports[0]["device"] == "cpu"
    assert reports[1] == {}
    assert not (tmp_path / "node1").exists()
    # Both hear that the job is done.
    again = run(tmp_path, epochs=1)
    assert again[0] == again[1] == reports[0]
