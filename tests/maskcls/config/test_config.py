import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from maskcls.config import documentation, keys, shipped
from maskcls.config import load as config_load
from maskcls.config.layers import digest, flatten
from maskcls.config.load import ConfigError, load
from maskcls.config.methods import CrossEntropy
from maskcls.config.recipe import Recipe
from maskcls.config.schema import Config
from maskcls.labels import Task

ROOT = Path(__file__).parents[3]
RUN_FILES = sorted(
    p for p in (ROOT / "configs").glob("*.yaml") if p.stem not in shipped.NO_CONFIGURATIONS
)
TASK_FILES = sorted((ROOT / "configs" / "tasks").glob("*.yaml"))


@pytest.fixture
def layer(tmp_path):
    """Write a YAML layer and return its path."""

    def write(text, name="layer.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refused(files=(), words=()):
    """The lines of a refusal."""
    with pytest.raises(ConfigError) as caught:
        load(files, words)
    return str(caught.value).splitlines()


# What is shipped


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda path: path.stem)
def test_every_shipped_run_loads_and_reads_back(path):
    loaded = load([path]).config
    assert Config.model_validate(yaml.safe_load(loaded.yaml())) == loaded
    for task in loaded.tasks:
        loaded.recipe(task)


@pytest.mark.parametrize("path", TASK_FILES, ids=lambda path: path.stem)
def test_every_shipped_task_loads_as_a_layer_and_as_a_recipe(path, layer):
    alone = load([path]).config
    task = Task(path.stem)
    within = load([layer(f"recipes: {{{task}: {path}}}")]).config
    assert within.recipe(task) == alone.recipe(task)
    assert within.recipe(task) != Config().recipe(task)


def test_every_task_has_a_shipped_recipe():
    assert {path.stem for path in TASK_FILES} == {str(task) for task in Task}


COMMON = {
    "model.name": "tf_efficientnetv2_m",
    "model.pretrained": True,
    "image.mean": (0.548, 0.504, 0.479),
    "image.std": (0.237, 0.247, 0.246),
    "image.crop": "none",
    "image.background": "keep",
    "augment.name": "autoaugment",
    "augment.flip": 0.0,
    "augment.jitter": None,
    "augment.mix.name": "none",
    "optimizer.name": "adamw",
    "optimizer.weight_decay": 5e-4,
    "schedule.name": "cosine",
    "sampler.name": "none",
    "people.drop_ages": [],
    "people.blend": [],
    "train.epochs": 30,
    "train.batch_size": 32,
    "train.eval_batch_size": 64,
    "train.lr": 1e-4,
}
FINAL_RECIPES = {
    "mask": COMMON | {"image.size": (256, 192), "loss.name": "cross_entropy"},
    "gender": COMMON | {"image.size": (384, 288), "loss.name": "focal", "loss.gamma": 2.0},
    "age": COMMON
    | {
        "image.size": (384, 288),
        "augment.flip": 0.5,
        "augment.jitter": (0.4, 0.4, 0.4, 0.1),
        "loss.name": "focal_smoothing",
        "loss.gamma": 2.0,
        "loss.smoothing": 0.1,
        "sampler.name": "class_balanced",
        "people.drop_ages": [(28, 29), (57, 59)],
        "people.blend": [
            {"ages": (30, 39), "gender": "male"},
            {"ages": (60, 100), "gender": None},
        ],
        "people.blend_weight": 0.5,
    },
}


@pytest.mark.parametrize("task", FINAL_RECIPES)
def test_the_final_recipes_have_the_values_of_the_final_submission(task):
    sweep = load([ROOT / "configs" / "sweep.yaml"]).config
    recipe = dict(flatten(sweep.recipe(Task(task)).model_dump()))
    assert {key: recipe[key] for key in FINAL_RECIPES[task]} == FINAL_RECIPES[task]


