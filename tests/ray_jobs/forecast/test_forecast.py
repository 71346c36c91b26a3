"""What a plan makes of what was measured; nothing here starts Ray."""

from dataclasses import replace

import pytest

from maskcls.config.schema import Config, Resources
from maskcls.labels import Task
from ray_jobs.cluster.nodes import Node
from ray_jobs.cluster.packing import plan
from ray_jobs.forecast import arithmetic, table
from ray_jobs.forecast.arithmetic import Forecast, JobSize, Measured, cost_of, job_seconds, packed

COSTS = {"build": 2.0, "cold": 5.0, "step": 0.5, "photo": 0.01, "save": 1.0, "load": 3.0}
WORK = JobSize(
    "age-fold0", Task.AGE, 0, "kind", training=640, steps=20, validation=200, epochs=3, predicted=0
)
LAPTOP = [Node("a", cpus=2, gpus=0, head=True)]
HEAD = Node("a", cpus=8, gpus=0, type="head", head=True)
SPOT = Node(None, cpus=8, gpus=1, type="gpu_worker")


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(arithmetic.os, "cpu_count", lambda: 2)


def test_a_job_takes_its_epochs_and_what_it_predicts():
    epoch = 20 * 0.5 + 200 * 0.01 + 1.0
    assert job_seconds(WORK, COSTS, workers=1) == pytest.approx(2 + 3 * epoch)
    predicting = replace(WORK, predicted=300)
    assert job_seconds(predicting, COSTS, workers=1) == pytest.approx(2 + 3 * epoch + 3 + 3)
    # And for the validation photos once more, in both views.
    mirrored = replace(predicting, views=2, answers_again=True)
    assert job_seconds(mirrored, COSTS, 1) == pytest.approx(2 + 3 * epoch + 3 + 6 + 3 + 4)
    shared = job_seconds(WORK, COSTS, workers=2)
    assert shared == pytest.approx(2 + 3 * (epoch - 1))


def test_jobs_go_to_the_lane_that_is_free_first():
    slots = packed({"a": 5, "b": 3, "c": 3, "d": 1}, [0, 0])
    assert [(s.name, s.lane, s.begins, s.ends) for s in slots] == [
        ("a", 0, 0, 5), ("b", 1, 0, 3), ("c", 1, 3, 6), ("d", 0, 5, 6)
    ]  # fmt: skip
    late = packed({"a": 5, "b": 3}, [0, 100])
    assert [slot.lane for slot in late] == [0, 0]


def outlook(nodes, jobs=4, resources=None, starts=(10.0, 12.0), **measured):
    work = [replace(WORK, name=f"age-fold{number}", fold=number) for number in range(jobs)]
    found = Measured(costs={"kind": COSTS}, starts=list(starts), **measured)
    made = plan(resources or Resources(), jobs, nodes)
    return Forecast(nodes, made, work, 0, {}, found)


def test_the_phases_add_up():
    there = outlook(LAPTOP, lookup=1.0, decode=0.1, missing=50)
    arithmetic.foresee(Config(), there, startup=6.0, photos=1000)
    job = job_seconds(WORK, COSTS, 1)
    assert there.phases["start"] == 6
    assert there.phases["prepare photos"] == pytest.approx(1 + 5)
    assert there.phases["lanes and jobs"] == pytest.approx(12 + 5 + 2 * job)
    assert there.total == pytest.approx(sum(there.phases.values()))
    assert table.content(there)["seconds"] == pytest.approx(there.total, abs=0.1)


def test_lanes_on_nodes_that_must_start_begin_later_and_prepare_photos_for_themselves():
    config = Config(plan={"node_start_s": 50})
    there = outlook([HEAD, replace(SPOT, id="b"), SPOT], decode=0.001, starts=[10.0])
    arithmetic.foresee(config, there, startup=0.0, photos=1000)
    begins = sorted(slot.begins for slot in there.slots)
    assert begins[0] > 10 + 5  # it has no prepared photos
    assert there.plan.starts == (SPOT,)
    alone = outlook([HEAD, replace(SPOT, id="b")], decode=0.001, starts=[10.0])
    arithmetic.foresee(config, alone, startup=0.0, photos=1000)
    assert alone.total > there.total
    told = "\n".join(table.lines_of(config, there))
    assert "at most       1 x head (8 CPUs, 0 GPUs), 2 x gpu_worker (8 CPUs, 1 GPUs)" in told
    assert "assumed       a node is up 50 s after it was asked for" in told


def test_lanes_that_are_pinned_to_other_nodes_prepare_photos_there():
    two = [*LAPTOP, Node("b", cpus=2, gpus=0)]
    there = outlook(two, jobs=4, decode=0.02, starts=[10.0] * 4)
    arithmetic.foresee(Config(), there, startup=0.0, photos=1000)
    begins = {slot.lane: slot.begins for slot in there.slots}
    late = {lane.number for lane in there.plan.lanes if lane.node == "b"}
    assert len(late) == 2
    assert {lane for lane, moment in begins.items() if moment > 15} == late


@pytest.mark.parametrize(
    ("prices", "cost", "unpriced"),
    [
        (None, None, []),
        (0.5, 3 * 0.5 * 2, []),
        ({"head": 0.4, "gpu_worker": 0.2}, (0.4 + 2 * 0.2) * 2, []),
        ({"gpu_worker": 0.2}, 2 * 0.2 * 2, ["head"]),
    ],
)
def test_what_nodes_cost(prices, cost, unpriced):
    found, without = cost_of([HEAD, SPOT, SPOT], prices, hours=2)
    assert found == (cost if cost is None else pytest.approx(cost))
    assert without == unpriced


def test_what_is_not_measured_is_not_estimated():
    there = outlook([HEAD, SPOT])
    there.measured.costs.clear()
    arithmetic.foresee(Config(), there, startup=1.0, photos=10)
    told = "\n".join(table.lines_of(Config(), there))
    assert "not known: no node that could run a job is up" in told
    assert table.content(there)["seconds"] is None


def test_what_cannot_run_is_told_with_its_reason():
    there = outlook(LAPTOP, jobs=2)
    there.problems["age-fold1"] = "no photo left to train on"
    arithmetic.foresee(Config(), there, startup=1.0, photos=10)
    assert "CANNOT RUN    age-fold1: no photo left to train on" in table.lines_of(Config(), there)
    assert set(there.seconds) == {"age-fold0"}
    assert table.content(there)["cannot_run"] == there.problems


def test_what_is_assumed_is_said():
    patient = Config(train={"patience": 2}, plan={"price_per_hour": 0.5})
    there = outlook(LAPTOP)
    arithmetic.foresee(patient, there, startup=1.0, photos=10)
    told = "\n".join(table.lines_of(patient, there))
    assert "train.patience may end jobs sooner" in told
    assert "cost          0.0" in told
    assert "other programs take as much" in told
