import itertools
import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskcls.commands.vote import main
from maskcls.scoring import metrics, submission, voting

NAMES = ["hard", "soft", "weighted", "greedy", "stacking"]


def make_probabilities(truth_N, num_classes, strengths, seed=0):
    """Dirichlet noise, leaning to the truth by ``strengths`` (one a model)."""
    rng = np.random.default_rng(seed)
    noise = rng.dirichlet(np.ones(num_classes), size=(len(strengths), len(truth_N)))
    lean = np.array(strengths)[:, None, None] * np.eye(num_classes)[truth_N]
    return (noise + lean) / (noise + lean).sum(axis=2, keepdims=True)


def make_task(strengths, num_classes=3, num_people=60, photos_each=7, seed=0):
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.integers(num_classes, size=num_people), photos_each)
    people = np.repeat([f"{person:06d}" for person in range(num_people)], photos_each)
    return make_probabilities(truth, num_classes, strengths, seed + 1), truth, people


def f1(truth, predicted, num_classes=3):
    return metrics.macro_f1(metrics.confusion(truth, predicted, num_classes))


# Votes


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ([[0.4, 0.35, 0.25], [0.4, 0.35, 0.25], [0.0, 1.0, 0.0]], 0),  # two votes beat the mean
        ([[0.6, 0.4, 0.0], [0.1, 0.9, 0.0]], 1),  # a tie: the higher mean
        ([[0.2, 0.3, 0.5], [0.1, 0.7, 0.2]], 1),  # a tie: the higher mean, 0.5 against 0.35
        ([[0.6, 0.4, 0.0], [0.4, 0.6, 0.0]], 0),  # a tie of means too: the lower class
        ([[0.0, 0.45, 0.55], [0.55, 0.45, 0.0]], 0),  # class 1 has the highest mean but no vote
        ([[0.2, 0.2, 0.6]], 2),
    ],
)
def test_hard_vote(models, expected):
    assert voting.hard_vote(np.array(models)[:, None]).tolist() == [expected]


def test_soft_vote_follows_the_mean_and_ties_go_to_the_lower_class():
    probabilities_MNK = np.array([[[0.4, 0.35, 0.25], [0.1, 0.2, 0.7]]] * 2 + [[[0, 1, 0]] * 2])
    assert voting.soft_vote(probabilities_MNK).tolist() == [1, 1]
    assert voting.soft_vote(np.array([[[0.2, 0.4, 0.4]]])).tolist() == [1]


def test_weights_count():
    one_two = np.array([[[0.9, 0.1]], [[0.4, 0.6]], [[0.4, 0.6]]])
    assert voting.hard_vote(one_two).tolist() == [1]
    assert voting.hard_vote(one_two, [3, 1, 1]).tolist() == [0]
    assert voting.soft_vote(one_two).tolist() == [0]
    assert voting.soft_vote(one_two, [0.1, 1, 1]).tolist() == [1]


def test_votes_that_only_rounding_sets_apart_are_a_tie():
    # 0.1 + 0.2 > 0.3 in floating point, so class 1 would win by rounding.
    models = np.array([[[0.1, 0.9]], [[0.1, 0.9]], [[1.0, 0.0]]])
    assert voting.hard_vote(models, [0.1, 0.2, 0.3]).tolist() == [0]


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 5), st.integers(2, 5), st.integers(0, 1000))
def test_a_vote_is_the_same_in_any_order_of_models(num_models, num_classes, seed):
    rng = np.random.default_rng(seed)
    # Coarse values, so that ties happen.
    probabilities_MNK = rng.integers(1, 4, size=(num_models, 20, num_classes)) / 10
    for vote in (voting.hard_vote, voting.soft_vote):
        expected = vote(probabilities_MNK)
        for order in itertools.islice(itertools.permutations(range(num_models)), 6):
            np.testing.assert_array_equal(vote(probabilities_MNK[list(order)]), expected)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 6), st.integers(2, 4), st.integers(0, 1000))
def test_hard_vote_agrees_with_counting_by_hand(num_models, num_classes, seed):
    rng = np.random.default_rng(seed)
    probabilities_MNK = rng.dirichlet(np.ones(num_classes), size=(num_models, 8))
    for n, voted in enumerate(voting.hard_vote(probabilities_MNK)):
        ballots = [int(model[n].argmax()) for model in probabilities_MNK]
        best = max(
            range(num_classes),
            key=lambda k: (ballots.count(k), probabilities_MNK[:, n, k].mean()),
        )
        assert voted == best


