import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskcls.config import search_space
from maskcls.config.layers import flatten
from maskcls.config.recipe import Recipe
from maskcls.config.search_space import KINDS, SearchSpace

RECIPE = Recipe()
EVERY_KIND = {
    "loss.gamma": {"uniform": [0.5, 4.0], "when": {"loss.name": ["focal", "focal_smoothing"]}},
    "loss.smoothing": {"uniform": [0.0, 0.3], "when": {"loss.name": "focal_smoothing"}},
    "loss.name": ["cross_entropy", "focal", "focal_smoothing"],
    "train.lr": {"loguniform": [1.0e-5, 1.0e-2]},
    "train.epochs": {"int": [2, 30]},
    "image.size": {"choice": [[256, 192], [384, 288]]},
}


class Lowest:
    """Draws the lowest value or the first choice, and writes down what was asked of it."""

    def __init__(self):
        self.asked = []

    def suggest_float(self, name, low, high, *, log=False):
        self.asked.append((name, low, high, log))
        return low

    def suggest_int(self, name, low, high):
        self.asked.append((name, low, high))
        return low

    def suggest_categorical(self, name, choices):
        self.asked.append((name, list(choices)))
        return choices[0]


def parse(space, **changes):
    return search_space.parse(space, recipe(**changes))


def recipe(**changes):
    return search_space.apply(RECIPE, {k.replace("__", "."): v for k, v in changes.items()})


def refused(space):
    """The lines of a refusal."""
    with pytest.raises(ValueError) as caught:
        parse(space)
    return str(caught.value).splitlines()


def value_of(recipe, key):
    return dict(flatten(recipe.model_dump(mode="json")))[key]


@pytest.mark.parametrize(
    ("key", "text", "asked", "drawn"),
    [
        ("train.lr", {"uniform": [0.001, 0.01]}, (0.001, 0.01, False), 0.001),
        ("train.lr", {"loguniform": ["1e-5", 1]}, (1e-5, 1.0, True), 1e-5),
        ("train.epochs", {"int": [2, 10.0]}, (2, 10), 2),
        ("optimizer.name", ["sgd", "adam"], ([0, 1],), "sgd"),
        ("image.size", {"choice": [[384, 288], [256, 192]]}, ([0, 1],), [384, 288]),
        ("train.patience", [None, 3], ([0, 1],), None),
    ],
)
def test_each_kind_is_drawn_as_it_says(key, text, asked, drawn):
    draws = Lowest()
    assert parse({key: text}).draw(draws, RECIPE) == {key: drawn}
    assert repr(draws.asked) == repr([(key, *asked)])  # 2 is not 2.0 here


def test_values_become_what_the_configuration_holds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = parse(
        {
            "train.lr": ["1e-4", 1],  # YAML reads 1e-4 as text
            "model.weights": [None, "mine.pth"],
            "people.blend": [[], [{"ages": [60, 99]}]],
            "image.size": [(256, 192)],
        }
    )
    assert {d.key: d.values for d in space.dimensions} == {
        "train.lr": (1e-4, 1.0),
        "model.weights": (None, str(tmp_path / "mine.pth")),
        "people.blend": ([], [{"ages": [60, 99], "gender": None}]),
        "image.size": ([256, 192],),
    }


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("cross_entropy", set()),
        ("focal", {"loss.gamma"}),
        ("focal_smoothing", {"loss.gamma", "loss.smoothing"}),
    ],
)
@pytest.mark.parametrize("searched", [True, False])
def test_a_condition_asks_what_was_drawn_or_else_the_recipe(loss, expected, searched):
    texts = {key: EVERY_KIND[key] for key in ("loss.gamma", "loss.smoothing")}
    if searched:
        drawn = parse({**texts, "loss.name": [loss]}).draw(Lowest(), RECIPE)
    else:
        drawn = parse(texts).draw(Lowest(), recipe(loss__name=loss))
    assert set(drawn) - {"loss.name"} == expected


def test_all_conditions_must_hold():
    text = {"uniform": [1, 2], "when": {"loss.name": "focal", "optimizer.name": "adamw"}}
    space = parse({"loss.gamma": text})
    assert space.draw(Lowest(), recipe(loss__name="focal"))
    assert not space.draw(Lowest(), recipe(loss__name="focal", optimizer__name="sgd"))


def test_a_condition_on_a_key_that_was_not_drawn_asks_the_recipe():
    own = recipe(loss__name="focal_smoothing", loss__gamma=1.0, optimizer__name="sgd")
    space = search_space.parse(
        {
            "optimizer.momentum": [0.5],
            "loss.gamma": {"choice": [1.0, 3.0], "when": {"loss.name": "focal"}},
            "loss.smoothing": {"choice": [0.2], "when": {"loss.gamma": 1.0}},
        },
        own,
    )
    assert space.draw(Lowest(), own) == {"optimizer.momentum": 0.5, "loss.smoothing": 0.2}


