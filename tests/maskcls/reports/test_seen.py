import pandas as pd
import pytest

from maskcls.data.face_table import BOX
from maskcls.reports import run as report
from maskcls.reports import seen
from tests import made_run
from tests.conftest import faults_of


@pytest.fixture
def run(tmp_path):
    """A run whose models crop to the face; of its first person's photos none has one."""
    folder = made_run.make(tmp_path, people=12, recipe={"image": {"crop": "face"}})
    path = folder / "manifest.parquet"
    photos = pd.read_parquet(path)
    photos[BOX] = (0.25, 0.2, 0.5, 0.5)
    photos = photos.assign(face_score=0.9, face_detector="centerface")
    photos.loc[photos["person"] == "000000", [*BOX, "face_score"]] = None
    photos.to_parquet(path, index=False)
    return folder


def test_a_report_counts_missed_faces_and_shows_them(browser, run):
    path = report.write(run)
    text = path.read_text(encoding="utf-8")
    assert "was found: 7 of 84 (5 worn, 1 incorrect, 1 not worn)" in text
    assert text.count('<div class="seen">') == seen.SHOWN
    assert text.count("no face found: usual place") == 2 * (seen.SHOWN // 2)  # and alt texts
    assert "<code>mask, gender, age</code>" in text
    assert faults_of(browser, path, 390) == []


def test_without_a_search_for_faces_nothing_is_told(tmp_path, without_plots):
    folder = made_run.make(tmp_path, people=12, photos=False, weights=False)
    assert "what the models see" not in report.write(folder).read_text(encoding="utf-8")


def test_photos_that_are_gone_are_left_out(run):
    photos = pd.read_parquet(run / "manifest.parquet").assign(side="train", path="/nowhere.jpg")
    assert seen.views(photos) == []