@pytest.mark.parametrize(
    ("probabilities", "weights", "message"),
    [
        (np.ones((2, 3)), None, r"\[models, photos, classes\].*\(2, 3\)"),
        (np.ones((0, 2, 3)), None, "one or more models"),
        (np.full((1, 2, 3), np.nan), None, "6 not finite"),
        (np.ones((2, 2, 3)), [1], "expected 2 weights"),
        (np.ones((2, 2, 3)), [1, -1], "none negative"),
        (np.ones((2, 2, 3)), [0, 0], "some positive"),
        (np.ones((2, 2, 3)), [1, np.nan], "none negative"),
    ],
)
@pytest.mark.parametrize("vote", [voting.hard_vote, voting.soft_vote])
def test_votes_refuse_what_they_cannot_count(vote, probabilities, weights, message):
    with pytest.raises(ValueError, match=message):
        vote(probabilities, weights)


# Fitted ensembles


def test_the_ensembles_have_their_names():
    assert list(voting.ENSEMBLES) == NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_classes", [2, 3, 18])
def test_a_fitted_vote_survives_json_and_repeats_itself(name, num_classes):
    probabilities_MNK, truth, people = make_task([0.5, 0.3], num_classes)
    fitted = voting.fit(name, probabilities_MNK, truth, people)
    assert fitted == voting.fit(name, probabilities_MNK, truth, people)
    loaded = voting.FittedVote(**json.loads(json.dumps(asdict(fitted))))
    assert loaded == fitted
    classes_N, probabilities_NK = voting.apply(loaded, probabilities_MNK)
    assert probabilities_NK.shape == (len(truth), num_classes)
    np.testing.assert_allclose(probabilities_NK.sum(axis=1), 1)
    # The class is one of the most probable ones.
    chosen_N = probabilities_NK[np.arange(len(truth)), classes_N]
    np.testing.assert_allclose(chosen_N, probabilities_NK.max(axis=1), atol=1e-8)
    assert f1(truth, classes_N, num_classes) > 0.3


@pytest.mark.parametrize(("name", "vote"), [("hard", voting.hard_vote), ("soft", voting.soft_vote)])
def test_unweighted_ensembles_are_the_plain_votes(name, vote):
    probabilities_MNK, truth, _ = make_task([0.5, 0.3, 0.1])
    classes_N, _ = voting.apply(voting.fit(name, probabilities_MNK, truth), probabilities_MNK)
    np.testing.assert_array_equal(classes_N, vote(probabilities_MNK))


@pytest.mark.parametrize(("name", "as_told"), [("hard", "soft"), ("soft", "soft"),
                                               ("weighted", "weighted")])  # fmt: skip
def test_a_hard_vote_tells_the_mean_probabilities_of_its_models(name, as_told):
    probabilities_MNK, truth, people = make_task([2.0, 1.0, 0.5])
    fitted = voting.fit(name, probabilities_MNK, truth, people)
    other = voting.fit(as_told, probabilities_MNK, truth, people)
    expected_NK = voting.apply(other, probabilities_MNK)[1]
    np.testing.assert_array_equal(voting.mean_probabilities(fitted, probabilities_MNK), expected_NK)
    shares_NK = voting.apply(voting.fit("hard", probabilities_MNK, truth), probabilities_MNK)[1]
    assert np.abs(shares_NK - expected_NK).max() > 0.1


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 200))
def test_learned_weights_never_lose_to_equal_ones_on_what_they_learned_from(seed):
    rng = np.random.default_rng(seed)
    probabilities_MNK, truth, _ = make_task(rng.random(3), num_people=10, seed=seed)
    fitted = voting.fit("weighted", probabilities_MNK, truth)
    assert sum(fitted.parameters["weights"]) == pytest.approx(1)
    weighted, _ = voting.apply(fitted, probabilities_MNK)
    assert f1(truth, weighted) >= f1(truth, voting.soft_vote(probabilities_MNK))


def test_learned_weights_find_the_good_route():
    probabilities_MNK, truth, _ = make_task([0.0, 0.6, 0.0])
    weights = voting.fit("weighted", probabilities_MNK, truth).parameters["weights"]
    assert weights[1] > 0.5
    grid = [
        f1(truth, voting.soft_vote(probabilities_MNK, np.array(point)))
        for point in itertools.product(range(11), repeat=3)
        if sum(point) == 10
    ]
    assert f1(truth, voting.soft_vote(probabilities_MNK, weights)) > max(grid) - 0.01


