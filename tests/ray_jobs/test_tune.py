"""The search as a user runs it: results, resumption, failures, nothing left behind.

One search is a program of its own, on real lanes: see ``searched``. What comes after it runs in
this process.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from maskcls.config.load import load
from maskcls.labels import Task
from ray_jobs.lanes import pool
from ray_jobs.run import state as run_state
from tests import one_process
from tests.conftest import ROOT, command
from tests.ray_jobs.conftest import SEARCH

DRIVER = """
import sys
from pytest import MonkeyPatch
from ray_jobs import tune
from tests import one_process
one_process.use_lanes_here(MonkeyPatch())
tune.main()
"""
"""A search whose lanes are threads of its own process."""


def test_every_trial_is_written_down_with_its_end(searched):
    run_dir, told = searched
    trials = pd.read_csv(run_dir / "trials.csv")
    assert len(trials) == 8
    assert set(trials["state"]) <= {"finished", "stopped"}
    assert (trials.loc[trials["state"] == "stopped", "epochs"] < 4).all()
    assert (trials.loc[trials["state"] == "finished", "epochs"] == 4).all()
    assert trials["reason"].notna().all()
    # The recipe's own values are the first trial.
    assert trials.loc[0, "train.lr"] == 3e-3
    assert trials.loc[0, "loss.name"] == "cross_entropy"
    focal = trials["loss.name"] == "focal"
    assert trials.loc[~focal, "loss.gamma"].isna().all()
    assert trials.loc[focal, "loss.gamma"].notna().all()
    state = run_state.read(run_dir)
    assert state.ended == "done"
    assert state.to_come == 0
    shown = {job.name: (job.state, job.epoch) for job in state.jobs}
    words = {"finished": "done", "stopped": "stopped"}
    assert shown == {
        row["trial"]: (words[row["state"]], row["epochs"]) for row in trials.to_dict("records")
    }
    for noise in ("raylet", "WARNING", "pid=", "Trainable", "ray::"):
        assert noise not in told, told


def test_only_the_best_keeps_its_weights(searched):
    run_dir, _ = searched
    weights = list(run_dir.glob("trials/*/fold*/*.safetensors"))
    assert len(weights) == 1
    assert not list(run_dir.glob("trials/*/fold*/resume.pt"))
    best = json.loads((run_dir / "best" / "fold0" / "checkpoint.json").read_text())
    trials = pd.read_csv(run_dir / "trials.csv")
    assert best["scores"]["macro_f1"] == pytest.approx(trials["score"].max())
    assert (run_dir / "search.html").is_file()


def test_the_best_goes_into_a_sweep_as_it_is(searched):
    run_dir, _ = searched
    recipe = load([ROOT / "configs" / "sweep.yaml", run_dir / "best.yaml"]).config.recipe(Task.AGE)
    best = pd.read_csv(run_dir / "trials.csv").sort_values("score").iloc[-1]
    assert recipe.train.lr == pytest.approx(best["train.lr"])
    assert recipe.loss.name == best["loss.name"]
    assert recipe.train.epochs == 4


def test_the_same_search_again_only_reports(searched, verb):
    run_dir, _ = searched
    before = (run_dir / "trials.csv").read_text()
    verb("tune", f"run.dir={run_dir}", *SEARCH)
    assert (run_dir / "trials.csv").read_text() == before


def test_a_search_that_ended_goes_on_with_more_trials(searched, verb, tmp_path):
    run_dir = shutil.copytree(searched[0], tmp_path / "more")
    before = pd.read_csv(run_dir / "trials.csv")
    told = verb("tune", f"run.dir={run_dir}", *SEARCH, "tune.trials=9")
    assert told.count("  starts: ") == 1
    pd.testing.assert_frame_equal(pd.read_csv(run_dir / "trials.csv").head(8), before)


def test_another_space_needs_another_folder(searched, here):
    run_dir, _ = searched
    space = "tune.space={train.lr: {uniform: [0.001, 0.1]}}"
    status, told = here("tune", f"run.dir={run_dir}", *SEARCH, space)
    assert status == 1
    assert "another space" in told
    assert "choose another run.dir" in told


def test_a_killed_driver_keeps_every_trial_and_its_name(cluster, verb, drawn, cache, tmp_path):
    few = (*SEARCH, "tune.trials=5")
    words = command("tune", f"run.dir={tmp_path}", *few, drawn=drawn, cache=cache)
    log = (tmp_path / "told.txt").open("w+")
    process = subprocess.Popen([sys.executable, "-c", DRIVER, *words[3:]], cwd=ROOT, stdout=log,
                               stderr=subprocess.STDOUT,
                               env={**os.environ, "RAY_ADDRESS": cluster})  # fmt: skip
    ledger = tmp_path / "trials.json"
    deadline = time.monotonic() + 400
    ended = set()
    while len(ended) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None, (tmp_path / "told.txt").read_text()
        time.sleep(0.2)
        known = json.loads(ledger.read_text()) if ledger.is_file() else {}
        ended = {name for name, trial in known.items() if trial["state"] != "running"}
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    known = json.loads(ledger.read_text())
    ended = {name for name, trial in known.items() if trial["state"] != "running"}
    told = verb("tune", f"run.dir={tmp_path}", *few)
    assert "going on with the search" in told
    state = run_state.read(tmp_path)
    assert state.ended == "done"
    assert state.counts()["done"] + state.counts()["stopped"] == 5
    after = json.loads(ledger.read_text())
    assert sorted(after) == [f"trial-{number:04d}" for number in range(1, 6)]
    for name, trial in known.items():
        assert after[name]["values"] == trial["values"]
        assert (f"{name}  starts" in told) == (name not in ended)
        assert name not in ended or f"{name}  epoch" not in told
    assert not (tmp_path / ".ray_tune").exists()


def test_a_trial_that_fails_is_recorded_and_the_others_go_on(verb, tmp_path):
    space = "tune.space={train.lr: [3e-3, 1e30], train.precision: [float32]}"
    verb("tune", f"run.dir={tmp_path}", *SEARCH, "train.precision=float32", space,
         "tune.searcher=random", "tune.max_epochs=2", "tune.trials=6")  # fmt: skip
    trials = pd.read_csv(tmp_path / "trials.csv")
    failed = trials[trials["state"] == "failed"]
    assert len(trials) == 6
    assert 0 < len(failed) < 6
    assert failed["reason"].str.contains("training loss became").all()
    assert (failed["train.lr"] == 1e30).all()


class NoWorker(one_process.LaneHere):
    """A lane that never gets its worker."""

    def fit(self):
        time.sleep(3)


def test_a_run_that_cannot_go_on_costs_no_trial(verb, monkeypatch, tmp_path):
    words = (f"run.dir={tmp_path}", *SEARCH, "tune.trials=2", "tune.max_epochs=1")
    with monkeypatch.context() as patch:
        patch.setattr(pool, "LaneTrainer", NoWorker)
        patch.setattr(pool, "WATCH_S", 0.7)
        told = verb("tune", *words, "resources.start_timeout_s=0.5", ok=False)
    assert "no worker took one within 0.5 s" in told
    ledger = tmp_path / "trials.json"
    known = json.loads(ledger.read_text()) if ledger.is_file() else {}
    assert {trial["state"] for trial in known.values()} <= {"running"}
    verb("tune", *words)
    assert pd.read_csv(tmp_path / "trials.csv")["state"].tolist() == ["finished"] * 2


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("tune.space={}", "tune.space is empty"),
        ("tune.space={train.lrr: {uniform: [0, 1]}}", "did you mean train.lr"),
        ("tune.space={train.lr: {uniform: [-1, 1]}}", "greater than 0"),
        ("tune.space={train.lr: {loguniform: [1, 2]}}", "does not contain the recipe's own"),
        ("tune.space={train.epochs: {int: [1, 99]}}", "tune.max_epochs=4 ends every trial"),
        ("tune.space={train.patience: [null, 2]}", "with several tune.folds"),
    ],
)
def test_a_bad_space_is_refused_before_anything_starts(here, tmp_path, word, message):
    status, told = here("tune", f"run.dir={tmp_path}", *SEARCH, "tune.folds=[0,1]", word)
    assert status == 1
    assert message in told
    assert not (tmp_path / "trials.json").exists()


def test_folds_are_scored_together_on_no_more_lanes_than_the_cluster_carries(verb, tmp_path):
    told = verb("tune", f"run.dir={tmp_path}", *SEARCH, "tune.folds=[0,1]", "tune.trials=2",
                "tune.max_epochs=1", "resources.jobs_at_once=9")  # fmt: skip
    assert "jobs_at_once=9 is lowered" in told
    for name in json.loads((tmp_path / "trials.json").read_text()):
        assert len(list(tmp_path.glob(f"trials/{name}/fold*/out_of_fold.parquet"))) == 2
