"""Clusters that somebody else started: RAY_ADDRESS, `ray start`, `ray job submit` with tokens.

The shell lines are those of the README, read from it.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from benchmarks.disturbed import answer_of
from maskcls.scoring import submission
from ray_jobs.cluster import connect
from tests.conftest import ROOT, TINY

BIN = Path(sys.executable).parent


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def test_a_cluster_with_logical_gpus_is_used_and_none_is_started(searched):
    _, told = searched
    assert "cluster at RAY_ADDRESS, 2 CPUs, 2 GPUs" in told
    assert "to do on 2 worker(s) of 1 GPU" in told


def resources_of(address):
    """What a cluster has, what of it is free, and what is reserved or alive on it."""
    code = textwrap.dedent("""
        import json, sys
        from ray_jobs.cluster import connect
        connect.connect()
        import ray
        from ray.util import list_named_actors, placement_group_table
        drop = ("object_store_memory",)
        free, total = ray.available_resources(), ray.cluster_resources()
        print("FOUND", json.dumps({
            "busy": {k: total[k] - free.get(k, 0) for k in total
                     if k not in drop and total[k] - free.get(k, 0) > 1e-3},
            "reserved": [g for g in placement_group_table().values() if g["state"] != "REMOVED"],
            # Ray Data's own two service actors stay as long as the cluster does.
            "actors": [a["name"] for a in list_named_actors(all_namespaces=True)
                       if "maskcls" in a["name"]],
        }))
    """)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "RAY_ADDRESS": address}, timeout=200)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return answer_of(done.stdout)


def test_eight_trials_leave_nothing_behind(searched, others_cluster):
    run_dir, _ = searched
    assert len(pd.read_csv(run_dir / "trials.csv")) == 8
    deadline = time.monotonic() + 30
    while any(left := resources_of(others_cluster).values()) and time.monotonic() < deadline:
        time.sleep(1)
    assert not any(left), list(left)


def test_an_address_where_nothing_is_is_refused(here, monkeypatch, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(connect.ray, "is_initialized", lambda: False)
    status, told = here("sweep", f"run.dir={tmp_path}")
    assert status == 1
    assert address in told
    assert "unset RAY_ADDRESS" in told


def readme_lines(heading):
    """The shell block under a heading of the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split(f"# {heading}\n")[1].split("\n#")[0]
    return re.search(r"```bash\n(.*?)```", section, re.DOTALL)[1]


def end_session(session):
    """End the processes of one cluster; `ray stop` would end every cluster on this machine."""
    for process in psutil.process_iter(["cmdline"]):
        if any(session in word for word in process.info["cmdline"] or []):
            process.kill()
    shutil.rmtree(session, ignore_errors=True)


NAMES = textwrap.dedent("""
    import json, os, sys, urllib.request
    from pathlib import Path
    from ray.util.state import list_actors, list_tasks
    url = os.environ["RAY_API_SERVER_ADDRESS"]
    token = (Path.home() / ".ray" / "auth_token").read_text().strip()

    def get(path):
        request = urllib.request.Request(url + path, headers={"Authorization": "Bearer " + token})
        return json.load(urllib.request.urlopen(request, timeout=30))

    actors = list_actors(url, limit=1000, detail=True)
    tasks = list_tasks(url, limit=10000, raise_on_missing_output=False)
    jobs = {actor.job_id for actor in actors if actor.job_id}
    Path(sys.argv[1]).write_text(json.dumps({
        "actors": [[actor.class_name, actor.name, actor.repr_name] for actor in actors],
        "tasks": sorted({task.name for task in tasks}),
        "runs": [run["name"] for run in get("/api/train/v2/runs/v1")["train_runs"]],
        "data": [data["dataset"] for job in jobs
                 for data in get(f"/api/data/datasets/{job}")["datasets"]],
    }))
""")
"""Writes down what the dashboard of RAY_API_SERVER_ADDRESS shows."""


@pytest.mark.ray
def test_the_readme_s_lines_submit_a_job_to_two_nodes_with_a_token(drawn, cache, tmp_path):
    lines = readme_lines("On a cluster")
    assert "ray job submit --working-dir ." in lines
    assert "ray start --address=HEAD:6379" in lines
    # Epochs enough that jobs still train when Ray, which looks once a second, tells of the first.
    words = [*TINY, "model.weights=null", "tasks=[joint]", f"data.cache={cache}",
             "resources.jobs_at_once=2", "train.epochs=12"]  # fmt: skip
    words = " ".join(f"'{word}'" for word in words)
    script = (
        lines.replace("/absolute/path/to/data", str(drawn))
        .replace("/absolute/path/to/run", str(tmp_path / "run"))
        .replace("--config configs/sweep.yaml", f"--config configs/demo.yaml {words}")
        # What the job prints comes line by line of itself; the command that follows it would not.
        .replace("ray job submit", "PYTHONUNBUFFERED=1 ray job submit")
    ) + f"{sys.executable} -c '{NAMES}' {tmp_path / 'names.json'}"
    home = tmp_path / "home"
    home.mkdir()
    # Short, because the paths of Unix sockets may have 107 characters.
    session = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    # A home and ports of its own: other clusters on this machine must not be touched.
    gcs, dashboard = free_port(), free_port()
    starts = {"head": f"ray start --head --port={gcs} --dashboard-port={dashboard}",
              "second": f"ray start --address=127.0.0.1:{gcs}"}  # fmt: skip
    for name in starts:
        starts[name] += (
            f" --node-name={name} --num-cpus=1 --dashboard-agent-listen-port={free_port()}"
            f" --dashboard-agent-grpc-port={free_port()} --metrics-export-port={free_port()}"
        )
    script = re.sub(r"ray start --head.*", "\n".join(starts.values()), script)
    environment = {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "RAY_TMPDIR": session,
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
    }
    environment.pop("RAY_ADDRESS", None)
    try:
        with subprocess.Popen(
            ["bash", "-ec", script], cwd=ROOT, env=environment, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        ) as process:  # fmt: skip
            limit = threading.Timer(600, process.kill)
            limit.start()
            told = ""
            for line in process.stdout:
                told += line
                if "epoch 1/" in line:
                    # Told while it happens, not when the job is over.
                    assert not (tmp_path / "run" / "scores.json").exists()
            limit.cancel()
    finally:
        end_session(session)
    assert process.returncode == 0, told
    assert told.index("epoch 1/") < told.index("scores: ")
    assert "succeeded" in told
    assert len(submission.read_answers(tmp_path / "run" / "submission.csv")) == 42
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert scores["complete"]
    assert {job["node"] for job in scores["jobs"]} == {"head", "second"}
    names = json.loads((tmp_path / "names.json").read_text())
    assert any(actor[2] == "run-ensemble" for actor in names["actors"]), names
    assert any(str(actor[1]).startswith("maskcls-queue-run-") for actor in names["actors"]), names
    assert "run-lane-0" in names["runs"], names
    for fold in range(2):
        title = f"run:joint-fold{fold}"
        assert f"{title} epoch 1" in names["tasks"], names
        assert f"MapBatches({title})" in names["tasks"], names
        assert any(name.startswith(title) for name in names["data"]), names
