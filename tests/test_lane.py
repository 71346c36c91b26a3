"""What a lane's worker does before it takes a job."""

from types import SimpleNamespace

import pytest

from ray_jobs import lane


def test_a_node_that_does_not_see_the_run_folder_ends_the_run(monkeypatch, tmp_path):
    told = []
    queue = SimpleNamespace(abort=SimpleNamespace(remote=told.append))
    monkeypatch.setattr(lane.ray, "get", lambda answer: answer)
    context = SimpleNamespace(get_node_id=lambda: "late")
    monkeypatch.setattr(lane.ray, "get_runtime_context", lambda: context)
    lane._check_shared(tmp_path, queue)
    assert told == []
    with pytest.raises(FileNotFoundError):
        lane._check_shared(tmp_path / "elsewhere", queue)
    place = tmp_path / "elsewhere"
    assert told == [
        f"{place} is not seen by node late (no such path): put data and run.dir on storage that "
        "every node mounts at the same path"
    ]
