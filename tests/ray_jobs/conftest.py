"""What tests with Ray share: a search as a user runs it, and what an undisturbed sweep gives."""

import os
import subprocess
import sys
import textwrap

import pytest

from tests.conftest import ROOT, command

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
def undisturbed(drawn):
    """What a sweep gives that nobody disturbs, byte for byte; see ``benchmarks.faults``."""
    from benchmarks import faults

    return faults.undisturbed(drawn)
