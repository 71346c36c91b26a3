"""What runs where, and what is refused; nothing here starts Ray."""

import pytest

from maskcls.config import Resources
from ray_jobs.cluster import Node, Refused, plan

LAPTOP = [Node("a", cpus=2, gpus=0)]
GPU_BOX = [Node("a", cpus=16, gpus=2, accelerator=True)]
LOGICAL = [Node("a", cpus=2, gpus=2)]
TWO_NODES = [Node("a", cpus=2, gpus=0), Node("b", cpus=6, gpus=0)]


@pytest.mark.parametrize(
    ("nodes", "resources", "jobs", "lanes", "threads"),
    [
        (LAPTOP, {}, 9, 2, 1),
        ([Node("a", cpus=1, gpus=0)], {}, 9, 1, 1),
        (LAPTOP, {"jobs_at_once": 1, "threads_per_worker": None}, 9, 1, 2),
        (LAPTOP, {"workers_per_job": 2, "threads_per_worker": None}, 9, 1, 1),
        (LAPTOP, {"threads_per_worker": 3}, 9, 2, 3),
        (GPU_BOX, {"threads_per_worker": None}, 9, 2, 8),
        (GPU_BOX, {"gpus_per_worker": 0.5, "threads_per_worker": None}, 9, 4, 4),
        (GPU_BOX, {"gpus_per_worker": 0.3333, "threads_per_worker": None}, 9, 6, 2),
        (GPU_BOX, {"gpus_per_worker": 0.6}, 9, 2, 1),
        (GPU_BOX, {"gpus_per_worker": 2}, 9, 1, 1),
        (GPU_BOX, {"workers_per_job": 2}, 9, 1, 1),
        (GPU_BOX, {"gpus_per_worker": 0}, 9, 9, 1),
        (LOGICAL, {}, 9, 2, 1),
    ],
)
def test_jobs_side_by_side_as_far_as_the_resources_reach(nodes, resources, jobs, lanes, threads):
    made = plan(Resources(**resources), jobs, nodes)
    assert (len(made.lanes), made.threads) == (lanes, threads)
    assert "at once" in made.reason


@pytest.mark.parametrize(
    ("nodes", "resources", "message"),
    [
        (LAPTOP, {"gpus_per_worker": 1}, "the largest node has 0 GPU"),
        (GPU_BOX, {"gpus_per_worker": 3}, "the largest node has 2 GPU"),
        (GPU_BOX, {"gpus_per_worker": 1.5}, "only whole GPUs"),
        (GPU_BOX, {"workers_per_job": 3}, "lower workers_per_job"),
        ([Node("a", cpus=0, gpus=1)], {}, "no CPU"),
    ],
)
def test_what_cannot_run_is_refused_in_words(nodes, resources, message):
    with pytest.raises(Refused, match=message):
        plan(Resources(**resources), 9, nodes)


@pytest.mark.parametrize("jobs", [1, 2, 9])
def test_how_a_job_rounds_depends_on_no_other_job_and_no_machine(jobs):
    for nodes in (LAPTOP, GPU_BOX, TWO_NODES):
        assert plan(Resources(), jobs, nodes).threads == 1
    assert "would let each compute with 16 threads" in plan(Resources(), 1, GPU_BOX).reason


def test_too_many_at_once_is_lowered_and_said():
    made = plan(Resources(jobs_at_once=5), 9, LAPTOP)
    assert len(made.lanes) == 2
    assert "jobs_at_once=5 is lowered" in made.reason


def test_cpu_lanes_are_spread_over_nodes_by_their_cpus():
    made = plan(Resources(), 8, TWO_NODES)
    assert sorted(lane.node for lane in made.lanes) == ["a"] * 2 + ["b"] * 6


def test_workers_reserve_no_cpu_so_that_data_tasks_can_run():
    assert "CPU" not in plan(Resources(), 9, LAPTOP).worker_resources()
    assert plan(Resources(), 9, GPU_BOX).worker_resources()["GPU"] == 1


@pytest.mark.parametrize(("nodes", "backend"), [(LAPTOP, "gloo"), (LOGICAL, "gloo")])
def test_gpus_that_are_only_said_to_be_there_do_not_ask_for_nccl(nodes, backend):
    assert plan(Resources(), 9, nodes).backend == backend
    assert "nccl" in plan(Resources(), 9, GPU_BOX).backend
