"""Where photos and labels come from: the competition's folders, or tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from maskcls.data import manifest, table, table_photos
from maskcls.data.label_fixes import LabelFixes
from maskcls.data.manifest import Manifest
from maskcls.data.table import Parsed, Tables
from maskcls.labels import AGE_BAND_STARTS, AgeLimits


@dataclass(frozen=True)
class Source:
    """Photos under ``root`` in the competition's folders or, where there are ``tables``, in those.

    ``parsed`` is what the tables say, ``stores`` are local copies of what the URIs in them begin
    with, and ``variants`` are for folders.
    """

    root: Path
    tables: Tables | None = None
    parsed: Parsed | None = None
    stores: Mapping[str, Path] = field(default_factory=dict)
    variants: Sequence[str] = ("original",)
    age_limits: AgeLimits = AGE_BAND_STARTS

    @cached_property
    def _located(self) -> tuple[pd.DataFrame, list[str]]:
        """Raises what ``table.parse`` and ``table_photos.located`` raise."""
        assert self.tables is not None
        return table_photos.located(self._parsed, self.tables, self.root, self.stores)

    @cached_property
    def _parsed(self) -> Parsed:
        assert self.tables is not None
        return self.parsed or table.parse(self.tables)

    def train(self, fixes: LabelFixes | None = None) -> Manifest:
        """The photos to train on. Raises ValueError or FileNotFoundError where they cannot be
        used."""
        if self.tables is None:
            return manifest.read_train(
                self.root, variants=self.variants, fixes=fixes, age_limits=self.age_limits
            )
        rows, notes = self._located
        return table_photos.train(rows, self.tables, [*self._parsed.notes, *notes], fixes)

    def evaluation(self) -> Manifest | None:
        """The photos to predict; None where there are none."""
        if self.tables is not None:
            return table_photos.evaluation(self._located[0])
        return manifest.read_eval(self.root) if (self.root / "eval").is_dir() else None

    def to_predict(self) -> Manifest:
        """The rows of the tables to predict, whatever is known of them: those of the split eval, or
        all where none is. Raises as ``train`` does."""
        rows, notes = self._located
        chosen = rows[rows["split"] == 1]
        kept = rows if chosen.empty else chosen
        return Manifest(kept[["key", "path"]].reset_index(drop=True), notes)

    @property
    def name(self) -> str:
        """What to call the data set."""
        return self.tables.paths[0].stem if self.tables else self.root.absolute().name
