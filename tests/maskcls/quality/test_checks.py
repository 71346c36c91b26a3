import csv
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskcls.__main__ import main as program
from maskcls.commands.check import main
from maskcls.data.label_fixes import LabelFixes
from maskcls.data.source import Source
from maskcls.quality.checks import check
from maskcls.quality.findings import KINDS, Checked, Finding
from maskcls.reports import check as check_data
from tests.conftest import ROOT, faults_of, new_page


def people_of(root):
    return sorted((root / "train" / "images").iterdir())


@pytest.fixture
def data(drawn, tmp_path):
    """A copy of the drawn faces, to be spoiled."""
    return shutil.copytree(drawn, tmp_path / "faces <A>")


@pytest.fixture
def messy(data):
    """The drawn faces with one of everything that the check fingerprints for."""
    people = people_of(data)
    photos = sorted((data / "eval" / "images").iterdir())
    (people[0] / "mask1.jpg").write_bytes(b"no photo")
    (people[1] / "normal.jpg").unlink()
    again(people[2] / "mask1.jpg", people[2] / "mask2.jpg")
    again(people[3] / "mask3.jpg", people[20] / "mask3.jpg")
    shutil.copy(people[4] / "mask1.jpg", photos[0])
    shutil.copy(photos[1], photos[2])
    photos[3].write_bytes(b"")
    cv2.imwrite(str(people[5] / "mask1.jpg"), np.full((64, 48, 3), 90, np.uint8))
    cv2.imwrite(str(people[6] / "mask1.jpg"), cv2.imread(str(people[6] / "mask1.jpg"))[:60])
    stranger = people[7] / "mask1.jpg"
    cv2.imwrite(str(stranger), 255 - cv2.imread(str(stranger)))
    (people[8] / "Thumbs.db").write_bytes(b"x")
    lines = (data / "train" / "train.csv").read_text().splitlines()
    lines[1] = ",".join([*lines[1].split(",")[:3], "99", lines[1].split(",")[4]])
    del lines[2]
    lines.append("nobody,male,Drawn,20,nobody_male_Drawn_20")
    (data / "train" / "train.csv").write_text("\n".join(lines) + "\n")
    return data


def again(source, target):
    cv2.imwrite(str(target), cv2.imread(str(source)), [cv2.IMWRITE_JPEG_QUALITY, 90])


FIXES = LabelFixes(flip_gender=["nobody"], set_mask={"000002": {"normal": "worn"}})


def kinds(checked):
    return Counter(finding.kind for finding in checked.findings)


def one(checked, kind):
    (finding,) = [finding for finding in checked.findings if finding.kind == kind]
    return finding


def names(finding):
    return [Path(key).name for key in finding.photos]


def test_drawn_faces_have_nothing_that_stops_a_run_but_their_few_old_people(drawn):
    checked = check(Source(drawn), folds=2)
    assert not checked.would_stop
    assert set(kinds(checked)) <= {"another person"}
    assert len(checked.photos) == 42 * 7 + 6 * 7


def test_every_kind_of_finding_is_found_once(messy):
    checked = check(Source(messy), fixes=FIXES, folds=2, threads=2)
    found = kinds(checked)
    assert {kind: found[kind] for kind in KINDS if kind not in ("another person", "no face")} == {
        "layout": 0, "too many unreadable": 0, "unreadable to predict": 1, "thin classes": 0,
        "empty classes": 0, "unreadable": 1, "in train and eval": 1, "in several people": 1,
        "twice in one person": 1, "twice in eval": 1, "blank": 1, "size": 1,
        "missing photos": 1, "label fix": 2, "train.csv": 3, "note": 2,
    }  # fmt: skip
    people = [folder.name.split("_")[0] for folder in people_of(messy)]
    assert one(checked, "unreadable").people == (people[0],)
    assert one(checked, "missing photos").message == "without normal"
    assert names(one(checked, "twice in one person")) == ["mask1.jpg", "mask2.jpg"]
    assert one(checked, "in several people").people == (people[3], people[20])
    assert one(checked, "in train and eval").people == (people[4],)
    assert one(checked, "twice in eval").message == "the same file"
    assert one(checked, "blank").people == (people[5],)
    assert one(checked, "size").photos[0].split("/")[2].startswith(people[6])
    strange = [f for f in checked.findings if f.kind == "another person"]
    assert people[7] in {f.people[0] for f in strange}
    assert checked.would_stop