def test_weights_stay_equal_where_nothing_beats_that():
    probabilities_MNK, truth, _ = make_task([5.0, 5.0, 5.0])
    assert voting.fit("weighted", probabilities_MNK, truth).parameters["weights"] == [1 / 3] * 3


def test_stacking_undoes_a_route_that_confuses_two_classes():
    probabilities_MNK, truth, _ = make_task([0.5])
    swapped_MNK = probabilities_MNK[:, :, [1, 0, 2]]
    classes_N, _ = voting.apply(voting.fit("stacking", swapped_MNK, truth), swapped_MNK)
    assert f1(truth, classes_N) > f1(truth, voting.soft_vote(probabilities_MNK)) - 0.05
    assert f1(truth, voting.soft_vote(swapped_MNK)) < 0.5


@pytest.mark.parametrize("num_classes", [2, 3])
def test_stacking_gives_the_probabilities_of_scikit_learn(num_classes):
    from sklearn.linear_model import LogisticRegression

    probabilities_MNK, truth, _ = make_task([0.5, 0.2], num_classes)
    features = np.hstack(np.log(np.maximum(probabilities_MNK, voting.SMALLEST_PROBABILITY)))
    expected = LogisticRegression(max_iter=1000).fit(features, truth).predict_proba(features)
    fitted = voting.fit("stacking", probabilities_MNK, truth)
    np.testing.assert_allclose(voting.apply(fitted, probabilities_MNK)[1], expected, atol=1e-9)


def test_stacking_bears_logits_of_any_size():
    probabilities_MNK, truth, _ = make_task([2.0, 1.0])
    fitted = voting.fit("stacking", probabilities_MNK, truth)
    large = {
        **fitted.parameters,
        "coefficients": (1e4 * np.array(fitted.parameters["coefficients"])).tolist(),
    }
    classes_N, voted_NK = voting.apply(replace(fitted, parameters=large), probabilities_MNK)
    assert np.isfinite(voted_NK).all()
    np.testing.assert_allclose(voted_NK.sum(axis=1), 1)
    assert f1(truth, classes_N) > 0.8


