"""The verbs as a user runs them: results, restarts, refusals.

One sweep is a program of its own, which starts a cluster. The other verbs run in this process, on
the session's cluster, and their lanes are threads: see ``verb``.
"""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from maskcls.learning import range_test
from maskcls.scoring import submission
from ray_jobs import report
from ray_jobs.run import state as run_state
from ray_jobs.training import rehearsal
from tests.ray_jobs.conftest import DEMO

TASKS = ("mask", "gender", "age")


def test_a_sweep_leaves_every_result_and_says_where(swept, run_dir, drawn):
    for name in ("submission.csv", "scores.json", "out_of_fold.parquet", "report.html"):
        assert str(run_dir / name) in swept
    rows = submission.read_answers(run_dir / "submission.csv")
    info = submission.read_info(drawn / "eval" / "info.csv")
    assert rows["ImageID"].tolist() == info["ImageID"].tolist()
    scores = json.loads((run_dir / "scores.json").read_text())
    assert set(scores["out_of_fold"]) == {"joint", *TASKS}
    assert {(job["task"], job["fold"]) for job in scores["jobs"]} == {
        (task, fold) for task in TASKS for fold in range(2)
    }
    assert scores["complete"]
    state = run_state.read(run_dir)
    assert state.ended == "done"
    assert state.counts()["done"] == len(state.jobs) == 6
    assert all(job.timed_epochs == job.epoch == 2 and job.timed_s > 0 for job in state.jobs)
    assert sum(scores["phases"].values()) == pytest.approx(scores["seconds"], abs=0.5)
    out_of_fold = pd.read_parquet(run_dir / "out_of_fold.parquet")
    photos = pd.read_parquet(run_dir / "manifest.parquet")
    for task in TASKS:
        mine = out_of_fold[out_of_fold["task"] == task]
        assert sorted(mine["photo"]) == sorted(photos["key"])
        folds = mine.set_index("photo")["fold"]
        assert (folds.loc[photos["key"]].to_numpy() == photos["fold"].to_numpy()).all()


def test_a_report_is_made_again_from_the_run_alone_and_runs_are_compared(
    swept, run_dir, tmp_path, capsys
):
    def told(*words, status=0):
        code = 0
        try:
            report.main([str(word) for word in words])
        except SystemExit as ended:
            code = ended.code
        captured = capsys.readouterr()
        assert code == status, captured
        return captured.out + captured.err

    before = (run_dir / "report.html").read_text()
    assert "data:image/jpeg" in before
    assert "Some answers have no heat map" not in before
    (run_dir / "report.html").unlink()
    assert told(run_dir) == f"report: {run_dir / 'report.html'}\n"
    assert (run_dir / "report.html").read_text() == before
    copy = shutil.copytree(run_dir, tmp_path / "copy")
    comparison = told(run_dir, copy)
    assert f"comparison: {copy / 'comparison.html'}" in comparison
    assert "no clear difference between copy and sweep é: joint +0.000" in comparison
    told(run_dir, copy, "--out", tmp_path / "c.html")
    assert (tmp_path / "c.html").read_text() == (copy / "comparison.html").read_text()


def test_a_report_of_nothing_is_refused(capsys, tmp_path):
    for words, status, message in (
        ([str(tmp_path)], 1, "no finished run here"),
        ([str(tmp_path), "--out", "x"], 2, "--out is for a comparison"),
        (["--help"], 0, "RUN"),
    ):
        with pytest.raises(SystemExit) as ended:
            report.main(words)
        assert ended.value.code == status
        captured = capsys.readouterr()
        assert message in captured.out + captured.err


def test_a_sweep_says_one_readable_line_an_epoch_and_nothing_of_ray(swept):
    lines = [line for line in swept.splitlines() if line.strip()]
    assert sum("epoch" in line and "macro F1" in line and "/fold" not in line for line in lines)
    for noise in ("raylet", "WARNING", "INFO", "RayTrainWorker", "pid="):
        assert noise not in swept, swept