def test_the_sweep_is_the_three_tasks_on_five_folds_with_a_hard_vote():
    sweep = load([ROOT / "configs" / "sweep.yaml"]).config
    assert sweep.tasks == [Task.MASK, Task.GENDER, Task.AGE]
    assert sweep.fold_numbers() == [0, 1, 2, 3, 4]
    assert (sweep.run.seed, sweep.ensemble.name) == (42, "hard")
    assert sweep.data.label_fixes is None  # the competition's would hit other people elsewhere


def test_the_page_of_keys_is_up_to_date():
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert page == documentation.documentation(), "run `make docs`"


def test_the_page_of_keys_has_every_key():
    page = documentation.documentation()
    for key, _ in flatten(Config().model_dump()):
        assert f"| `{key}` |" in page
    assert "list of {ages, gender}" in page


def names_of(section):
    return set(map(keys.name_of, keys.inside(section, Recipe)))


def test_every_name_in_the_configuration_can_be_built_and_the_other_way_round():
    from maskcls.augment import augmentations, mixing
    from maskcls.learning import losses, optim
    from maskcls.scoring import voting

    assert names_of("augment") == set(augmentations.AUGMENTATIONS)
    assert names_of("loss") == set(losses.LOSSES)
    assert names_of("optimizer") == set(optim.OPTIMIZERS)
    assert names_of("schedule") == set(optim.SCHEDULES)
    ensembles = keys.inside("ensemble", Config)
    assert set(map(keys.name_of, ensembles)) == set(voting.ENSEMBLES)
    for name in names_of("augment.mix"):
        mixing.build(name=name)


# Layers


def test_a_later_layer_wins_key_by_key(layer):
    first = layer("train: {epochs: 5, lr: 1.0e-3}\nmodel: {name: resnet50}", "first.yaml")
    second = layer("train: {epochs: 7}", "second.yaml")
    loaded = load([first, second], ["train.batch_size=8"])
    assert loaded.config.train.model_dump(include={"epochs", "lr", "batch_size"}) == {
        "epochs": 7,
        "lr": 1e-3,
        "batch_size": 8,
    }
    assert loaded.config.model.name == "resnet50"
    assert loaded.sources["train.epochs"] == str(second)
    assert loaded.sources["train.lr"] == str(first)
    assert loaded.sources["train.batch_size"] == "command line"


def test_inside_a_layer_a_recipe_beats_the_general_value(layer):
    path = layer("train: {epochs: 5, lr: 1.0e-3}\nrecipes: {age: {train: {epochs: 9}}}")
    loaded = load([path]).config
    assert (loaded.recipe(Task.AGE).train.epochs, loaded.recipe(Task.MASK).train.epochs) == (9, 5)
    assert loaded.recipe(Task.AGE).train.lr == 1e-3


def test_a_general_word_beats_the_recipes_of_files(layer):
    path = layer("recipes: {age: {train: {epochs: 9, lr: 1.0e-3}}}")
    loaded = load([path], ["train.epochs=3"])
    assert {loaded.config.recipe(task).train.epochs for task in Task} == {3}
    assert loaded.config.recipe(Task.AGE).train.lr == 1e-3
    assert "recipes.age.train.epochs" not in loaded.sources


def test_a_general_null_takes_back_what_a_recipe_set(layer):
    path = layer("recipes: {age: {loss: {class_weights: [1, 2, 3]}}}")
    loaded = load([path], ["loss.class_weights=null"]).config
    assert loaded.recipe(Task.AGE).loss == CrossEntropy()


def test_naming_another_method_leaves_the_options_of_the_one_before(layer):
    path = layer(
        "loss: {name: focal, gamma: 3}\noptimizer: {name: sgd, momentum: .5, weight_decay: .1}\n"
        "augment: {name: randaugment, ops: 5, flip: .5, mix: {name: cutmix, alpha: 2}}\n"
        "recipes: {age: {loss: {name: focal_smoothing, gamma: 4}}}"
    )
    words = ["loss.name=cross_entropy", "optimizer.name=adam", "augment.name=augmix"]
    config = load([path], [*words, "augment.mix.name=mixup"]).config
    assert config.loss == CrossEntropy() == config.recipe(Task.AGE).loss
    assert config.optimizer.model_dump() == {
        "name": "adam", "weight_decay": 0.1, "no_decay_norms": False, "layer_decay": None,
        "head_lr": 1.0,
        "amsgrad": False,
    }  # fmt: skip
    assert (config.augment.flip, config.augment.severity) == (0.5, 3)
    assert config.augment.mix.alpha == 0.2
    # The same method named again keeps them.
    assert load([path], ["loss.name=focal"]).config.loss.gamma == 3
    own = load([path], ["recipes.age.augment.name=custom"]).config.recipe(Task.AGE)
    assert (own.augment.name, own.augment.noise, own.augment.flip) == ("custom", 10, 0.5)


