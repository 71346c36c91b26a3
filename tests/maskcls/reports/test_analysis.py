import dataclasses

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from maskcls import labels
from maskcls.labels import Task
from maskcls.reports import analysis, finished_run, groups
from maskcls.scoring import ensemble
from maskcls.storage import files
from tests import made_run

EVERY = tuple(Task)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = made_run.make(tmp_path_factory.mktemp("three"), photos=False, weights=False)
    return finished_run.read(folder)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """All five tasks."""
    folder = tmp_path_factory.mktemp("five")
    return finished_run.read(made_run.make(folder, tasks=EVERY, photos=False, weights=False))


def test_chance_is_what_drawn_answers_score():
    rng = np.random.default_rng(0)
    truth = rng.choice(4, p=[0.6, 0.25, 0.1, 0.05], size=20_000)
    drawn = [f1_score(truth, rng.permutation(truth), average="macro") for _ in range(5)]
    assert analysis.chance(truth) == pytest.approx(np.mean(drawn), abs=0.01)
    assert analysis.chance([3, 3]) == 1


@pytest.mark.parametrize("target", ["joint", "mask", "gender", "age"])
def test_with_one_way_the_single_models_are_the_ensemble(run, target):
    single = analysis.best_single(run, target)
    assert single.gain is None
    assert single.name == ("three models" if target == "joint" else target)
    assert single.macro_f1 == pytest.approx(run.scores["out_of_fold"][target]["macro_f1"])


def test_the_best_single_of_several_is_found_on_the_same_photos(mixed):
    single = analysis.best_single(mixed, "gender")
    scores = {}
    for task in (Task.GENDER, Task.JOINT, Task.MULTI):
        said = np.stack(
            analysis.probabilities_of(mixed, task, "gender")[mixed.answers["photo"]].tolist()
        )
        scores[str(task)] = f1_score(
            mixed.answers["gender_truth"], said.argmax(axis=1), average="macro"
        )
    assert single.macro_f1 == pytest.approx(max(scores.values()))
    assert scores[single.name] == max(scores.values())
    ours = mixed.scores["out_of_fold"]["gender"]["macro_f1"]
    assert single.gain.value == pytest.approx(ours - single.macro_f1)
    assert single.gain.low <= single.gain.value <= single.gain.high


def test_what_each_task_adds_is_the_score_with_it_minus_without(mixed):
    found = analysis.without_each(mixed)
    assert set(found) == {str(task) for task in EVERY}
    rest = mixed.out_of_fold[mixed.out_of_fold["task"] != "joint"]
    left = ensemble.out_of_fold_answers("hard", rest, seed=42)
    expected = mixed.scores["out_of_fold"]["joint"]["macro_f1"] - f1_score(
        left["joint_truth"], left["joint_predicted"], average="macro"
    )
    assert found["joint"].value == pytest.approx(expected)


def test_no_task_can_be_left_out_where_each_alone_tells_an_attribute(run):
    assert analysis.without_each(run) == {}


def test_a_difference_is_clear_where_its_interval_leaves_0_out():
    assert analysis.Difference(0.1, 0.02, 0.2).clear
    assert analysis.Difference(-0.1, -0.2, -0.02).clear
    assert not analysis.Difference(0.1, -0.02, 0.2).clear


def test_a_perfect_attribute_leaves_the_mistakes_of_the_others():
    truth = labels.decode(np.arange(18))
    answers = pd.DataFrame({f"{a}_truth": v for a, v in truth.items()})
    predicted = truth | {"age": (truth["age"] + 1) % 3}
    answers = answers.assign(
        joint_truth=np.arange(18), **{f"{a}_predicted": v for a, v in predicted.items()}
    )
    assert analysis.if_perfect(answers) == {"mask": 0.0, "gender": 0.0, "age": 1.0}


def rows(confidence, right):
    values = [[c, 1 - c] for c in confidence]
    truth = [0 if r else 1 for r in right]
    return pd.DataFrame({"probabilities": values, "truth": truth, "predicted": 0})


def test_calibration_is_the_gap_between_said_and_right():
    found = analysis.calibration(
        rows([0.95] * 10 + [0.65] * 10, [True] * 9 + [False] + [True] * 10)
    )
    assert found.bins["photos"].tolist() == [10, 10]
    np.testing.assert_allclose(found.bins["confidence"], [0.65, 0.95])
    np.testing.assert_allclose(found.bins["right"], [1.0, 0.9])
    assert found.error == pytest.approx((0.35 + 0.05) / 2)
    assert found.surplus == pytest.approx(0.8 - 0.95)


def test_a_certain_model_falls_into_the_last_bin():
    found = analysis.calibration(rows([1.0, 1.0], [True, False]))
    assert found.bins.index.tolist() == [9]
    assert found.error == pytest.approx(0.5)


def test_years_count_every_photo_once_and_shares_add_up(run):
    years = groups.by_year(run)
    assert years.index.tolist() == [20, 29, 30, 45, 59, 60]
    assert years["photos"].sum() == len(run.answers)
    assert years["people"].sum() == run.answers["person"].nunique()
    np.testing.assert_allclose(years[[0, 1, 2]].sum(axis=1), 1)
    band = labels.age_band(years.index)
    np.testing.assert_allclose(years["right"], years[[0, 1, 2]].to_numpy()[range(6), band])


