"""The shipped configurations: found by name, whole, and each a lab note."""

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import maskcls
from maskcls.config import load, search_space, shipped
from tests.conftest import ROOT

ALL = sorted((ROOT / "configs").rglob("*.yaml"))
TUNED = [path for path in ALL if "tune" in path.stem]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", shipped.names())
def test_a_shipped_configuration_is_found_by_name_from_any_folder(name, elsewhere):
    words = ["data.root=/data", "run.dir=/runs/a"]
    config = load.from_command_line("", ["--config", name, *words])
    assert config == load.load([ROOT / "configs" / f"{name}.yaml"], words).config


def test_a_file_beats_a_shipped_name(elsewhere):
    (elsewhere / "sweep").write_text("train: {epochs: 7}")
    assert load.from_command_line("", ["--config", "sweep"]).train.epochs == 7


def test_an_unknown_name_is_answered_with_the_shipped_ones(elsewhere, capsys):
    with pytest.raises(SystemExit):
        load.from_command_line("", ["--config", "swep"])
    told = capsys.readouterr().err
    assert "--config swep: no such file" in told
    assert "sweep, tasks/age" in told
    assert "label_fixes" not in told


def test_an_installed_package_has_the_same_files(tmp_path):
    """Built as `pip install .` builds it, and used from a folder without the repository."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("maskcls", "ray_jobs", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "requirements.in"):
        shutil.copy(ROOT / name, source)
    code = "import setuptools.build_meta as b, sys; b.build_wheel(sys.argv[1])"
    run([sys.executable, "-c", code, str(tmp_path)], source)
    (wheel,) = tmp_path.glob("*.whl")
    assert f"maskcls-{maskcls.__version__}-" in wheel.name
    shutil.unpack_archive(wheel, tmp_path / "site", "zip")
    code = (
        "from maskcls.config import load, shipped; print(shipped.folder()); print(shipped.names());"
        "print(load.from_command_line('', ['--config', 'sweep']).folds.count)"
    )
    folder, names, folds = run([sys.executable, "-c", code], tmp_path / "site").splitlines()
    assert Path(folder) == tmp_path / "site" / "maskcls" / "configs"
    assert (names, folds) == (str(shipped.names()), "5")
    # The console command, as an installer makes it from the wheel's list.
    (listed,) = (tmp_path / "site").glob("*.dist-info")
    (entry,) = importlib.metadata.Distribution.at(listed).entry_points
    assert entry.name == "maskcls"
    code = f"import sys; sys.argv[1:] = ['--help']; import {entry.module} as m; m.{entry.attr}()"
    assert "maskcls eda DATA" in run([sys.executable, "-c", code], tmp_path / "site")


def run(words, folder):
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_a_shipped_file_is_a_lab_note(path):
    """Purpose first; how to use it; and of a recipe what it was run on, and whether measured."""
    text = path.read_text(encoding="utf-8")
    head = text[: text.index("\n\n")] if path.stem == "label_fixes" else text
    comments = [line for line in head.splitlines() if line.startswith("#")]
    labels = {line[2:].partition(":")[0] for line in comments if ":" in line}
    if path.parent.name == "cluster":
        assert labels >= {"Checked"}
    elif path.stem in shipped.NO_CONFIGURATIONS:
        assert labels >= {"Use"}
    else:
        assert labels >= {"Purpose", "Command", "Hardware", "Expected"}, labels
        assert "Measured" in head


@pytest.mark.parametrize("path", TUNED, ids=lambda path: path.stem)
def test_a_shipped_search_space_can_be_searched(path):
    config = load.load([path], ["task=age"]).config
    recipe = config.recipe(config.task)
    space = search_space.parse(config.tune.space, recipe)
    assert set(space.first_guess(recipe)) <= set(config.tune.space)


def test_the_old_tuners_space_is_shipped_whole():
    """Learning rate, epochs from 2 to 10, every loss that it knew, optimiser and schedule."""
    from maskcls.config import keys

    config = load.load([ROOT / "configs" / "tune_full.yaml"], ["task=age"]).config
    space = config.tune.space
    assert set(space) >= {
        "train.lr",
        "train.epochs",
        "loss.name",
        "optimizer.name",
        "schedule.name",
    }
    assert space["train.epochs"] == {"int": [2, 10]}
    for section in ("loss", "optimizer", "schedule"):
        names = set(map(keys.name_of, keys.inside(section, type(config))))
        assert set(space[f"{section}.name"]) == names - {"age_regression", "logit_adjusted"}
