"""Which photos are one picture: copies, also encoded again, resized or a little brighter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from maskcls.labels import FloatArray, IntArray
from maskcls.quality import appearance
from maskcls.quality.appearance import Fingerprint


def sets(photos: pd.DataFrame, fingerprints: Sequence[Fingerprint]) -> IntArray:
    """The number of the set that each photo is in, [N]: copies of one picture are a set."""
    # Whose seven photos are alike by nature: in eval that may be any two photos.
    owner_N = pd.factorize(photos["side"] + "/" + photos["person"])[0]
    stem_N = pd.factorize(photos["stem"].where(photos["stem"] != "", photos["key"]))[0]
    colours_ND = np.stack([one.colours_D for one in fingerprints]).astype(np.int16)
    set_N = np.arange(len(photos))
    pairs = appearance.near_pairs(
        np.stack([one.hash_W for one in fingerprints]), appearance.COPY_BITS
    )
    for first, second, bits in pairs:
        own = owner_N[first] == owner_N[second]
        # A cut-out copy is meant to look like its original.
        same = own & (bits <= appearance.SAME_BITS) & (stem_N[first] != stem_N[second])
        # What is linked already need not be compared: a data set of one picture has many pairs.
        same &= set_N[first] != set_N[second]
        same[same] = _apart(colours_ND, first[same], second[same]) <= appearance.SAME_COLOURS
        linked = ~own | same
        if linked.any():
            # All links so far, as one to each member of a set.
            rows = np.concatenate([np.arange(len(set_N)), first[linked]])
            columns = np.concatenate([set_N, second[linked]])
            graph = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(len(set_N),) * 2)
            labels = connected_components(graph, directed=False)[1]
            set_N = np.unique(labels, return_index=True)[1][labels]
    return set_N


def _apart(colours_ND: npt.NDArray[np.int16], first: IntArray, second: IntArray) -> FloatArray:
    """Mean difference of two thumbnails in grey levels, for each pair."""
    parts = [
        np.abs(
            colours_ND[first[start : start + 10_000]] - colours_ND[second[start : start + 10_000]]
        ).mean(axis=1)
        for start in range(0, len(first), 10_000)
    ]
    return np.concatenate([np.zeros(0), *parts])
