import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from maskcls.commands import labels
from maskcls.config.schema import Config
from maskcls.data.label_fixes import LabelFixes, load_fixes
from maskcls.data.manifest import read_train
from maskcls.labels import Task
from maskcls.quality import label_errors
from maskcls.quality.label_errors import ranked
from maskcls.reports.label_errors import find, write
from maskcls.scoring import ensemble
from maskcls.storage import files
from tests import made_run
from tests.conftest import ROOT, faults_of, new_page

MASK_OF_FIVE, GENDER_OF_SIX, AGE_OF_ONE = "000005", "000006", "000001"


def probabilities(rng, given_N, classes, sure=6.0):
    values = rng.random((len(given_N), classes)) + sure * np.eye(classes)[given_N]
    return values / values.sum(axis=1, keepdims=True)


@pytest.fixture
def run(tmp_path):
    """A run whose models know better than three of the labels, two of them label fixes."""
    folder = made_run.make(tmp_path, errors=0.0, weights=False, votes=False)
    fixes = tmp_path / "fixes.yaml"
    fixes.write_text(f'flip_gender: ["{GENDER_OF_SIX}", "000012"]\nset_age: {{"000013": 61}}\n')
    table = pd.read_parquet(folder / "out_of_fold.parquet")
    wrong = {
        "mask": (table["person"] == MASK_OF_FIVE) & table["photo"].str.endswith("mask2.jpg"),
        "gender": table["person"] == GENDER_OF_SIX,
        "age": table["person"] == AGE_OF_ONE,
    }
    for task, rows in wrong.items():
        rows &= table["task"] == task
        for row in np.flatnonzero(rows):
            classes = np.eye(len(table.at[row, "probabilities"]), dtype=np.float32)
            table.at[row, "probabilities"] = 0.9 * classes[table.at[row, "truth"]] + 0.03
            table.at[row, "truth"] = (table.at[row, "truth"] + 1) % len(classes)
    table.to_parquet(folder / "out_of_fold.parquet", index=False)
    manifest = pd.read_parquet(folder / "manifest.parquet")
    manifest.loc[manifest["person"] == GENDER_OF_SIX, "fix"] = "gender flipped"
    manifest.to_parquet(folder / "manifest.parquet", index=False)
    files.write_text(
        folder / "config.yaml", Config.model_validate({"data": {"label_fixes": fixes}}).yaml()
    )
    return folder


def first(suspects, task):
    table = suspects.table
    return table[(table["task"] == task) & (table["rank"] == 1)].iloc[0]


def test_wrong_labels_stand_first_by_photo_or_by_person(run):
    suspects = find(run)
    mask, gender, age = (first(suspects, task) for task in ("mask", "gender", "age"))
    assert (mask["person"], mask["given"], mask["likely"]) == (MASK_OF_FIVE, "incorrect", "worn")
    assert mask["photo"].endswith("/mask2.jpg")
    assert (gender["person"], gender["photo"], gender["likely"]) == (GENDER_OF_SIX, "", "male")
    assert gender["fix"] == "gender flipped"
    assert (age["person"], age["likely"], age["fix"]) == (AGE_OF_ONE, "under_30", "")
    assert suspects.table.groupby("task")["flagged"].sum().to_dict() == dict.fromkeys(
        ("mask", "gender", "age"), 1
    )
    sizes = suspects.table.groupby("task").size().to_dict()
    assert sizes == {"mask": 280, "gender": 40, "age": 40}


def test_ranks_follow_the_probability_of_the_given_class(run):
    for _, rows in find(run).table.groupby("task"):
        assert rows["rank"].tolist() == list(range(1, len(rows) + 1))
        assert rows["score"].is_monotonic_increasing
        assert (rows["given"] != rows["likely"]).all()


def test_a_person_is_judged_by_the_mean_of_their_photos():
    rows = pd.DataFrame(
        {
            "photo": ["a", "b", "c", "d"], "person": ["p", "p", "q", "q"], "task": "gender",
            "head": "gender", "fold": 0, "truth": [0, 0, 1, 1], "predicted": 0,
            "probabilities": [[0.1, 0.9], [0.7, 0.3], [0.3, 0.7], [0.3, 0.7]],
        }
    )  # fmt: skip
    table = ranked(rows, "gender").set_index("person")
    assert table["score"].to_dict() == pytest.approx({"p": 0.4, "q": 0.7})
    assert ranked(rows, "age").empty


