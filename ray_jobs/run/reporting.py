"""The report of a finished sweep, with heat maps from a lane where there is one."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from maskcls.labels import UInt8Array
from maskcls.reports import gallery
from maskcls.reports import run as report
from maskcls.reports.finished_run import FinishedRun
from maskcls.reports.gallery import Explained
from ray_jobs.lanes.pool import Lanes
from ray_jobs.run.folder import RunFolder
from ray_jobs.training.job import Call

log = logging.getLogger(__name__)


def write(folder: RunFolder, lanes: Lanes | None) -> Path:
    """Write ``report.html`` and return its path."""
    return report.write(folder.path, _explainer(folder, lanes))


def _explainer(folder: RunFolder, lanes: Lanes | None) -> gallery.Explain:
    """How the report gets its heat maps: from a lane where there is one, since this process would
    import PyTorch and timm for them, which takes longer than they do."""
    if lanes is None or folder.uri is not None:  # another node has not fetched all models
        return gallery.explain

    def explain(
        run: FinishedRun, mistakes: pd.DataFrame, photos: Mapping[str, UInt8Array]
    ) -> Explained:
        known = run.only(mistakes["photo"].tolist())
        make = functools.partial(gallery.explain, known, mistakes, photos)
        outcome = lanes.ask(Call("heat maps", make))
        if outcome.report is not None:
            return outcome.report["answer"]
        log.debug("no lane made the heat maps: %s", outcome.reason)
        return make()

    return explain
