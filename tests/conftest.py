"""One small drawn data set and one small local cluster for all tests that need them."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# One thread a process: tests share few cores with Ray's workers.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Shared machines pause: a slow example is not a wrong one.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """A data root with drawn faces: 42 people to train on, 6 to predict."""
    from maskcls import demo_faces

    root = tmp_path_factory.mktemp("drawn") / "data"
    return demo_faces.draw(root, people=42, eval_people=6, seed=1, height=96, width=72)


@pytest.fixture(scope="session")
def cluster():
    """A cluster of two CPUs on this machine, as the verbs start it."""
    import ray

    from ray_jobs.cluster import quiet

    os.environ.pop("RAY_ADDRESS", None)
    quiet()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
