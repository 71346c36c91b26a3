import base64
import re
import time
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from maskcls import labels, report, results
from maskcls.labels import ATTRIBUTES

EPOCHS = 30


def make_answers(spaces=("joint", *ATTRIBUTES), people=200):
    rng = np.random.default_rng(0)
    truth = labels.decode(rng.integers(18, size=people).repeat(7))
    wrong = rng.random(people * 7) < 0.2
    predicted = truth | {"age": np.where(wrong, (truth["age"] + 1) % 3, truth["age"])}
    truth["joint"], predicted["joint"] = labels.encode(**truth), labels.encode(**predicted)
    table = pd.DataFrame({"person": np.arange(people).repeat(7)})
    return table.assign(
        **{f"{space}_truth": truth[space] for space in spaces},
        **{f"{space}_predicted": predicted[space] for space in spaces},
    )


def make_history(seed=0):
    noise = np.random.default_rng(seed).normal(0, 0.02, EPOCHS)
    epoch = np.arange(1.0, EPOCHS + 1)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "train/loss": np.exp(-epoch / 8) + noise,
            "val/loss": np.exp(-epoch / 6) - noise,
            "val/macro_f1": 0.9 - 0.5 * np.exp(-epoch / 5) + noise,
        }
    )


def make_job(task, fold):
    return {
        "task": task,
        "fold": fold,
        "best_epoch": 27,
        "epochs": EPOCHS,
        "scores": {"macro_f1": 0.8125, "accuracy": 0.9375, "loss": 0.25},
        "seconds": 3723.4,
        "training_seconds": 61.0,
    }


TASKS = ("mask", "gender", "age")
HISTORIES = {f"{task}-fold{fold}": make_history(fold) for task in TASKS for fold in range(3)}


def write(folder, *, answers=None, failed=None, histories=None, tasks=TASKS):
    answers = make_answers() if answers is None else answers
    jobs = [make_job(task, fold) for task in tasks for fold in range(3)]
    scores = {
        "complete": not failed,
        "out_of_fold": results.scores(answers, seed=0),
        "photos": len(answers),
        "people": answers["person"].nunique(),
        "jobs": jobs,
        "failed": failed or {},
        "ensemble": {"name": "hard", "models": len(jobs)},
        "seed": 42,
        "versions": {"torch": "2.9.0", "ray": "2.50.0"},
        "seconds": 11830.2,
    }
    path = report.write(folder, scores=scores, answers=answers, histories=histories or {})
    return path.read_text(encoding="utf-8"), scores


class Checker(HTMLParser):
    """Raises where a tag is not closed, and collects the tables and every address."""

    def __init__(self):
        super().__init__()
        self.open, self.tables, self.addresses = [], [], []

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data


def check(page):
    checker = Checker()
    checker.feed(page)
    assert not checker.open
    return checker


def test_the_page_stands_alone_and_is_well_formed(tmp_path):
    page, _ = write(tmp_path, histories=HISTORIES)
    assert page.startswith("<!doctype html>")
    (address,) = check(page).addresses
    assert address.startswith("data:image/svg+xml;base64,")
    assert "http" not in page
    assert "url(" not in page
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_headlines_are_the_scores_with_their_intervals(tmp_path):
    page, scores = write(tmp_path)
    for space, values in scores["out_of_fold"].items():
        low, high = values["macro_f1_interval"]
        card = page[page.index(f"<h3>{space}</h3>") :].partition('<div class="card">')[0]
        assert f'<div class="big">{values["macro_f1"]:.3f}</div>' in card
        assert f"{low:.3f} to {high:.3f}" in card
        for name in ("accuracy", "macro_precision", "macro_recall"):
            assert f"<dd>{values[name]:.3f}</dd>" in card
    for fact in ("200 people", "1,400 photos", "9 models", "hard", "seed 42", "3:17:10 h"):
        assert fact in page
    assert "ray 2.50.0 · torch 2.9.0" in page


