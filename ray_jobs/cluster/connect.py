"""The cluster: connect to it, and what nodes it has or may get."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import ray
import ray._private.worker
from ray._private.authentication.authentication_token_setup import (
    maybe_enable_token_auth_if_token_available,
)

from ray_jobs.cluster.nodes import live_nodes, nodes

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


def quiet() -> None:
    """Keep Ray's chatter from the terminal and its waits short; to be called before it starts."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.ERROR)


def connect() -> None:
    """Connect to the cluster that RAY_ADDRESS or a running `ray start` names, else start one here.

    Raises ConnectionError where the named cluster cannot be reached: a second one is never
    started beside it.
    """
    quiet()
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    if address and not _answers(address):
        raise ConnectionError(
            f"RAY_ADDRESS={address}: nothing answers there; start that cluster, or unset "
            "RAY_ADDRESS to run on this machine alone"
        )
    # A cluster that another program of this user started wants the user's token, which Ray itself
    # only thinks of for a cluster that it starts.
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": False,
    }
    try:
        # Not address="auto": that joins whatever another program started for itself alone.
        # The dashboard costs seconds to start, and nothing here asks it.
        context = ray.init(include_dashboard=False, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConnectionError(
            f"cannot use the Ray cluster at {address or 'the last `ray start`'}: {error}"
        ) from None
    live = live_nodes()
    several = len(live) > 1 or len(nodes()) > 1
    if several and not os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        # The other nodes need this code; a submitted job has brought it along already.
        ray.shutdown()
        packages = [str(Path(__file__).parents[1] / name) for name in ("maskcls", "ray_jobs")]
        ray.init(address=context.address_info["gcs_address"],
                 runtime_env={"py_modules": packages}, **options)  # fmt: skip
    # log_to_driver=False still lets the raylet's warnings through, and Ray has no public switch.
    ray._private.worker._worker_logs_enabled = False
    if ray._private.worker.get_dashboard_url():
        # It lists Train runs too, by an actor that stays for as long as the cluster does.
        os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "1")
    if threading.current_thread() is threading.main_thread():
        # As Ctrl-C. Ray's own handler prints a native stack trace, and aborts where a thread gets
        # the signal; a SystemExit inside ``ray.get`` loses its code.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    log.info(
        "Ray: %s, %g CPUs, %g GPUs on %d node(s)",
        "cluster at RAY_ADDRESS" if address else "this machine",
        sum(node.cpus for node in live),
        sum(node.gpus for node in live),
        len(live),
    )


def _answers(address: str, timeout_s: float = 5.0) -> bool:
    """Whether something listens at ``host:port``: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return True  # such as "auto": Ray's own business
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()
    except OSError:
        return False
    return True


def shown(name: str) -> str:
    """``name`` as Ray can show it: its metrics end a run whose name is not ASCII (2.60)."""
    return "".join(letter if letter.isascii() else "_" for letter in name)
