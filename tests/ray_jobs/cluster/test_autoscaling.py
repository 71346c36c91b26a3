"""A cluster with a CPU head and nodes with GPUs from 0 to 2, by Ray's own autoscaler.

The nodes are real raylets on this machine, their GPUs only said to be there.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from benchmarks.disturbed import answer_of
from tests.conftest import ROOT, command
from tests.ray_jobs.cluster.test_existing_clusters import BIN, end_session, free_port

pytestmark = pytest.mark.ray
HEAD_ID = "f" * 51 + "00000"
"""What Ray's fake provider takes for the head."""

HEAD_TYPE = "ray.head.default"


@pytest.fixture
def from_zero():
    """The environment of a driver on the head."""
    # Short, because the paths of Unix sockets may have 107 characters.
    session = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    port = free_port()
    address = f"127.0.0.1:{port}"
    config = {
        "cluster_name": "from-zero",
        "max_workers": 2,
        "idle_timeout_minutes": 5,
        "upscaling_speed": 10,
        # Not "fake_multinode": Ray's wheel lacks the defaults of that type.
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": address,
            "head_node_id": HEAD_ID,
            "launch_multiple": True,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        **{f"{part}setup_commands": [] for part in ("", "head_", "worker_")},
        "head_node_type": HEAD_TYPE,
        "available_node_types": {
            HEAD_TYPE: {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
            "gpu_worker": {
                "resources": {"CPU": 1, "GPU": 1, "object_store_memory": 10**8},
                "node_config": {},
                "min_workers": 0,
                "max_workers": 2,
            },
        },
    }
    (session / "cluster.yaml").write_text(json.dumps(config))
    environment = {
        **os.environ,
        "HOME": str(session),
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "RAY_TMPDIR": str(session),
        "RAY_AUTH_MODE": "disabled",
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        # As `ray up` sets them.
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_NODE_TYPE_NAME": HEAD_TYPE,
    }
    others = ("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export")
    ports = {"--port": port, **{f"--{name}-port": free_port() for name in others}}
    try:
        subprocess.run(
            ["ray", "start", "--head", "--num-cpus=1", "--include-dashboard=false",
             f"--autoscaling-config={session / 'cluster.yaml'}",
             *(f"{name}={number}" for name, number in ports.items())],
            env=environment, check=True, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        yield {"HOME": str(session), "RAY_TMPDIR": str(session), "RAY_AUTH_MODE": "disabled",
               "RAY_ADDRESS": address}  # fmt: skip
    finally:
        end_session(str(session))
        shutil.rmtree(session, ignore_errors=True)


def raylets(session):
    """The processes of the nodes beside the head."""
    found = []
    for process in psutil.process_iter(["name", "cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        head = "node:__internal_head__" in line
        if process.info["name"] == "raylet" and session in line and not head:
            found.append(process)
    return found


def nodes_of_workers(environment):
    """The nodes that Train workers ran on, and the head."""
    code = textwrap.dedent("""
        import json, ray, ray._private.state
        from ray_jobs.cluster import connect, nodes
        connect.connect()
        actors = ray._private.state.actors().values()
        workers = [a for a in actors if a["ActorClassName"] == "RayTrainWorker"]
        head = next(node.id for node in nodes.live_nodes() if node.head)
        print("FOUND", json.dumps([[a["Address"]["NodeID"] for a in workers], head]))
    """)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **environment},
                          capture_output=True, text=True, timeout=200)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return answer_of(done.stdout)


def test_a_sweep_starts_nodes_trains_on_them_and_outlives_the_loss_of_one(
    from_zero, program, drawn, cache, tmp_path
):
    words = (f"run.dir={tmp_path}", "tasks=[joint]", "train.epochs=12", "resources.jobs_at_once=2",
             "resources.allow_cpu=true", "resources.node_timeout_s=400",
             "resources.start_timeout_s=400")  # fmt: skip
    with ThreadPoolExecutor() as threads:
        too_many, planned = (
            threads.submit(program, "sweep", *words, *more, ok=ok, env=from_zero.items())
            for more, ok in (
                (["resources.workers_per_job=3", f"run.dir={tmp_path / 'too many'}"], False),
                (["--plan"], True),
            )
        )
    refused = "resources.workers_per_job=3 with 1 GPU each: the cluster carries 2 worker(s)"
    assert refused in too_many.result()
    assert "at most       1 x ray.head.default (1 CPUs, 0 GPUs), 2 x gpu_worker" in planned.result()
    assert "not known: no node that could run a job is up" in planned.result()
    assert not raylets(from_zero["RAY_TMPDIR"])

    process = subprocess.Popen(
        command("sweep", *words, drawn=drawn, cache=cache), cwd=ROOT, text=True,
        env={**os.environ, **from_zero}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    told = ""
    for line in process.stdout:
        told += line
        if re.search(r"epoch 2/", line) and "killed" not in told:
            raylets(from_zero["RAY_TMPDIR"])[0].kill()
            told += "killed\n"
    assert process.wait(timeout=200) == 0, told
    assert "2 worker(s) of 1 GPU, 0 of them on nodes that are up" in told
    assert "waiting for the autoscaler to start 2 x gpu_worker" in told
    assert "killed" in told
    assert "starts again (attempt 2)" in told
    assert json.loads((tmp_path / "scores.json").read_text())["complete"]
    nodes, head = nodes_of_workers(from_zero)
    # A worker that is gone may have left no address, which reads as all f.
    assert set(nodes) - {"f" * 56}
    assert head not in nodes
