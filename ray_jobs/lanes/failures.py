"""Who is to blame for an error: the job, the machine it ran on, or another worker of the same job.

Only a failure of the job ends the job. A failure of a machine is tried again on another lane, and a
failure of a peer on the same lane: the job goes on from its last epoch.
"""

from __future__ import annotations

import errno
import traceback
from enum import StrEnum

import ray.exceptions

from maskcls.storage.remote import StorageError


class Blame(StrEnum):
    """What failed."""

    JOB = "job"
    MACHINE = "machine"
    PEER = "peer"


class NoAccelerator(RuntimeError):  # noqa: N818 -- users read this name
    """A worker that was given a GPU finds no CUDA."""


_MACHINE_ERRNOS = {
    errno.EIO, errno.ENODEV, errno.ENOSPC, errno.EROFS, errno.ESTALE, errno.ENOTCONN,
}  # fmt: skip
"""A disk that is broken, full, read-only or no longer mounted."""

_PEER_WORDS = ("gloo/transport", "connection closed by peer", "connection reset by peer")
"""What gloo says, in a plain RuntimeError, when another worker of the job is gone or silent."""


def classify(error: BaseException) -> Blame:
    """Who is to blame. An error that nothing is known of is the job's."""
    import torch  # here, since the driver imports this module and does without PyTorch
    import torch.distributed as dist

    if isinstance(error, ray.exceptions.RayTaskError):
        # The code of a task raised it: what counts is what it raised.
        return classify(error.cause) if isinstance(error.cause, Exception) else Blame.JOB
    if isinstance(error, ray.exceptions.UserCodeException):
        return classify(error.__cause__) if error.__cause__ else Blame.JOB
    if type(error) is ray.exceptions.RayError:
        return Blame.JOB  # it stands for an error of a task that could not be sent
    if isinstance(error, NoAccelerator | ray.exceptions.RayError):
        return Blame.MACHINE
    if isinstance(error, torch.AcceleratorError):
        # An assertion in a kernel is an index out of range: wrong on every GPU.
        return Blame.JOB if "device-side assert" in str(error) else Blame.MACHINE
    if isinstance(error, dist.DistError):
        return Blame.PEER
    if isinstance(error, RuntimeError) and any(w in str(error).lower() for w in _PEER_WORDS):
        return Blame.PEER
    if isinstance(error, OSError) and error.errno in _MACHINE_ERRNOS:
        return Blame.MACHINE
    return Blame.JOB


def spoils_process(error: BaseException) -> bool:
    """Whether the process can do no more work: every later call of a broken CUDA context fails."""
    import torch

    return isinstance(error, torch.AcceleratorError) or classify(error) is not Blame.JOB


def reason(error: BaseException) -> str:
    """The error in one line, with its place in the code unless its message is enough."""
    known = isinstance(
        error, ValueError | OSError | FloatingPointError | StorageError | NoAccelerator
    )
    frames = traceback.extract_tb(error.__traceback__)
    where = "" if known or not frames else f" ({frames[-1].filename}:{frames[-1].lineno})"
    return f"{type(error).__name__}: {error}{where}"