@pytest.mark.parametrize("tasks", [[Task.JOINT], [Task.MULTI], [Task.AGE, Task.JOINT]])
def test_every_kind_of_model_has_its_say(tmp_path, tasks):
    folder = made_run.make(tmp_path, tasks=tasks, errors=0.0, weights=False, photos=False)
    table = pd.read_parquet(folder / "out_of_fold.parquet")
    for attribute, classes in (("mask", 3), ("gender", 2), ("age", 3)):
        values_NK, given_N, photos = ensemble.attribute_probabilities(table, attribute)
        assert values_NK.shape == (280, classes)
        assert (values_NK.argmax(axis=1) == given_N).mean() > 0.9
        assert len(photos) == 280


def test_a_run_of_one_task(tmp_path):
    folder = made_run.make(tmp_path, tasks=[Task.GENDER], weights=False, votes=False)
    files.write_text(folder / "config.yaml", Config().yaml())
    suspects = find(folder)
    assert set(suspects.table["task"]) == {"gender"}
    assert suspects.fixes == LabelFixes()
    _, page = write(folder, suspects, top=2)
    assert page.read_text(encoding="utf-8").count("<li tabindex") == 2


def out_of_fold(probabilities_NK, given_N):
    return pd.DataFrame(
        {
            "task": "mask",
            "head": "mask",
            "photo": [f"{number:03}" for number in range(len(given_N))],
            "person": "p",
            "truth": given_N,
            "probabilities": list(np.asarray(probabilities_NK, float)),
        }
    )


def test_labels_off_the_diagonal_of_the_confident_joint_are_flagged():
    """Worked out by hand. The mean probability of class 0 over the photos labelled 0 is .64, of 1
    over those labelled 1 is .65, of 2 over those labelled 2 is .6."""
    values = [
        [0.9, 0.05, 0.05], [0.9, 0.05, 0.05], [0.12, 0.08, 0.8],  # labelled 0; the last is a 2
        [0.2, 0.7, 0.1], [0.4, 0.6, 0.0],
        [0.3, 0.1, 0.6], [0.58, 0.0, 0.42], [0.1, 0.12, 0.78],  # the second misses class 0's mean
    ]  # fmt: skip
    table = ranked(out_of_fold(values, [0, 0, 0, 1, 1, 2, 2, 2]), "mask").set_index("photo")
    assert table.index[table["flagged"]].tolist() == ["002"]
    assert table.loc["002", ["given", "likely"]].tolist() == ["worn", "not_worn"]
    assert table.loc["006", "likely"] == "worn"


@pytest.mark.parametrize("given", [[0, 0, 1], [0, 0, 0]])
def test_a_class_that_nobody_was_given_is_never_flagged(given):
    values = [[0.2, 0.1, 0.7], [0.6, 0.3, 0.1], [0.3, 0.6, 0.1]]
    assert not ranked(out_of_fold(values, given), "mask")["flagged"].any()


def test_files_of_the_command(run, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "maskcls", "labels", run, "--top", "3"],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "gender: models are confident of another class for 1 of 40" in done.stdout
    table = pd.read_csv(run / "label_errors.csv", dtype={"person": str})
    assert len(table) == 360
    assert table["person"][0] == MASK_OF_FIVE
    page = (run / "label_errors.html").read_text(encoding="utf-8")
    assert page.count("<li tabindex") == 9
    assert "http" not in page.replace("http-equiv", "")


def test_a_run_that_was_moved(run, tmp_path):
    photos = tmp_path / "photos"
    photos.rename(tmp_path / "elsewhere")
    (tmp_path / "fixes.yaml").rename(tmp_path / "moved.yaml")
    with pytest.raises(FileNotFoundError, match="name their root by --data"):
        find(run)
    with pytest.raises(FileNotFoundError, match="name the file by --fixes"):
        find(run, data=tmp_path / "elsewhere")
    suspects = find(run, data=tmp_path / "elsewhere", fixes=tmp_path / "moved.yaml")
    assert suspects.fixes.set_age == {"000013": 61}


def test_refusals_are_sentences(tmp_path, capsys):
    with pytest.raises(SystemExit) as refusal:
        labels.main([str(tmp_path)])
    assert refusal.value.code == 2
    assert "no finished run here" in capsys.readouterr().err


# ---- the page, in a browser


@pytest.fixture
def opened(browser, run):
    """The page of the run; its storage lasts as long as the test."""
    _, path = write(run, find(run), top=5)
    context = browser.new_context(accept_downloads=True)
    page = new_page(context)
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda told: problems.append(told.text))
    page.goto(path.as_uri())
    yield page
    assert problems == []
    context.close()


def shown(page):
    return page.locator("#items > li:visible")


def exported(page, tmp_path):
    path = tmp_path / "exported.yaml"
    path.write_text(page.input_value("#yaml"), encoding="utf-8")
    return load_fixes(path)


def test_the_page_opens_offline_on_any_screen(browser, run):
    _, path = write(run, find(run), top=5)
    for width in (390, 1400):
        assert faults_of(browser, path, width) == []