@pytest.mark.parametrize("seen", [[0, 2], [0, 1, 3]])
def test_stacking_gives_no_chance_to_a_class_it_never_saw(seen):
    probabilities_MNK, truth, _ = make_task([0.5], num_classes=4)
    kept = np.isin(truth, seen)
    fitted = voting.fit("stacking", probabilities_MNK[:, kept], truth[kept])
    classes_N, probabilities_NK = voting.apply(fitted, probabilities_MNK)
    assert set(classes_N) == set(seen)
    unseen = [k for k in range(4) if k not in seen]
    assert (probabilities_NK[:, unseen] == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_fold_models_share_the_weight_of_their_route(name):
    probabilities_RNK, truth, people = make_task([0.6, 0.1])
    fitted = voting.fit(name, probabilities_RNK, truth, people)
    expected = voting.apply(fitted, probabilities_RNK)
    # Three equal models of route 1 and one of route 0, in mixed order, are the two routes again.
    repeated = voting.apply(fitted, probabilities_RNK[[1, 0, 1, 1]], route_M=[1, 0, 1, 1])
    np.testing.assert_array_equal(repeated[0], expected[0])
    np.testing.assert_allclose(repeated[1], expected[1])


def test_five_fold_models_of_one_route_vote_as_equals():
    probabilities_MNK, truth, _ = make_task([0.4] * 5)
    fitted = voting.fit("hard", probabilities_MNK[:1], truth)
    classes_N, shares_NK = voting.apply(fitted, probabilities_MNK, route_M=[0] * 5)
    np.testing.assert_array_equal(classes_N, voting.hard_vote(probabilities_MNK))
    assert set(np.unique((shares_NK * 5).round(9))) <= set(range(6))


@pytest.mark.parametrize(
    ("models", "route_M"),
    [(3, None), (1, None), (2, [0, 0]), (2, [0, 2]), (2, [0, -1]), (2, [0, 1, 1])],
)
def test_apply_needs_every_route_and_no_other(models, route_M):
    probabilities_MNK, truth, _ = make_task([0.5] * 3)
    fitted = voting.fit("soft", probabilities_MNK[:2], truth)
    with pytest.raises(ValueError, match="fitted on routes 0 to 1"):
        voting.apply(fitted, probabilities_MNK[:models], route_M)


def test_apply_refuses_probabilities_of_another_attribute():
    probabilities_MNK, truth, _ = make_task([0.5])
    fitted = voting.fit("hard", probabilities_MNK, truth)
    with pytest.raises(ValueError, match="fitted on 3 classes, got 2"):
        voting.apply(fitted, probabilities_MNK[:, :, :2])


def test_fit_refuses_an_unknown_name():
    with pytest.raises(ValueError, match=r"'median'.*hard, soft, weighted, greedy, stacking"):
        voting.fit("median", np.ones((1, 2, 3)), [0, 1])


@pytest.mark.parametrize("truth", [[0, 1, 2], [0, 3], [-1, 0]])
def test_fit_needs_a_true_class_for_each_photo(truth):
    with pytest.raises(ValueError, match="class from 0 to 2 for each of 2 photos"):
        voting.fit("stacking", np.ones((1, 2, 3)), truth)


def test_greedy_selection_drops_what_adds_nothing_and_knows_no_order_of_photos():
    probabilities_MNK, truth, people = make_task([0.6, 0.0, 0.5, 0.0])
    weights = voting.fit("greedy", probabilities_MNK, truth, people).parameters["weights"]
    assert sum(weights) == pytest.approx(1)
    assert weights[0] + weights[2] > 0.8
    order = np.random.default_rng(0).permutation(len(truth))
    shuffled = voting.fit("greedy", probabilities_MNK[:, order], truth[order], people[order])
    assert shuffled.parameters["weights"] == pytest.approx(weights)


@pytest.mark.parametrize(("name", "offsets"), [("greedy", False), ("soft", True)])
def test_what_goes_by_people_needs_them(name, offsets):
    probabilities_MNK, truth, people = make_task([0.5])
    with pytest.raises(ValueError, match="expected the person of each photo"):
        voting.fit(name, probabilities_MNK, truth, offsets=offsets)
    with pytest.raises(ValueError, match=r"one person for each of 420 photos, got \(419,\)"):
        voting.fit(name, probabilities_MNK, truth, people[1:], offsets=offsets)


def test_a_hard_vote_takes_no_offsets():
    with pytest.raises(ValueError, match="vote softly"):
        voting.fit("hard", *make_task([0.5]), offsets=True)


@pytest.mark.parametrize("name", NAMES[1:])
def test_offsets_are_part_of_the_vote_and_survive_json(name):
    probabilities_MNK, truth, people = make_skewed()
    plain = voting.fit(name, probabilities_MNK, truth, people)
    fitted = voting.fit(name, probabilities_MNK, truth, people, offsets=True)
    loaded = voting.FittedVote(**json.loads(json.dumps(asdict(fitted))))
    classes_N, shifted_NK = voting.apply(loaded, probabilities_MNK)
    np.testing.assert_allclose(shifted_NK.sum(axis=1), 1)
    if name == "stacking":  # it may have found them by itself
        return
    assert loaded.offsets["used"]
    assert f1(truth, classes_N) > f1(truth, voting.apply(plain, probabilities_MNK)[0]) + 0.05
    _, plain_NK = voting.apply(plain, probabilities_MNK)
    logs_NK = np.log(plain_NK) + loaded.offsets["values"]
    np.testing.assert_array_equal(classes_N, logs_NK.argmax(axis=1))


def test_offsets_that_may_be_luck_change_nothing():
    probabilities_MNK, truth, people = make_task([1.0], num_people=10)
    fitted = voting.fit("soft", probabilities_MNK, truth, people, offsets=True)
    assert fitted.offsets["used"] is False
    plain = voting.fit("soft", probabilities_MNK, truth, people)
    for one, other in zip(
        voting.apply(fitted, probabilities_MNK), voting.apply(plain, probabilities_MNK), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def make_skewed(seed=0):
    """A route that nearly always answers class 0, which nearly everybody has, although its
    probabilities tell the classes apart."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.choice(3, size=150, p=[0.7, 0.2, 0.1]), 4)
    people = np.repeat(np.arange(150), 4)
    logits = rng.normal(size=(len(truth), 3)) + 2 * np.eye(3)[truth] + [2.5, 0, 0]
    raised = np.exp(logits)
    return (raised / raised.sum(axis=1, keepdims=True))[None], truth, people


# Honest scores


@pytest.mark.parametrize("name", ["weighted", "greedy", "stacking"])
def test_on_random_labels_the_nested_score_shows_no_gain_but_the_in_sample_score_does(name):
    in_sample, nested = [], []
    for seed in range(20):
        probabilities_MNK, _, people = make_task([0.0] * 4, num_people=40, seed=seed)
        truth = np.random.default_rng(100 + seed).integers(3, size=len(people))
        plain = f1(truth, voting.soft_vote(probabilities_MNK))
        fitted = voting.fit(name, probabilities_MNK, truth, people)
        in_sample.append(f1(truth, voting.apply(fitted, probabilities_MNK)[0]) - plain)
        scores, _ = voting.nested_score(name, probabilities_MNK, truth, people, seed=seed)
        nested.append(scores["macro_f1"] - plain)
    noise = np.std(nested) / np.sqrt(len(nested))
    assert np.mean(in_sample) > (0.01 if name == "greedy" else 0.03)
    assert abs(np.mean(nested)) < 3 * noise < 0.04


@pytest.mark.parametrize("name", ["weighted", "greedy", "stacking"])
def test_the_nested_score_shows_a_gain_that_is_real(name):
    probabilities_MNK, truth, people = make_task([0.0, 0.0, 0.6])
    scores, predicted_N = voting.nested_score(name, probabilities_MNK, truth, people, seed=0)
    assert scores["macro_f1"] == pytest.approx(f1(truth, predicted_N))
    assert scores["macro_f1"] > f1(truth, voting.soft_vote(probabilities_MNK)) + 0.02


@pytest.mark.parametrize("name", ["hard", "soft"])
def test_votes_that_learn_nothing_score_the_same_nested(name):
    probabilities_MNK, truth, people = make_task([0.4, 0.3])
    plain, _ = voting.apply(voting.fit(name, probabilities_MNK, truth), probabilities_MNK)
    _, predicted_N = voting.nested_score(name, probabilities_MNK, truth, people, seed=0)
    np.testing.assert_array_equal(predicted_N, plain)


def test_no_person_is_voted_on_by_weights_from_their_own_photos(monkeypatch):
    # The first probability carries the number of the person, so each call shows whom it got.
    people = np.repeat(np.arange(12), 3)
    probabilities_MNK = np.stack([people, 100 - people], axis=1)[None] / 100
    seen = []
    monkeypatch.setattr(
        voting,
        "fit",
        lambda name, p_MNK, truth, people, offsets: (
            seen.append((set(p_MNK[0, :, 0]), set(people / 100))) or "fitted"
        ),
    )

    def apply(fitted, p_MNK):
        held = set(p_MNK[0, :, 0])
        fitted_on, told = seen[-1]
        assert told == fitted_on
        assert not held & fitted_on
        assert len(held | fitted_on) == 12
        assert len(held) == 3
        return np.zeros(p_MNK.shape[1], np.int64), None

    monkeypatch.setattr(voting, "apply", apply)
    voting.nested_score("soft", probabilities_MNK, people % 2, people, seed=0, splits=4)
    assert len(seen) == 4


def test_the_nested_score_depends_on_the_seed_and_not_on_the_order_of_photos():
    probabilities_MNK, truth, people = make_task([0.3, 0.2, 0.1])
    _, predicted_N = voting.nested_score("weighted", probabilities_MNK, truth, people, seed=0)
    order = np.random.default_rng(1).permutation(len(truth))
    _, shuffled_N = voting.nested_score(
        "weighted", probabilities_MNK[:, order], truth[order], people[order], seed=0
    )
    np.testing.assert_array_equal(shuffled_N, predicted_N[order])


@pytest.mark.parametrize("splits", [1, 5])
def test_the_nested_score_needs_a_person_for_each_split(splits):
    probabilities_MNK, truth, people = make_task([0.3], num_people=4)
    with pytest.raises(ValueError, match=f"2 to 4 splits.*got {splits}"):
        voting.nested_score("soft", probabilities_MNK, truth, people, seed=0, splits=splits)


@pytest.mark.parametrize(("photos", "entries"), [(27, 28), (28, 27)])
def test_the_nested_score_needs_a_truth_and_a_person_for_each_photo(photos, entries):
    probabilities_MNK, truth, people = make_task([0.3], num_people=4)
    with pytest.raises(ValueError, match="one true class and one person for each photo"):
        voting.nested_score(
            "soft", probabilities_MNK, truth[:photos], people[:entries], seed=0, splits=2
        )


# Submissions


@pytest.fixture
def write(tmp_path):
    def write_file(name, answers):
        path = tmp_path / name
        frame = pd.DataFrame({"ImageID": list(answers), "ans": list(answers.values())})
        frame.to_csv(path, index=False)
        return path

    return write_file


def test_submissions_are_joined_on_the_id_and_voted_by_majority(write, tmp_path):
    paths = [
        write("a.csv", {"z": 1, "y": 4, "x": 17}),
        write("b.csv", {"x": 0, "y": 5, "z": 2}),
        write("c.csv", {"y": 5, "z": 2, "x": 17}),
    ]
    out = tmp_path / "vote.csv"
    voted = submission.vote_submissions(paths, out=out)
    assert out.read_bytes() == b"ImageID,ans\nz,2\ny,5\nx,17\n"
    pd.testing.assert_frame_equal(voted, submission.read_answers(out))


def test_a_tie_goes_to_the_tied_class_of_the_earliest_file(write):
    answers = {"first": 9, "second": 3, "third": 5, "fourth": 5, "fifth": 3}
    paths = [write(f"{name}.csv", {"x": joint}) for name, joint in answers.items()]
    assert submission.vote_submissions(paths)["ans"].tolist() == [3]
    assert submission.vote_submissions(paths[::-1])["ans"].tolist() == [3]
    assert submission.vote_submissions([*paths[2:], *paths[:2]])["ans"].tolist() == [5]
    assert submission.vote_submissions(paths[:2])["ans"].tolist() == [9]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"x": 0, "y": 0}, r"b.csv must .*a.csv: 1 \(z\) missing"),
        ({"x": 0, "y": 0, "z": 0, "w": 0}, r"b.csv must .* 1 \(w\) too many"),
        ({"x": 0, "y": 0, "z": 18}, "b.csv: ans must be a whole number from 0 to 17, got '18'"),
    ],
)
def test_a_file_that_does_not_match_is_named(write, tmp_path, answers, message):
    paths = [write("a.csv", {"x": 0, "y": 0, "z": 0}), write("b.csv", answers)]
    with pytest.raises(ValueError, match=message):
        submission.vote_submissions(paths, out=tmp_path / "vote.csv")
    assert not (tmp_path / "vote.csv").exists()


def test_a_doubled_id_is_refused(write, tmp_path):
    doubled = tmp_path / "b.csv"
    doubled.write_text("ImageID,ans\nx,0\nx,0\n")
    with pytest.raises(ValueError, match=r"b.csv: each ImageID must stand once"):
        submission.vote_submissions([write("a.csv", {"x": 0}), doubled])


def test_a_vote_needs_a_file():
    with pytest.raises(ValueError, match="got none"):
        submission.vote_submissions([])


@pytest.mark.parametrize("disguise", ["plain", "relative", "link"])
def test_the_output_is_never_voted_over(write, tmp_path, monkeypatch, disguise):
    own = write("vote.csv", {"x": 1})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.csv").symlink_to(own)
    out = {"plain": own, "relative": own.relative_to(tmp_path), "link": tmp_path / "link.csv"}
    with pytest.raises(ValueError, match="is one of the files voted over"):
        submission.vote_submissions([write("a.csv", {"x": 0}), own], out=out[disguise])
    assert own.read_text() == "ImageID,ans\nx,1\n"


def test_the_command_votes(write, tmp_path, capsys):
    paths = [str(write(f"{name}.csv", {"x": joint})) for name, joint in enumerate([1, 2, 2])]
    main([str(tmp_path / "vote.csv"), *paths])
    assert (tmp_path / "vote.csv").read_text() == "ImageID,ans\nx,2\n"
    assert "3 files voted on 1 photos" in capsys.readouterr().out


def test_the_command_never_overwrites_a_submission(write, capsys):
    first, second = write("a.csv", {"x": 1}), write("b.csv", {"x": 2})
    with pytest.raises(SystemExit):
        main([str(first), str(second)])
    assert "exists already" in capsys.readouterr().err
    assert first.read_text() == "ImageID,ans\nx,1\n"
