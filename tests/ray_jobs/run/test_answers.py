"""What predict and sweep leave for people to read; nothing here starts Ray."""

import logging
from pathlib import Path

import pandas as pd
import pytest

from maskcls.config import checks
from maskcls.config.load import load
from maskcls.storage.place import Place
from ray_jobs import predict, report, status
from ray_jobs.lanes.records import Event
from ray_jobs.run import console, jobs, lease
from ray_jobs.run.folder import RunFolder, reading
from ray_jobs.run.state import Board, JobState


def test_answers_name_the_classes_beside_the_number():
    answers = pd.DataFrame(
        {"image_id": ["a.jpg", "b.jpg"], "status": ["ok", "not an image"], "ans": [0, 17],
         "mask": [0, float("nan")]}
    )  # fmt: skip
    named = jobs.with_names(answers)
    assert named.columns.tolist() == ["image_id", "ans", "mask", "gender", "age", "status"]
    assert named.iloc[0].tolist() == ["a.jpg", 0, "worn", "male", "under_30", "ok"]
    assert named.iloc[1].tolist() == [
        "b.jpg", 17, "not_worn", "female", "from_60", "not an image"
    ]  # fmt: skip


def test_a_run_of_one_task_names_its_attribute_alone():
    answers = pd.DataFrame({"image_id": ["a", "b"], "status": "ok", "age": [2.0, float("nan")]})
    named = jobs.with_names(answers)
    assert named["age"].tolist() == ["from_60", ""]
    assert "ans" not in named
    assert "gender" not in named


TOGETHER = "macro F1 0.420 in epoch 2, plain + flip together, 195.0 s"


@pytest.mark.parametrize(("trains", "said"), [(True, TOGETHER), (False, "are predicted")])
def test_predicting_is_not_called_training(trains, said, caplog):
    values = {"scores": {"macro_f1": 0.42}, "best_epoch": 2, "views": ["plain", "flip"],
              "seconds": 195.0}  # fmt: skip
    with caplog.at_level(logging.INFO):
        console.JobLines(1, trains=trains)([Event("done", "joint-fold0", 0, values)])
    assert said in caplog.text
    assert ("macro F1" in caplog.text) == trains


def test_nothing_passes_in_silence(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        Board(tmp_path, "sweep").phase("preparing photos")
        console.JobLines(1)([Event("started", "joint-fold0", 2, {"attempt": 1})])
    assert "preparing photos ..." in caplog.text
    assert "joint-fold0  starts in lane 2: first batches" in caplog.text


def test_a_run_that_was_interrupted_has_no_running_job(tmp_path, capsys):
    board = Board(tmp_path, "sweep")
    board.expect([JobState(name="a", task="age", epochs=3, state="running")])
    board.end("interrupted")
    status.main([str(tmp_path), "--once"])
    said = capsys.readouterr().out
    assert "1 interrupted" in said
    assert "running" not in said


def test_status_says_what_a_run_waits_for(tmp_path, capsys):
    board = Board(tmp_path, "sweep")
    board.wait_for("1 GPU(s): 4 of 4 are in use")
    board.phase("training")
    with lease.held(Place(tmp_path)):
        status.main([f"run.dir={tmp_path}"])
    assert "training, waiting for 1 GPU(s): 4 of 4 are in use" in capsys.readouterr().out


def test_one_reason_of_many_jobs_is_said_once():
    failed = {"mask-fold0": "no hub", "age-fold0": "no luck", "mask-fold1": "no hub"}
    assert jobs.listed(failed).splitlines() == [
        "  mask-fold0, mask-fold1: no hub",
        "  age-fold0: no luck",
    ]


def test_a_reader_has_a_copy_of_its_own(tmp_path, monkeypatch):
    pulled = []
    monkeypatch.setattr(RunFolder, "pull", lambda self: pulled.append(self.path))
    config = load(words=["run.dir=s3://bucket/run", f"data.cache={tmp_path}"]).config
    with reading(config) as folder:
        assert folder.uri == "s3://bucket/run"
        assert folder.path != RunFolder.of(config).path
        assert Path(folder.path).is_dir()
    assert pulled == [folder.path]


@pytest.mark.parametrize("words", [["runs/a"], ["/runs/a", "/runs/b", "--out", "comparison.html"]])
def test_a_report_into_the_copy_of_a_submitted_job_is_refused(words, monkeypatch, capsys):
    monkeypatch.setenv(checks.JOB_VARIABLE, "{}")
    with pytest.raises(SystemExit):
        report.main(words)
    assert "under `ray job submit` a path from the root" in capsys.readouterr().err


def test_the_most_frequent_class_is_one_also_where_labels_are_missing(tmp_path):
    columns = ["status", "joint", "mask", "gender", "age_band"]
    unknown = [["ok", -1, 1, -1, -1]] * 3
    for rows, expected in (
        ([*unknown, ["ok", 7, 1, 0, 1]], 7),
        ([*unknown, ["ok", -1, -1, 1, -1], ["ok", -1, -1, -1, 2]], 11),
        ([["empty file", 3, 0, 1, 0]] * 9 + [["ok", 7, 1, 0, 1]], 7),
    ):
        pd.DataFrame(rows, columns=columns).to_parquet(tmp_path / "manifest.parquet")
        assert predict.most_frequent(tmp_path / "manifest.parquet") == expected
