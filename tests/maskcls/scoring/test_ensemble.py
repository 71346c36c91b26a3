import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from maskcls import labels
from maskcls.labels import ATTRIBUTES, HEADS, Task
from maskcls.scoring import ensemble, voting
from maskcls.scoring.ensemble import ModelVotes

NAMES = list(voting.ENSEMBLES)
PEOPLE, PHOTOS_EACH = 30, 4
PHOTOS = [f"{person:06d}/{n}.jpg" for person in range(PEOPLE) for n in range(PHOTOS_EACH)]
PERSONS = [photo[:6] for photo in PHOTOS]
JOINT = np.random.default_rng(7).permutation(np.arange(len(PHOTOS)) % 18)
TRUTH = {"joint": JOINT, **labels.decode(JOINT)}


def make_probabilities(truth_N, num_classes, strength, seed):
    """Dirichlet noise that leans to the truth."""
    noise = np.random.default_rng(seed).dirichlet(np.ones(num_classes), size=len(truth_N))
    lean = noise + strength * np.eye(num_classes)[truth_N]
    return lean / lean.sum(axis=1, keepdims=True)


def make_rows(*tasks, strength=0.5, photos=slice(None), seed=0):
    """An out-of-fold table of these tasks, its rows in no order."""
    parts = []
    for place, task in enumerate(tasks):
        for head, classes in HEADS[Task(task)].items():
            probabilities = make_probabilities(TRUTH[head], classes, strength, (seed, place))
            table = pd.DataFrame(
                {
                    "photo": PHOTOS,
                    "person": PERSONS,
                    "task": task,
                    "head": head,
                    "fold": 0,
                    "truth": TRUTH[head],
                    "predicted": probabilities.argmax(axis=1),
                    "probabilities": list(probabilities),
                }
            )
            parts.append(table[photos])
    return pd.concat(parts).sample(frac=1, random_state=seed)


def probabilities_of(rows, task, head):
    chosen = rows[(rows["task"] == task) & (rows["head"] == head)].set_index("photo")
    return np.stack(chosen.loc[sorted(PHOTOS), "probabilities"])


# Who votes on what


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        (["joint"], {"joint": ["joint"]}),
        (["age"], {"age": ["age"]}),
        (["age", "mask"], {"mask": ["mask"], "age": ["age"]}),
        (["mask", "gender", "age"], {"mask": ["mask"], "gender": ["gender"], "age": ["age"]}),
        (["multi"], {a: ["multi"] for a in ATTRIBUTES}),
        (["age", "joint"], {"mask": ["joint"], "gender": ["joint"], "age": ["age", "joint"]}),
        (
            ["multi", "joint", "age", "gender", "mask"],
            {a: [a, "joint", "multi"] for a in ATTRIBUTES},
        ),
    ],
)
def test_spaces(tasks, expected):
    found = ensemble.targets(Task(task) for task in tasks)
    assert found == expected
    assert list(found) == list(expected)


def test_a_fitted_ensemble_survives_json():
    for name in NAMES:
        fitted = ensemble.fit(name, make_rows("mask", "gender", "age", "joint"))
        assert list(fitted) == list(ATTRIBUTES)
        assert ensemble.from_json(json.loads(json.dumps(ensemble.to_json(fitted)))) == fitted


def test_fitting_does_not_depend_on_the_order_of_rows():
    rows = make_rows("mask", "joint")
    for name in NAMES:
        assert ensemble.fit(name, rows) == ensemble.fit(name, rows[::-1])


# Answers on training photos


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "tasks", [["joint"], ["mask", "gender", "age"], ["multi"], ["joint", "multi", "age"]]
)
def test_answers_have_the_truth_and_a_prediction_of_everything(name, tasks):
    answers = ensemble.out_of_fold_answers(name, make_rows(*tasks), seed=0).set_index("photo")
    assert sorted(answers.index) == sorted(PHOTOS)
    answers = answers.loc[PHOTOS]
    assert answers["person"].tolist() == PERSONS
    for target, truth_N in TRUTH.items():
        np.testing.assert_array_equal(answers[f"{target}_truth"], truth_N)
    predicted = {a: answers[f"{a}_predicted"].to_numpy() for a in ATTRIBUTES}
    np.testing.assert_array_equal(answers["joint_predicted"], labels.encode(**predicted))
    assert (answers["joint_predicted"] == JOINT).mean() > 0.25


