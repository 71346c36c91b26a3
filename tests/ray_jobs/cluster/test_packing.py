"""What runs where, and what is refused; nothing here starts Ray."""

from dataclasses import replace

import pytest

from maskcls.config.schema import Resources
from ray_jobs.cluster.errors import Refused
from ray_jobs.cluster.nodes import Node
from ray_jobs.cluster.packing import plan

LAPTOP = [Node("a", cpus=2, gpus=0)]
GPU_BOX = [Node("a", cpus=16, gpus=2, accelerator=True)]
LOGICAL = [Node("a", cpus=2, gpus=2)]
TWO_NODES = [Node("a", cpus=2, gpus=0), Node("b", cpus=6, gpus=0)]
HEAD = Node("a", cpus=8, gpus=0, head=True)
WORKER = Node(None, cpus=8, gpus=1, accelerator=True, type="gpu_worker")
LARGE = Node(None, cpus=32, gpus=4, accelerator=True, type="large")
FROM_ZERO = [HEAD, *4 * [WORKER]]


@pytest.mark.parametrize(
    ("nodes", "resources", "jobs", "lanes", "threads"),
    [
        (LAPTOP, {}, 9, 2, 2),
        ([Node("a", cpus=1, gpus=0)], {}, 9, 1, 2),
        (LAPTOP, {"jobs_at_once": 1, "threads_per_worker": None}, 9, 1, 2),
        (LAPTOP, {"workers_per_job": 2, "threads_per_worker": None}, 9, 1, 1),
        (LAPTOP, {"threads_per_worker": 3}, 9, 2, 3),
        (GPU_BOX, {"threads_per_worker": None}, 9, 2, 8),
        (GPU_BOX, {"gpus_per_worker": 0.5, "threads_per_worker": None}, 9, 4, 4),
        (GPU_BOX, {"gpus_per_worker": 0.3333, "threads_per_worker": None}, 9, 6, 2),
        (GPU_BOX, {"gpus_per_worker": 0.6}, 9, 2, 2),
        (GPU_BOX, {"workers_per_job": 2}, 9, 1, 2),
        (GPU_BOX, {"gpus_per_worker": 0}, 9, 9, 2),
        (LOGICAL, {}, 9, 2, 2),
        (TWO_NODES, {"threads_per_worker": None}, 2, 2, 3),
        (FROM_ZERO, {"threads_per_worker": None}, 9, 4, 8),
        (FROM_ZERO, {"threads_per_worker": None, "gpus_per_worker": 0.5}, 9, 8, 4),
        (FROM_ZERO, {"gpus_per_worker": 0}, 9, 8, 2),
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
        (GPU_BOX, {"gpus_per_worker": 2}, "workers_per_job=2 resources.gpus_per_worker=1"),
        (GPU_BOX, {"gpus_per_worker": 1.5}, "a worker computes on one GPU"),
        (GPU_BOX, {"gpus_per_worker": 0.5, "workers_per_job": 2}, "need a GPU each"),
        (GPU_BOX, {"workers_per_job": 3}, "lower workers_per_job"),
        ([Node("a", cpus=0, gpus=1)], {}, "no CPU"),
        ([HEAD], {"gpus_per_worker": 1}, "KubeRay.*resources.max_gpus"),
        (FROM_ZERO, {"workers_per_job": 5}, "carries 4 worker.s. of 1 GPU, 0 of them on nodes"),
    ],
)
def test_what_cannot_run_is_refused_in_words(nodes, resources, message):
    with pytest.raises(Refused, match=message):
        plan(Resources(**resources), 9, nodes)


@pytest.mark.parametrize("jobs", [1, 2, 9])
def test_how_a_job_rounds_depends_on_no_other_job_and_no_machine(jobs):
    for nodes in (LAPTOP, GPU_BOX, TWO_NODES):
        assert plan(Resources(), jobs, nodes).threads == 2
    assert "would let each compute with 16 threads" in plan(Resources(), 1, GPU_BOX).reason


def test_too_many_at_once_is_lowered_and_said():
    made = plan(Resources(jobs_at_once=5), 9, LAPTOP)
    assert len(made.lanes) == 2
    assert "jobs_at_once=5 is lowered" in made.reason


def test_cpu_lanes_are_spread_over_nodes_by_their_cpus():
    made = plan(Resources(), 8, TWO_NODES)
    assert sorted(lane.node for lane in made.lanes) == ["a"] * 2 + ["b"] * 6


def test_lanes_wait_for_nodes_with_gpus_instead_of_training_on_the_head():
    made = plan(Resources(), 3, FROM_ZERO)
    assert (len(made.lanes), made.gpus_per_worker) == (3, 1)
    assert made.starts == (WORKER, WORKER, WORKER)
    assert "waiting for the autoscaler to start 3 x gpu_worker" in made.reason
    assert "nccl" in made.backend
    up = plan(Resources(), 3, [HEAD, replace(WORKER, id="b"), *3 * [WORKER]])
    assert len(up.starts) == 2
    assert plan(Resources(), 1, [HEAD, replace(WORKER, id="b"), WORKER]).starts == ()


def test_the_nodes_to_start_are_the_smallest_that_do():
    assert plan(Resources(), 2, [HEAD, LARGE, *2 * [WORKER]]).starts == (WORKER, WORKER)
    assert plan(Resources(), 5, [HEAD, LARGE, WORKER]).starts == (WORKER, LARGE)


def test_an_autoscaler_that_tells_no_limit_gets_it_from_the_configuration():
    kuberay = Resources(max_gpus=4)
    made = plan(kuberay, 9, [HEAD])
    assert (len(made.lanes), made.gpus_per_worker, len(made.starts)) == (4, 1, 4)
    up = [HEAD, replace(WORKER, id="b"), replace(WORKER, id="c")]
    assert len(plan(kuberay, 9, up).starts) == 2
    assert plan(kuberay, 9, [HEAD, replace(LARGE, id="b")]).starts == ()
    assert plan(Resources(), 9, [HEAD]).gpus_per_worker == 0


def test_how_many_lanes_some_nodes_carry():
    made = plan(Resources(), 9, FROM_ZERO)
    assert made.lanes_on([HEAD]) == 0
    assert made.lanes_on([HEAD, replace(WORKER, id="b")]) == 1
    assert plan(Resources(workers_per_job=2), 9, FROM_ZERO).lanes_on([replace(WORKER, id="b")]) == 0
    on_cpus = plan(Resources(gpus_per_worker=0), 9, FROM_ZERO)
    assert on_cpus.lanes_on([HEAD]) == 8


def test_workers_reserve_no_cpu_so_that_data_tasks_can_run():
    assert "CPU" not in plan(Resources(), 9, LAPTOP).worker_resources()
    assert plan(Resources(), 9, GPU_BOX).worker_resources()["GPU"] == 1


@pytest.mark.parametrize(("nodes", "backend"), [(LAPTOP, "gloo"), (LOGICAL, "gloo")])
def test_gpus_that_are_only_said_to_be_there_do_not_ask_for_nccl(nodes, backend):
    assert plan(Resources(), 9, nodes).backend == backend
    assert "nccl" in plan(Resources(), 9, GPU_BOX).backend