def test_a_recipe_word_beats_everything(layer):
    path = layer("train: {epochs: 5}\nrecipes: {age: {train: {epochs: 9}}}")
    loaded = load([path], ["train.epochs=3", "recipes.age.train.epochs=4"]).config
    assert [loaded.recipe(task).train.epochs for task in (Task.AGE, Task.MASK)] == [4, 3]


def test_a_general_list_replaces_the_list_of_a_recipe(layer):
    path = layer("recipes: {age: {image: {size: [384, 288]}}}")
    assert load([path], ["image.size=[64,48]"]).config.recipe(Task.AGE).image.size == (64, 48)


def test_a_later_search_space_replaces_an_earlier_one(layer):
    path = layer("tune: {space: {train.lr: {uniform: [1, 2]}, loss.gamma: [1, 2]}}")
    loaded = load([path], ["tune.space={train.lr: {loguniform: [0.1, 1]}}"]).config
    assert loaded.tune.space == {"train.lr": {"loguniform": [0.1, 1]}}


def test_an_empty_section_changes_nothing(layer):
    path = layer("recipes: {age: {image: {size: [384, 288]}}}", "recipe.yaml")
    loaded = load([path, layer("image: {}")]).config
    assert loaded.recipe(Task.AGE).image.size == (384, 288)


epochs = st.integers(1, 9)
layers = st.lists(
    st.fixed_dictionaries({}, optional={"train": epochs, "mask": epochs, "age": epochs}),
    max_size=4,
)


@given(layers)
def test_layers_obey_their_three_rules(tmp_path_factory, layers):
    folder = tmp_path_factory.mktemp("layers")
    paths = []
    expected = dict.fromkeys(("mask", "age", "gender"), Config().train.epochs)
    for number, values in enumerate(layers):
        tree = {"recipes": {}}
        if "train" in values:
            tree["train"] = {"epochs": values["train"]}
            expected = dict.fromkeys(expected, values["train"])
        for task in values.keys() - {"train"}:
            tree["recipes"][task] = {"train": {"epochs": values[task]}}
            expected[task] = values[task]
        paths.append(folder / f"{number}.yaml")
        paths[-1].write_text(yaml.safe_dump(tree))
    loaded = load(paths).config
    assert {task: loaded.recipe(Task(task)).train.epochs for task in expected} == expected


# Values


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("folds.allow_thin=False", "folds.allow_thin", False),
        ("folds.allow_thin=true", "folds.allow_thin", True),
        ("model.pretrained=no", "model.pretrained", False),
        ("train.lr=3e-4", "train.lr", 3e-4),
        ("optimizer.weight_decay=0", "optimizer.weight_decay", 0.0),
        ("image.size=[64, 48]", "image.size", (64, 48)),
        ("tasks=[joint,age]", "tasks", [Task.JOINT, Task.AGE]),
        ("task=multi", "task", Task.MULTI),
        ("train.patience=", "train.patience", None),
        ("train.patience=null", "train.patience", None),
        ("sampler.name=none", "sampler.name", "none"),
        ("tracking.wandb=off", "tracking.wandb", "off"),
        ("tracking.wandb_entity=", "tracking.wandb_entity", None),
        ("tracking.wandb_project=2024-01-05", "tracking.wandb_project", "2024-01-05"),
        ("tracking.wandb_project=a: b # c", "tracking.wandb_project", "a: b # c"),
        ("data.root=/data/set #2", "data.root", Path("/data/set #2")),
        ("run.dir=/runs/[a]", "run.dir", Path("/runs/[a]")),
        ("data.label_fixes=/null.yaml", "data.label_fixes", Path("/null.yaml")),
        ("data.label_fixes=null", "data.label_fixes", None),
        ("run.dir=s3://bucket/010", "run.dir", "s3://bucket/010"),
        ("model.name=resnet50", "model.name", "resnet50"),
        ("run.seed=010", "run.seed", 10),
        ("plan.price_per_hour={gpu-worker: 1}", "plan.price_per_hour.gpu-worker", 1.0),
        ("tune.space={train.lr: [0.1, 0.2]}", "tune.space", {"train.lr": [0.1, 0.2]}),
    ],
)
def test_words_become_typed_values(word, key, value):
    assert dict(flatten(load(words=[word]).config.model_dump()))[key] == value