@pytest.mark.parametrize("name", ["hard", "soft"])
def test_with_one_model_a_task_the_answer_is_its_own(name):
    rows = make_rows("mask", "gender", "age")
    answers = ensemble.out_of_fold_answers(name, rows, seed=0)
    for attribute in ATTRIBUTES:
        own = rows[rows["task"] == attribute].set_index("photo")["predicted"]
        assert answers.set_index("photo")[f"{attribute}_predicted"].to_dict() == own.to_dict()


def test_joint_models_alone_vote_on_the_joint_class():
    rows = make_rows("joint", strength=0.1)
    answers = ensemble.out_of_fold_answers("soft", rows, seed=0).sort_values("photo")
    joint_NK = probabilities_of(rows, "joint", "joint")
    np.testing.assert_array_equal(answers["joint_predicted"], joint_NK.argmax(axis=1))
    # The likeliest class of all is not always made of the likeliest attributes.
    assert (answers["mask_predicted"] != labels.marginal(joint_NK, "mask").argmax(axis=1)).any()


def test_among_others_a_joint_model_votes_through_its_marginals():
    rows = make_rows("mask", "joint")
    answers = ensemble.out_of_fold_answers("soft", rows, seed=0).sort_values("photo")
    joint_NK = probabilities_of(rows, "joint", "joint")
    mean_NK = (probabilities_of(rows, "mask", "mask") + labels.marginal(joint_NK, "mask")) / 2
    np.testing.assert_array_equal(answers["mask_predicted"], mean_NK.argmax(axis=1))
    gender_N = labels.marginal(joint_NK, "gender").argmax(axis=1)
    np.testing.assert_array_equal(answers["gender_predicted"], gender_N)


def test_tasks_that_do_not_make_up_a_class_have_no_joint_answer():
    answers = ensemble.out_of_fold_answers("hard", make_rows("mask", "age"), seed=0)
    assert set(answers) == {
        "photo", "person", "mask_truth", "mask_predicted", "age_truth", "age_predicted",
    }  # fmt: skip


def test_photos_that_one_task_has_not_seen_are_left_out():
    rows = pd.concat([make_rows("mask", photos=slice(0, 80)), make_rows("joint")])
    answers = ensemble.out_of_fold_answers("soft", rows, seed=0)
    assert sorted(answers["photo"]) == sorted(PHOTOS[:80])


def test_tasks_without_a_photo_in_common_are_named():
    rows = pd.concat(
        [make_rows("mask", photos=slice(0, 60)), make_rows("joint", photos=slice(60, None))]
    )
    with pytest.raises(ValueError, match="mask, joint answer mask together, but have no photo"):
        ensemble.fit("soft", rows)


@pytest.mark.parametrize(
    ("name", "offsets"),
    [("weighted", False), ("greedy", True), ("stacking", False), ("soft", True)],
)
def test_what_learns_is_scored_on_people_it_did_not_learn_from(name, offsets, monkeypatch):
    monkeypatch.setattr(ensemble.voting, "apply", None)  # only the nested way is left

    def nested(name_, probabilities_MNK, truth_N, people_N, *, seed, offsets):
        assert (name_, seed, offsets) == (name, 5, asked)
        assert sorted(people_N) == sorted(PERSONS)
        return {}, np.zeros_like(truth_N)

    asked = offsets
    monkeypatch.setattr(ensemble.voting, "nested_score", nested)
    answers = ensemble.out_of_fold_answers(name, make_rows("age"), seed=5, offsets=offsets)
    assert not answers["age_predicted"].any()


# Scores