def test_the_same_command_again_trains_nothing(swept, run_dir, verb):
    before = (run_dir / "jobs" / "age-fold0" / "model.safetensors").stat().st_mtime_ns
    told = verb("sweep", *DEMO, f"run.dir={run_dir}")
    assert "6 of 6 models are trained already" in told
    assert (run_dir / "jobs" / "age-fold0" / "model.safetensors").stat().st_mtime_ns == before


def test_another_configuration_needs_another_folder(swept, run_dir, verb):
    told = verb("sweep", *DEMO, f"run.dir={run_dir}", "train.lr=1e-4", ok=False)
    assert "train.lr (task mask): 0.003 -> 0.0001" in told
    assert "choose another run.dir" in told


def test_the_checkpoint_alone_predicts_the_same_on_new_photos(
    swept, run_dir, verb, drawn, tmp_path
):
    new = tmp_path / "new photos"
    shutil.copytree(drawn / "eval", new / "eval")
    (new / "eval" / "info.csv").unlink()
    told = verb("predict", f"run.dir={run_dir}", f"data.root={new}")
    (written,) = run_dir.glob("predictions/*/submission.csv")
    assert str(written) in told
    again = submission.read_answers(written).set_index("ImageID")["ans"]
    first = submission.read_answers(run_dir / "submission.csv").set_index("ImageID")["ans"]
    assert again.sort_index().equals(first.sort_index())


def test_unreadable_photos_to_predict_are_listed_or_answered_and_marked(
    swept, run_dir, verb, drawn, tmp_path
):
    shutil.copytree(drawn / "eval", tmp_path / "eval")
    bad = sorted((tmp_path / "eval" / "images").iterdir())[0]
    bad.write_bytes(b"no photo")
    words = (f"run.dir={run_dir}", f"data.root={tmp_path}")
    told = verb("predict", *words, ok=False)
    assert bad.name in told
    assert "data.bad_eval=most_frequent" in told
    told = verb("predict", *words, "data.bad_eval=most_frequent")
    written = next(line for line in told.splitlines() if line.startswith("submission: "))
    submitted = Path(written.removeprefix("submission: "))
    answers = pd.concat(map(pd.read_parquet, sorted(submitted.parent.glob("part-*.parquet"))))
    reasons = answers.set_index("photo")["status"].to_dict()
    assert "not an image" in reasons.pop(bad.name)
    assert set(reasons.values()) == {"ok"}
    train = pd.read_parquet(run_dir / "manifest.parquet")
    answered = submission.read_answers(submitted).set_index("ImageID")["ans"]
    assert answered[bad.name] == train["joint"].mode().min()


def test_one_job_alone_is_the_same_as_in_a_sweep_and_is_taken_over(swept, run_dir, verb, tmp_path):
    told = verb("train", *DEMO, "task=age", "fold=1", f"run.dir={tmp_path}")
    assert str(tmp_path / "jobs" / "age-fold1") in told
    alone, in_sweep = (
        (run / "jobs" / "age-fold1" / "model.safetensors").read_bytes()
        for run in (tmp_path, run_dir)
    )
    assert alone == in_sweep
    told = verb("sweep", *DEMO, f"run.dir={tmp_path}", "tasks=[age]")
    assert "1 of 2 models are trained already" in told
    assert "no submission" in told


def test_rates_are_tried_beside_the_run(verb, tmp_path, monkeypatch):
    monkeypatch.setattr(range_test, "STEPS", 40)
    words = (*DEMO, "task=gender", "fold=0", f"run.dir={tmp_path}")
    told = verb("train", *words, "--find-lr")
    tried = pd.read_csv(tmp_path / "range_test" / "range_test.csv")
    assert tried["lr"].is_monotonic_increasing
    assert 2 < len(tried) <= 40
    assert f"train.lr={range_test.suggestion(tried['loss'].tolist()):.1e}" in told
    assert (tmp_path / "range_test" / "range_test.svg").is_file()
    assert not (tmp_path / "config.yaml").exists()  # of another rate, it will be another
    verb("train", *words, "train.lr=2e-3", "train.epochs=1")