def test_words_of_yaml_may_stay_unquoted_in_a_file(layer):
    assert load([layer("tracking: {wandb: off}")]).config.tracking.wandb == "off"


def test_relative_paths_become_absolute(tmp_path, monkeypatch, layer):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    for name in ("w.pth", "age.pth"):
        (tmp_path / name).touch()
    words = ["data.root=photos", "run.dir=~/runs/a", "model.weights=w.pth", "data.label_fixes=f"]
    loaded = load(words=[*words, "recipes.age.model.weights=age.pth"]).config
    assert loaded.data.root == tmp_path / "photos"
    assert loaded.run.dir == Path("/home/someone/runs/a")
    assert loaded.model.weights == str(tmp_path / "w.pth")
    assert loaded.data.label_fixes == tmp_path / "f"
    monkeypatch.chdir("/")
    # Also where the configuration is read back elsewhere.
    again = Config.model_validate(yaml.safe_load(loaded.yaml()))
    assert again.recipe(Task.AGE).model.weights == str(tmp_path / "age.pth")


@pytest.mark.parametrize("fixes", ["fixes.yaml", "../configs/fixes.yaml", "~/fixes.yaml"])
def test_files_named_in_a_file_are_found_from_that_file(fixes, tmp_path, monkeypatch, layer):
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", "/home/someone")
    layer("train: {epochs: 9}", "configs/tasks/age.yaml")
    path = layer(
        f"recipes: {{age: tasks/age.yaml}}\ndata: {{label_fixes: {fixes}}}", "configs/run.yaml"
    )
    loaded = load([path]).config
    assert loaded.recipe(Task.AGE).train.epochs == 9
    home = fixes.startswith("~")
    expected = Path("/home/someone/fixes.yaml") if home else path.parent / "fixes.yaml"
    assert Path(loaded.data.label_fixes).resolve() == expected.resolve()


def test_files_named_in_words_are_found_from_here(tmp_path, monkeypatch, layer):
    monkeypatch.chdir(tmp_path)
    layer("train: {epochs: 9}", "age.yaml")
    assert load(words=["recipes.age=age.yaml"]).config.recipe(Task.AGE).train.epochs == 9


def test_folds_are_run_in_order():
    assert load(words=["folds.only=[2,0]"]).config.fold_numbers() == [0, 2]
    assert load(words=["folds.count=3"]).config.fold_numbers() == [0, 1, 2]


def test_a_configuration_cannot_change():
    loaded = Config()
    with pytest.raises(ValidationError, match="frozen"):
        loaded.train.epochs = 3


@given(
    st.sampled_from(sorted(names_of("loss"))),
    st.lists(st.sampled_from(list(Task)), min_size=1, unique=True),
    st.floats(1e-7, 1.0),
    st.dictionaries(
        st.sampled_from([str(task) for task in Task]),
        st.fixed_dictionaries({}, optional={"train": st.fixed_dictionaries({"epochs": epochs})}),
    ),
    st.one_of(st.none(), st.lists(st.integers(0, 4), min_size=1, unique=True)),
)
def test_a_configuration_survives_its_yaml(loss, tasks, lr, recipes, only):
    loaded = Config.model_validate(
        {
            "loss": {"name": loss},
            "tasks": tasks,
            "train": {"lr": lr},
            "recipes": recipes,
            "folds": {"only": only},
        }
    )
    again = Config.model_validate(yaml.safe_load(loaded.yaml()))
    assert again == loaded
    assert all(again.recipe(task) == loaded.recipe(task) for task in Task)


