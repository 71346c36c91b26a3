"""The ablation without Ray trains what a sweep's job trains, and goes on where it stopped."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import gpu_ablation, soup
from benchmarks.ablation import Overlays
from maskcls.labels import Task
from ray_jobs.data import stream
from ray_jobs.training import fit
from ray_jobs.training import job as jobs
from ray_jobs.training.job import Job
from tests import one_process
from tests.conftest import ROOT

LIST = """
config: best-cpu
base: [model.name=test_efficientnet, model.weights=null, image.crop=none]
overlays:
  plain view: ["predict.views=[plain]"]
"""


@pytest.fixture
def listed(tmp_path):
    path = tmp_path / "list.yaml"
    path.write_text(LIST, encoding="utf-8")
    return path


def test_a_fold_is_that_of_a_sweep(drawn, listed, tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "batches", one_process.batches)
    overlays = gpu_ablation.tiny(Overlays.read(listed))
    every = gpu_ablation.jobs_of(overlays, drawn, tmp_path / "out", [42], "cpu")
    for mine in [job for job in every if job.fold == 0]:
        gpu_ablation.train(mine)
        recipe = mine.data.complete(mine.config.recipe(Task.MULTI))
        theirs = Job(
            name="job", task=Task.MULTI, fold=mine.fold, recipe=recipe, seed=42,
            identity=jobs.identity(recipe, task=Task.MULTI, fold=mine.fold, seed=42, data=""),
            folder=tmp_path / mine.out.parent.name / str(mine.fold),
            train=mine.data.train.images[recipe.image], evaluation=None, group="run",
            tracking=mine.config.tracking,
        )  # fmt: skip
        fit.run(theirs, one_process.Alone())
        ours = pd.read_parquet(mine.out)
        expected = pd.read_parquet(theirs.folder / "out_of_fold.parquet")
        columns = ["photo", "person", "head", "truth"]
        pd.testing.assert_frame_equal(ours[columns], expected[columns])
        for one, other in zip(ours["probabilities"], expected["probabilities"], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("name", ["ablation.yaml", "gpu_ablation.yaml"])
def test_every_word_of_the_shipped_lists_is_read(name):
    overlays = Overlays.read(ROOT / "benchmarks" / name)
    words = {tuple(words) for words in overlays.words.values()}
    assert len(words) == len(overlays.words)  # no variant is another one


def test_it_stops_in_time_goes_on_and_tells_what_there_is(
    drawn, listed, tmp_path, monkeypatch, capsys
):
    def run(*words):
        given = ["gpu_ablation", str(drawn), "--out", str(tmp_path / "out"), "--list", str(listed),
                 "--seeds", "42", "--jobs", "1", "--tiny", *words]  # fmt: skip
        monkeypatch.setattr(sys, "argv", given)
        gpu_ablation.main()
        return capsys.readouterr().out

    assert "out of time: 4 folds are not begun" in run("--budget-s", "0")
    assert "no variant is done" in run("--show")
    assert "4 of 4 folds" in run()
    table = run("--show")
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")]
    assert [row[0].strip("| ") for row in rows] == ["variant", "---", "base", "plain view"]
    assert rows[2][6].strip() == ""
    assert " to " in rows[3][6]
    assert (tmp_path / "out" / "gpu_ablation.md").read_text(encoding="utf-8") in table


def test_the_mean_of_weights_is_scored_beside_the_vote(drawn, tmp_path, monkeypatch, capsys):
    words = [*gpu_ablation.TINY, "model.name=test_efficientnet", "model.weights=null"]
    monkeypatch.setattr("sys.argv", ["soup", str(drawn), *words, "--out", str(tmp_path),
                                     "--seeds", "1", "2", "--threads", "1"])  # fmt: skip
    soup.main()
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if " | " in line]
    assert [row[0].strip("| ") for row in rows[2:]] == [
        "model 1 alone", "model 2 alone", "their vote", "mean of their weights",
        "the same, statistics anew",
    ]  # fmt: skip


def test_the_mean_of_models_is_between_them():
    one, other = (torch.nn.BatchNorm1d(2) for _ in range(2))
    torch.nn.init.constant_(other.weight, 3.0)
    other.num_batches_tracked += 4
    mean = soup.mean_of([one, other])
    assert mean.weight.tolist() == [2.0, 2.0]
    assert mean.num_batches_tracked.item() == 2
    assert one.weight.tolist() == [1.0, 1.0]
