"""Nodes made wrong on purpose, one way at a time; nothing here starts Ray."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from ray_jobs.health import diagnosis, table
from ray_jobs.health.diagnosis import GB, Clock, Cluster, Node, findings
from ray_jobs.health.facts import Environment, Gpus, NodeFacts, PathFacts

PACKAGES = {"ray": "2.60.0", "torch": "2.14.1", "timm": "1.0"}
ENVIRONMENT = Environment("3.11.7", PACKAGES, code="c0de", token=True)
PLACE = PathFacts("/shared/place", free=500 * GB, total=1000 * GB)
FACTS = NodeFacts(
    environment=ENVIRONMENT,
    cpu="A CPU",
    gpus=Gpus(["T4", "T4"], "570.1", "12.8", 2, None),
    run_dir=PLACE,
    data_root=replace(PLACE, listing="these"),
    cache=PLACE,
    ray_temp=PLACE,
    memory=64 * GB,
    memory_used=8 * GB,
    shm=32 * GB,
    open_files=65536,
    processes=None,
    unreachable=[],
)
NODE = Node("b", gpus_declared=2, object_store=20 * GB, facts=FACTS, clock=Clock(0.01, 0.02))
SOUND = Cluster(
    driver=ENVIRONMENT,
    run_dir=PLACE,
    data_root=replace(PLACE, listing="these"),
    nodes=[replace(NODE, name="a"), NODE],
    dashboard="127.0.0.1:8265",
)
FULL = replace(PLACE, free=GB // 2)
GONE = PathFacts("/shared/place", "No such file or directory")


def with_facts(**changes):
    """The sound cluster, but node b has other facts."""
    return replace(SOUND, nodes=[SOUND.nodes[0], replace(NODE, facts=replace(FACTS, **changes))])


def with_environment(**changes):
    return with_facts(environment=replace(ENVIRONMENT, **changes))


def with_node(**changes):
    return replace(SOUND, nodes=[SOUND.nodes[0], replace(NODE, **changes)])


def told(seen):
    return [(f.severity, f.what, f.nodes) for f in findings(seen)]


def test_a_sound_cluster_has_nothing_to_fix():
    assert findings(SOUND) == []
    assert list(table.conclusion([])) == ["\nNothing to fix."]


OTHER_RAY = PACKAGES | {"ray": "2.59.0"}
NO_TIMM = PACKAGES | {"timm": None}
OTHER_TIMM = PACKAGES | {"timm": "0.9"}


@pytest.mark.parametrize(
    ("seen", "severity", "what"),
    [
        (with_environment(python="3.12.1"), "error", "Python 3.12.1, the driver has 3.11.7"),
        (with_environment(packages=OTHER_RAY), "error", "ray 2.59.0, the driver has 2.60.0"),
        (with_environment(packages=NO_TIMM), "error", "timm is not installed"),
        (with_environment(packages=OTHER_TIMM), "warning", "timm 0.9, the driver has 1.0"),
        (with_environment(code="0dd"), "error", "code is another there"),
        (with_environment(token=False), "error", "token authentication is off, the driver"),
        (with_facts(gpus=Gpus([], None, "12.8", 0, "no driver")), "error", "torch can use 0"),
        (with_facts(gpus=Gpus(["T4"], "450", "12.8", 0, "too old")), "error", "450; too old"),
        (with_facts(gpus=Gpus(["T4"], "570", None, 0, None)), "error", "built without CUDA"),
        (with_node(gpus_declared=1), "warning", "torch can use 2 GPU(s), Ray was started with 1"),
        (with_facts(run_dir=GONE), "error", "run.dir=/shared/place is not shared"),
        (with_facts(data_root=GONE), "error", "data.root=/shared/place: No such file"),
        (with_facts(data_root=PLACE), "error", "holds other files than the driver's"),
        (with_facts(cache=GONE), "error", "data.cache=/shared/place cannot be written"),
        (with_facts(run_dir=FULL), "error", "0.5 GB free where run.dir lies"),
        (with_facts(cache=replace(PLACE, free=5 * GB)), "warning", "5.0 GB free where data.cache"),
        (with_facts(ray_temp=replace(PLACE, free=20 * GB)), "error", "is 98% full"),
        (with_facts(memory_used=62 * GB), "error", "97% of 64.0 GB memory"),
        (with_facts(memory_used=57 * GB), "warning", "89% of 64.0 GB memory"),
        (with_facts(shm=GB), "warning", "/dev/shm holds 1.0 GB"),
        (with_facts(open_files=512), "error", "512 open files"),
        (with_facts(open_files=2000), "warning", "2000 open files"),
        (with_facts(processes=100), "error", "100 processes"),
        (with_facts(processes=1000), "warning", "1000 processes"),
        (with_facts(unreachable=["a's object manager at 10.0.0.1:4"]), "error", "cannot reach a's"),
        (with_facts(cpu="Another CPU"), "warning", "different CPUs (A CPU, Another CPU)"),
        (with_facts(gpus=replace(FACTS.gpus, names=["L4"])), "warning", "different GPUs (L4, T4)"),
        (with_node(clock=Clock(-60.0, 0.1)), "warning", "60 s behind the driver's"),
        (with_node(clock=Clock(3600.0, 0.1)), "error", "3600 s ahead of the driver's"),
        (with_node(facts=None, silence="no word within 180 s"), "error", "does not answer: no w"),
        (replace(SOUND, run_dir=GONE), "error", "cannot be written by the driver"),
        (replace(SOUND, data_root=GONE), "error", "cannot be read by the driver"),
        (replace(SOUND, dashboard=None), "warning", "no dashboard runs"),
        (replace(SOUND, refused="the cluster has no CPU"), "error", "has no CPU"),
    ],
)
def test_what_is_wrong_is_told_once_with_its_weight(seen, severity, what):
    ((weight, sentence, nodes),) = told(seen)
    assert weight == severity
    assert what in sentence
    whole = "different" in what or seen.nodes == SOUND.nodes
    assert nodes == ([] if whole else ["b"])
    lines = "\n".join(table.conclusion(findings(seen)))
    assert sentence in lines
    assert "->" in lines


@pytest.mark.parametrize(
    "seen",
    [
        with_node(clock=Clock(5.0, 4.0)),
        with_node(clock=None),
        with_environment(python="3.11.9"),
        with_facts(open_files=None),
    ],
)
def test_what_is_no_harm_or_not_known_is_not_held_against_a_node(seen):
    assert findings(seen) == []


def test_a_folder_that_the_driver_cannot_use_is_not_told_of_every_node_too():
    seen = replace(with_facts(run_dir=GONE, data_root=GONE), run_dir=GONE, data_root=GONE)
    assert [nodes for _, _, nodes in told(seen)] == [[], []]


def test_tokens_that_are_off_everywhere_are_a_warning():
    off = replace(ENVIRONMENT, token=False)
    nodes = [replace(node, facts=replace(FACTS, environment=off)) for node in SOUND.nodes]
    seen = replace(SOUND, driver=off, nodes=nodes, dashboard="0.0.0.0:8265")
    ((severity, sentence, _),) = told(seen)
    assert severity == "warning"
    assert "listens on every address" in sentence


def test_what_nodes_share_is_told_once_and_errors_come_first():
    low = replace(FACTS, open_files=100)
    nodes = [replace(node, facts=low) for node in SOUND.nodes]
    seen = replace(SOUND, nodes=nodes, dashboard=None)
    assert [(s, n) for s, _, n in told(seen)] == [("error", ["a", "b"]), ("warning", [])]


def test_the_table_tells_nodes_apart_only_where_they_differ():
    screen = Console(file=io.StringIO(), width=120)
    odd = replace(PLACE, path="/a [red] path")
    screen.print(table.table(with_facts(open_files=512, cache=odd)))
    lines = screen.file.getvalue().splitlines()
    assert [line.split() for line in lines if "open files" in line or "512" in line] == [
        ["open", "files", "65536:", "a"],
        ["512:", "b"],
    ]
    assert next(line.split() for line in lines if "Python" in line) == ["Python", "3.11.7"]
    assert any("/a [red] path: 500 GB free" in line for line in lines)


def test_sizes_read_well():
    assert diagnosis.size(1.5e9) == "1.5 GB"
    assert diagnosis.size(2.345e11) == "234 GB"
