"""The doctor on two raylets of this machine, of which the second is really wrong in many ways."""

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from tests.conftest import ROOT, TINY
from tests.ray_jobs.cluster.test_existing_clusters import end_session, free_port

pytestmark = pytest.mark.ray
BIN = Path(sys.executable).parent

WRONG_CLOCK = """
import time
right = time.time
time.time = lambda: right() + 5000
"""
OTHER_TIMM = "Metadata-Version: 2.1\nName: timm\nVersion: 0.0.1\n"


def can_hide_folders():
    """Whether a process may have its own view of the disk here, which takes root."""
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


@pytest.fixture
def session(tmp_path):
    """The environment of a cluster of its own; ends it."""
    folder = tempfile.mkdtemp(prefix="doc", dir="/tmp")  # short: it holds Ray's sockets
    home = tmp_path / "home"
    home.mkdir()
    env = {**os.environ, "HOME": str(home), "RAY_TMPDIR": folder, "RAY_AUTH_MODE": "token",
           "PATH": f"{BIN}:{os.environ['PATH']}"}  # fmt: skip
    env.pop("RAY_ADDRESS", None)
    yield env
    end_session(folder)
    shutil.rmtree(folder, ignore_errors=True)


def shell(script, env, timeout_s=180):
    return subprocess.run(["bash", "-ec", script], cwd=ROOT, env=env, capture_output=True,
                          text=True, timeout=timeout_s)  # fmt: skip


def options():
    names = ("--dashboard-agent-listen-port", "--dashboard-agent-grpc-port",
             "--metrics-export-port")  # fmt: skip
    return " ".join(["--num-cpus=1", "--disable-usage-stats",
                     *(f"{name}={free_port()}" for name in names)])  # fmt: skip


def test_a_node_that_is_wrong_in_many_ways_is_told_with_what_to_fix(session, drawn, tmp_path):
    wrong = tmp_path / "site"
    (wrong / "timm-0.0.1.dist-info").mkdir(parents=True)
    (wrong / "timm-0.0.1.dist-info" / "METADATA").write_text(OTHER_TIMM)
    (wrong / "sitecustomize.py").write_text(WRONG_CLOCK)
    run_dir = tmp_path / "shared" / "run"
    run_dir.mkdir(parents=True)
    address = f"127.0.0.1:{(port := free_port())}"
    hides = can_hide_folders()
    hidden = f"mount -t tmpfs none {run_dir.parent}; mount -t tmpfs none {drawn}" if hides else ":"
    second = textwrap.dedent(f"""
        {hidden}
        ulimit -n 900
        export PYTHONPATH={wrong}
        ray start --address={address} --node-name=second --num-gpus=64 {options()}
    """)
    session["SECOND"] = second
    started = shell(
        f"""
        ray get-auth-token --generate > /dev/null
        ray start --head --node-name=first --port={port} --dashboard-port={free_port()} {options()}
        {"unshare --mount" if hides else ""} bash -ec "$SECOND"
        """,
        session,
    )
    assert started.returncode == 0, started.stdout + started.stderr
    command = [sys.executable, "-m", "ray_jobs.doctor", f"data.root={drawn}", f"run.dir={run_dir}",
               f"data.cache={tmp_path / 'cache'}", *TINY]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, env={**session, "RAY_ADDRESS": address},
                          capture_output=True, text=True, timeout=600)  # fmt: skip
    told = done.stdout + done.stderr
    assert done.returncode == 1, told
    assert "Traceback" not in told
    assert "To fix, or a run will break:" in told
    found = " ".join(done.stdout.split("To fix, or a run will break:")[1].split())
    expected = [
        "a process may have 900 open files",
        "its clock is 5000 s ahead of the driver's",
        "timm 0.0.1, the driver has",
        "Ray was started with 64 GPU(s), torch can use",
    ]
    if hides:
        expected += [f"run.dir={run_dir} is not shared with the driver",
                     f"data.root={drawn}: holds other files than the driver's"]  # fmt: skip
    for what in expected:
        assert what in found, told
        # Told of the second node, and of it alone.
        assert found.split(what)[0].rpartition(". ")[2].startswith("second ("), told
    assert "token authentication" not in found
    assert not list(run_dir.iterdir())
    assert not (tmp_path / "cache").exists()
