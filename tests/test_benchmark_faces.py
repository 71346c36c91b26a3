"""What benchmarks/faces.py measures with: wrong boxes and the leak."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import faces
from maskcls.data.face_table import BOX


def test_overlap_is_intersection_over_union():
    a = np.array([[0, 0, 0.2, 0.2], [0, 0, 0.2, 0.2], [0, 0, 0.1, 0.1], [np.nan] * 4])
    b = np.array([[0.1, 0, 0.2, 0.2], [0, 0, 0.2, 0.2], [0.5, 0.5, 0.1, 0.1], [0, 0, 1, 1]])
    assert faces.overlap(a, b)[:3].tolist() == pytest.approx([1 / 3, 1, 0])
    assert np.isnan(faces.overlap(a, b)[3])


def boxes(shift):
    """70 people with three photos of each mask state; masks move the box down by ``shift``."""
    rng, rows = np.random.default_rng(0), []
    for person in range(70):
        place = rng.normal(0.3, 0.02, 4)
        for mask in (0, 1, 2) * 3:
            box = place + rng.normal(0, 0.005, 4) + [0, shift * mask, 0, 0]
            rows.append((*box, mask, f"p{person}", "normal" if mask == 2 else "mask1"))
    return pd.DataFrame(rows, columns=[*BOX, "mask", "person", "stem"])


def test_boxes_that_masks_move_leak_and_others_do_not():
    leak, chance = faces.leaks(boxes(0.05))
    assert leak - chance > 0.2
    leak, chance = faces.leaks(boxes(0.0))
    assert abs(leak - chance) < 0.05
    assert 0.25 < chance < 0.42


def test_a_pasted_portrait_is_small_and_stands_before_nobody():
    portrait = np.full((128, 96, 3), (250, 0, 0), np.uint8)
    behind = np.full((128, 96, 3), (0, 0, 250), np.uint8)
    image = faces.paste(portrait, behind, np.random.default_rng(0))
    assert image.shape == portrait.shape
    share = (image[:, :, 0] > 125).mean()
    assert 0.3**2 * 0.5 < share < 0.6**2 * 0.8
    assert (image[0] == (0, 0, 250)).all()