def test_the_digest_changes_with_any_part_and_not_with_the_order_of_keys():
    recipe = Recipe().model_dump(mode="json")
    assert digest(recipe, 1) == digest(dict(reversed(recipe.items())), 1)
    assert digest(recipe, 1) != digest(recipe, 2)
    assert len(digest(recipe)) == 16


# Mistakes


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("lr=0.1", "train.lr"),
        ("train.epoch=3", "train.epochs"),
        ("trian.epochs=3", "train?"),
        ("optimizer.lr=0.1", "train.lr"),
        ("mix.name=mixup", "augment.mix.name"),
        ("recipes.age.train.epoch=3", "recipes.age.train.epochs"),
        ("recipes.age.folds.count=3", "folds.count"),
        ("loss.name=focall", "'focal'"),
        ("task=ages", "'age'"),
        ("recipes.ages.train.epochs=3", "'age'"),
        ("recipes.age.loss.name=focall", "'focal'"),
    ],
)
def test_a_typo_is_answered_with_the_likely_name(word, meant):
    (line,) = refused(words=[word])
    where = line.removesuffix(line.partition(" (command line): ")[2])
    assert word.startswith(where.removesuffix(" (command line): "))
    assert f"did you mean {meant}" in line


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train.epochs=0", "greater than 0, got 0"),
        ("train.lr=fast", "valid number.*got 'fast'"),
        ("train.lr=0,003", "got '0,003'; did you mean 0.003[?]"),
        ("train.lr=.nan", "finite number"),
        ("image.size=128", r"image\.size .*height and width in pixels.*image\.size=\[128,96\]"),
        ("tasks=gender", r"a list is expected, as in tasks=\[gender\]"),
        ("image.size=[64]", r"image\.size\.1 \(command line\): Field required"),
        ("folds.count=1", "greater than or equal to 2, got 1"),
        ("folds.only=[5]", r"fold 5 does not exist: folds\.count=5 numbers them 0 to 4"),
        ("fold=7", "fold 7 does not exist"),
        ("tasks=[]", "at least 1 item"),
        ("tasks=[age,mask,age]", "tasks.*age is given twice"),
        ("tune.folds=[1,0,1]", "tune.folds.*1 is given twice"),
        ("folds.only=[]", "folds.only"),
        ("tasks=age", "tasks.*list.*got 'age'"),
        ("sampler.name=explicit", r"sampler\.shares \(command line\): explicit needs it"),
        ("sampler.shares=[1,2]", "none has no such option; explicit has it"),
        ("sampler={name: explicit, shares: [0, 0]}", "at least one share must be above 0"),
        ("recipes.age.sampler.name=explicit", r"recipes\.age\.sampler\.shares \(command line\)"),
        ("people.drop_ages=[[28,29,30]]", r"people\.drop_ages\.0 .*at most 2"),
        ("train=3", r"is a section, expected train\.<key>, got 3"),
        ("data=3", r"is a section, expected data\.<key>, got 3"),
        ("recipes=3", r"recipes \(command line\): expected.*got 3"),
        ("recipes.age=3", r"^3: no such file"),
        ("recipes.age=none.yaml", "none.yaml: no such file"),
        ("train.epochs", "expected key.sub=value"),
        ("=3", "expected key.sub=value"),
        ("train.lr=[", "not valid YAML"),
    ],
)
def test_a_bad_word_is_refused_with_the_reason(word, message):
    with pytest.raises((ConfigError, FileNotFoundError), match=message):
        load(words=[word])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [", "not valid YAML"),
        ("- a\n- b", "expected keys and values, got list"),
        ("data: here", r"data \(.*layer.yaml\): is a section"),
        ("recipes: [age]", r"recipes \(.*layer.yaml\): expected.*got \['age'\]"),
        ("image:", r"image \(.*layer.yaml\): is a section.*got None"),
        ("1: 2", r"1 \(.*layer.yaml\): no such key"),
    ],
)
def test_a_bad_file_is_refused_by_name(text, message, layer):
    with pytest.raises(ConfigError, match=message) as caught:
        load([layer(text)])
    assert "layer.yaml" in str(caught.value)


