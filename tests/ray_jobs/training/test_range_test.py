"""What a worker does for a range test, with a stream that needs no Ray."""

import numpy as np
import pandas as pd

from maskcls.learning import range_test as rates
from maskcls.learning.learner import Learner
from maskcls.reports import learning_rate as report
from ray_jobs.data import stream
from ray_jobs.training import range_test
from tests import one_process
from tests.ray_jobs.training.test_rehearsal import job  # noqa: F401 -- a fixture


def test_the_rate_of_each_step_rises_and_nothing_is_kept(job, monkeypatch):  # noqa: F811
    monkeypatch.setattr(stream, "batches", one_process.batches)
    monkeypatch.setattr(rates, "STEPS", 9)
    monkeypatch.setattr(rates, "diverged", lambda losses: False)
    seen, step = [], Learner.step

    def watched(self, *given, **named):
        loss = step(self, *given, **named)
        seen.append(self.lr)
        return loss

    monkeypatch.setattr(Learner, "step", watched)
    found = range_test.run(job, one_process.Alone())["losses"]
    assert len(found) == 9
    assert np.allclose(seen, np.geomspace(rates.LOWEST, rates.HIGHEST, 9))
    assert not job.folder.exists()


def test_it_ends_where_the_loss_diverges(job, monkeypatch):  # noqa: F811
    monkeypatch.setattr(stream, "batches", one_process.batches)
    monkeypatch.setattr(rates, "diverged", lambda losses: len(losses) == 4)
    assert len(range_test.run(job, one_process.Alone())["losses"]) == 4


def test_the_curve_is_drawn(tmp_path):
    tried = pd.DataFrame({"lr": [1e-3, 1e-2], "loss": [2.0, 1.0], "smoothed": [2.0, 1.5]})
    report.write(tmp_path / "range_test.svg", tried, 5e-3)
    text = (tmp_path / "range_test.svg").read_text()
    assert text.startswith("<?xml")
    assert "train.lr=5.0e-03" in text
