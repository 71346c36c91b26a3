"""A bundle answers as its run does, on machines that have neither PyTorch nor Ray."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import maskcls
from maskcls.__main__ import main
from maskcls.export import bundle, card
from maskcls.labels import Task
from tests import made_run
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def expected(run, photos):
    return maskcls.load(run).predict(photos)


def same(table, expected, limit=1e-4):
    assert list(table.columns) == list(expected.columns)
    for name in table.columns:
        if name.startswith("p_"):
            assert np.allclose(table[name], expected[name], rtol=0, atol=limit)
        else:
            pd.testing.assert_series_equal(table[name], expected[name])


def test_a_bundle_answers_as_its_run(exported, photos, expected):
    same(maskcls.load(exported.path).predict(photos), expected)
    assert exported.difference < 1e-5
    assert exported.photo_ms > 0
    size = sum(path.stat().st_size for path in exported.path.iterdir())
    assert exported.megabytes == pytest.approx(size / 1e6)


def test_it_needs_onnxruntime_numpy_and_opencv_alone(exported, photos, expected, tmp_path):
    """An interpreter that sees these three packages, the standard library and maskcls."""
    installed = Path(np.__file__).parents[1]
    for name in ("numpy", "numpy.libs", "cv2", "opencv*.libs", "onnxruntime"):
        for found in installed.glob(name):
            (tmp_path / found.name).symlink_to(found)
    (tmp_path / "maskcls").symlink_to(ROOT / "maskcls")
    code = f"""
import json, sys
sys.path.append({str(tmp_path)!r})
import maskcls
print(json.dumps(maskcls.load({str(exported.path)!r}).records({str(photos)!r})))
"""
    # -I -S: neither PYTHONPATH nor this folder nor what is installed.
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=tmp_path,
                          capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["ans"] for row in rows] == expected["ans"].tolist()
    for name in expected.filter(like="p_"):
        assert np.allclose([row[name] for row in rows], expected[name], rtol=0, atol=1e-4)


def test_one_file_in_float16_is_half_as_large_and_close(run, exported, photos, expected, tmp_path):
    out = tmp_path / "one.bundle"
    words = ["export", str(run / "jobs" / "mask-fold0"), "--out", str(out)]
    assert main([*words, "--float16", "--single-file"]) == 0
    weights = (exported.path / "mask-fold0.onnx").stat().st_size
    assert out.stat().st_size < 0.8 * weights
    table = maskcls.load(out).predict(photos)
    whole = maskcls.load(run / "jobs" / "mask-fold0").predict(photos)
    same(table, whole, limit=1e-2)


def test_ages_by_regression_and_mirrored_views_are_exported(photos, tmp_path):
    recipe = {"loss": {"name": "age_regression"}}
    aged = made_run.make(tmp_path / "age", tasks=(Task.AGE,), people=12, folds=1, votes=False,
                         recipe=recipe)  # fmt: skip
    both = {"predict": {"views": ["plain", "flip"]}}
    many = made_run.make(tmp_path / "many", tasks=(Task.MULTI,), people=12, folds=1, votes=False,
                         recipe=both)  # fmt: skip
    for run in (aged, many):
        made = bundle.write(run, tmp_path / f"{run.parent.name}-bundle")
        same(maskcls.load(made.path).predict(photos), maskcls.load(run).predict(photos))


def test_the_model_card_tells_data_scores_groups_limits_and_licences(run, exported):
    card = (exported.path / "MODEL_CARD.md").read_text()
    scores = json.loads((run / "scores.json").read_text())["out_of_fold"]["joint"]
    low, high = scores["macro_f1_interval"]
    line = next(line for line in card.splitlines() if line.startswith("| everybody | 84 |"))
    assert f"{scores['macro_f1']:.3f} ({low:.3f} to {high:.3f})" in line
    for group in ("gender: male", "gender: female", "age: under 30", "age: from 60"):
        assert f"| {group} | " in card
    assert "84 photos of 12 people (6 male, 6 female, 20 to 60 years" in card
    assert "published weights of test_efficientnet (licence: " in card
    assert "## Limits" in card


def test_the_model_card_names_the_bands_of_age_of_its_run(tmp_path):
    run = made_run.make(tmp_path, photos=False, weights=False, people=12,
                        recipe={"labels": {"age_limits": [20, 50]}})  # fmt: skip
    made = card.text(run)
    assert "| age: from 20 to 49 | " in made
    assert "under 30" not in made


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([("a", 0, 20, "x"), ("b", 1, 60, "y")], "1 male, 1 female, 20 to 60 years, as their "
         "folders name it: x, y"),
        # Of a table, where not everything is known of everybody.
        ([("a", 0, -1, ""), ("a", -1, 33, ""), ("b", -1, -1, "")],
         "1 male, 0 female, 1 of unknown gender, 33 to 33 years"),
        ([("a", 1, -1, "")], "0 male, 1 female, no age in years"),
    ],
)  # fmt: skip
def test_the_card_says_of_people_what_is_known(rows, told):
    used = pd.DataFrame(rows, columns=["person", "gender", "age", "race"])
    assert card._people(used) == told


def test_a_damaged_bundle_is_refused_by_name(exported, tmp_path):
    def changed(name, change):
        copy = shutil.copytree(exported.path, tmp_path / "copy", dirs_exist_ok=True)
        (copy / name).write_bytes(change((copy / name).read_bytes()))
        return copy

    def described(**values):
        return lambda data: json.dumps(json.loads(data) | values).encode()

    for name, change, reason in (
        ("mask-fold0.onnx", lambda data: data[:-1], "mask-fold0.onnx is not the file"),
        ("bundle.json", lambda data: data[:50], "bundle.json is damaged"),
        ("bundle.json", described(format=99), "format 99, expected 1"),
        ("bundle.json", described(labels={}), "label schema"),
        ("bundle.json", described(models=[{}]), "bundle.json is damaged"),
        ("bundle.json", described(models=[{"file": "../x"}]), "no file of a bundle"),
        ("bundle.json", described(models=[{"file": "x"}]), "x cannot be read"),
    ):
        with pytest.raises(ValueError, match=reason):
            maskcls.load(changed(name, change))
    with pytest.raises(ValueError, match="onnxruntime-gpu"):
        maskcls.load(exported.path, device="cuda")


def test_an_export_replaces_bundles_alone_and_leaves_no_half_one(
    run, exported, tmp_path, monkeypatch, capsys
):
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="is no bundle"):
        bundle.write(run, tmp_path / "mine")
    with pytest.raises(ValueError, match="a bundle already"):
        bundle.write(exported.path, tmp_path / "again")
    monkeypatch.setattr(bundle, "LIMIT", {False: -1.0})
    with pytest.raises(ValueError, match="differ from PyTorch's by"):
        bundle.write(run / "jobs" / "age-fold0", tmp_path / "wrong")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]
    with pytest.raises(SystemExit):
        main(["export", str(tmp_path), "--out", str(tmp_path / "x")])
    assert "nothing to load here" in capsys.readouterr().err
