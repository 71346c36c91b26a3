"""The folder of a run, alone, is its run.dir."""

from ray_jobs.run.arguments import words


def test_a_folder_is_the_run_and_a_forgotten_equals_sign_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain").mkdir()
    assert words(["runs/first", "--once"]) == ["run.dir=runs/first", "--once"]
    assert words(["plain", "task=age"]) == ["run.dir=plain", "task=age"]
    assert words(["s3://bucket/run"]) == ["run.dir=s3://bucket/run"]
    assert words(["--config", "configs/a.yaml", "task"]) == ["--config", "configs/a.yaml", "task"]
    assert words(["data.root=/data/set"]) == ["data.root=/data/set"]


def test_an_option_stands_for_a_key():
    options = {"--budget": "budget.time_s"}
    for given in (["--budget", "30m"], ["--budget=30m"]):
        assert words([*given, "--plan"], options) == ["budget.time_s=30m", "--plan"]
    assert words(["--budget"], options) == ["--budget"]
