"""What is trained in a given time, by what was measured. No clock and no cluster here."""

from dataclasses import replace

import pytest

from maskcls.config.load import load
from maskcls.labels import Task
from maskcls.storage import files
from ray_jobs.cluster.nodes import Node
from ray_jobs.cluster.packing import Lane, Plan
from ray_jobs.forecast import budget, choosing
from ray_jobs.forecast.arithmetic import Forecast, JobSize, Measured
from ray_jobs.run.folder import RunFolder
from tests.conftest import ROOT

COSTS = {"cold": 2.0, "build": 2.0, "step": 0.3, "photo": 0.005, "save": 0.2, "load": 0.5}
PHOTOS = 1680


def config_of(budget_text="15m", *words):
    path = ROOT / "configs" / "budget.yaml"
    return load([path], [f"budget.time_s={budget_text}", *words]).config


def work_of(config, folds):
    training = PHOTOS * (folds - 1) // folds
    return [
        JobSize(f"{task}-fold{fold}", task, fold, str(task), training, -(-training // 32),
             PHOTOS // folds, config.recipe(task).train.epochs, 0)
        for task in config.tasks for fold in range(folds)
    ]  # fmt: skip


def choose(config, kinds=("multi", "joint", "age"), spent_s=40.0, costs=COSTS):
    measured = Measured(decode=0.002, costs=dict.fromkeys(kinds, costs), starts=[12.0])
    node = Node("id", 2.0, 0.0, head=True)
    plan = Plan([Lane(0), Lane(1)], 1, 2, 0.0, "gloo", "two lanes")
    return budget.choose(
        config,
        {folds: work_of(config, folds) for folds in (2, 3, 5)},
        Forecast([node], plan, [], 0, {}, measured),
        spent_s=spent_s,
        photos=PHOTOS,
    )


def test_the_richest_choice_that_ends_in_time_is_taken():
    config = config_of()
    outlook = choose(config)
    assert outlook.seconds <= budget.USED * 900
    assert all(seconds > budget.USED * 900 for _, seconds in outlook.refused)
    every = budget.choices(config)
    assert every[: len(outlook.refused)] == [choice for choice, _ in outlook.refused]
    taken = every[len(outlook.refused)]
    assert replace(outlook.choice, epochs=taken.epochs) == taken
    assert choose(config) == outlook  # nothing is drawn


@pytest.mark.parametrize("minutes", [3, 5, 15, 20])
def test_what_is_left_of_the_time_goes_to_epochs(minutes):
    config = config_of(f"{minutes}m")
    outlook = choose(config)
    taken = budget.choices(config)[len(outlook.refused)]
    gained = {outlook.choice.epochs[task] - taken.epochs[task] for task in taken.tasks}
    full = all(
        outlook.choice.epochs[task] == config.recipe(task).train.epochs for task in taken.tasks
    )
    assert min(gained) >= 0
    # An epoch of all is less than a tenth of these budgets.
    assert full or outlook.seconds > (budget.USED - 0.1) * 60 * minutes


def test_more_time_never_buys_less():
    found = [choose(config_of(text)) for text in ("3m", "5m", "10m", "15m", "30m", "10h")]
    tasks = [len(outlook.choice.tasks) for outlook in found]
    assert tasks == sorted(tasks)
    assert tasks[0] == 1
    everything = found[-1].choice
    config = config_of()
    assert everything.tasks == (Task.MULTI, Task.JOINT, Task.AGE)
    assert (everything.folds, everything.scale) == (5, 1.0)
    assert everything.epochs == {task: config.recipe(task).train.epochs for task in config.tasks}
    assert "nothing" in budget.lines_of(config_of("10h"), found[-1])[-1]
    told = "\n".join(budget.lines_of(config_of("3m"), found[0]))
    assert "given up: tasks joint, age" in told
    assert "the next richer" in told


@pytest.mark.parametrize("epochs", [3, 16])
def test_choices_are_tried_once_and_pixels_go_last(epochs):
    config = config_of("15m", f"recipes.multi.train.epochs={epochs}")
    every = budget.choices(config)
    assert all(one not in every[:place] for place, one in enumerate(every))
    scales = [choice.scale for choice in every]
    assert scales == sorted(scales, reverse=True)
    assert len(set(scales)) == 2
    smallest = [choice for choice in every if choice.scale < 1]
    shown = [choice.epochs[Task.MULTI] for choice in smallest]
    assert shown == sorted(shown, reverse=True)  # two folds before fewer epochs
    assert {choice.folds for choice in smallest} == {2, 3}


def test_more_time_buys_more_of_each_task():
    config = config_of()
    found = [choose(config_of(f"{minutes}m")).choice for minutes in range(3, 60)]
    worth = [(len(c.tasks), c.scale, c.epochs[Task.MULTI], c.folds) for c in found]
    assert worth == sorted(worth)
    assert {c.scale for c in found} == {0.75, 1.0}
    assert found[-1].tasks == tuple(config.tasks)


def test_a_choice_becomes_the_configuration_of_the_run():
    config = config_of("5m", "image.size=[100,80]")
    choice = budget.Choice((Task.MULTI,), 3, 0.75, {Task.MULTI: 4})
    chosen = choosing._with(config, choice.overlay(config))
    recipe = chosen.recipe(Task.MULTI)
    assert (chosen.tasks, chosen.folds.count) == ([Task.MULTI], 3)
    assert (recipe.image.size, recipe.train.epochs) == ((76, 60), 4)
    assert recipe.augment.mix.name == "vertical_cutmix"
    assert (chosen.ensemble, chosen.budget) == (config.ensemble, config.budget)


def test_tasks_that_only_together_tell_everything_stay_together():
    config = config_of("15m", "tasks=[mask,gender,age,joint]")
    prefixes = {choice.tasks for choice in budget.choices(config)}
    assert prefixes == {tuple(config.tasks), (Task.MASK, Task.GENDER, Task.AGE)}


def test_no_epoch_is_left_out_that_the_schedule_needs():
    config = config_of("15m", "schedule.warmup_epochs=2", "train.epochs=4")
    assert min(min(choice.epochs.values()) for choice in budget.choices(config)) == 3


def test_a_task_that_was_not_measured_is_not_chosen():
    outlook = choose(config_of("10h"), kinds=("multi",))
    assert outlook.choice.tasks == (Task.MULTI,)


def test_a_budget_that_nothing_fits_into_is_refused_with_the_least():
    with pytest.raises(ValueError, match=r"too short: even multi .* Give --budget \d+m"):
        choose(config_of("60s"))


def test_a_choice_is_kept_and_not_made_again(tmp_path):
    config = config_of("5m", f"run.dir={tmp_path}")
    assert choosing.chosen_before(config) is None
    choice = choose(config).choice
    told = {"asked": choosing._asked(config), "choice": choice.overlay(config), "lines": ["so"]}
    files.write_json(RunFolder.of(config).path / "budget.json", told)
    chosen = choosing.chosen_before(config_of("300s", f"run.dir={tmp_path}"))
    assert chosen == choosing._with(config, choice.overlay(config))
    with pytest.raises(ValueError, match=r"was chosen for budget\.time_s=300"):
        choosing.chosen_before(config_of("6m", f"run.dir={tmp_path}"))
    with pytest.raises(ValueError, match=r"choose another run\.dir"):
        choosing.chosen_before(config_of("5m", f"run.dir={tmp_path}", "train.lr=1e-2"))


def test_a_budget_needs_a_folder_here():
    with pytest.raises(ValueError, match="needs a folder on this machine"):
        choosing.chosen_before(config_of("5m", "run.dir=s3://bucket/run"))


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("600", 600)]
)
def test_a_time_is_read_with_its_unit(text, seconds):
    assert config_of(text).budget.time_s == seconds


@pytest.mark.parametrize("text", ["soon", "3 weeks", "0", "-1m", "m", "6"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match=r"budget\.time_s"):
        config_of(text)
