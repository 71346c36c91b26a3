"""What a lane's worker does before it takes a job."""

from types import SimpleNamespace

import pytest

from maskcls.config import Resources
from ray_jobs import driver, lane, packing
from ray_jobs.cluster import nodes
from tests.test_job_queue import JOB


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


@pytest.mark.ray
@pytest.mark.slow
def test_a_lane_whose_workers_fail_before_they_take_a_job_is_not_restarted_for_ever(
    cluster, monkeypatch, tmp_path
):
    def broken(config):
        raise RuntimeError("the driver of the GPU is too old")

    monkeypatch.setattr(driver, "lane_loop", broken)
    resources = Resources(jobs_at_once=1, attempts=2)
    plan = packing.plan(resources, 1, nodes())
    with driver.lanes(plan, resources, folder=tmp_path) as lanes:
        (outcome,) = lanes.run([JOB]).values()
    assert outcome.reason == (
        "no worker is left: lane 0: its worker failed 2 times before it asked for a job: "
        "the driver of the GPU is too old"
    )
