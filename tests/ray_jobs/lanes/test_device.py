"""What a worker computes on; without Ray."""

import pytest
import torch

from ray_jobs.lanes import worker_loop
from ray_jobs.lanes.failures import NoAccelerator
from ray_jobs.lanes.worker_loop import choose_device


@pytest.fixture
def set_devices(monkeypatch):
    """What ``set_device`` was called with, on a machine with GPUs."""
    called = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", called.append)
    monkeypatch.setattr(worker_loop.ray.train.torch, "get_device", lambda: torch.device("cuda", 1))
    return called


def test_a_worker_without_gpus_leaves_those_of_the_machine_alone(set_devices):
    assert choose_device(0, allow_cpu=False) == torch.device("cpu")
    assert set_devices == []


def test_a_worker_with_a_gpu_uses_it(set_devices):
    assert choose_device(0.5, allow_cpu=False) == torch.device("cuda", 1)
    assert set_devices == [torch.device("cuda", 1)]


def test_a_gpu_that_cannot_be_used_is_refused_unless_cpus_are_allowed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(worker_loop, "node_name", lambda: "gpu-7")
    with pytest.raises(NoAccelerator, match=r"node gpu-7: .* resources\.allow_cpu=true"):
        choose_device(1, allow_cpu=False)
    assert choose_device(1, allow_cpu=True) == torch.device("cpu")