@pytest.mark.parametrize(
    ("space", "refused_methods"),
    [
        ({"loss.gamma": [1.0]}, "cross_entropy"),
        ({"loss.gamma": [1.0], "loss.name": ["focal", "soft_f1"]}, "soft_f1"),
        ({"loss.gamma": {"choice": [1.0], "when": {"loss.name": ["focal", "soft_f1"]}}}, "soft_f1"),
        ({"augment.mix.alpha": {"uniform": [0.1, 1]}}, "none"),
    ],
)
def test_an_option_that_a_method_of_a_trial_does_not_take_needs_a_condition(space, refused_methods):
    key = next(iter(space))
    (line,) = refused(space)
    start = f"tune.space: {key}: {refused_methods} has no such option: add when: "
    assert line.startswith(start + f"{{{key.rpartition('.')[0]}.name: [")


def test_an_option_that_every_method_of_the_trials_takes_needs_none():
    space = parse({"loss.gamma": [1.0], "loss.name": ["focal", "focal_smoothing"]})
    drawn = space.draw(Lowest(), RECIPE)
    assert search_space.apply(RECIPE, drawn).loss.gamma == 1.0


@given(st.permutations(list(EVERY_KIND)))
def test_dimensions_stand_after_those_they_depend_on_and_else_as_written(keys):
    ordered = [d.key for d in parse({key: EVERY_KIND[key] for key in keys}).dimensions]
    dependent = ("loss.gamma", "loss.smoothing")
    assert ordered == [
        *(key for key in keys if key not in dependent),
        *(key for key in keys if key in dependent),
    ]


@given(st.integers(0, 2**32 - 1))
def test_what_optuna_draws_lies_in_the_space_and_makes_a_recipe(seed):
    space = parse(EVERY_KIND)
    drawn = space.draw(study_of(seed).ask(), RECIPE)
    for dimension in space.dimensions:
        assert (dimension.key in drawn) == dimension.active(drawn)
        if dimension.key in drawn:
            assert dimension.contains(drawn[dimension.key])
    changed = search_space.apply(RECIPE, drawn)
    assert {key: value_of(changed, key) for key in drawn} == drawn


@given(st.sampled_from([1e-5, 1e-4, 1e-2]), st.integers(2, 30), st.data())
def test_the_first_guess_makes_optuna_draw_the_recipe_itself(lr, epochs, data):
    space = parse(EVERY_KIND)
    own = {
        "train.lr": lr,
        "train.epochs": epochs,
        "loss.name": data.draw(st.sampled_from(EVERY_KIND["loss.name"])),
        "image.size": data.draw(st.sampled_from([[256, 192], [384, 288]])),
    }
    if own["loss.name"] != "cross_entropy":
        own["loss.gamma"] = 3.0
    if own["loss.name"] == "focal_smoothing":
        own["loss.smoothing"] = 0.2
    start = search_space.apply(RECIPE, own)
    guess = space.first_guess(start)
    study = study_of(0)
    study.enqueue_trial(guess)
    drawn = space.draw(study.ask(), start)
    assert drawn == {key: own[key] for key in drawn}
    assert set(drawn) == set(guess)
    assert search_space.apply(start, drawn) == start


def study_of(seed):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))


def test_choices_are_guessed_by_their_place():
    space = parse({"image.size": [[384, 288], [256, 192]], "train.lr": ["1e-4"]})
    assert space.first_guess(RECIPE) == {"image.size": 1, "train.lr": 0}


@pytest.mark.parametrize(
    ("key", "text", "own"),
    [
        ("train.lr", {"loguniform": [1e-5, 1e-3]}, 1e-2),
        ("train.epochs", {"int": [2, 10]}, 30),
        ("image.crop_margin", {"int": [0, 2]}, 0.3),
        ("optimizer.weight_decay", {"uniform": [0.5, 4]}, 5e-4),
        ("loss.name", ["focal", "soft_f1"], "cross_entropy"),
    ],
)
def test_a_first_guess_outside_the_space_is_named(key, text, own):
    space = parse({key: text, "optimizer.name": ["adamw"]})
    with pytest.raises(ValueError, match="widen the space") as caught:
        space.first_guess(search_space.apply(RECIPE, {key: own}))
    assert f"{key}={own!r}" in str(caught.value)
    assert "optimizer.name" not in str(caught.value)


def test_a_whole_number_of_a_key_with_fractions_can_be_the_first_guess():
    space = parse({"schedule.warmup_epochs": {"int": [0, 3]}})
    assert space.first_guess(RECIPE) == {"schedule.warmup_epochs": 0}


