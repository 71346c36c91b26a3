"""The cluster: connect to it, and what nodes it has or may get."""

from __future__ import annotations

import logging
import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from ray_jobs.cluster import address, ray_internals
from ray_jobs.cluster.address import Address
from ray_jobs.cluster.nodes import Node, live_nodes, nodes

log = logging.getLogger(__name__)
_QUIET = {
    # Ray's own progress and warnings stay out of the user's terminal; its logs keep them.
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Notices a finished or dead worker within 0.2 s instead of 2 s.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # A lane waits for its worker, or for a node, as long as other lanes work: the queue ends a run
    # in which none does.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "1000000",
    # One process less a lane; a preempted node ends its jobs, which then go on elsewhere.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Workers keep the working directory, so that relative paths mean what they say.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Under `uv run` every worker would otherwise enter uv again.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


_OPTIONS: dict[str, Any] = {
    "log_to_driver": False,
    "logging_level": logging.ERROR,
    "configure_logging": False,
}
LEAST_ADDRESS_SPACE = 6 * 2**30
"""Bytes of `ulimit -v`: Ray's processes reserve more than they use. With 4 GB it did not start,
with 8 GB it did (2.60, 24 GB of memory)."""

SLOW_START = "timed out during startup"
"""What Ray says where its processes were not up within 30 s, a time that nothing can set (2.60)."""


def quiet() -> None:
    """Keep Ray's chatter from the terminal and its waits short; to be called before it starts."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.ERROR)


def connect() -> None:
    """Connect to the cluster that RAY_ADDRESS or a running `ray start` names, else start one here.

    Raises ConnectionError where the named cluster cannot be reached, since a second one is never
    started beside it, and where none can be started here; says why and what to do.
    """
    quiet()
    if ray.is_initialized():
        return
    named = address.find()
    if named:
        address.check(named)
        context = _join(named)
    else:
        context = _start()
    live = live_nodes()
    several = len(live) > 1 or len(nodes()) > 1
    if several and not os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        # The other nodes need this code; a submitted job has brought it along already.
        ray.shutdown()
        packages = [str(Path(__file__).parents[2] / name) for name in ("maskcls", "ray_jobs")]
        ray.init(address=context.address_info["gcs_address"],
                 runtime_env={"py_modules": packages}, **_OPTIONS)  # fmt: skip
    ray_internals.silence_worker_logs()
    if ray_internals.dashboard_url():
        # It lists Train runs too, by an actor that stays for as long as the cluster does.
        os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "1")
    if threading.current_thread() is threading.main_thread():
        # As Ctrl-C. Ray's own handler prints a native stack trace, and aborts where a thread gets
        # the signal; a SystemExit inside ``ray.get`` loses its code.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    log.info("%s", summary(named, live))


def summary(named: Address | None, live: list[Node]) -> str:
    """What this program is connected to, in a line."""
    what = "a cluster of its own on this machine"
    if named:
        what = f"cluster at {'RAY_ADDRESS' if named.file is None else named.text}"
    cpus, gpus = sum(node.cpus for node in live), sum(node.gpus for node in live)
    return f"Ray: {what}, {cpus:g} CPUs, {gpus:g} GPUs on {len(live)} node(s)"


def _join(named: Address) -> Any:
    try:
        # Without an address Ray finds ``named`` itself. Not address="auto": that also joins what
        # another program started for itself alone.
        return ray.init(**_OPTIONS)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConnectionError(
            f"cannot use the Ray cluster at {named.source}={named.text}: {error}"
        ) from None


@contextmanager
def _silent() -> Iterator[None]:
    """Ray says nothing itself: where it does not start, its guesses (broken dependencies, an issue
    to report) hide the reason, which comes with the error."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _start() -> Any:
    """A cluster on this machine alone, for as long as this program runs. Tried twice: where other
    programs keep all cores busy, Ray's processes may be too late the first time."""
    temp = ray_internals.address_file().parent
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit not in (resource.RLIM_INFINITY, -1) and limit < LEAST_ADDRESS_SPACE:
        raise ConnectionError(
            f"Ray cannot start with {limit / 2**30:.1f} GB of virtual memory (`ulimit -v "
            f"{limit // 1024}`): run `ulimit -v unlimited`, or raise it where it is set"
        )
    _check_writable(temp)
    log.info("starting Ray on this machine: some seconds, on a busy machine a minute or more")
    for attempt in (1, 2):
        try:
            with _silent():
                # The dashboard costs seconds to start, and nothing here asks it.
                return ray.init(include_dashboard=False, **_OPTIONS)
        except OSError as error:
            raise ConnectionError(_os_fault(error, temp)) from None
        except Exception as error:  # Ray raises this very class
            if SLOW_START not in str(error):
                raise ConnectionError(f"Ray did not start on this machine: {error}") from None
            ray.shutdown()
            if attempt == 1:
                log.info("Ray was slow to start (is this machine busy?): one more try")
    raise ConnectionError(
        "Ray did not start on this machine, twice: its processes were not up within 30 s. Wait "
        f"until other programs need less of the CPUs and memory; Ray's logs are in {temp}"
    )


def _check_writable(temp: Path) -> None:
    """Raises ConnectionError where Ray could not keep its files."""
    probe = temp / f".write-test-{os.getpid()}"
    try:
        temp.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(bytes(2**16))
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise ConnectionError(_os_fault(error, temp)) from None


def _os_fault(error: OSError, temp: Path) -> str:
    """What a user can do about a temporary folder that Ray cannot use."""
    if "AF_UNIX" in str(error):
        return (
            f"Ray's temporary folder {temp} has too long a path for its sockets: set RAY_TMPDIR to "
            "a shorter folder, such as RAY_TMPDIR=/tmp"
        )
    return (
        f"Ray cannot keep its files in {temp}: {error.strerror or error}. Make it writable or free "
        "space there, or set RAY_TMPDIR to another folder with a short path"
    )