def test_groups_are_counted_apart(run):
    kinds = run.photos.loc[run.answers["photo"], "stem"].to_numpy()
    table = groups.by_group(run, kinds)
    assert table["photos"].to_dict() == dict.fromkeys(kinds, 40)
    right = run.answers["mask_truth"] == run.answers["mask_predicted"]
    assert table["mask"]["normal"] == pytest.approx(right[kinds == "normal"].mean())
    assert (table["low"] <= table["joint"]).all()
    assert (table["joint"] <= table["high"]).all()


def test_agreement_counts_photos_and_what_each_model_moves(run):
    fitted = ensemble.from_json(files.read_json(run.folder / "ensemble.json"))
    found = analysis.agreement(run.votes, fitted, "age")
    assert found.names == ["age 0", "age 1"]
    first, second = (vote.probabilities["age"].argmax(axis=1) for vote in run.votes[4:])
    same = (first == second).mean()
    np.testing.assert_allclose(found.shares_MM, [[1, same], [same, 1]])
    assert found.unanimous == pytest.approx(same)
    voted = ensemble.vote(fitted, run.votes)["age"].to_numpy()
    assert found.changed == {
        "age 0": pytest.approx((second != voted).mean()),
        "age 1": pytest.approx((first != voted).mean()),
    }


def test_one_model_agrees_with_nobody(run):
    assert analysis.agreement(run.votes[:1], {}, "mask") is None


def test_opinions_are_the_ensembles_answers_with_their_probability(mixed):
    opinions = analysis.opinions(mixed).set_index(["attribute", "photo"])
    photo = mixed.answers["photo"].iloc[3]
    said = [
        analysis.probabilities_of(mixed, task, "age")[photo]
        for task in (Task.AGE, Task.JOINT, Task.MULTI)
    ]
    answer = mixed.answers["age_predicted"].iloc[3]
    assert opinions.loc[("age", photo), "predicted"] == answer
    assert opinions.loc[("age", photo), "sure"] == pytest.approx(np.mean(said, axis=0)[answer])
    assert opinions["uncertainty"].between(0, 1).all()


def opinion(attribute, person, truth, predicted, sure, uncertainty=0.5):
    return {
        "photo": f"{person}-{attribute}-{sure}", "attribute": attribute, "person": person,
        "truth": truth, "predicted": predicted, "sure": sure, "uncertainty": uncertainty,
    }  # fmt: skip


def test_the_surest_mistakes_come_of_all_attributes_and_of_different_people():
    table = pd.DataFrame(
        [opinion("age", "a", 0, 1, 0.99 - n / 100) for n in range(5)]
        + [opinion("age", "b", 0, 1, 0.8), opinion("age", "c", 0, 1, 0.7)]
        + [opinion("gender", "a", 0, 1, 0.6), opinion("mask", "d", 1, 1, 1.0)]
    )
    found = analysis.worst(table, 3)
    assert list(zip(found["attribute"], found["person"], strict=True)) == [
        ("age", "a"), ("age", "b"), ("gender", "a"),
    ]  # fmt: skip
    assert found["sure"].tolist() == [0.99, 0.8, 0.6]
    assert analysis.worst(table[table["truth"] == table["predicted"]], 3).empty


def test_the_most_uncertain_may_be_right():
    table = pd.DataFrame([opinion("mask", str(n), 0, 0, 0.9, uncertainty=n / 10) for n in range(5)])
    assert analysis.most_uncertain(table, 2)["person"].tolist() == ["4", "3"]


def test_labels_are_doubted_where_all_photos_surely_say_otherwise():
    table = pd.DataFrame(
        [opinion("gender", "wrong", 0, 1, 0.9 + n / 100) for n in range(7)]
        + [opinion("gender", "unsure", 0, 1, 0.6) for _ in range(7)]
        + [opinion("gender", "once", 0, int(n > 0), 0.99) for n in range(7)]
        + [opinion("mask", "never", 0, 1, 0.99)]
    )
    assert analysis.doubtful_labels(table) == {"gender": ["wrong"], "age": []}


def test_folds_are_counted_in_people(run):
    balance = groups.fold_balance(run.photos)
    assert list(balance.columns) == [0, 1, "all"]
    assert balance["all"].sum() == 40
    people = run.photos.drop_duplicates("person")
    young_men = people[(people["gender"] == 0) & (people["age_band"] == 0)]
    assert balance.loc["male, under 30", 0] == (young_men["fold"] == 0).sum()


def test_a_joint_model_speaks_of_attributes_through_its_marginal(mixed):
    values = np.stack(analysis.probabilities_of(mixed, Task.JOINT, "mask").tolist())
    assert values.shape[1] == 3
    np.testing.assert_allclose(values.sum(axis=1), 1, atol=1e-5)


def test_a_run_without_all_attributes_has_no_joint_score(run):
    rows_ = run.out_of_fold[run.out_of_fold["task"] != "age"]
    less = dataclasses.replace(
        run,
        out_of_fold=rows_,
        answers=ensemble.out_of_fold_answers("hard", rows_, seed=42),
        scores={**run.scores, "jobs": [j for j in run.scores["jobs"] if j["task"] != "age"]},
    )
    assert less.targets == ["mask", "gender"]
    assert set(analysis.opinions(less)["attribute"]) == {"mask", "gender"}
    assert analysis.without_each(less) == {}
