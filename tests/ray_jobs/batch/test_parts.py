"""What there is to predict, however it lies there; nothing here starts Ray."""

import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from maskcls.data.preprocess import Preprocessing
from ray_jobs.batch import parts, pipeline


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos" / "b").mkdir(parents=True)
    for name in ("a.jpg", "c.png", "b/d.JPG", "b/e.jpg", "f.webp", "notes.txt"):
        (tmp_path / "photos" / name).write_bytes(name.encode())
    return tmp_path / "photos"


NAMES = ["a.jpg", "b/d.JPG", "b/e.jpg", "c.png", "f.webp"]


def read(listing):
    return [photo for part in listing.parts for photo in part.read()]


def test_a_folder_with_its_sub_folders_comes_in_parts(folder):
    listing = parts.find(folder, 2)
    assert [list(part.names) for part in listing.parts] == [NAMES[:2], NAMES[2:4], NAMES[4:]]
    assert [part.number for part in listing.parts] == [0, 1, 2]
    assert read(listing) == [(name, name.encode(), "ok") for name in NAMES]
    assert listing.photos == 5 and listing.image_ids is None


def test_a_change_of_the_photos_changes_the_digest(folder):
    before = parts.find(folder, 2).digest
    assert parts.find(folder, 2).digest == before
    os.utime(folder / "a.jpg", ns=(1, 1))
    changed = parts.find(folder, 2).digest
    (folder / "g.jpg").write_bytes(b"")
    assert len({before, changed, parts.find(folder, 2).digest}) == 3


def test_photos_to_submit_follow_info_csv(folder, tmp_path):
    (tmp_path / "eval").mkdir()
    folder.rename(tmp_path / "eval" / "images")
    (tmp_path / "eval" / "info.csv").write_text("ImageID,ans\nf.webp,0\ngone.jpg,0\na.jpg,0\n")
    listing = parts.find(tmp_path, 2)
    assert listing.image_ids == ["f.webp", "gone.jpg", "a.jpg"]
    assert [status for *_, status in read(listing)] == ["ok", "missing file", "ok"]
    assert any("gone.jpg" in note for note in listing.notes)


def test_a_table_of_paths_or_of_bytes(folder, tmp_path):
    data = [name.encode() for name in NAMES]
    table = tmp_path / "t.parquet"
    pd.DataFrame({"path": [f"photos/{name}" for name in NAMES]}).to_parquet(table)
    assert read(parts.find(table, 2)) == [
        (f"photos/{name}", content, "ok") for name, content in zip(NAMES, data, strict=True)
    ]
    parquet.write_table(pa.table({"bytes": data, "photo": NAMES}), table, row_group_size=3)
    listing = parts.find(table, 2)
    assert [len(part.names) for part in listing.parts] == [2, 1, 2]
    assert read(listing) == [(n, c, "ok") for n, c in zip(NAMES, data, strict=True)]
    parquet.write_table(pa.table({"bytes": [b"x", None]}), table)
    assert read(parts.find(table, 9)) == [("#0", b"x", "ok"), ("#1", b"", "no bytes in this row")]


def test_what_is_no_place_of_photos_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="a folder of photos"):
        parts.find(tmp_path / "nowhere", 2)
    with pytest.raises(FileNotFoundError, match="no photo here to predict"):
        parts.find(tmp_path, 2)
    table = tmp_path / "t.parquet"
    pd.DataFrame({"file": ["a"]}).to_parquet(table)
    with pytest.raises(ValueError, match="a column `path` or `bytes` is expected"):
        parts.find(table, 2)
    pd.DataFrame({"path": ["s3://bucket/a.jpg"]}).to_parquet(table)
    with pytest.raises(ValueError, match="found a URI"):
        parts.find(table, 2)
    pd.DataFrame({"bytes": np.array([], object)}).to_parquet(table)
    with pytest.raises(FileNotFoundError, match="no rows"):
        parts.find(table, 2)


def test_a_part_of_large_pictures_has_fewer_photos():
    small, large = Preprocessing(32, 24), Preprocessing(2000, 2000)
    assert pipeline.part_size([small], 512) == 512
    assert pipeline.part_size([small, large], 512) == int(48e6 / (2000 * 2000 * 3 + 32 * 24 * 3))
    assert pipeline.part_size([large] * 9, 512) == 1
