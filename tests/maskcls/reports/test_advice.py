import dataclasses

import pandas as pd
import pytest

from maskcls.labels import Task
from maskcls.reports import advice, analysis, finished_run
from maskcls.reports.analysis import Calibration, Difference, Single
from tests import made_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("advice")
    return finished_run.read(made_run.make(folder, photos=False, weights=False))


def steps(run, *, calibrations=None, singles=None):
    return advice.next_steps(run, analysis.opinions(run), calibrations or {}, singles or {})


def with_jobs(run, **changes):
    jobs = [job | changes for job in run.scores["jobs"]]
    return dataclasses.replace(run, scores={**run.scores, "jobs": jobs})


def test_the_attribute_that_costs_most_comes_first(run):
    perfect = analysis.if_perfect(run.answers)
    first = max(perfect, key=perfect.get)
    assert steps(run)[0].startswith(f"<b>Work on {first} first.</b>")
    assert f"{first} {perfect[first]:.3f}" in steps(run)[0]


def test_where_nothing_is_wrong_no_attribute_comes_first(tmp_path):
    folder = made_run.make(tmp_path, errors=0, photos=False, weights=False)
    assert not any("first." in step for step in steps(finished_run.read(folder)))


def test_training_that_ended_too_early_is_told(run):
    told = "Train mask, gender, age longer"
    assert not any(told in step for step in steps(run))
    assert any(told in step for step in steps(with_jobs(run, best_epoch=3)))


def test_training_that_went_on_too_long_is_told(run):
    assert any("Regularise mask, gender, age" in step for step in steps(run))
    flat = {job: table.assign(**{"val/loss": 0.5}) for job, table in run.histories.items()}
    calm = dataclasses.replace(run)
    vars(calm)["histories"] = flat
    assert not any("Regularise" in step for step in steps(calm))


@pytest.mark.parametrize(("surplus", "told"), [(0.2, True), (0.01, False), (-0.2, False)])
def test_too_sure_models_are_named(run, surplus, told):
    calibration = Calibration(pd.DataFrame(), abs(surplus), surplus)
    found = steps(run, calibrations={"age": calibration})
    assert any("too sure are age by" in step for step in found) == told


@pytest.mark.parametrize(("high", "told"), [(-0.01, True), (0.01, False)])
def test_an_ensemble_that_is_clearly_worse_is_told(run, high, told):
    single = Single("joint", 0.9, Difference(-0.02, -0.03, high))
    found = steps(run, singles={"age": single, "mask": Single("mask", 0.9, None)})
    assert any("age (joint)" in step for step in found) == told


def test_doubtful_labels_are_named_by_person(tmp_path):
    folder = made_run.make(tmp_path, photos=False, weights=False, errors=0)
    path = folder / "out_of_fold.parquet"
    rows = pd.read_parquet(path)
    doubted = (rows["task"] == "gender") & (rows["person"] == "000003")
    rows.loc[doubted, "truth"] = 1 - rows.loc[doubted, "truth"]
    values = rows.loc[doubted, "probabilities"].map(lambda p: [0.95 * (k == p.argmax()) + 0.025
                                                               for k in range(2)])  # fmt: skip
    rows.loc[doubted, "probabilities"] = values
    rows.to_parquet(path)
    found = steps(finished_run.read(folder))
    assert any("gender label of 1 person" in step and "000003" in step for step in found)


def test_long_lists_are_cut_and_escaped():
    assert advice.named(["<a>"]) == "&lt;a&gt;"
    assert advice.named("abcdefgh") == "a, b, c, d, e, f, ..."


def test_a_run_of_one_task_gets_advice_too(tmp_path):
    run = finished_run.read(made_run.make(tmp_path, tasks=[Task.AGE], photos=False, weights=False))
    assert "ray_jobs.report" in steps(run)[-1]
