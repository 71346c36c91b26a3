"""Who is to blame for an error."""

import errno

import pytest
import ray.exceptions
import torch
import torch.distributed as dist

from maskcls.storage.remote import StorageError
from ray_jobs.lanes.failures import Blame, NoAccelerator, classify, spoils_process


def of_task(error):
    """As ``ray.get`` raises it."""
    return ray.exceptions.RayTaskError("task", "traceback", error).as_instanceof_cause()


GLOO = (
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer "
    "[127.0.0.1]:1234"
)


@pytest.mark.parametrize(
    ("error", "blame"),
    [
        (ValueError("model.name: unknown"), Blame.JOB),
        (FloatingPointError("the training loss became nan"), Blame.JOB),
        (torch.OutOfMemoryError("CUDA out of memory"), Blame.JOB),
        (RuntimeError("shapes cannot be multiplied"), Blame.JOB),
        (FileNotFoundError(errno.ENOENT, "no such file"), Blame.JOB),
        (StorageError("s3://bucket: no such bucket"), Blame.JOB),
        (of_task(ValueError("a photo is damaged")), Blame.JOB),
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), Blame.JOB),
        (torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"), Blame.MACHINE),
        (NoAccelerator("no CUDA"), Blame.MACHINE),
        (OSError(errno.ENOSPC, "No space left on device"), Blame.MACHINE),
        (of_task(OSError(errno.EIO, "Input/output error")), Blame.MACHINE),
        (ray.exceptions.WorkerCrashedError(), Blame.MACHINE),
        (ray.exceptions.NodeDiedError("the node died"), Blame.MACHINE),
        (dist.DistBackendError("NCCL error: remote process exited"), Blame.PEER),
        (dist.DistNetworkError("failed to recv, got 0 bytes"), Blame.PEER),
        (RuntimeError(GLOO), Blame.PEER),
    ],
)
def test_who_is_to_blame(error, blame):
    assert classify(error) is blame


def test_a_broken_cuda_context_ends_the_process_also_where_the_job_broke_it():
    assert spoils_process(torch.AcceleratorError("CUDA error: device-side assert triggered"))
    assert spoils_process(RuntimeError(GLOO))
    assert not spoils_process(ValueError("model.name: unknown"))
