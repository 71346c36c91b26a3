"""Words and flags of the command line."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from maskcls.config import keys, load
from maskcls.config.schema import Config
from maskcls.config.words import key_for_flag, parse_word
from tests.conftest import ROOT


@pytest.mark.parametrize("name", sorted(keys.SYNONYMS))
def test_every_synonym_leads_to_a_key_and_is_none_itself(name):
    every = set(keys.every_key(Config))
    assert keys.SYNONYMS[name] in every
    section, _, option = keys.SYNONYMS[name].rpartition(".")
    assert name != option or name not in every
    with pytest.raises(load.ConfigError, match=f"did you mean {keys.SYNONYMS[name]}"):
        load.load(words=[f"{section}.{name}=1"] if name != option else [f"{name}=1"])


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("train.learning_rate=1", "train.lr"),
        ("learning_rate=1", "train.lr"),
        ("epochs=1", "train.epochs"),
        ("bs=1", "train.batch_size"),
        ("batch=1", "train.batch_size"),
        ("backbone=resnet50", "model.name"),
        ("weights=w.pth", "model.weights"),
        ("img_size=1", "image.size"),
        ("recipes.age.learning-rate=1", "recipes.age.train.lr"),
    ],
)
def test_what_other_programs_call_a_key_is_answered_with_its_name(word, meant):
    with pytest.raises(load.ConfigError, match=rf"did you mean {meant}\?$"):
        load.load(words=[word])


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--epochs", "5"], "--epochs: write train.epochs=5, without dashes"),
        (["--lr=0.1"], "--lr: write train.lr=0.1, without dashes"),
        (["--train.epochs", "5", "fold=1"], "write train.epochs=5"),
        (["--learning-rate", "--config", "x"], "write train.lr=..."),
        (["--img-size", "64"], "write image.size=64"),
        (["--nonsense"], "--nonsense: no such flag (there are --config, --print-config, --plan)"),
        (["--pla"], "no such flag"),
    ],
)
def test_a_key_written_as_a_flag_is_answered_with_the_word(argv, told, capsys):
    with pytest.raises(SystemExit) as caught:
        load.with_flags("", {"plan": "what it does"}, argv)
    assert caught.value.code == 2
    assert told in capsys.readouterr().err


def test_flags_name_keys():
    assert key_for_flag("--batch-size") == "train.batch_size"
    assert key_for_flag("--xyzzy") is None


def test_a_recipe_is_a_path_or_a_mapping():
    assert parse_word("recipes.age={train: {lr: 1e-3}}") == {
        "recipes": {"age": {"train": {"lr": 1e-3}}}
    }
    assert parse_word("recipes.age=a #2/x.yaml") == {"recipes": {"age": "a #2/x.yaml"}}
    assert parse_word("recipes.age.model.name=010") == {
        "recipes": {"age": {"model": {"name": "010"}}}
    }


# No home folder


@pytest.fixture
def homeless(monkeypatch):
    """A container that runs as any user id: nobody in /etc/passwd, and no HOME."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 987654)


def test_importing_and_help_need_no_home_folder():
    code = (
        "import os; os.environ.pop('HOME', None); os.getuid = lambda: 987654\n"
        "from maskcls.config.load import from_command_line; from_command_line('', ['--help'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "--config FILE" in done.stdout


def test_the_default_cache_needs_no_home_folder(homeless):
    config = load.load(words=["run.dir=/runs/a", "data.root=/data"]).config
    assert config.data.cache == Path(tempfile.gettempdir(), "maskcls-cache-987654")


@pytest.mark.parametrize("key", ["run.dir", "data.root", "data.cache", "data.label_fixes"])
def test_a_path_that_needs_a_home_folder_is_refused_by_its_key(homeless, key):
    with pytest.raises(load.ConfigError) as caught:
        load.load(words=[f"{key}=~/x"])
    assert str(caught.value).startswith(
        f"{key} (command line): this user has no home folder: set HOME"
    )


@pytest.mark.parametrize(
    "word",
    [
        "run.dir=~nobody-here/x", "model.weights=~nobody-here/w.pth",
        "recipes.age.model.weights=~nobody-here/w.pth", "recipes.age=~nobody-here/age.yaml",
    ],
)  # fmt: skip
def test_the_home_of_a_stranger_is_refused_by_its_key(word):
    with pytest.raises(load.ConfigError) as caught:
        load.load(words=[word])
    assert str(caught.value).startswith(word.partition("=")[0])
    assert "nobody-here" in str(caught.value)


def test_an_empty_path_is_not_the_current_folder():
    for key in ("run.dir", "data.cache"):
        with pytest.raises(load.ConfigError, match=rf"^{key} \(command line\): .*path"):
            load.load(words=[f"{key}="])


def test_a_key_given_twice_in_a_configuration_is_refused_with_its_line(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("train:\n  lr: 0.1\n  epochs: 3\n  lr: 0.2\n")
    with pytest.raises(load.ConfigError, match=r"(?s)run.yaml.*'lr' is given twice.*line 4"):
        load.load([path])
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("recipes: {age: run.yaml}")
    with pytest.raises(load.ConfigError, match=r"(?s)run.yaml.*'lr' is given twice.*line 4"):
        load.load([overlay])
    with pytest.raises(load.ConfigError, match="'lr' is given twice"):
        load.load(words=["train={lr: 0.1, lr: 0.2}"])


def test_a_bad_price_is_named_with_its_whole_key():
    for word, where in [
        ("plan.price_per_hour={gpu-worker: -1}", "plan.price_per_hour.gpu-worker"),
        ("plan.price_per_hour.gpu-worker=-1", "plan.price_per_hour.gpu-worker"),
        ("plan.price_per_hour=-1", "plan.price_per_hour"),
    ]:
        with pytest.raises(load.ConfigError) as caught:
            load.load(words=[word])
        (line,) = str(caught.value).splitlines()
        assert line.startswith(f"{where} (command line): Input should be greater than or equal")


def test_home_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert load.load(words=["run.dir=~"]).config.run.dir == Path("/home/someone")
