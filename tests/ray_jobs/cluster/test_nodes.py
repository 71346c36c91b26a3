"""Which nodes an autoscaler may start; nothing here starts Ray."""

import pytest

from ray_jobs.cluster.nodes import Node, autoscaling_config, startable

HEAD = Node("a", cpus=8, gpus=0, head=True)
T4 = {"CPU": 8, "GPU": 1, "accelerator_type:T4": 1, "memory": 2**34}
CONFIG = {
    "max_workers": 6,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 8}, "max_workers": 0},
        "cpu_worker": {"resources": {"CPU": 16}, "max_workers": 4},
        "gpu_worker": {"resources": T4, "max_workers": 4},
    },
}


def kinds(nodes):
    assert all(node.id is None for node in nodes)
    return [node.type for node in nodes]


def test_nodes_with_gpus_come_first_where_not_all_types_may_be_full():
    found = startable(CONFIG, [HEAD])
    assert kinds(found) == ["gpu_worker"] * 4 + ["cpu_worker"] * 2
    assert found[0] == Node(None, 8, 1, accelerator=True, type="gpu_worker")


@pytest.mark.parametrize("name", ["gpu_worker", ""])
def test_nodes_that_are_up_count_by_their_label_or_by_what_they_have(name):
    up = [Node(str(number), 8, 1, type=name) for number in range(3)]
    assert kinds(startable(CONFIG, [HEAD, *up])) == ["gpu_worker"] + ["cpu_worker"] * 2


def test_where_more_is_up_than_allowed_nothing_starts():
    up = [Node(str(number), 8, 1, type="gpu_worker") for number in range(7)]
    assert startable(CONFIG, [HEAD, *up]) == []


def test_the_type_of_the_head_can_have_workers_too():
    types = {"head": {"resources": {"CPU": 4, "GPU": 1}, "max_workers": 2}}
    found = startable({**CONFIG, "available_node_types": types}, [HEAD])
    assert kinds(found) == ["head"] * 2


def test_without_an_autoscaler_nothing_starts():
    assert startable(None, [HEAD]) == []
    assert autoscaling_config("127.0.0.1:1") is None
