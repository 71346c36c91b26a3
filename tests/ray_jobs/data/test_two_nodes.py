"""Two nodes: a lane's batches are made on its own node, however many CPUs the other has."""

import subprocess
import sys

import pytest

from benchmarks.disturbed import answer_of
from tests.conftest import ROOT

pytestmark = pytest.mark.ray

PROGRAM = """
import json, os, sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray
from ray.cluster_utils import Cluster

from maskcls.data.preprocess import Preprocessing
from ray_jobs.data import stream
from ray_jobs.data.source import EpochPlan

ITEMS, NOTES = 600, Path(sys.argv[1])

@dataclass(frozen=True)
class Photos:
    preprocessing: Preprocessing

    def open(self):
        node = ray.get_runtime_context().get_node_id()
        (NOTES / f"{node}-{os.getpid()}").touch()
        return np.zeros((ITEMS, 8, 8, 3), np.uint8)

def lane():
    rows = {"row": np.arange(ITEMS), "row2": np.full(ITEMS, -1), "weight2": np.zeros(ITEMS),
            "key": np.arange(ITEMS)}
    plan = EpochPlan(rows, np.zeros(ITEMS, int), None, 32, 1)
    made = stream.batches(Photos(Preprocessing(8, 8)), plan, {"name": "flip"}, first_epoch=1,
                          last_epoch=4, title="run:lane")
    steps = sum(1 for _ in made)
    return ray.get_runtime_context().get_node_id(), steps

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
cluster.add_node(num_cpus=2, resources={"lane": 1})
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
node, steps = ray.get(ray.remote(lane).options(num_cpus=0, resources={"lane": 1}).remote())
print("FOUND", json.dumps({"lane": node, "steps": steps, "nodes": len(ray.nodes()),
                  "at": sorted({file.name.split("-")[0] for file in NOTES.iterdir()})}))
ray.shutdown()
cluster.shutdown()
"""


def test_batches_are_made_on_the_node_of_the_lane(tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(notes)],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = answer_of(done.stdout)
    assert told["nodes"] == 2
    assert told["steps"] == 4 * 19
    assert told["at"] == [told["lane"]]