def test_a_missing_model_is_said_and_no_submission_looks_whole(verb, tmp_path):
    # Nobody is left to train on, for one task only.
    words = (f"run.dir={tmp_path}", "recipes.gender.people.drop_ages=[[0,119]]", "train.epochs=1")
    told = verb("sweep", *words, ok=False)
    assert "gender-fold0" in told
    assert "no submission is written" in told
    assert not (tmp_path / "submission.csv").exists()
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert not scores["complete"]
    assert set(scores["failed"]) == {"gender-fold0", "gender-fold1"}


def test_two_workers_share_a_job_and_every_row_counts_once(cluster, here, tmp_path):
    status, told = here("train", "task=gender", f"run.dir={tmp_path}",
                        "resources.workers_per_job=2")  # fmt: skip
    assert status == 0, told
    out_of_fold = pd.read_parquet(tmp_path / "jobs" / "gender-fold0" / "out_of_fold.parquet")
    photos = pd.read_parquet(tmp_path / "manifest.parquet")
    assert sorted(out_of_fold["photo"]) == sorted(photos.loc[photos["fold"] == 0, "key"])
    assert out_of_fold["probabilities"].map(sum).between(0.999, 1.001).all()


def test_the_routes_are_compared_on_what_is_trained(verb, swept, run_dir, tmp_path):
    # The recipes that ship are trained in test_chance; here the routes need a model of each task.
    folder = shutil.copytree(run_dir, tmp_path / "run")
    told = verb("compare", *DEMO, f"run.dir={folder}", "ensemble.name=stacking")
    assert "6 of 10 models are trained already" in told
    table = pd.read_csv(folder / "routes.csv")
    assert table["route"].tolist() == ["three models", "joint", "multi", "all together"]
    assert str(folder / "routes.csv") in told


@pytest.mark.parametrize(
    "name", ["prepare", "train", "sweep", "predict", "tune", "compare", "status", "doctor", "serve"]
)
def test_every_verb_has_help(here, name):
    status, told = here(name, "--help")
    assert status == 0
    assert "--config FILE" in told
    assert "key.sub=value" in told


def test_a_bad_word_is_answered_with_the_nearest(here, tmp_path):
    status, told = here("sweep", f"run.dir={tmp_path}", "train.epoch=3")
    assert status == 2
    assert "did you mean train.epochs?" in told


def test_what_cannot_be_scheduled_is_refused_before_anything_starts(verb, tmp_path):
    told = verb("sweep", f"run.dir={tmp_path}", "resources.gpus_per_worker=1", ok=False)
    assert "the largest node has 0 GPU" in told
    assert not list(tmp_path.glob("jobs/*"))


def test_a_plan_tells_time_cost_and_what_cannot_run(verb, tmp_path, monkeypatch):
    for name in ("WARM_S", "MEASURE_S", "VALIDATE_S"):
        monkeypatch.setattr(rehearsal, name, 0.2)
    words = (f"run.dir={tmp_path}", "--plan", "tasks=[joint,gender]", "resources.jobs_at_once=2",
             "plan.price_per_hour={head: 3600}")  # fmt: skip
    told = verb("sweep", *words, "recipes.gender.people.drop_ages=[[0,119]]", ok=False)
    assert "CANNOT RUN    gender-fold1: " in told
    assert re.search(r"^ *joint-fold0 .* (s|min) +0 +\S+ (s|min)$", told, re.MULTILINE), told
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert set(plan["cannot_run"]) == {"gender-fold0", "gender-fold1"}
    assert set(plan["jobs"]) == {"joint-fold0", "joint-fold1"}
    assert plan["seconds"] == pytest.approx(sum(plan["phases"].values()), abs=1)
    cost = float(re.search(r"^cost +([0-9.]+) for", told, re.MULTILINE)[1])
    assert cost == pytest.approx(plan["seconds"], abs=0.1)
    assert {path.name for path in tmp_path.iterdir()} == {
        ".lease.json", "config.yaml", "plan.json", "run.log"
    }  # fmt: skip


def test_the_stored_configuration_is_the_one_of_the_run(swept, run_dir):
    stored = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert stored["train"]["epochs"] == 2
    assert stored["model"]["name"] == "test_efficientnet"