def test_matrices_count_photos_and_rows_end_in_the_scores_of_the_class(tmp_path):
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    page, _ = write(tmp_path)
    answers = make_answers()
    tables = {table[0][0]: table for table in check(page).tables}
    for space, count in {"joint": 18, "mask": 3, "gender": 2, "age": 3}.items():
        truth, predicted = answers[f"{space}_truth"], answers[f"{space}_predicted"]
        expected = confusion_matrix(truth, predicted, labels=range(count))
        head, *rows = tables[space]
        assert head[1 : count + 1] == [str(k) for k in range(count)]
        assert len(rows) == count
        cells = [[int(cell or 0) for cell in row[1 : count + 1]] for row in rows]
        np.testing.assert_array_equal(cells, expected)
        ends = np.array([[cell.replace(",", "") for cell in row[-4:]] for row in rows], float)
        by_class = precision_recall_fscore_support(truth, predicted, labels=range(count))
        np.testing.assert_allclose(ends, np.stack(by_class, axis=1), atol=0.00501)
    assert tables["joint"][18][0] == "17 not worn/female/from 60"


def test_a_class_that_never_occurs_has_no_scores(tmp_path):
    answers = make_answers(["mask"])
    answers = answers[(answers["mask_truth"] != 1)]
    page, _ = write(tmp_path, answers=answers, tasks=["mask"])
    incorrect = check(page).tables[0][2]
    assert incorrect[0] == "1 incorrect"
    assert incorrect[-4:] == ["–", "–", "–", "0"]


@pytest.mark.parametrize("spaces", [["age"], ["mask", "gender"]])
def test_only_what_was_answered_is_shown(tmp_path, spaces):
    page, _ = write(tmp_path, answers=make_answers(spaces), tasks=spaces)
    assert [table[0][0] for table in check(page).tables] == [*spaces, "task"]
    assert re.findall(r"<h3>(\w+)</h3>", page) == spaces


def test_jobs_are_listed_with_their_best_epoch_scores_and_times(tmp_path):
    page, _ = write(tmp_path, tasks=["age"])
    head, *rows = check(page).tables[-1]
    assert head[:3] == ["task", "fold", "best epoch"]
    assert [row[:2] for row in rows] == [["age", "0"], ["age", "1"], ["age", "2"]]
    assert rows[0][2:] == ["27 of 30", "0.812", "0.938", "0.250", "0:01:01", "1:02:03"]


def test_missing_models_are_named_and_their_reasons_escaped(tmp_path):
    page, _ = write(tmp_path, failed={"age-fold3": "loss <nan> & worse"})
    check(page)
    assert "Missing models" in page
    assert "<b>age-fold3</b> loss &lt;nan&gt; &amp; worse" in page


def test_a_complete_sweep_misses_nothing(tmp_path):
    page, _ = write(tmp_path)
    assert "Missing models" not in page


def test_without_histories_there_are_no_curves(tmp_path):
    page, _ = write(tmp_path)
    assert "Learning curves" not in page
    assert not check(page).addresses


def test_curves_have_a_line_for_each_fold_and_survive_gaps(tmp_path):
    history = make_history()
    history.loc[3, "val/loss"] = np.nan
    histories = {"age-fold12": history[:1], "age-fold3": history, "mask-fold0": history}
    page, _ = write(tmp_path, histories=histories)
    (address,) = check(page).addresses
    svg = base64.b64decode(address.partition(",")[2]).decode()
    texts = re.findall("<!-- (.+) -->", svg)  # Matplotlib draws text as paths and notes it so
    assert [text for text in texts if text.startswith("fold")] == ["fold 0", "fold 3", "fold 12"]
    assert {text for text in texts if ":" in text} == {
        f"{task}: {name}"
        for task in ("mask", "age")
        for name in ("training loss", "validation loss", "validation macro F1")
    }


def test_the_name_of_the_run_is_escaped(tmp_path):
    folder = tmp_path / "a<b>&c"
    folder.mkdir()
    page, _ = write(folder)
    check(page)
    assert "<title>a&lt;b&gt;&amp;c</title>" in page


def test_the_same_sweep_gives_the_same_page(tmp_path):
    assert write(tmp_path, histories=HISTORIES) == write(tmp_path, histories=HISTORIES)


def test_the_page_takes_little_time(tmp_path):
    began = time.process_time()
    write(tmp_path, histories=HISTORIES)
    assert time.process_time() - began < 3


def test_a_failure_leaves_the_old_page(tmp_path):
    (tmp_path / "report.html").write_text("old")
    with pytest.raises(KeyError):
        report.write(tmp_path, scores={"jobs": []}, answers=pd.DataFrame(), histories={})
    assert (tmp_path / "report.html").read_text() == "old"
