"""Public sets, in tiny folders of the layouts in which they are published."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from maskcls.__main__ import main
from maskcls.data import folds
from maskcls.data.source import Source
from maskcls.data.table import Tables

FILES = {
    "utkface": [
        "UTKFace/25_1_2_20170116174525125.jpg.chip.jpg",
        "UTKFace/116_0_0_20170120134639935.jpg.chip.jpg",
        "UTKFace/39_1_20170116174525125.jpg.chip.jpg",
        "UTKFace/portrait.jpg",
        "part1/25_1_2_20170116174525125.jpg",
    ],
    "fairface": ["train/1.jpg", "train/2.jpg", "val/1.jpg"],
    "all-age-faces": [
        "original images/00000A02.jpg",
        "original images/07380A61.jpg",
        "original images/07381A30.jpg",
        "aglined faces/00000A02.jpg",
        "key points/00000A02.txt",
    ],
    "maskedface-net": [
        "CMFD/00000/00001_Mask.jpg",
        "IMFD/00000/00001_Mask_Nose_Mouth.jpg",
        "IMFD/00000/00002_Mask_Mouth_Chin.jpg",
        "IMFD/00000/00003_Mask_Chin.jpg",
        "IMFD/00000/readme.png",
    ],
}
COLUMNS = ["mask", "gender", "age", "age_band"]
EXPECTED = {
    "utkface": {
        "UTKFace/116_0_0_20170120134639935.jpg.chip.jpg": [-1, 0, 116, 2],
        "UTKFace/25_1_2_20170116174525125.jpg.chip.jpg": [-1, 1, 25, 0],
        "UTKFace/39_1_20170116174525125.jpg.chip.jpg": [-1, 1, 39, 1],
    },
    "fairface": {
        "train/1.jpg": [-1, 0, -1, 2],
        "train/2.jpg": [-1, 1, -1, 0],
        "val/1.jpg": [-1, 1, -1, 2],
    },
    "all-age-faces": {
        "original images/00000A02.jpg": [-1, 1, 2, 0],
        "original images/07380A61.jpg": [-1, 1, 61, 2],
        "original images/07381A30.jpg": [-1, 0, 30, 1],
    },
    "maskedface-net": {
        "CMFD/00000/00001_Mask.jpg": [0, -1, -1, -1],
        "IMFD/00000/00001_Mask_Nose_Mouth.jpg": [1, -1, -1, -1],
        "IMFD/00000/00002_Mask_Mouth_Chin.jpg": [1, -1, -1, -1],
        "IMFD/00000/00003_Mask_Chin.jpg": [1, -1, -1, -1],
    },
}
LICENCES = {
    "utkface": "non-commercial", "fairface": "CC BY 4.0", "all-age-faces": "names none",
    "maskedface-net": "CC BY-NC-SA 4.0",
}  # fmt: skip


@pytest.fixture
def made(tmp_path):
    """A folder with a set in its published layout."""

    def make(name: str) -> Path:
        folder = tmp_path / name
        for file in FILES[name]:
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"photo")
        if name == "fairface":
            head = "file,age,gender,race,service_test\n"
            (folder / "fairface_label_train.csv").write_text(
                head + "train/1.jpg,more than 70,Male,White,True\ntrain/2.jpg,20-29,Female,Black,\n"
                "train/3.jpg,0-2,Female,Black,\n"
            )
            (folder / "fairface_label_val.csv").write_text(head + "val/1.jpg,60-69,Female,,True\n")
        return folder

    return make


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_published_layout_becomes_a_table_that_can_be_trained_on(made, capsys, name, suffix):
    folder = made(name)
    out = folder / f"photos.{suffix}"
    assert main(["table", name, str(folder), "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert LICENCES[name] in told and "please cite: " in told and "20" in told
    photos = Source(folder, Tables((out,))).train().photos.set_index("key")
    found = {
        key: row.tolist() for key, row in zip(photos.index, photos[COLUMNS].to_numpy(), strict=True)
    }
    assert found == EXPECTED[name]


def test_what_is_left_out_is_told(made, capsys):
    for name, left_out in {
        "utkface": ["1 (portrait.jpg)", "1 (25_1_2_20170116174525125.jpg)"],
        "fairface": ["listed, but not there: 1 (train/3.jpg)"],
        "maskedface-net": ["1 (readme.png)", "no face without a mask"],
    }.items():
        folder = made(name)
        main(["table", name, str(folder), "--out", str(folder / "photos.csv")])
        told = capsys.readouterr().out
        assert all(words in told for words in left_out), told


def test_one_face_with_both_masks_is_one_person(made):
    folder = made("maskedface-net")
    main(["table", "maskedface-net", str(folder), "--out", str(folder / "photos.csv")])
    photos = Source(folder, Tables((folder / "photos.csv",))).train().photos
    assert photos["person"].tolist() == ["00001", "00001", "00002", "00003"]


def test_a_table_elsewhere_has_whole_paths(made, tmp_path):
    folder = made("utkface")
    main(["table", "utkface", str(folder), "--out", str(tmp_path / "x" / "photos.csv")])
    assert pd.read_csv(tmp_path / "x" / "photos.csv")["path"].str.startswith(str(folder)).all()


def test_the_competitions_folders_are_a_set_of_the_same_kind(drawn, tmp_path):
    main(["table", "competition", str(drawn), "--out", str(tmp_path / "photos.csv")])
    source = Source(drawn, Tables((tmp_path / "photos.csv",)))
    here, there = source.train().photos, Source(drawn).train().photos
    pd.testing.assert_frame_equal(here.drop(columns="race"), there.drop(columns="race"))
    pd.testing.assert_series_equal(folds.assign(here, 3, 1), folds.assign(there, 3, 1))
    assert (
        source.evaluation().photos["image_id"].tolist()
        == Source(drawn).evaluation().photos["image_id"].tolist()
    )


@pytest.mark.parametrize("name", FILES)
def test_a_folder_without_such_photos_is_refused(tmp_path, capsys, name):
    with pytest.raises(SystemExit):
        main(["table", name, str(tmp_path), "--out", str(tmp_path / "photos.csv")])
    assert "no photo in the layout of" in capsys.readouterr().err
