"""Weights are checked before Ray starts, and said once; nothing here starts Ray."""

import logging
import urllib.error

import pytest

from maskcls.config.load import load
from maskcls.labels import Task
from ray_jobs.run import weights
from ray_jobs.run.folder import RunFolder


@pytest.fixture(autouse=True)
def nothing_cached(monkeypatch, tmp_path):
    monkeypatch.setattr(weights.hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(weights.hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def check(tmp_path, *words):
    config = load(words=["model.name=resnet18", *words]).config
    weights.check(config, list(config.tasks), RunFolder(tmp_path))


def no_network(*_, **__):
    raise urllib.error.URLError("Name or service not known")


def test_a_hub_that_cannot_be_reached_is_said_once_for_all_tasks(tmp_path, monkeypatch):
    monkeypatch.setattr(weights.urllib.request, "urlopen", no_network)
    with pytest.raises(ConnectionError, match=r"mask, gender, age.*does not answer") as raised:
        check(tmp_path, "model.pretrained=true")
    assert str(raised.value).count("does not answer") == 1
    assert "model.weights=package:" in str(raised.value)


def test_what_is_cached_or_answered_is_fine(tmp_path, monkeypatch):
    (tmp_path / "hub" / "models--timm--resnet18.a1_in1k").mkdir(parents=True)
    monkeypatch.setattr(weights.urllib.request, "urlopen", no_network)
    check(tmp_path, "model.pretrained=true")

    def refused(*_, **__):
        raise urllib.error.HTTPError("https://hub", 403, "Forbidden", None, None)

    monkeypatch.setattr(weights.urllib.request, "urlopen", refused)
    check(tmp_path, "model.pretrained=true", "model.name=resnet34")


def test_random_weights_are_said_once(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        check(tmp_path)
    assert [r.getMessage().split(" starts from ")[0] for r in caplog.records] == [
        "mask, gender, age: resnet18"
    ]


def test_a_finished_run_needs_no_weights(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(weights.urllib.request, "urlopen", no_network)
    folder = RunFolder(tmp_path)
    for task in (Task.MASK, Task.GENDER, Task.AGE):
        for fold in range(5):
            folder.job(task, fold).mkdir(parents=True)
            (folder.job(task, fold) / "job.json").write_text("{}")
    check(tmp_path, "model.pretrained=true")
    assert not caplog.records