def test_missed_faces_are_found_where_they_are_asked_for(data, tmp_path, monkeypatch):
    person = people_of(data)[3]
    blank = next(person.glob("mask2.*"))
    cv2.imwrite(str(blank), np.full((64, 48, 3), 128, np.uint8))
    assert "no face" not in kinds(check(Source(data)))
    monkeypatch.setattr(sys, "argv", ["maskcls"])
    words = ["--faces", "blazeface", "--cache", str(tmp_path / "cache"), "--folds", "2"]
    main([str(data), "--out", str(tmp_path / "out"), *words])
    # BlazeFace misses some of the small drawn faces, too.
    found = {
        row["people"]: row
        for row in csv.DictReader((tmp_path / "out" / "findings.csv").open())
        if row["kind"] == "no face"
    }
    row = found[person.name.split("_")[0]]
    assert f"{person.name}/{blank.name}" in row["photos"]
    assert re.fullmatch(r"no face found in [1-6] of 7 photos", row["message"])
    assert len(found) < 20
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert page.count('<div class="seen">') == 8
    assert "no face found: usual place" in page


def test_findings_do_not_depend_on_threads(messy):
    first, second = (
        check(Source(messy), fixes=FIXES, threads=threads).findings for threads in (1, 3)
    )
    assert first == second


def test_progress_moves_with_every_photo(drawn):
    told = []
    check(Source(drawn), progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 336) for done in range(1, 337)]


def test_a_person_copied_under_another_name_is_found_photo_by_photo(data):
    folder = people_of(data)[0]
    shutil.copytree(folder, folder.with_name("000999_female_Drawn_20"))
    found = kinds(check(Source(data), folds=2))
    assert found["in several people"] == 7
    assert found["twice in one person"] == 0


def test_a_single_picture_everywhere_is_one_finding(data):
    photos = sorted(data.rglob("*.jpg"))
    for photo in photos[1:]:
        shutil.copy(photos[0], photo)
    checked = check(Source(data), folds=2)
    assert len(one(checked, "in train and eval").photos) == len(photos)


def test_a_data_set_that_shows_nothing(data):
    for photo in data.rglob("*.jpg"):
        cv2.imwrite(str(photo), np.full((64, 48, 3), 90, np.uint8))
    assert kinds(check(Source(data), folds=2)) == {"blank": 336}


def test_a_data_set_of_broken_photos(data):
    for photo in data.rglob("*.jpg"):
        photo.write_bytes(b"no photo")
    found = kinds(check(Source(data), folds=2))
    assert found == {"too many unreadable": 1, "unreadable": 294, "unreadable to predict": 42}


def test_cut_out_copies_are_no_doubles(data):
    for photo in (data / "train").rglob("*.jpg"):
        shutil.copy(photo, photo.with_stem(photo.stem + "_rembg"))
    checked = check(Source(data, variants=["original", "rembg"]), folds=2)
    assert kinds(checked)["twice in one person"] == 0
    assert len(checked.photos) == 42 * 14 + 42


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        ("layout", lambda root: (root / "train" / "images" / "nonsense").mkdir()),
        ("layout", lambda root: shutil.rmtree(root / "train")),
        ("layout", lambda root: (root / "eval" / "info.csv").write_text("wrong\n")),
        ("layout", lambda root: shutil.rmtree(root / "eval" / "images")),
        ("too many unreadable", lambda root: [
            (folder / "normal.jpg").write_bytes(b"") for folder in people_of(root)[:8]
        ]),
        ("unreadable to predict", lambda root: next(
            (root / "eval" / "images").iterdir()).unlink()),
    ],
)  # fmt: skip
def test_what_would_stop_a_run_is_an_error(data, kind, spoil):
    spoil(data)
    checked = check(Source(data), folds=2)
    assert checked.would_stop
    assert kinds(checked)[kind] == 1, checked.findings
    assert KINDS[kind].level == "error"


def test_a_class_with_fewer_people_than_folds_is_an_error(drawn):
    checked = check(Source(drawn), folds=30)
    assert "folds.count=30 needs that many people" in one(checked, "thin classes").message
    assert checked.would_stop


def test_many_sizes_are_one_finding(data):
    for number, photo in enumerate(sorted(data.rglob("*.jpg"))):
        height = 40 + number % 11
        cv2.imwrite(str(photo), cv2.resize(cv2.imread(str(photo)), (40, height)))
    assert "11 sizes" in one(check(Source(data), folds=2), "size").message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,gender\n", "without the column(s) age, path, race"),
        ("id,gender,race,age,path\n", "no row for"),
    ],
)
def test_a_train_csv_that_is_no_use(data, text, message):
    (data / "train" / "train.csv").write_text(text)
    findings = [f for f in check(Source(data), folds=2).findings if f.kind == "train.csv"]
    assert message in findings[0].message


def test_the_command_says_what_it_found_and_ends_with_its_status(messy, drawn, tmp_path):
    def run(root):
        return subprocess.run(
            [sys.executable, "-m", "maskcls", "check", root, "--out", tmp_path, "--folds", "2"],
            cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    done = run(messy)
    assert done.returncode == 1, done.stderr
    assert "error    Unreadable photos to predict: 1" in done.stdout
    assert "empty file" in done.stderr
    with (tmp_path / "findings.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["level"] == "error"
    assert {row["kind"] for row in rows} <= set(KINDS)
    assert run(drawn).returncode == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--threads", "0"], "greater than 0, got '0'"),
        (["--fixes", "{tmp}/none.yaml"], "none.yaml: no such file"),
        (["--out", "{tmp}/file"], "cannot write"),
    ],
)
def test_refusals_are_sentences(drawn, tmp_path, capsys, words, sentence):
    (tmp_path / "file").write_text("")
    words = [word.format(tmp=tmp_path) for word in words]
    with pytest.raises(SystemExit) as refusal:
        main([str(drawn), "--out", str(tmp_path / "out"), *words])
    assert refusal.value.code == 2
    assert sentence in capsys.readouterr().err


