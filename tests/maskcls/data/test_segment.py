from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from maskcls.data import segment
from maskcls.data.segment import composited, person_mask

FACE = (0.3, 0.2, 0.4, 0.4)


def person_before_a_wall() -> np.ndarray:
    photo = np.full((256, 192, 3), (40, 160, 60), np.uint8)
    cv2.ellipse(photo, (96, 260), (80, 110), 0, 0, 360, (60, 60, 140), -1)
    cv2.rectangle(photo, (80, 130), (112, 170), (220, 170, 150), -1)
    cv2.ellipse(photo, (96, 100), (42, 56), 0, 0, 360, (220, 170, 150), -1)
    cv2.ellipse(photo, (96, 70), (46, 40), 0, 180, 360, (40, 30, 30), -1)
    for x in (80, 112):
        cv2.circle(photo, (x, 95), 5, (30, 30, 30), -1)
    cv2.ellipse(photo, (96, 128), (16, 6), 0, 0, 180, (150, 60, 60), -1)
    return photo


def test_the_person_stays_and_the_wall_goes() -> None:
    photo = person_before_a_wall()
    mask_HW = person_mask(photo, FACE)
    assert mask_HW.shape == (256, 192)
    assert mask_HW[80:150, 75:117].min() > 0.99
    assert mask_HW[230:, 70:120].mean() > 0.9  # shoulders, which no ellipse of a face holds
    assert mask_HW[:40, :20].mean() < 0.1
    cut = composited(photo, mask_HW, "black")
    assert np.array_equal(cut[80:150, 75:117], photo[80:150, 75:117])
    assert cut[:40, :20].mean() < 10


def test_a_face_always_belongs_to_the_person(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nobody:
        def setInput(self, _: Any) -> None: ...

        def forward(self) -> Any:
            return np.zeros((1, 256, 256, 1), np.float32)

    monkeypatch.setattr(segment, "network", lambda _: Nobody())
    mask_HW = person_mask(person_before_a_wall(), FACE)
    # Rows .2 to .6 and columns .3 to .7 of the photo, a tenth more, and nothing else.
    rows, columns = np.nonzero(mask_HW > 0.5)
    assert rows.min() / 256 == pytest.approx(0.18, abs=0.01)
    assert rows.max() / 256 == pytest.approx(0.62, abs=0.01)
    assert columns.min() / 192 == pytest.approx(0.28, abs=0.01)
    assert columns.max() / 192 == pytest.approx(0.72, abs=0.01)
    assert mask_HW[:40].max() == 0


def test_a_blurred_background_has_its_colours_and_none_of_the_persons() -> None:
    photo = np.zeros((128, 96, 3), np.uint8)
    photo[::2, ::2] = photo[1::2, 1::2] = (0, 200, 0)  # a chessboard, its mean is 100
    mask_HW = np.zeros((128, 96), np.float32)
    mask_HW[32:96, 24:72] = 1
    photo[32:96, 24:72] = (250, 0, 0)
    image = composited(photo, mask_HW, "blur")
    assert np.array_equal(image[32:96, 24:72], photo[32:96, 24:72])
    behind = image[mask_HW == 0]
    assert behind[:, 0].max() <= 2
    assert abs(behind[:, 1].astype(int) - 100).max() <= 8