def test_every_value_outside_is_named_but_none_that_is_not_active():
    space = parse(
        {
            "train.lr": [1.0],
            "train.epochs": {"int": [2, 3]},
            "loss.gamma": {"uniform": [0.5, 4], "when": {"loss.name": "focal"}},
        }
    )
    with pytest.raises(ValueError, match=r"own train\.lr=0\.0001, train\.epochs=30, which"):
        space.first_guess(RECIPE)


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("train.lrate", [1], "no such key; did you mean train.lr?"),
        ("loss", ["focal"], "no such key; did you mean loss.name?"),
        (3, [1], "no such key"),
        ("train.lr", 0.1, f"expected a list or one of {', '.join(KINDS)}, got 0.1"),
        ("train.lr", "0.1", f"expected a list or one of {', '.join(KINDS)}, got '0.1'"),
        ("train.lr", {"normal": [0, 1]}, "got ['normal']"),
        ("train.lr", {"uniform": [0, 1], "int": [0, 1]}, "got ['uniform', 'int']"),
        ("train.lr", {"when": {"loss.name": "focal"}}, "got []"),
        ("train.lr", {1: [0, 1]}, "got ['1']"),
        ("train.lr", [], "choice: expected a list, got []"),
        ("train.lr", {"choice": "abc"}, "choice: expected a list, got 'abc'"),
        ("train.lr", {"uniform": [1]}, "uniform: expected [lowest, highest], got [1]"),
        ("train.lr", {"uniform": [1, 2, 3]}, "uniform: expected [lowest, highest]"),
        ("train.lr", {"uniform": [1, "x"]}, "uniform: expected [lowest, highest]"),
        ("train.lr", {"uniform": [1, None]}, "uniform: expected [lowest, highest]"),
        ("train.lr", {"uniform": [1, 10**400]}, "uniform: expected [lowest, highest]"),
        ("train.lr", {"uniform": [2, 1]}, "uniform: 2.0 is not below 1.0"),
        ("train.lr", {"uniform": [1, 1]}, "uniform: 1.0 is not below 1.0"),
        ("train.lr", {"uniform": [1, float("nan")]}, "uniform: 1.0 is not below nan"),
        ("train.lr", {"uniform": [1, float("inf")]}, "train.lr: Input should be a finite number"),
        ("train.lr", {"uniform": [-1, 1]}, "train.lr: Input should be greater than 0"),
        ("loss.gamma", {"loguniform": [0, 1]}, "loguniform: 0.0 must be above 0"),
        ("train.epochs", {"int": [1.5, 3]}, "int: expected whole numbers, got [1.5, 3]"),
        ("train.epochs", {"int": [1, float("inf")]}, "int: expected whole numbers, got [1, inf]"),
        ("train.epochs", {"int": [0, 3]}, "train.epochs: Input should be greater than 0"),
        ("train.epochs", {"uniform": [2, 10]}, "uniform: the key takes no fractions"),
        ("loss.name", ["focal", "focol"], "loss.name: Input should be"),
        ("loss.gamma", {"choice": [1], "when": "focal"}, "when: expected {key: value or list}"),
        ("loss.gamma", {"choice": [1], "when": {"loss.nam": 1, 2: 3}}, "no such key loss.nam, 2"),
        ("loss.gamma", {"choice": [1], "when": {"loss.name": "focol"}}, "loss.name: Input should"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(key, text, message):
    (line,) = refused({key: text})
    assert line.startswith(f"tune.space: {key}: ")
    assert message in line


def test_everything_wrong_is_said_at_once():
    lines = refused(
        {
            "train.lrate": [1],
            "train.lr": {"loguniform": [0, 1]},
            "train.epochs": {"int": [1, 2]},
            "model.drop_rate": {"choice": [0.1], "when": {"augment.flip": 0.1}},
            "augment.flip": {"choice": [0.1], "when": {"model.drop_rate": 0.1}},
        }
    )
    assert [line.split(":")[1].strip() for line in lines] == [
        "train.lrate",
        "train.lr",
        "conditions in a circle",
    ]
    assert lines[-1].endswith(": augment.flip, model.drop_rate")


def test_a_condition_on_itself_is_a_circle():
    assert "in a circle" in refused({"train.lr": {"choice": [1.0], "when": {"train.lr": 1}}})[0]


def test_an_empty_space_is_refused_with_an_example():
    (line,) = refused({})
    assert "tune.space is empty" in line
    example = {"train.lr": {"loguniform": ["1e-5", "1e-2"]}}  # as YAML reads it
    assert isinstance(parse(example), SearchSpace)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*KINDS, "when", "loss.name"]) | st.text(), inner)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["train.lr", "loss.name", "image.size", "x"]), json_like))
def test_whatever_stands_there_is_read_or_refused(space):
    try:
        parsed = parse(space)
    except ValueError as error:
        assert "tune.space" in str(error)
    else:
        assert {d.key for d in parsed.dimensions} == set(space)


def test_apply_changes_only_what_it_is_told():
    changed = search_space.apply(RECIPE, {"train.lr": 0.5, "augment.mix.name": "mixup"})
    assert changed.augment.mix.alpha == 0.2  # mixup's own
    before, after = (dict(flatten(r.model_dump())) for r in (RECIPE, changed))
    assert {k: after[k] for k in before if after[k] != before[k]} == {
        "train.lr": 0.5,
        "augment.mix.name": "mixup",
    }
    assert Recipe() == RECIPE


def test_apply_says_every_value_that_is_refused():
    with pytest.raises(ValueError, match=r"loss\.name: .*; train\.lr: .*greater than 0"):
        search_space.apply(RECIPE, {"loss.name": "focol", "train.lr": -1})
