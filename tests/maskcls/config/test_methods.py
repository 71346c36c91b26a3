"""Methods and their options; and every key with a fixed set of values refuses another."""

import inspect
import re

import pytest

from maskcls.config import keys
from maskcls.config.load import ConfigError, load
from maskcls.config.recipe import Recipe
from maskcls.config.schema import Config

SECTIONS = ["age", "augment", "augment.mix", "loss", "optimizer", "schedule", "sampler"]
METHODS = [
    (section, method) for section in SECTIONS for method in keys.inside(section, Recipe)
]  # fmt: skip


def refusal(*words):
    with pytest.raises(ConfigError) as caught:
        load(words=words)
    return str(caught.value)


def test_each_section_with_methods_is_listed_here():
    names = [key.removesuffix(".name") for key in keys.every_key(Recipe) if key.endswith(".name")]
    assert set(names) - {"model"} == set(SECTIONS)


@pytest.mark.parametrize(("section", "method"), METHODS)
def test_an_option_of_another_method_is_refused_with_those_that_take_it(section, method):
    name = keys.name_of(method)
    for option in keys.method_options(section):
        if option in method.model_fields:
            continue
        text = refusal(f"{section}.name={name}", f"{section}.{option}=1")
        takers = ", ".join(keys.takers(section, option))
        assert f"{section}.{option} (command line): {name} has no such option; {takers} ha" in text


@pytest.mark.parametrize(("section", "method"), METHODS)
def test_each_method_is_read_with_the_defaults_of_its_builder(section, method):
    """The page of keys and --print-config show what a builder would do by itself."""
    from maskcls.augment import augmentations, mixing
    from maskcls.learning import losses, optim

    builders = {
        "augment": augmentations.AUGMENTATIONS,
        "loss": losses.LOSSES,
        "optimizer": optim.OPTIMIZERS,
        "schedule": optim.SCHEDULES,
    }
    name = keys.name_of(method)
    if section == "augment.mix":
        own = {} if name == "none" else {"alpha": mixing._RULES[name][1]}
    else:
        builder = builders.get(section, {}).get(name)
        parameters = inspect.signature(builder).parameters if builder else {}
        own = {n: p.default for n, p in parameters.items() if p.default is not p.empty}
    for option, default in own.items():
        assert method.model_fields[option].default == default, option


def test_the_options_that_depend_on_the_method_are_read_off_the_types():
    assert keys.method_options("loss") == ("class_weights", "smoothing", "gamma", "beta", "tau")
    assert keys.method_options("recipes.age.optimizer") == ("amsgrad", "momentum", "alpha")
    assert keys.method_options("sampler") == ("shares",)
    assert keys.method_options("train") == ()
    assert keys.method_options("no.such.section") == ()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["augment.name=randaugment", "augment.magnitude=31"], "magnitude.*equal to 30, got 31"),
        (["augment.name=flip", "augment.ops=3"], "flip has no such option; randaugment has it"),
        (["augment.jitter=[.2,.2,.2,.9]"], r"augment\.jitter\.3.*equal to 0.5, got 0.9"),
        (["augment.name=augmix", "augment.depth=0"], "at least 1, or -1.*got 0"),
        (["augment.name=augmix", "augment.severity=11"], "equal to 10, got 11"),
        (["loss.name=cross_entropy", "loss.gamma=2"], "cross_entropy has no such option; focal, "),
        (["loss.class_weights=[0,1,1]"], r"class_weights\.0.*greater than 0, got 0"),
        (["optimizer.name=sgd", "optimizer.amsgrad=true"], "sgd has no such option; adamw, adam"),
        (["augment.mix={name: none, alpha: 1}"], r"augment\.mix\.alpha.*none has no such option"),
        (["loss.name="], "loss.name.*one of 'cross_entropy'.*got None"),
        (["loss=3"], "is a section"),
    ],
)
def test_what_no_method_can_do_is_refused(words, message):
    assert re.search(message, refusal(*words))


def fixed_choices():
    """Every key whose type holds a Literal, an enum or a boolean, or chooses a method."""
    for key in keys.every_key(Config):
        if key == "recipes":
            continue  # a mapping by task: see test_config.py
        kind = str(keys.field(key, Config).annotation)
        section = keys.inside(key.rpartition(".")[0], Config)
        if "Literal" in kind or "Task" in kind or "bool" in kind or keys.is_methods(section):
            yield key


@pytest.mark.parametrize("key", sorted(fixed_choices()))
def test_a_wrong_choice_is_refused_when_read(key):
    section, _, option = key.rpartition(".")
    words = [f"{key}=[nonsense]" if key in ("tasks", "data.variants") else f"{key}=nonsense"]
    if option in keys.method_options(section):
        words.insert(0, f"{section}.name={keys.takers(section, option)[0]}")
    assert f"{key}" in refusal(*words)
    assert "nonsense" in refusal(*words)


def test_the_choices_are_found():
    found = set(fixed_choices())
    assert {
        "loss.name",
        "image.crop",
        "task",
        "tasks",
        "tracking.wandb",
        "plan.start_node",
    } <= found