def test_the_page_in_a_browser(browser, messy, tmp_path):
    path = check_data.write(tmp_path, check(Source(messy), fixes=FIXES, folds=2))
    for width in (390, 1400):
        assert faults_of(browser, path, width) == []
    page = new_page(browser)
    page.goto(path.as_uri())
    assert page.inner_text("h1") == "faces <A>"
    assert page.locator(".verdict.stops").count() == 1
    for link in page.locator("nav a").all():
        assert page.locator(link.get_attribute("href")).count() == 1
    assert page.locator("#another-person .odd img").first.is_visible()
    assert page.locator("#in-several-people img").count() == 2
    page.close()


def test_the_page_of_nothing_found(browser, drawn, tmp_path):
    checked = check(Source(drawn), folds=2)
    path = check_data.write(tmp_path, Checked("clean", checked.photos, []))
    assert "Nothing was found" in path.read_text()
    assert faults_of(browser, path, 390) == []


def test_a_long_list_is_cut_on_the_page_only(drawn, tmp_path):
    findings = [Finding("note", f"note {number}") for number in range(40)]
    page = check_data.render(Checked("x", check(Source(drawn)).photos, findings))
    assert "and 10 more, see findings.csv" in page
    assert "note 29<" in page
    assert "note 30<" not in page


def old_people_of(root):
    return [folder for folder in people_of(root) if int(folder.name.split("_")[-1]) >= 60]


def test_classes_of_nobody_are_one_finding_each_and_stop_nothing(data):
    for folder in old_people_of(data):
        shutil.rmtree(folder)
    checked = check(Source(data), folds=2)
    assert one(checked, "empty classes").message == "no photo to train on of age from_60"
    assert not checked.would_stop


def test_a_class_that_label_fixes_empty_is_found(data):
    old = [folder.name.split("_")[0] for folder in old_people_of(data)]
    checked = check(Source(data), folds=2, fixes=LabelFixes(leave_out=old))
    assert one(checked, "empty classes").message.endswith("age from_60")


def test_garbled_names_do_not_stop_a_check(data, tmp_path):
    name = os.fsdecode("얼굴.jpg".encode("cp949"))
    shutil.copy(people_of(data)[0] / "mask1.jpg", people_of(data)[0] / name)
    (data / "train" / "images" / os.fsdecode(b"\xbe\xf3_male_a_20")).mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "maskcls", "check", data, "--out", tmp_path / "out", "--folds", "2"],
        capture_output=True, text=True, cwd=ROOT, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert r"\xbe\xf3_male_a_20" in (tmp_path / "out" / "findings.csv").read_text("utf-8")


@pytest.mark.parametrize(
    ("verb", "words", "reason"),
    [
        ("check", ["--folds", "0"], "--folds: Input should be greater than or equal to 2"),
        ("check", ["--folds", "2.5"], "--folds: Input should be a valid integer"),
        ("check", ["--max-bad-share", "2"], "--max-bad-share: .*less than or equal to 1"),
        ("check", ["--max-bad-share", "nan"], "--max-bad-share: "),
        ("check", ["--threads", "0"], "--threads: .*greater than 0"),
        ("eda", ["--threads", "-1"], "--threads: .*greater than 0"),
        ("labels", ["--top", "0"], "--top: .*greater than 0"),
    ],
)
def test_command_lines_have_the_limits_of_the_configuration(verb, words, reason, capsys):
    with pytest.raises(SystemExit) as ended:
        program([verb, "somewhere", "--out", "elsewhere", *words])
    assert ended.value.code == 2
    assert re.search(reason, capsys.readouterr().err)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_went_away_is_no_error(drawn, tmp_path, stream):
    reading, writing = os.pipe()
    os.close(reading)
    other = {"stdout": "stderr", "stderr": "stdout"}[stream]
    done = subprocess.run(
        [sys.executable, "-m", "maskcls", "check", drawn, "--out", tmp_path, "--folds", "2"],
        cwd=ROOT, timeout=120, text=True, **{stream: writing, other: subprocess.PIPE},
    )  # fmt: skip
    os.close(writing)
    assert (tmp_path / "index.html").is_file()
    if stream == "stdout":
        assert done.returncode == 128 + signal.SIGPIPE
        assert "rror" not in done.stderr
    else:
        assert done.returncode == 0
        assert "photos checked" in done.stdout
