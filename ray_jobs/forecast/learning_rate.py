"""A learning-rate range test of one model, on a lane as it would be trained."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from maskcls.config.schema import Config
from maskcls.learning import range_test
from maskcls.progress import Progress
from maskcls.reports import learning_rate as report
from maskcls.storage import files
from ray_jobs.cluster import nodes, packing
from ray_jobs.cluster.errors import RunFailed
from ray_jobs.lanes import pool
from ray_jobs.lanes.records import Event
from ray_jobs.training.job import Job

log = logging.getLogger(__name__)


def find(config: Config, folder: Path, job: Job) -> float:
    """Try the rates, write ``range_test.csv`` and ``range_test.svg`` in ``folder``, say which rate
    is suggested, and return it.

    Raises RunFailed where the job fails, and ValueError where its loss falls at no rate.
    """
    plan = packing.plan(config.resources, 1, nodes.nodes())
    with pool.lanes(plan, config.resources, folder=folder) as lanes:
        tried = replace(job, purpose="find lr")
        outcome = lanes.run([tried], _Steps(), last=True)[job.name]
    if outcome.report is None:
        raise RunFailed(f"{job.name}: {outcome.reason}")
    losses_S = outcome.report["losses"]
    rates_S = [range_test.LOWEST * range_test.factor(number) for number in range(len(losses_S))]
    tried_rates = pd.DataFrame(
        {"lr": rates_S, "loss": losses_S, "smoothed": range_test.smoothed(losses_S)}
    )
    files.write_table(folder / "range_test.csv", tried_rates)
    rate = range_test.suggestion(losses_S)
    report.write(folder / "range_test.svg", tried_rates, rate)
    log.info("the loss falls up to a rate of about %.1e: begin with train.lr=%.1e", 2 * rate, rate)
    log.info("curve: %s", folder / "range_test.svg")
    return rate


class _Steps:
    """Shows how many steps are done."""

    def __init__(self) -> None:
        self._line = Progress("starting workers")
        self._begun = False

    def __call__(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.kind == "steps":
                if not self._begun:
                    self._begun, self._line = True, Progress("steps")
                self._line(event.values["done"], event.values["total"])
        if not self._begun:
            self._line.wait()
