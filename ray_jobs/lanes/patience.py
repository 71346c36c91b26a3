"""How long jobs may wait for a worker before the run gives up."""

from __future__ import annotations

import time

from maskcls.config.schema import Resources


class Patience:
    """Since when no job could go on, against the limits of ``resources``."""

    def __init__(self) -> None:
        self._last_work = self._last_without_node = time.monotonic()

    def over(
        self, limits: Resources, waiting: int, *, works: bool, has_node: bool, busy: bool
    ) -> str | None:
        """Why no job can go on, where ``waiting`` jobs have waited for too long; else None.

        ``works``: whether a job runs. ``has_node``: whether there is a node that a worker could
        start on. ``busy``: others have what a worker needs, and waiting for that has no limit.
        """
        now = time.monotonic()
        if works or not waiting or busy:
            self._last_work = now
        if not has_node:
            self._last_without_node = now
        if not has_node and now - self._last_work > limits.node_timeout_s:
            return (
                f"{waiting} job(s) wait and no node for them came within {limits.node_timeout_s:g} "
                "s (resources.node_timeout_s): `ray status` tells what the autoscaler waits for"
            )
        if now - max(self._last_work, self._last_without_node) > limits.start_timeout_s:
            return (
                f"{waiting} job(s) wait and no worker took one within {limits.start_timeout_s:g} s "
                "(resources.start_timeout_s): is the cluster busy, or do workers die as they start?"
            )
        return None
