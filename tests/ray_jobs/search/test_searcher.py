"""What a search draws, however often its driver is restarted."""

import shutil
from types import SimpleNamespace

import pytest
from optuna.trial import TrialState
from ray.tune.schedulers import TrialScheduler

from maskcls.config import search_space
from maskcls.config.load import load
from maskcls.labels import Task
from ray_jobs.search.asha import ResumableASHA
from ray_jobs.search.searcher import LedgerSearcher
from ray_jobs.search.trial import SCORE, TrialPlan
from tests.ray_jobs.search.test_trial import write_history

SPACE = (
    "tune.space={train.lr: {loguniform: [1e-5, 1e-2]}, loss.name: [cross_entropy, focal], "
    "loss.gamma: {uniform: [0.5, 4.0], when: {loss.name: focal}}, image.size: [[64, 48], [96, 72]]}"
)
EPOCHS = 3
STATES = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "stopped", TrialState.FAIL: "failed"}


class Search:
    """A search without training: the score of a trial is a function of what was drawn."""

    def __init__(self, folder, searcher):
        words = ["task=age", f"tune.searcher={searcher}", SPACE, "image.size=[64,48]",
                 "train.lr=1e-3"]  # fmt: skip
        self.plan = TrialPlan(load(words=words).config, Task.AGE, None, folder)
        recipe = self.plan.config.recipe(Task.AGE)
        self.space = search_space.parse(self.plan.config.tune.space, recipe)
        self.ledger = {}
        self.restart()

    def restart(self):
        self.searcher = LedgerSearcher(self.plan, self.space, self.ledger)

    def begin(self, tune_id):
        drawn = self.searcher.suggest(tune_id)
        self.ledger[drawn["name"]] = {"values": drawn["values"], "state": "running"}
        return drawn["name"]

    def end(self, tune_id, name, state):
        score = self.ledger[name]["values"]["train.lr"] * 50
        epochs = EPOCHS if state == "finished" else 1
        write_history(self.plan.trial_folder(name), [score / (n + 1) for n in range(epochs)])
        last = {"epoch": epochs, "of": EPOCHS, SCORE: score}
        self.searcher.on_trial_complete(tune_id, last, error=state == "failed")
        self.ledger[name]["state"] = state

    def told(self):
        return [
            (STATES[trial.state], trial.params, trial.intermediate_values, trial.value)
            for trial in self.searcher._study.trials
        ]


def drawn(search, restarts):
    """Sixteen trials, the driver restarted where the number of a trial says so."""
    for number in range(16):
        name = search.begin(f"first {number}")
        if number in restarts:
            search.restart()
            again = search.begin(f"second {number}")
            assert again == name
        tune_id = f"second {number}" if number in restarts else f"first {number}"
        search.end(tune_id, name, ("finished", "stopped", "finished", "failed")[number % 4])
    return search.ledger


@pytest.mark.parametrize("searcher", ["random", "tpe"])
def test_restarts_change_no_draw_and_nothing_that_optuna_knows(tmp_path, searcher):
    calm, broken = Search(tmp_path / "calm", searcher), Search(tmp_path / "broken", searcher)
    assert drawn(calm, restarts=()) == drawn(broken, restarts=(0, 3, 12, 13))
    assert calm.told() == broken.told()
    broken.restart()
    assert calm.told() == broken.told()


def test_optuna_hears_the_best_score_of_a_trial(tmp_path):
    search = Search(tmp_path, "tpe")
    search.end("a", name := search.begin("a"), "finished")
    best = search.ledger[name]["values"]["train.lr"] * 50
    assert search.told()[0][2:] == ({1: best, 2: best / 2, 3: best / 3}, best)


def test_trials_that_had_not_ended_come_first_under_their_names(tmp_path):
    search = Search(tmp_path, "random")
    names = [search.begin(str(number)) for number in range(3)]
    search.end("1", names[1], "finished")
    before = {name: search.ledger[name]["values"] for name in names}
    search.restart()
    assert [search.begin("x"), search.begin("y")] == [names[0], names[2]]
    assert {name: search.ledger[name]["values"] for name in names} == before
    assert search.begin("z") == "trial-0004"


def test_a_trial_whose_folder_is_gone_ends_no_search(tmp_path):
    search = Search(tmp_path, "tpe")
    search.end("a", name := search.begin("a"), "finished")
    shutil.rmtree(search.plan.trial_folder(name))
    search.restart()
    assert search.told()[0][0] == "failed"
    assert search.begin("b") == "trial-0002"


def test_a_new_trial_takes_nothing_from_one_that_was_never_written_down(tmp_path):
    search = Search(tmp_path, "random")
    folder = search.plan.trial_folder("trial-0001")
    write_history(folder, [0.9])
    search.begin("a")
    assert not folder.exists()


def test_a_run_that_is_over_gets_no_trial(tmp_path):
    search = Search(tmp_path, "random")
    searcher = LedgerSearcher(search.plan, search.space, {}, over=lambda: True)
    assert searcher.suggest("a") == LedgerSearcher.FINISHED


@pytest.mark.parametrize("searcher", ["random", "tpe"])
def test_no_trial_is_drawn_twice(tmp_path, searcher):
    rates = [
        entry["values"]["train.lr"] for entry in drawn(Search(tmp_path, searcher), ()).values()
    ]
    assert len(set(rates)) == 16


def test_the_first_trial_is_the_recipe_s_own_also_if_it_was_never_written_down(tmp_path):
    search = Search(tmp_path, "random")
    assert search.begin("a") == "trial-0001"
    assert search.ledger["trial-0001"]["values"] == {
        "train.lr": 1e-3, "loss.name": "cross_entropy", "image.size": [64, 48]
    }  # fmt: skip
    assert search.begin("b") == "trial-0002"
    first = search.ledger.pop("trial-0001")
    search.restart()
    assert search.begin("c") == "trial-0002"
    assert search.begin("d") == "trial-0001"
    assert search.ledger["trial-0001"] == first


def test_the_rungs_of_asha_know_the_trials_that_had_ended(tmp_path):
    search = Search(tmp_path, "random")
    drawn(search, ())
    *ended, name = search.ledger
    scores = {name: entry["values"]["train.lr"] * 50 for name, entry in search.ledger.items()}
    asha = ResumableASHA(
        tmp_path, ended, metric=SCORE, mode="max", max_t=EPOCHS, grace_period=1, reduction_factor=3
    )
    trial = SimpleNamespace(trial_id="of Tune", config={"name": name})
    asha.on_trial_add(None, trial)
    (_, rung), *_ = reversed(asha._brackets[0]._rungs)
    assert rung == {name: scores[name] for name in ended}
    # The last epoch of a trial that goes on is told again, and only then judged.
    write_history(search.plan.trial_folder(name), [1.0])
    assert asha.on_trial_result(None, trial, {"epoch": 1, SCORE: -1.0}) == TrialScheduler.STOP
