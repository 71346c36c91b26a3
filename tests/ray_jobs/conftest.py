"""What tests with Ray share: a search and a sweep as a user runs them."""

import os
import subprocess
import sys
import textwrap

import pytest

from benchmarks import disturbed
from tests.conftest import ROOT, TINY, command

DEMO = ("--config", str(ROOT / "configs" / "demo.yaml"), "model.weights=null")

SEARCH = (
    "--config",
    str(ROOT / "configs" / "tune.yaml"),
    "task=age",
    "tune.trials=8",
    "tune.folds=[0]",
    "model.weights=null",
    "augment.name=base",
)


@pytest.fixture(scope="session")
def others_cluster():
    """Two CPUs and two GPUs that are only said to be there, started by another program; its
    address."""
    code = textwrap.dedent("""
        import ray
        context = ray.init(num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)
        print("ADDRESS", context.address_info["gcs_address"], flush=True)
        input()
    """)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, text=True,
                               stdout=subprocess.PIPE, env=environment)  # fmt: skip
    yield next(line for line in process.stdout if line.startswith("ADDRESS")).split()[1]
    process.communicate("\n", timeout=200)


@pytest.fixture(scope="session")
def searched(tmp_path_factory, drawn, cache, others_cluster):
    """The folder of a finished search and what it printed: a program of its own, with real lanes,
    on a cluster that RAY_ADDRESS names."""
    run_dir = tmp_path_factory.mktemp("search")
    # The GPUs are only said to be there and compute nothing.
    words = command("tune", f"run.dir={run_dir}", *SEARCH, "resources.jobs_at_once=2",
                    "resources.allow_cpu=true", drawn=drawn, cache=cache)  # fmt: skip
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600,
                          env={**os.environ, "RAY_ADDRESS": others_cluster})  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return run_dir, done.stdout + done.stderr


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("run dir é") / "sweep é"


@pytest.fixture(scope="session")
def swept(run_dir, drawn, cache):
    """What a sweep printed, with a cluster of its own; its results are in ``run_dir``."""
    words = command("sweep", *DEMO, f"run.dir={run_dir}", "tracking.tensorboard=true",
                    "resources.jobs_at_once=2", drawn=drawn, cache=cache)  # fmt: skip
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


THE_SAME = disturbed.Sweep((*DEMO, *TINY, "resources.jobs_at_once=2"), jobs=6, epochs=2)
"""The sweep of ``swept``, for those that disturb it."""


@pytest.fixture(scope="session")
def undisturbed(swept, run_dir):
    """What that sweep gave, byte for byte."""
    return {name: (run_dir / name).read_bytes() for name in disturbed.RESULTS}
