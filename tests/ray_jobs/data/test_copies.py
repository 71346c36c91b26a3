"""Copies of one picture among photos of unknown people stay in one fold."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from maskcls.data.source import Source
from maskcls.data.table import Tables
from ray_jobs.data import copies


def portrait(seed):
    """A picture like no other: smooth noise, as perceptual hashes need low frequencies."""
    rough = np.random.default_rng(seed).integers(0, 256, (16, 12, 3), dtype=np.uint8)
    return cv2.resize(rough, (96, 128), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def found(tmp_path):
    """A manifest of six pictures, of which 0 and 1 are there again, smaller and encoded again."""
    names = [f"{number}.png" for number in range(6)]
    for number, name in enumerate(names):
        cv2.imwrite(str(tmp_path / name), portrait(number))
    for number in range(2):
        small = cv2.resize(portrait(number), (72, 96), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(tmp_path / f"copy{number}.jpg"), small, [cv2.IMWRITE_JPEG_QUALITY, 80])
        names.append(f"copy{number}.jpg")
    people = {"3.png": "ann", "4.png": "ann"}
    rows = [f"{name},{people.get(name, '')}" for name in names]
    (tmp_path / "photos.csv").write_text("path,person\n" + "\n".join(rows) + "\n")
    return Source(tmp_path, Tables((tmp_path / "photos.csv",))).train()


def groups(manifest):
    return manifest.photos.groupby("group")["key"].agg(sorted).sort_values().tolist()


def test_copies_are_one_group_and_people_stay_together(found, tmp_path):
    together = copies.together(found, tmp_path / "cache", look=True)
    assert sorted(groups(together)) == [
        ["0.png", "copy0.jpg"], ["1.png", "copy1.jpg"], ["2.png"], ["3.png", "4.png"], ["5.png"],
    ]  # fmt: skip
    assert any("2 pictures stand 4 times" in note for note in together.notes)


def test_they_are_looked_for_once_and_again_where_a_file_changed(found, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    assert any("in the run itself" in n for n in copies.together(found, cache, look=False).notes)
    first = groups(copies.together(found, cache, look=True))
    monkeypatch.setattr(copies, "_sets", lambda photos: pytest.fail("decoded again"))
    assert groups(copies.together(found, cache, look=False)) == first
    cv2.imwrite(str(tmp_path / "2.png"), portrait(0))
    monkeypatch.undo()
    assert ["0.png", "2.png", "copy0.jpg"] in groups(copies.together(found, cache, look=True))


def test_what_is_not_looked_for_is_told(found, tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "MOST", 7)
    told = copies.together(found, tmp_path / "cache", look=True).notes
    assert any("not looked for among 8 photos, the limit is 7" in note for note in told)
    with_people = found.photos.assign(person="somebody")
    unchanged = copies.together(type(found)(with_people, []), tmp_path / "cache", look=True)
    assert unchanged.photos is with_people