def test_scores_are_those_of_scikit_learn_with_an_interval_around():
    answers = ensemble.out_of_fold_answers("soft", make_rows("mask", "gender", "age"), seed=0)
    found = ensemble.scores(answers, seed=0)
    assert list(found) == ["joint", *ATTRIBUTES]
    for target, values in found.items():
        truth, predicted = answers[f"{target}_truth"], answers[f"{target}_predicted"]
        assert values["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
        assert values["accuracy"] == pytest.approx((truth == predicted).mean())
        low, high = values["macro_f1_interval"]
        assert low < values["macro_f1"] < high
    assert found == ensemble.scores(answers, seed=0)
    json.dumps(found)


def test_classes_that_nobody_has_are_named_beside_the_score():
    answers = pd.DataFrame(
        {"person": list("abcd"), "age_truth": [0, 0, 1, 1], "age_predicted": [0, 1, 1, 2]}
    )
    assert ensemble.scores(answers, seed=0)["age"]["absent_classes"] == ["from_60"]
    answers["age_truth"] = [0, 0, 1, 2]
    assert "absent_classes" not in ensemble.scores(answers, seed=0)["age"]


def test_scores_are_of_what_was_answered():
    answers = ensemble.out_of_fold_answers("soft", make_rows("mask", "age"), seed=0)
    assert list(ensemble.scores(answers, seed=0)) == ["mask", "age"]


# Votes on new photos

IDS = ["c.jpg", "a.jpg", "b.jpg"]


def votes_of(task, classes, fold=0, ids=IDS, strength=5.0):
    """A model that is nearly certain of ``classes`` [heads][photos]."""
    return ModelVotes(
        Task(task),
        fold,
        list(ids),
        {
            head: make_probabilities(np.array(classes[head]), count, strength, fold)
            for head, count in HEADS[Task(task)].items()
        },
    )


@pytest.mark.parametrize("name", NAMES)
def test_models_of_three_tasks_make_up_the_joint_class(name):
    fitted = ensemble.fit(name, make_rows("mask", "gender", "age"))
    truth = {"mask": [0, 1, 2], "gender": [1, 0, 1], "age": [2, 1, 0]}
    models = [votes_of(task, truth, fold) for task in truth for fold in range(2)]
    table = ensemble.vote(fitted, models).set_index("image_id")
    assert list(table) == ["mask", "gender", "age", "joint", "ans"]
    assert table.loc[IDS, "ans"].tolist() == labels.encode(**truth).tolist()
    assert table.loc[IDS, "age"].tolist() == truth["age"]


def test_joint_models_alone_give_the_class_and_its_parts():
    fitted = ensemble.fit("hard", make_rows("joint"))
    models = [votes_of("joint", {"joint": [17, 5, 6]}, fold) for fold in range(3)]
    table = ensemble.vote(fitted, models).set_index("image_id").loc[IDS]
    assert table["ans"].tolist() == [17, 5, 6]
    assert table["mask"].tolist() == [2, 0, 1]


def test_all_routes_vote_and_the_order_of_models_does_not_matter():
    fitted = ensemble.fit("hard", make_rows("age", "joint", "multi"))
    old = {"mask": [0] * 3, "gender": [0] * 3, "age": [2] * 3}
    models = [
        votes_of("multi", old),
        votes_of("joint", {"joint": [0] * 3}),
        votes_of("age", old),
    ]
    table = ensemble.vote(fitted, models)
    assert table["age"].tolist() == [2, 2, 2]
    pd.testing.assert_frame_equal(ensemble.vote(fitted, models[::-1]), table)


def test_votes_are_joined_on_the_photo_and_not_on_its_place():
    fitted = ensemble.fit("soft", make_rows("mask"))
    there = votes_of("mask", {"mask": [0, 1, 2]})
    back = votes_of("mask", {"mask": [2, 1, 0]}, fold=1, ids=IDS[::-1])
    table = ensemble.vote(fitted, [there, back])
    assert dict(zip(table["image_id"], table["mask"], strict=True)) == {
        "c.jpg": 0, "a.jpg": 1, "b.jpg": 2,
    }  # fmt: skip
    assert "ans" not in table


@pytest.mark.parametrize("ids", [["a.jpg", "b.jpg", "d.jpg"], ["a.jpg", "b.jpg"], [*IDS, "d.jpg"]])
def test_models_that_saw_other_photos_cannot_vote_together(ids):
    fitted = ensemble.fit("soft", make_rows("mask"))
    models = [
        votes_of("mask", {"mask": [0, 1, 2]}),
        votes_of("mask", {"mask": [0] * len(ids)}, fold=3, ids=ids),
    ]
    with pytest.raises(ValueError, match="task mask, fold 3 has not seen the same photos"):
        ensemble.vote(fitted, models)


# Several runs


def of_runs(**rows):
    return pd.concat([table.assign(run=run) for run, table in rows.items()])


def test_the_routes_of_several_runs_vote_together():
    rows = of_runs(b=make_rows("multi", seed=1), a=make_rows("joint"), c=make_rows("age", seed=2))
    routes = ensemble.routes_of(rows)
    assert ensemble.names_of(routes) == ["a/joint", "b/multi", "c/age"]
    assert ensemble.names_of(ensemble.voters(routes)["age"]) == ["a/joint", "b/multi", "c/age"]
    assert ensemble.names_of(ensemble.voters(routes)["mask"]) == ["a/joint", "b/multi"]
    probabilities_MNK, truth_N, photos = ensemble.stacked(rows, "age", routes)
    order = np.argsort(PHOTOS)
    assert probabilities_MNK.shape == (3, len(PHOTOS), 3)
    np.testing.assert_array_equal(truth_N, TRUTH["age"][order])
    assert photos["person"].tolist() == [PERSONS[place] for place in order]
    answers = ensemble.out_of_fold_answers("soft", rows, seed=0).set_index("photo")
    expected = probabilities_MNK.mean(axis=0).argmax(axis=1)
    assert answers.loc[photos["photo"], "age_predicted"].tolist() == expected.tolist()


def test_joint_models_of_several_runs_vote_on_the_eighteen_classes():
    rows = of_runs(a=make_rows("joint"), b=make_rows("joint", seed=1))
    fitted = ensemble.fit("greedy", rows)
    assert list(fitted) == ["joint"]
    assert len(fitted["joint"].parameters["weights"]) == 2


def test_models_of_several_runs_answer_new_photos_with_the_weight_of_their_route():
    rows = of_runs(a=make_rows("mask", strength=5.0), b=make_rows("mask", strength=0.0, seed=1))
    fitted = ensemble.fit("greedy", rows)
    assert fitted["mask"].parameters["weights"][0] > 0.9
    sure, other = np.eye(3)[[0, 1]], np.eye(3)[[2, 2]]
    models = [
        ModelVotes(Task.MASK, 0, ["x", "y"], {"mask": other}, run="b"),
        ModelVotes(Task.MASK, 0, ["x", "y"], {"mask": sure}, run="a"),
    ]
    assert ensemble.vote(fitted, models)["mask"].tolist() == [0, 1]


def test_runs_with_other_labels_do_not_vote_together():
    other = make_rows("mask", seed=1)
    other.loc[other["photo"] == PHOTOS[0], "truth"] = (TRUTH["mask"][0] + 1) % 3
    with pytest.raises(ValueError, match=f"a/mask and b/mask.* 1 photos, such as {PHOTOS[0]}"):
        ensemble.fit("soft", of_runs(a=make_rows("mask"), b=other))


def test_disagreement_is_the_share_of_photos_answered_differently():
    rows = of_runs(a=make_rows("mask"), b=make_rows("mask", seed=1))
    table = ensemble.disagreement(rows, "mask")
    assert table.index.tolist() == table.columns.tolist() == ["a/mask", "b/mask"]
    by_run = [rows[rows["run"] == run].set_index("photo")["predicted"][PHOTOS] for run in "ab"]
    assert table.loc["a/mask", "b/mask"] == pytest.approx((by_run[0] != by_run[1]).mean())
    assert (np.diag(table) == 0).all()
