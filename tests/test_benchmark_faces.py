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


def test_boxes_that_masks_move_leak_and_others_do_not(monkeypatch):
    monkeypatch.setattr(faces, "ROUNDS", 2)
    leak, chance = faces.leaks(boxes(0.05))
    assert leak - chance > 0.2
    leak, chance = faces.leaks(boxes(0.0))
    assert abs(leak - chance) < 0.05
    assert 0.25 < chance < 0.42


def test_a_pasted_portrait_is_small_and_stands_before_nobody():
    portrait = np.full((128, 96, 3), (250, 0, 0), np.uint8)
    behind = np.full((128, 96, 3), (0, 0, 250), np.uint8)
    image, (left, top, width, height) = faces.paste(portrait, behind, np.random.default_rng(0))
    assert image.shape == portrait.shape
    share = (image[:, :, 0] > 125).mean()
    assert 0.3**2 * 0.5 < share < 0.6**2 * 0.8
    assert (image[0] == (0, 0, 250)).all()
    rows, columns = np.nonzero(image[:, :, 0] > 125)
    assert left <= columns.min() / 96 < columns.max() / 96 <= left + width
    assert top <= rows.min() / 128 < rows.max() / 128 <= top + height


def test_boxes_are_compared_within_the_portraits_wherever_these_are_pasted():
    rows = [("a/normal.jpg", "normal", 0.2, 0.2, 0.2, 0.2),
            ("a/mask1.jpg", "mask1", 0.6, 0.6, 0.1, 0.1),
            ("a/mask2.jpg", "mask2", 0.2, 0.2, 0.2, 0.2)]  # fmt: skip
    located = pd.DataFrame(rows, columns=["key", "stem", *BOX]).assign(person="a")
    places = {"a/normal.jpg": (0.1, 0.1, 0.4, 0.4), "a/mask1.jpg": (0.55, 0.55, 0.2, 0.2),
              "a/mask2.jpg": (0.3, 0.3, 0.4, 0.4)}  # fmt: skip
    assert faces.wrong_boxes(located, places).tolist() == [False, False, True]
    assert faces.wrong_boxes(located, {}).tolist() == [False, True, False]
