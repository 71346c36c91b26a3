import base64
import re
import shutil
import time
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from maskcls.labels import Task
from maskcls.reports import finished_run
from maskcls.reports import run as report
from maskcls.storage import files
from tests import made_run
from tests.conftest import faults_of, new_page

SECTIONS = [
    "Result",
    "What was run",
    "Classes",
    "Learning curves",
    "Calibration",
    "Age, gender and kind of photo",
    "Worst mistakes",
    "Most uncertain",
    "Agreement of the models",
    "Time",
    "Data and folds",
]


class Checker(HTMLParser):
    """Raises where a tag is not closed; collects tables by caption or first cell, and addresses."""

    def __init__(self):
        super().__init__()
        self.open, self.tables, self.addresses, self.ids, self.headings = [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.addresses += [attributes[name] for name in ("src", "href") if name in attributes]
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag == "img":
            assert attributes["alt"]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
        if tag == "h2":
            self.headings.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data
        if "h2" in self.open:
            self.headings[-1] += data

    def table(self, *head):
        """The rows under the only table whose head begins with these cells."""
        (found,) = [rows for rows in self.tables if rows[0][: len(head)] == list(head)]
        return found[1:]


def check(text):
    checker = Checker()
    checker.feed(text)
    assert not checker.open
    return checker


def write(folder):
    return report.write(folder).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_run.make(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def text(run):
    return write(run)


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    """The page of a run of all five tasks with a stacking ensemble."""
    folder = tmp_path_factory.mktemp("five")
    return report.write(made_run.make(folder, tasks=tuple(Task), ensemble="stacking"))


@pytest.mark.parametrize("width", [390, 1400])
def test_a_browser_shows_it_offline_without_a_fault(browser, run, text, width):
    assert faults_of(browser, run / "report.html", width) == []


@pytest.mark.parametrize("width", [390, 1400])
def test_a_browser_shows_a_run_of_all_tasks_without_a_fault(browser, five, width):
    assert faults_of(browser, five, width) == []


def test_it_fits_on_paper(browser, run, text, five):
    assert faults_of(browser, run / "report.html", 718, media="print") == []
    assert faults_of(browser, five, 718, media="print") == []


def test_the_keyboard_reaches_every_box_that_scrolls(browser, run, text):
    page = new_page(browser, viewport={"width": 390, "height": 800})
    page.goto((run / "report.html").as_uri())
    boxes = page.locator(".scroll")
    assert boxes.count() == text.count("<table") - 2 * report.MISTAKES
    assert boxes.evaluate_all("boxes => boxes.every(box => box.tabIndex === 0)")
    assert boxes.evaluate_all("boxes => boxes.some(box => box.scrollWidth > box.clientWidth)")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('nav') !== null")
    page.close()


def test_the_page_is_one_file_and_well_formed(run, text):
    checker = check(text)
    assert text.startswith("<!doctype html>")
    assert checker.headings == SECTIONS
    links = [address for address in checker.addresses if address.startswith("#")]
    assert [link[1:] for link in links] == checker.ids
    for address in set(checker.addresses) - set(links):
        assert address.startswith(
            ("data:image/svg+xml;base64,", "data:image/jpeg;base64,", "data:,")
        )
    assert "http" not in text
    assert "url(" not in text
    assert (run / "report.html").stat().st_size < 15e6
    for tag in ("header", "nav", "main", "figure", "footer"):
        assert f"<{tag}" in text


def test_the_first_table_has_the_scores_of_the_run(run, text):
    scores = files.read_json(run / "scores.json")["out_of_fold"]
    rows = {row[0]: row[1:] for row in check(text).table("", "macro F1", "95 % interval")}
    assert list(rows) == ["joint", "mask", "gender", "age"]
    for target, values in scores.items():
        low, high = values["macro_f1_interval"]
        assert rows[target][:2] == [f"{values['macro_f1']:.3f}", f"{low:.3f} to {high:.3f}"]
        assert rows[target][3] == "same answers"
        assert rows[target][5] == f"{values['accuracy']:.3f}"
    assert f'<div class="big">{scores["joint"]["macro_f1"]:.3f}</div>' in text
    assert [rows[target][4] for target in rows] == ["0.056", "0.333", "0.500", "0.333"]


def test_matrices_count_what_scikit_learn_counts(run, text):
    answers = finished_run.read(run).answers
    checker = check(text)
    for target, count in {"joint": 18, "mask": 3, "gender": 2, "age": 3}.items():
        truth, predicted = answers[f"{target}_truth"], answers[f"{target}_predicted"]
        expected = confusion_matrix(truth, predicted, labels=range(count))
        names = finished_run.readable(target)
        head = [f"{k} {name}" if count < 4 else str(k) for k, name in enumerate(names)]
        rows = checker.table(target, *head)
        cells = [[int(cell or 0) for cell in row[1 : count + 1]] for row in rows]
        np.testing.assert_array_equal(cells, expected)
        ends = [[cell.replace(",", "") for cell in row[-4:]] for row in rows]
        ends = np.array([[cell.replace("–", "0") for cell in row] for row in ends], float)
        by_class = precision_recall_fscore_support(
            truth, predicted, labels=range(count), zero_division=0
        )
        np.testing.assert_allclose(ends, np.stack(by_class, axis=1), atol=0.00501)
    assert checker.table("joint")[17][0] == "17 not worn/female/from 60"


def test_a_class_that_never_occurs_has_no_scores(tmp_path, without_plots):
    folder = made_run.make(tmp_path, tasks=[Task.MASK], photos=False, weights=False)
    rows = pd.read_parquet(folder / "out_of_fold.parquet")
    rows = rows[(rows["truth"] != 1) & (rows["predicted"] != 1)]
    rows.to_parquet(folder / "out_of_fold.parquet", index=False)
    incorrect = check(write(folder)).table("mask", "0 worn")[1]
    assert incorrect[0] == "1 incorrect"
    assert incorrect[-4:] == ["–", "–", "–", "0"]


@pytest.mark.parametrize("tasks", [["age"], ["mask", "gender"], ["joint"]])
def test_only_what_was_answered_is_shown(tmp_path, tasks, without_plots):
    folder = made_run.make(tmp_path, tasks=list(map(Task, tasks)), photos=False, weights=False)
    checker = check(write(folder))
    targets = ["joint", "mask", "gender", "age"] if tasks == ["joint"] else tasks
    assert [row[0] for row in checker.table("", "macro F1", "95 % interval")] == targets
    assert [
        rows[0][0] for rows in checker.tables if rows[0][-4:-2] == ["prec.", "recall"]
    ] == targets


def test_mistakes_have_a_photo_a_heat_map_and_what_the_model_said(run, text):
    section = text.partition('id="worst-mistakes"')[2].partition("</section>")[0]
    wrong = section.count('<figure class="photo">')
    assert wrong == report.MISTAKES
    assert section.count("data:image/jpeg") == 2 * wrong
    assert section.count("what led to") == wrong + 1  # and the note
    assert ", right" not in section
    uncertain = text.partition('id="most-uncertain"')[2].partition("</section>")[0]
    assert uncertain.count("data:image/jpeg") == report.UNCERTAIN


def test_where_photos_are_gone_the_page_says_so_and_goes_on(run, text, tmp_path, without_plots):
    folder = shutil.copytree(run, tmp_path / "run")
    manifest = pd.read_parquet(folder / "manifest.parquet")
    manifest["path"] = manifest["path"].str.replace("photos", "gone")
    manifest.to_parquet(folder / "manifest.parquet")
    again = write(folder)
    assert check(again).headings == SECTIONS
    assert "These photos cannot be shown" in again
    assert "No such file or directory" in again
    assert f"and {report.MISTAKES - report.REASONS} more" in again
    assert "data:image/jpeg" not in again


def test_where_weights_are_gone_heat_maps_are_missed_and_photos_stay(run, tmp_path, without_plots):
    folder = shutil.copytree(run, tmp_path / "run")
    for path in folder.glob("jobs/*/model.safetensors"):
        path.unlink()
    again = write(folder)
    assert "Some answers have no heat map" in again
    assert again.count("data:image/jpeg") == report.MISTAKES + report.UNCERTAIN


def test_without_mistakes_there_is_nothing_to_show_but_that(tmp_path, without_plots):
    folder = made_run.make(tmp_path, errors=0, photos=False, weights=False)
    assert "No photo is answered wrongly." in write(folder)


def test_jobs_are_listed_with_their_best_epoch_scores_and_times(text):
    rows = check(text).table("task", "fold", "best epoch")
    assert [row[:2] for row in rows] == [
        [task, fold] for task in ("mask", "gender", "age") for fold in "01"
    ]
    assert rows[0][2:] == ["2 of 3", "0.812", "0.938", "0.250", "0:01:01", "1:02:03"]


def test_phases_are_shown_where_the_run_has_them(run, text, tmp_path, without_plots):
    assert check(text).table("phase")[1] == ["start workers, train, predict", "0:01:25", "85%"]
    folder = shutil.copytree(run, tmp_path / "run")
    scores = files.read_json(folder / "scores.json")
    del scores["phases"]
    files.write_json(folder / "scores.json", scores)
    assert "Phases" not in write(folder)


def test_missing_models_are_named_and_their_reasons_escaped(tmp_path, without_plots):
    folder = made_run.make(
        tmp_path, photos=False, weights=False, failed={"age-fold3": "loss <nan> & worse"}
    )
    text = write(folder)
    check(text)
    assert "Missing models" in text
    assert "<b>age-fold3</b> loss &lt;nan&gt; &amp; worse" in text
    assert "These models are missing: age-fold3" in text


def test_a_complete_sweep_misses_nothing(text):
    assert "Missing models" not in text
    assert "are missing" not in text


def test_curves_have_a_line_for_each_fold_and_survive_gaps(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(folder / "jobs" / "mask-fold0")
    shutil.copytree(folder / "jobs" / "mask-fold1", folder / "jobs" / "mask-fold0")
    (folder / "jobs" / "mask-fold0" / "metrics.jsonl").unlink()
    path = folder / "jobs" / "age-fold1" / "metrics.jsonl"
    files.write_text(path, path.read_text().replace('"val/loss": 0.6', '"val/loss": null'))
    section = write(folder).partition('id="learning-curves"')[2].partition("</section>")[0]
    plots = [
        re.findall("<!-- (.+) -->", base64.b64decode(coded).decode())
        for coded in re.findall(r"svg\+xml;base64,([^\"]+)", section)
    ]
    folds = [[name for name in plot if name.startswith("fold")] for plot in plots]
    assert folds == [["fold 1"]] * 2 + [["fold 0", "fold 1"]] * 4
    assert "age: 0.800 macro F1 at the kept epoch" in plots[4]
    assert "age: training loss 0.30, validation loss 0.40 at the end" in plots[5]


def test_remarks_stand_beside_the_score(tmp_path, without_plots):
    folder = made_run.make(
        tmp_path, people=8, folds=1, tasks=[Task.AGE], photos=False, weights=False,
        recipe={"model": {"name": "test_efficientnet"}},
    )  # fmt: skip
    found = write(folder).partition('class="big"')[2].partition("What to do next")[0]
    assert "age: the data has nobody of 1 of 3 classes (2 from 60)" in found
    assert "age: trained from random weights" in found


def test_nothing_to_remark_is_no_remark(text):
    assert 'class="remark"' not in text


def test_the_device_of_each_job_is_shown_where_it_is_known(run, text, tmp_path, without_plots):
    assert "device" not in check(text).tables[-2][0]
    folder = shutil.copytree(run, tmp_path / "run")
    scores = files.read_json(folder / "scores.json")
    scores["jobs"][0]["device"] = "cuda, Tesla V100"
    files.write_json(folder / "scores.json", scores)
    rows = check(write(folder)).table("task", "fold", "best epoch")
    assert [row[-1] for row in rows[:2]] == ["cuda, Tesla V100", "not known"]


def test_with_several_routes_the_single_models_are_compared(five):
    text = five.read_text(encoding="utf-8")
    rows = {row[0]: row[1:] for row in check(text).table("", "macro F1", "95 % interval")}
    assert re.fullmatch(r"[+-]0\.\d{3} \([+-]0\.\d{3} to [+-]0\.\d{3}\)", rows["joint"][3])
    assert "joint macro F1 that the models of each task add" in text


def test_agreement_without_votes_says_so(tmp_path, without_plots):
    folder = made_run.make(tmp_path, photos=False, weights=False, votes=False)
    assert "There are no votes on photos to predict in this run." in write(folder)


def test_the_name_of_the_run_is_escaped(run, tmp_path, without_plots):
    text = write(shutil.copytree(run, tmp_path / "a<b>&c"))
    check(text)
    assert "<title>a&lt;b&gt;&amp;c</title>" in text


def test_the_same_run_gives_the_same_page(run, text):
    assert write(run) == text


def test_the_page_takes_little_time(run):
    began = time.process_time()
    write(run)
    assert time.process_time() - began < 8


def test_a_failure_leaves_the_old_page(run, tmp_path, without_plots):
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "report.html").write_text("old")
    (folder / "jobs" / "age-fold0" / "checkpoint.json").write_text("{")
    with pytest.raises(ValueError, match=r"checkpoint\.json"):
        report.write(folder)
    assert (folder / "report.html").read_text() == "old"


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished run here"):
        report.write(tmp_path)