def test_tasks_are_filtered(opened):
    assert shown(opened).count() == 15
    opened.get_by_role("radio", name="gender").check()
    assert shown(opened).count() == 5
    assert set(shown(opened).evaluate_all("all => all.map(one => one.dataset.task)")) == {"gender"}
    assert shown(opened).first.locator("img").count() == 7
    opened.get_by_role("radio", name="mask").check()
    assert shown(opened).first.locator("img").count() == 1


def test_keys_walk_decide_and_undo(opened):
    for key in ("j", "a", "r", "ArrowDown", "k", "u"):
        opened.keyboard.press(key)
    items = opened.locator("#items > li")
    assert "accepted" in items.nth(0).get_attribute("class")
    assert "rejected" in items.nth(1).get_attribute("class")
    assert items.nth(2).get_attribute("class") == "current"
    assert opened.inner_text("#progress") == "1 accepted, 1 rejected, 13 undecided"
    opened.keyboard.press("k")
    opened.keyboard.press("u")
    assert opened.inner_text("#progress") == "1 accepted, 0 rejected, 14 undecided"


def test_undecided_only_hides_what_is_decided_once_it_is_left(opened):
    opened.get_by_label("undecided only").check()
    opened.keyboard.press("j")
    opened.keyboard.press("a")
    assert shown(opened).count() == 14
    opened.get_by_label("undecided only").uncheck()
    assert shown(opened).count() == 15


def test_buttons_say_and_toggle_what_was_decided(opened):
    accept = opened.get_by_role("button", name="Accept").first
    accept.click()
    assert accept.get_attribute("aria-pressed") == "true"
    accept.click()
    assert accept.get_attribute("aria-pressed") == "false"


def test_decisions_survive_a_reload_and_belong_to_their_run(opened, browser, run):
    opened.get_by_role("radio", name="age").check()
    opened.locator("li:visible input[type=number]").first.fill("27")
    opened.get_by_role("button", name="Accept").locator("visible=true").first.click()
    opened.reload()
    assert opened.inner_text("#progress").startswith("1 accepted")
    assert opened.input_value("#yaml").count("27") == 1
    table = pd.read_parquet(run / "out_of_fold.parquet")
    table["probabilities"] = [values[::-1] for values in table["probabilities"]]
    table.to_parquet(run / "out_of_fold.parquet", index=False)
    _, path = write(run, find(run), top=5)
    opened.goto(path.as_uri())
    assert opened.inner_text("#progress").startswith("0 accepted")


def test_what_is_accepted_comes_out_as_label_fixes(opened, tmp_path):
    photos = tmp_path / "photos"
    folder = {path.name[:6]: path.name for path in (photos / "train" / "images").iterdir()}
    assert exported(opened, tmp_path) == LabelFixes(
        flip_gender=[folder[GENDER_OF_SIX], folder["000012"]], set_age={folder["000013"]: 61}
    )
    for task in ("mask", "gender", "age"):
        opened.get_by_role("radio", name=task).check()
        opened.keyboard.press("j")
        opened.keyboard.press("a")
    fixes = exported(opened, tmp_path)
    age = fixes.set_age[folder[AGE_OF_ONE]]
    # A second flip of one gender is none.
    assert fixes == LabelFixes(
        set_mask={folder[MASK_OF_FIVE]: {"mask2": "worn"}},
        flip_gender=[folder["000012"]],
        set_age={folder["000013"]: 61, folder[AGE_OF_ONE]: age},
    )
    assert age < 30
    photos = read_train(photos, fixes=fixes).photos
    assert set(photos.loc[photos["person"] == AGE_OF_ONE, "age_band"]) == {0}

    with opened.expect_download() as download:
        opened.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "label_fixes.yaml"
    assert load_fixes(download.value.path()) == fixes


def test_an_age_that_is_no_age_is_not_accepted(opened):
    opened.get_by_role("radio", name="age").check()
    opened.locator("li:visible input[type=number]").first.fill("200")
    opened.get_by_role("button", name="Accept").locator("visible=true").first.click()
    assert opened.inner_text("#progress").startswith("0 accepted")


def test_names_cannot_break_out_of_the_page(browser, run):
    suspects = find(run)
    odd = label_errors.Suspects(
        "</script><b>", suspects.identity, suspects.table, suspects.photos, suspects.fixes
    )
    _, path = write(run, odd, top=1)
    assert faults_of(browser, path, 1400) == []
    page = new_page(browser)
    page.goto(path.as_uri())
    assert page.inner_text("h1") == "Likely label errors of </script><b>"
    assert json.dumps("</script><b>") in page.input_value("#yaml")
    page.close()