def test_an_empty_file_is_an_empty_layer(layer):
    assert load([layer("# nothing\n")]).config == Config()


@pytest.mark.parametrize("text", [None, "recipes: {age: nowhere.yaml}"])
def test_a_missing_file_is_named(text, tmp_path, layer):
    path = layer(text) if text else tmp_path / "nowhere.yaml"
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml: no such file"):
        load([path])


def test_every_mistake_is_told_at_once_with_its_source(layer):
    path = layer(
        "train: {epochs: none, lrr: 3}\n"
        "recipes: {age: {loss: {name: focall}}, mask: {train: {lr: -1}}}"
    )
    lines = refused([path], ["nonsense=1", "folds.count=1"])
    told = {line.partition(": ")[0] for line in lines}
    assert told == {
        f"train.lrr ({path})",
        "nonsense (command line)",
        f"train.epochs ({path})",
        "folds.count (command line)",
        f"recipes.age.loss.name ({path})",
        f"recipes.mask.train.lr ({path})",
    }


def test_a_mistake_that_a_later_layer_corrects_is_none(layer):
    assert load([layer("train: {epochs: 0}")], ["train.epochs=2"]).config.train.epochs == 2


# The command line


def test_a_flag_of_a_verb_is_told_beside_the_configuration():
    flags = {"plan": "what it does"}
    assert config_load.with_flags("", flags, ["fold=1", "--plan"])[1] == {"plan"}
    config, asked = config_load.with_flags("", flags, ["fold=1"])
    assert (config.fold, asked) == (1, set())


@pytest.mark.parametrize("price", ["0.4", "{head: 0.4, gpu_worker: 0.2}"])
def test_a_price_is_one_number_or_one_a_node_type(price):
    config = config_load.load([], [f"plan.price_per_hour={price}"]).config
    assert config.plan.price_per_hour == yaml.safe_load(price)


def test_the_command_line_gives_the_configuration(layer):
    path = layer("train: {epochs: 4}")
    loaded = config_load.from_command_line("", ["train.lr=0.1", "--config", str(path), "fold=1"])
    assert (loaded.train.epochs, loaded.train.lr, loaded.fold) == (4, 0.1, 1)


def test_print_config_shows_each_value_with_its_source(layer, capsys):
    path = layer("train: {epochs: 4}\nrecipes: {age: {loss: {name: focal}}}")
    with pytest.raises(SystemExit) as caught:
        config_load.from_command_line(
            "", ["--config", str(path), "--print-config", "image.size=[64,48]"]
        )
    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"train.epochs: 4  # {path}" in lines
    assert "image.size: [64, 48]  # command line" in lines
    assert "train.lr: 0.0001  # default" in lines
    assert f"recipes.age.loss.name: focal  # {path}" in lines
    assert "data.label_fixes: null  # default" in lines


def test_a_refusal_ends_the_program_with_status_2_and_every_reason(capsys):
    with pytest.raises(SystemExit) as caught:
        config_load.from_command_line("", ["lr=3", "train.epoch=4"])
    assert caught.value.code == 2
    told = capsys.readouterr()
    assert not told.out
    assert "did you mean train.lr?" in told.err
    assert "did you mean train.epochs?" in told.err


def test_the_module_prints_its_page():
    done = subprocess.run(
        [sys.executable, "-m", "maskcls.config.documentation"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.stdout == documentation.documentation()


def test_what_was_loaded_is_plain_data(layer):
    loaded = load([layer("train: {epochs: 4}")])
    assert [field.name for field in dataclasses.fields(loaded)] == ["config", "sources"]
    assert loaded.sources == {"train.epochs": str(layer("train: {epochs: 4}"))}
