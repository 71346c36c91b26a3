"""The sure answers of ``pseudo.run``, put beside the photos that a run trains on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from maskcls.config.schema import Config
from maskcls.data import pseudo
from maskcls.data.manifest import Manifest
from maskcls.reports import finished_run
from maskcls.storage import files
from maskcls.storage.place import Place

log = logging.getLogger(__name__)


def with_answers(config: Config, photos: pd.DataFrame, evaluation: Manifest | None) -> pd.DataFrame:
    """The photos, and after them those of ``evaluation`` of which ``pseudo.run`` is sure.

    Raises ValueError where that run has other folds or predicted nothing, FileNotFoundError where
    it is not finished or there is nothing to predict.
    """
    assert config.pseudo.run is not None
    run = finished_run.read(config.pseudo.run)
    theirs = run.photos.drop_duplicates("person").set_index("person")["fold"]
    ours = photos.drop_duplicates("person").set_index("person")["fold"]
    if len(theirs) != len(ours) or not (theirs.reindex(ours.index) == ours).all():
        raise ValueError(
            f"pseudo.run={config.pseudo.run} has other folds, so its answers carry labels of "
            "people that this run validates on: use the same data, run.seed and folds.count"
        )
    if evaluation is None or not run.votes:
        raise FileNotFoundError(
            f"pseudo.run={config.pseudo.run}: there are no photos to predict that it answered"
        )
    answers = pseudo.sure_answers(run.votes, config.pseudo.confidence)
    further = pseudo.further_rows(photos, evaluation.photos, answers)
    return pd.concat([photos, further], ignore_index=True)


def write_manifest(table: Path, place: Place) -> Path:
    """Write manifest.parquet, the table without pseudo-labelled photos, and return its path."""
    path = place.local / "manifest.parquet"
    photos = pseudo.plain(pd.read_parquet(table))
    kept = photos[[name for name in photos if not str(name).startswith("pseudo_")]]
    files.write_table(path, kept)
    place.push(lambda file: file == path.name)
    return path


def counts(config: Config, photos: pd.DataFrame) -> dict[str, Any] | None:
    """What scores.json tells of the pseudo-labels in a table; None where there are none."""
    if config.pseudo.run is None:
        return None
    found = pseudo.counts(photos, config.folds.count)
    counts = ", ".join(f"{name} {number:,.0f}" for name, number in found.items())
    log.info("pseudo-labels: photos to predict that %s is sure of, mean over folds: %s",
             config.pseudo.run, counts)  # fmt: skip
    return {
        "run": str(config.pseudo.run),
        "confidence": config.pseudo.confidence,
        "photos": dict(found),
    }
