"""A job of two workers on two nodes: only the first one has the files of the job."""

import os
import socket
from dataclasses import replace

import pandas as pd
import pytest
import torch.distributed as dist

from maskcls.data import folds
from ray_jobs.data import stream
from ray_jobs.training import fit
from tests import forked, one_process
from tests.ray_jobs.test_chance import Photos, make_photos
from tests.ray_jobs.training.test_fit import job_of_two_folds

pytestmark = pytest.mark.slow

DIED = 7
"""The exit status of a worker that is killed."""


class Pair(one_process.Alone):
    """One of two workers."""

    world = 2

    def __init__(self, rank, dies_in):
        super().__init__()
        self.rank, self._dies_in, self._epoch = rank, dies_in, 0

    def beat(self, done=0, total=0):
        self._epoch += done == 1
        if self.rank == 1 and self._epoch == self._dies_in:
            os._exit(DIED)

    def shared(self, value):
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


def work(rank, port, folder, epochs, dies_in, answers):
    """A worker process; answers with its report. The second one is gone after the first step of
    epoch ``dies_in``."""
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
    answers.put((rank, fit.run(job, Pair(rank, dies_in))))


def run(folder, epochs, dies_in=None):
    """The reports of both workers, or nothing where one of them died."""
    answers = forked.CONTEXT.Queue()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    processes = [
        forked.CONTEXT.Process(target=work, args=(rank, port, folder, epochs, dies_in, answers))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(200)
    codes = [process.exitcode for process in processes]
    if dies_in is not None:
        assert codes[1] == DIED
        assert codes[0] not in (0, None), "the first worker went on alone"
        return {}
    assert codes == [0, 0]
    return dict(answers.get(timeout=5) for _ in processes)


def left_by(folder):
    job = folder / "node0" / "fold0"
    said = pd.read_parquet(job / "out_of_fold.parquet").astype(str)
    return (job / "model.safetensors").read_bytes(), said


def test_two_workers_go_on_from_the_state_of_the_first(tmp_path):
    run(tmp_path / "straight", epochs=3)
    run(tmp_path / "killed", epochs=3, dies_in=3)
    job = tmp_path / "killed" / "node0" / "fold0"
    assert (job / "resume.pt").is_file()
    assert not (job / "job.json").exists()
    assert run(tmp_path / "killed", epochs=3)[0]["epochs"] == 3
    weights, said = left_by(tmp_path / "killed")
    expected_weights, expected = left_by(tmp_path / "straight")
    assert weights == expected_weights
    pd.testing.assert_frame_equal(said, expected)


def test_the_second_worker_never_reads_what_the_first_wrote(tmp_path):
    reports = run(tmp_path, epochs=1)
    assert reports[0]["epochs"] == 1
    assert reports[0]["device"] == "cpu"
    assert reports[1] == {}
    assert not (tmp_path / "node1").exists()
    # Both hear that the job is done.
    again = run(tmp_path, epochs=1)
    assert again[0] == again[1] == reports[0]
