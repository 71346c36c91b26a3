"""Photos of unknown people that are one picture stay in one fold."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from maskcls.config import layers
from maskcls.data.manifest import Manifest
from maskcls.labels import IntArray
from maskcls.progress import Progress
from maskcls.storage import files
from maskcls.storage.remote import file_state

log = logging.getLogger(__name__)

MOST: Final = 100_000
"""Photos among which copies are looked for: each is compared with each, a minute for so many."""


def together(found: Manifest, cache: Path, *, look: bool) -> Manifest:
    """The manifest with a ``group`` for each set of copies, where photos are without a person.

    The sets are kept in ``cache``, so that photos are decoded once. Without ``look`` they are used
    where they are known already. What is not looked for is noted.
    """
    photos = found.photos
    alone = photos["person"] == photos["key"]
    if not alone.any():
        return found
    if len(photos) > MOST:
        note = (
            f"near-duplicates are not looked for among {len(photos):,} photos, the limit is "
            f"{MOST:,}: copies of one picture may stand in several folds. A column person or group "
            "keeps them together"
        )
        return replace(found, notes=[*found.notes, note])
    kept = cache / "copies" / f"{_digest(photos)}.parquet"
    if not kept.is_file() and not look:
        note = "near-duplicates are looked for in the run itself: folds may change a little"
        return replace(found, notes=[*found.notes, note])
    if not kept.is_file():
        table = pd.DataFrame({"key": photos["key"], "set": _sets(photos)})
        kept.parent.mkdir(parents=True, exist_ok=True)
        files.write_table(kept, table)
    set_N = files.read_parquet(kept)["set"].to_numpy()
    return _grouped(found, set_N)


def _grouped(found: Manifest, set_N: IntArray) -> Manifest:
    photos = found.photos
    code_N, names = pd.factorize(photos["group"])
    size = len(names)
    # A graph of groups: each is linked with the group of the first photo of its sets.
    first_N = code_N[pd.Series(np.arange(len(set_N))).groupby(set_N).transform("first")]
    # Here, since few data sets need them and each command would import them.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(code_N), bool), (code_N, first_N)), shape=(size, size))
    component_G = connected_components(graph, directed=False)[1]
    leader_G = pd.Series(np.arange(size)).groupby(component_G).transform("first").to_numpy()
    group = pd.Series(np.asarray(names)[leader_G[code_N]], index=photos.index)
    sizes = pd.Series(set_N).value_counts()
    several = int((sizes > 1).sum())
    notes = found.notes
    if several:
        notes = [
            *notes,
            f"{several:,} pictures stand {int(sizes[sizes > 1].sum()):,} times among the photos: "
            "copies are kept in one fold (data.near_duplicates; `maskcls check` shows them)",
        ]
    return Manifest(photos.assign(group=group), notes)


def _digest(photos: pd.DataFrame) -> str:
    """Changes when a file does."""
    state = [file_state(Path(path)) for path in photos["path"]]
    return layers.digest("copies 1", photos[["key", "person"]].to_numpy().tolist(), state)


def _sets(photos: pd.DataFrame) -> IntArray:
    from maskcls.quality import appearance  # imports imagehash, which few runs need
    from maskcls.quality.copies import sets

    every = appearance.fingerprints(
        photos["path"].tolist(), os.cpu_count() or 1, Progress("looked for near-duplicates")
    )
    # Blank ones are like each other. Which ones cannot be read is told when they are prepared.
    found = {
        row: one
        for row, one in enumerate(every)
        if isinstance(one, appearance.Fingerprint) and one.contrast >= appearance.FLAT
    }
    set_N = np.arange(len(photos))
    if rows := list(found):
        chosen = photos.iloc[rows].assign(side="train").reset_index(drop=True)
        set_N[rows] = np.asarray(rows)[sets(chosen, list(found.values()))]
    return set_N
