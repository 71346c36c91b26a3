from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from maskcls.data import face_table
from maskcls.data.face_table import BOX, boxes_of, fallback_of, locate, missed
from maskcls.data.faces import CENTRE, Face
from tests.maskcls.data.test_prepared import write_photos

BOXES = [(0.1 * n, 0.1, 0.2, 0.3) for n in range(6)]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Faces 0 to 5 are found but for number 1; lists the searches."""
    searches: list[str] = []

    def find(image_HWC: Any, detector: str) -> Face | None:
        searches.append(detector)
        # write_photos rolls the picture down by its number: black follows on bright.
        number = int(np.diff(image_HWC[:, 0, 1].astype(int), prepend=256).argmin())
        return None if number == 1 else Face(BOXES[number], 0.5 + number / 10)

    monkeypatch.setattr(face_table, "find_face", find)
    return searches


def test_boxes_and_scores_stand_beside_each_photo(tmp_path: Path, looks: list[str]) -> None:
    photos = write_photos(tmp_path / "p")
    located = locate(photos, "centerface", tmp_path / "cache", threads=2)
    assert located["key"].tolist() == photos["key"].tolist()
    assert located[BOX].isna().all(axis=1).tolist() == [False, True, *[False] * 4]
    assert [tuple(row) for row in located[BOX].to_numpy().tolist()][2:] == BOXES[2:]
    assert located["face_score"].tolist()[2:] == [0.7, 0.8, 0.9, 1.0]
    assert (located["face_detector"] == "centerface").all()


def test_every_photo_is_looked_at_once(tmp_path: Path, looks: list[str]) -> None:
    photos, cache, told = write_photos(tmp_path / "p"), tmp_path / "cache", list[Any]()
    assert not face_table.is_cached(photos, "centerface", cache, 1)
    first = locate(photos, "centerface", cache, threads=1, progress=lambda *n: told.append(n))
    assert told == [(n, 6) for n in range(1, 7)]
    assert face_table.is_cached(photos, "centerface", cache, 1)
    again = locate(photos, "centerface", cache, threads=1)
    pd.testing.assert_frame_equal(first, again)
    assert locate(first, "centerface", tmp_path / "other cache", threads=1) is first
    assert len(looks) == 6
    locate(first, "blazeface", cache, threads=1)
    Path(photos["path"][0]).write_bytes(Path(photos["path"][3]).read_bytes())
    locate(photos, "centerface", cache, threads=1)
    assert looks == ["centerface"] * 6 + ["blazeface"] * 6 + ["centerface"] * 6


def test_a_search_that_was_stopped_goes_on(
    tmp_path: Path, looks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, cache = write_photos(tmp_path / "p"), tmp_path / "cache"
    expected = locate(photos, "centerface", tmp_path / "other cache", threads=1)
    monkeypatch.setattr(face_table, "_PART", 2)

    def stop(done: int, _: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        locate(photos, "centerface", cache, threads=1, progress=stop)
    looks.clear()
    found = locate(photos, "centerface", cache, threads=1)
    assert len(looks) == 2  # the last part alone
    pd.testing.assert_frame_equal(found, expected)
    assert not list(cache.glob("*.part*"))


def test_photos_that_cannot_be_used_are_not_missed_faces(tmp_path: Path, looks: list[str]) -> None:
    photos = write_photos(tmp_path / "p")
    Path(photos["path"][4]).write_bytes(b"")
    Path(photos["path"][5]).unlink()
    located = locate(photos, "centerface", tmp_path / "cache", threads=1)
    assert located["face_left"].isna().tolist() == [False, True, False, False, True, True]
    assert missed(located.assign(status=["ok"] * 4 + ["empty file", "missing file"])).tolist() == [
        False, True, *[False] * 4
    ]  # fmt: skip


def located(boxes: list[Any], **columns: Any) -> pd.DataFrame:
    table = pd.DataFrame([box or (np.nan,) * 4 for box in boxes], columns=BOX, dtype=np.float64)
    return table.assign(**columns)


def test_a_missed_face_gets_the_persons_own_box_or_else_the_data_sets() -> None:
    ours, others = (0.1, 0.1, 0.2, 0.2), (0.5, 0.5, 0.4, 0.4)
    table = located(
        [ours, None, ours, others, others, others, None],
        person=["a", "a", "a", "b", "b", "b", "c"],
    )
    fallback = fallback_of(table)
    assert fallback == others
    assert boxes_of(table, fallback) == [ours, ours, ours, others, others, others, others]
    # Whose an eval photo is nobody knows.
    assert boxes_of(table.drop(columns="person"), CENTRE)[1] == CENTRE


def test_without_any_face_the_middle_is_taken() -> None:
    table = located([None, None], person=["a", "b"])
    assert boxes_of(table, fallback_of(table)) == [CENTRE, CENTRE]


def test_a_detector_that_cannot_be_used_is_told_before_any_photo_is_read(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "p")
    with pytest.raises(FileNotFoundError, match=r"image\.detector=/nowhere\.onnx"):
        locate(photos, "/nowhere.onnx", tmp_path / "cache", threads=1)
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"no network")
    with pytest.raises(ValueError, match=r"broken\.tflite"):
        locate(photos, str(broken), tmp_path / "cache", threads=1)
