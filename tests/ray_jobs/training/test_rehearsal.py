"""What a rehearsal measures and leaves, with a stream that needs no Ray."""

import numpy as np
import pytest
import torch

from maskcls.config.load import load
from maskcls.labels import Task
from ray_jobs.data import stream
from ray_jobs.data.photos import Dataset, image_settings, prepare
from ray_jobs.run.folder import RunFolder, make_jobs
from ray_jobs.training import fit, rehearsal
from tests import one_process
from tests.conftest import TINY


@pytest.fixture
def job(drawn, cache, tmp_path):
    config = load([], [f"data.root={drawn}", f"data.cache={cache}", *TINY]).config
    data = prepare(config, image_settings(config, [Task.MULTI]), tmp_path)
    (job,) = make_jobs(config, RunFolder(tmp_path), Dataset(data.train, None, "rehearsal"),
                       [(Task.MULTI, 0)])  # fmt: skip
    return job


def test_every_part_of_a_job_is_measured_after_all_lanes_are_ready(job, monkeypatch):
    monkeypatch.setattr(stream, "batches", one_process.batches)
    for limit in ("WARM_S", "MEASURE_S", "VALIDATE_S"):
        monkeypatch.setattr(rehearsal, limit, 0.01)
    session = one_process.Alone()
    costs = rehearsal.run(job, session)
    assert set(costs) == {"build", "cold", "step", "photo", "save", "load"}
    assert all(np.isfinite(seconds) for seconds in costs.values())
    assert min(costs[part] for part in ("build", "step", "photo", "save", "load")) > 0
    assert session.told.index("epoch") + 1 == session.told.index("go on?")
    assert session.told.count("no CPU") == 2
    assert session.told.count("beat") >= 2 * rehearsal.STEPS + rehearsal.BATCHES
    # It is no finished job, and what it wrote is what a job writes.
    assert not (job.folder / "job.json").exists()
    assert (job.folder / "model.safetensors").is_file()


def test_a_stream_lasts_for_the_most_steps_that_are_measured(job, monkeypatch):
    taken = []
    monkeypatch.setattr(rehearsal, "MOST_STEPS", 7)
    monkeypatch.setattr(
        fit, "step", lambda learner, batch, plan: taken.append(batch) or torch.zeros(())
    )
    monkeypatch.setattr(stream, "batches", one_process.batches)
    monkeypatch.setattr(rehearsal, "VALIDATE_S", 0.01)
    rehearsal.run(job, one_process.Alone())
    assert len(taken) == 2 * 7 + 2
