"""Which trial is the best, and what is left of a search that ended early; nothing starts Ray."""

import json
import math

import pytest

from maskcls.config.load import load
from maskcls.config.search_space import parse
from maskcls.labels import Task
from maskcls.storage import files
from ray_jobs.cluster.errors import RunFailed
from ray_jobs.run.folder import RunFolder
from ray_jobs.search import results
from ray_jobs.search.ledger import Ledger, best_trial
from ray_jobs.search.run import trial_resources
from ray_jobs.search.trial import TrialPlan
from tests.ray_jobs.search.test_trial import end, kept, ledger_of


@pytest.mark.parametrize(
    ("states", "scores", "best"),
    [
        ("ff", [0.5, 0.6], "trial-2"),
        ("ff", [0.6, 0.6], "trial-1"),
        ("xf", [0.9, 0.6], "trial-2"),  # a high score, then NaN
        ("ff", [math.nan, 0.6], "trial-2"),
        ("ff", [-math.inf, -math.inf], None),
        ("x", [0.9], None),
    ],
)
def test_the_best_trial_has_not_failed_and_is_the_first_of_equal_ones(states, scores, best):
    names = [f"trial-{number}" for number in range(1, len(states) + 1)]
    entries = {
        name: {"state": {"f": "finished", "x": "failed"}[state]}
        for name, state in zip(names, states, strict=True)
    }
    assert best_trial(entries, dict(zip(names, scores, strict=True))) == best
    backwards = dict(reversed(list(zip(names, scores, strict=True))))
    assert best_trial(dict(reversed(entries.items())), backwards) == best


def set_state(run, name, state):
    files.write_json(run / "trials.json", Ledger.read(run) | {name: {"state": state}})


def test_the_weights_that_are_kept_are_those_of_the_named_winner(tmp_path):
    ledger = ledger_of(tmp_path)
    for name, scores, state in (
        ("trial-2", [0.6], "finished"),
        ("trial-3", [0.9, 0.1], "failed"),
        ("trial-1", [0.6], "finished"),  # ended later, and as good
    ):
        end(tmp_path, name, scores)
        set_state(tmp_path, name, state)
        ledger._tidy()
    assert kept(tmp_path) == ["trial-1"]


@pytest.mark.parametrize("begun", [0, 1])
def test_a_time_limit_that_is_over_before_an_epoch_says_so(begun, tmp_path):
    config = load(words=["task=age", f"run.dir={tmp_path}", "tune.time_limit_s=1",
                         "tune.space={train.lr: {loguniform: [1e-4, 1e-2]}}"]).config  # fmt: skip
    entry = {"state": "running", "reason": "", "seconds": 0.0, "values": {"train.lr": 1e-3}}
    files.write_json(tmp_path / "trials.json", {f"trial-{n}": entry for n in range(begun)})
    trials = TrialPlan(config, Task.AGE, None, tmp_path / "trials")
    space = parse(config.tune.space, config.recipe(Task.AGE))
    with pytest.raises(RunFailed, match=r"time_limit_s=1.* was over.*same command goes on"):
        results.conclude(trials, space, RunFolder(tmp_path))
    assert (tmp_path / "trials.csv").read_text().startswith("trial,")
    assert len(json.loads((tmp_path / "trials.json").read_text())) == begun


def test_a_trial_stays_on_the_node_of_its_driver():
    request = trial_resources({"ray.io/node-id": "abc"})
    assert request.bundles == [{"memory": 1}]
    assert request._bound.arguments["bundle_label_selector"] == [{"ray.io/node-id": "abc"}]
