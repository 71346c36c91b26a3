from __future__ import annotations

import os
import re
import typing
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maskcls.data.coverage import absent_classes
from maskcls.data.label_fixes import STEMS, LabelFixes, MaskName, load_fixes
from maskcls.data.manifest import read_eval, read_train
from maskcls.labels import Gender, class_names, decode

SHIPPED_FIXES = Path(__file__).parents[3] / "configs" / "label_fixes.yaml"

Write = Callable[..., Path]


@pytest.fixture
def person(tmp_path: Path) -> Write:
    """Writes the folder of a person with photos that are not empty, and returns it."""

    def write(name: str, files: list[str] | None = None) -> Path:
        folder = tmp_path / "train" / "images" / name
        folder.mkdir(parents=True)
        for file in files if files is not None else [f"{stem}.jpg" for stem in STEMS]:
            (folder / file).write_bytes(b"photo")
        return folder

    return write


@pytest.fixture
def eval_photos(tmp_path: Path) -> Write:
    def write(names: list[str], info: bytes | None = None) -> Path:
        folder = tmp_path / "eval" / "images"
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_bytes(b"photo")
        if info is not None:
            (tmp_path / "eval" / "info.csv").write_bytes(info)
        return tmp_path

    return write


def test_labels_come_from_folder_and_file_names(tmp_path: Path, person: Write) -> None:
    person("000001_female_Asian_45")
    manifest = read_train(tmp_path)
    photos = manifest.photos.set_index("key")
    assert len(photos) == 7
    assert not manifest.notes
    row = photos.loc["train/images/000001_female_Asian_45/incorrect_mask.jpg"]
    assert row["path"] == str(
        tmp_path / "train/images/000001_female_Asian_45" / "incorrect_mask.jpg"
    )
    assert (row["person"], row["group"], row["stem"], row["race"], row["fix"], row["status"]) == (
        "000001", "000001", "incorrect_mask", "Asian", "", "ok",
    )  # fmt: skip
    assert (row["gender"], row["age"], row["mask"], row["age_band"]) == (1, 45, 1, 1)
    assert decode(row["joint"]) == {"mask": 1, "gender": 1, "age": 1}
    assert photos["mask"].value_counts().to_dict() == {0: 5, 1: 1, 2: 1}


def test_rows_are_sorted_and_paths_absolute(
    tmp_path: Path, person: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("000003_male_Asian_20", "000001-1_male_Asian_20", "000001_male_Asian_20"):
        person(name)
    monkeypatch.chdir(tmp_path)
    photos = read_train(Path()).photos
    assert photos["key"].is_monotonic_increasing
    assert list(photos.index) == list(range(21))
    assert all(Path(path).is_absolute() and Path(path).is_file() for path in photos["path"])
    assert not photos["key"].str.startswith("/").any()


def test_suffixed_ids_share_a_group_but_are_two_people(tmp_path: Path, person: Write) -> None:
    person("001498_female_Asian_23")
    person("001498-1_male_Asian_23")
    photos = read_train(tmp_path).photos
    assert set(photos["person"]) == {"001498", "001498-1"}
    assert set(photos["group"]) == {"001498"}


@pytest.mark.parametrize("extension", ["jpg", "JPEG", "png", "PpM", "BMP"])
def test_known_extensions_in_any_case(tmp_path: Path, person: Write, extension: str) -> None:
    person("000001_male_Asian_20", [f"{stem}.{extension}" for stem in STEMS])
    assert len(read_train(tmp_path).photos) == 7


@pytest.mark.parametrize(
    ("variants", "count"), [(["original"], 7), (["rembg"], 7), (["original", "rembg"], 14)]
)
def test_variants(tmp_path: Path, person: Write, variants: list[str], count: int) -> None:
    files = [f"{stem}{suffix}.jpg" for stem in STEMS for suffix in ("", "_rembg")]
    person("000001_male_Asian_20", files)
    photos = read_train(tmp_path, variants=variants).photos
    assert len(photos) == count
    assert set(photos["variant"]) == set(variants)
    assert set(photos["stem"]) == set(STEMS)


def test_hidden_files_are_ignored_and_unknown_ones_reported(tmp_path: Path, person: Write) -> None:
    folder = person("000001_male_Asian_20", [*(f"{stem}.jpg" for stem in STEMS), "._mask1.jpg"])
    (folder / "mask6.jpg").touch()
    (folder / "mask1.txt").touch()
    (folder / "mask1.png").mkdir()
    (folder.parent / "Thumbs.db").touch()
    (folder.parent / ".cache").mkdir()
    manifest = read_train(tmp_path)
    assert len(manifest.photos) == 7
    (note,) = manifest.notes
    assert "4 (" in note
    for name in ("mask6.jpg", "mask1.txt", "mask1.png", "Thumbs.db"):
        assert name in note


def test_empty_files_get_a_status(tmp_path: Path, person: Write) -> None:
    (person("000001_male_Asian_20") / "mask3.jpg").write_bytes(b"")
    photos = read_train(tmp_path).photos
    assert photos.loc[photos["status"] != "ok", ["stem", "status"]].to_numpy().tolist() == [
        ["mask3", "empty file"]
    ]


def test_people_with_fewer_photos_are_kept_and_reported(tmp_path: Path, person: Write) -> None:
    person("000001_male_Asian_20", ["mask1.jpg", "normal.jpg"])
    person("000002_male_Asian_20")
    person("000003_male_Asian_20", [])
    manifest = read_train(tmp_path)
    assert len(manifest.photos) == 9
    (note,) = manifest.notes
    assert "000001 (2)" in note
    assert "000003 (0)" in note
    assert "000002" not in note


def test_non_ascii_and_long_paths(tmp_path: Path) -> None:
    root = tmp_path / "größe 얼굴" / ("long" * 50) / ("path" * 50)
    folder = root / "train" / "images" / "000001_female_아시아_45"
    folder.mkdir(parents=True)
    (folder / "mask1.jpg").write_bytes(b"photo")
    photos = read_train(root).photos
    assert photos.loc[0, "race"] == "아시아"
    assert photos.loc[0, "key"] == "train/images/000001_female_아시아_45/mask1.jpg"


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"train/images: no such folder; data\.root"):
        read_train(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"eval/images: no such folder; data\.root"):
        read_eval(tmp_path)


def test_a_folder_too_deep_is_noticed(drawn: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"did you mean {re.escape(str(drawn))}[?]"):
        read_train(drawn / "train")


def test_no_photos(tmp_path: Path, person: Write) -> None:
    person("000001_male_Asian_20")
    with pytest.raises(FileNotFoundError, match=r"no photo of the variants \['rembg'\]"):
        read_train(tmp_path, variants=["rembg"])


def test_folders_that_do_not_parse_are_listed_up_to_ten(tmp_path: Path, person: Write) -> None:
    person("000001_male_Asian_20")
    bad = ["no", "000002_man_Asian_20", "000003_male_Asian", "000004_male_Asian_old",
           "000005_male_Asian_200", "_male_Asian_20", "000006_male_Asian_20 "]  # fmt: skip
    for name in [*bad, *(f"x{number:02}" for number in range(5))]:
        person(name, [])
    with pytest.raises(ValueError, match=r"<id>_<male\|female>_<race>_<age>") as error:
        read_train(tmp_path)
    assert all(name in str(error.value) for name in bad)
    assert "12 (" in str(error.value)
    assert "x04" not in str(error.value)


def test_two_folders_of_one_id(tmp_path: Path, person: Write) -> None:
    person("000001_female_Asian_45")
    person("000001_male_Asian_30")
    with pytest.raises(ValueError, match="000001_female_Asian_45 and 000001_male_Asian_30"):
        read_train(tmp_path)


def test_one_photo_twice(tmp_path: Path, person: Write) -> None:
    person("000001_male_Asian_20", ["mask1.jpg", "mask1.PNG", "normal.jpg"])
    with pytest.raises(ValueError, match=r"000001_male_Asian_20: mask1\.PNG and mask1\.jpg"):
        read_train(tmp_path)


def test_fixes_change_labels_and_say_so(tmp_path: Path, person: Write) -> None:
    for number in range(1, 6):
        person(f"00000{number}_male_Asian_45")
    fixes = LabelFixes(
        swap_incorrect_and_normal=["000001"],
        incorrect_is_worn=["000002"],
        flip_gender=["000001", "000003", "999999"],
        leave_out=["000004"],
    )
    before = read_train(tmp_path).photos
    manifest = read_train(tmp_path, fixes=fixes)
    after = manifest.photos

    assert set(after["person"]) == {"000001", "000002", "000003", "000005"}
    assert list(after.index) == list(range(28))
    labels = after.set_index(["person", "stem"])
    assert labels.loc[("000001", "incorrect_mask"), "mask"] == 2
    assert labels.loc[("000001", "normal"), "mask"] == 1
    assert labels.loc[("000001", "normal"), "fix"] == "incorrect and normal swapped, gender flipped"
    assert labels.loc[("000001", "normal"), "joint"] == 1 * 6 + 1 * 3 + 1
    assert labels.loc[("000002", "incorrect_mask"), "mask"] == 0
    assert labels.loc["000003", "gender"].tolist() == [1] * 7
    untouched = after["fix"] == ""
    pair = after[untouched].merge(before, on="key", suffixes=("", "_before"))
    assert len(pair) == untouched.sum() == 28 - 7 - 1 - 7
    for column in ("mask", "gender", "joint"):
        assert (pair[column] == pair[f"{column}_before"]).all()

    assert any("left out" in note and "000004" in note for note in manifest.notes)
    assert any("not here: 1 (999999)" in note for note in manifest.notes)


def test_each_change_is_told_and_folders_name_people_too(tmp_path: Path, person: Write) -> None:
    person("000001_male_Asian_20")
    person("000002_female_Asian_30")
    fixes = LabelFixes(
        flip_gender=["000001_male_Asian_20", "000002_female_Asian_31"],
        set_age={"000002_female_Asian_30": 61},
    )
    manifest = read_train(tmp_path, fixes=fixes)
    people = manifest.photos.drop_duplicates("person").set_index("person")
    assert people["gender"].to_dict() == {"000001": Gender.FEMALE, "000002": Gender.FEMALE}
    assert people["age"].to_dict() == {"000001": 20, "000002": 61}
    assert manifest.notes == [
        "label fixes for people who are not here: 1 (000002_female_Asian_31)",
        "label fix of 000001: gender flipped",
        "label fix of 000002: age set",
    ]


def test_an_id_and_a_folder_of_one_person_go_together(tmp_path: Path, person: Write) -> None:
    person("000001_male_Asian_05")
    fixes = LabelFixes(
        set_mask={"000001": {"mask1": "not_worn"}, "000001_male_Asian_05": {"mask2": "incorrect"}},
        flip_gender=["000001_male_Asian_05", "000001"],
    )
    photos = read_train(tmp_path, fixes=fixes).photos.set_index("stem")
    assert photos.loc[["mask1", "mask2"], "mask"].tolist() == [2, 1]
    assert set(photos["gender"]) == {Gender.FEMALE}


def test_fixes_of_another_data_set_are_refused(tmp_path: Path, person: Write) -> None:
    person("000020_male_Asian_20")
    shipped = load_fixes(SHIPPED_FIXES)
    with pytest.raises(ValueError, match=r"17 of 18 ids .* another data set, and 1 \(000020\)"):
        read_train(tmp_path, fixes=shipped)
    named = LabelFixes(swap_incorrect_and_normal=["000020_female_Asian_50", "004418_male_Asian_60"])
    assert (read_train(tmp_path, fixes=named).photos["fix"] == "").all()


def test_fixes_of_a_set_of_another_size_are_refused(tmp_path: Path, person: Write) -> None:
    person("000020_male_Asian_20")
    person("000021_male_Asian_20")
    ours = LabelFixes(flip_gender=["000020"], people=2)
    assert (read_train(tmp_path, fixes=ours).photos["fix"] == "gender flipped").sum() == 7
    theirs = LabelFixes(flip_gender=["000020"], people=2700)
    with pytest.raises(ValueError, match=r"a set of 2,700 people .* here are 2: 1 .000020. may be"):
        read_train(tmp_path, fixes=theirs)
    # The name of a folder means nobody else; an id that is not here does no harm.
    for harmless in (["000020_male_Asian_20"], ["000099"]):
        read_train(tmp_path, fixes=LabelFixes(flip_gender=harmless, people=2700))


def test_fixes_set_single_masks_and_ages(tmp_path: Path, person: Write) -> None:
    person("000001_male_Asian_45")
    person("000002_male_Asian_45", ["mask1.jpg"])
    fixes = LabelFixes(
        swap_incorrect_and_normal=["000001"],
        set_mask={
            "000001": {"mask3": "not_worn", "normal": "worn"},
            "000002": {"normal": "worn"},
            "000009": {"normal": "worn"},
        },
        set_age={"000001": 60, "000008": 20},
    )
    manifest = read_train(tmp_path, fixes=fixes)
    labels = manifest.photos.set_index(["person", "stem"]).loc["000001"]
    assert labels["mask"].to_dict() == {
        "mask1": 0, "mask2": 0, "mask3": 2, "mask4": 0, "mask5": 0, "incorrect_mask": 2,
        "normal": 0,
    }  # fmt: skip
    assert set(labels["age"]) == {60}
    assert set(labels["age_band"]) == {2}
    assert labels.loc["normal", "joint"] == 2
    assert labels.loc["normal", "fix"] == "incorrect and normal swapped, mask set, age set"
    assert labels.loc["mask1", "fix"] == "age set"
    assert manifest.photos["age"].tolist() == [60] * 7 + [45]
    assert manifest.photos["age"].dtype == manifest.photos["mask"].dtype == "int64"
    assert any("people who are not here: 2 (000008, 000009)" in note for note in manifest.notes)
    assert any("photos that are not here: 1 (000002/normal)" in note for note in manifest.notes)


def test_fixes_know_every_photo_and_mask_state() -> None:
    named = dict.fromkeys([*STEMS, "worn1", "not_worn12", "photo3"], "worn")
    assert LabelFixes(set_mask={"1": named}).set_mask["1"] == named
    assert typing.get_args(MaskName) == tuple(class_names("mask"))


def test_shipped_fixes_are_read() -> None:
    fixes = load_fixes(SHIPPED_FIXES)
    assert fixes.swap_incorrect_and_normal == ["000020", "004418", "005227"]
    assert fixes.incorrect_is_worn == ["000645", "003574"]
    assert fixes.leave_out == ["003399"]
    assert len(fixes.flip_gender) == 12
    assert {"001498-1", "006359", "006364"} <= set(fixes.flip_gender)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("leave_out: [100020]", r"leave_out\.0: write ids in quotes.*got 100020"),
        ("leave_outs: ['000020']", r"leave_outs: .*known keys: .*leave_out"),
        ("leave_out: '000020'", "leave_out: .*list"),
        ("- a", "file: .*dictionary"),
        ("set_age: {100020: 30}", r"set_age\.100020.*write ids in quotes"),
        ("set_age: {'000020': 120}", r"set_age\.000020: .*119.*got 120"),
        ("set_age: {'000020': old}", r"set_age\.000020: .*integer"),
        ("set_mask: {'000020': {mask9: worn}}", r"set_mask\.000020\.mask9.*'incorrect_mask'"),
        ("set_mask: {'000020': {mask1: off}}", r"set_mask\.000020\.mask1: .*'not_worn'"),
        ("leave_out: [", "not valid YAML"),
    ],
)
def test_bad_fixes(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "fixes.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"(?s)fixes.yaml: .*{message}"):
        load_fixes(path)


def test_fixes_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data\.label_fixes"):
        load_fixes(tmp_path / "none.yaml")


def test_empty_fixes_file_fixes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "fixes.yaml"
    path.write_text("# nothing\n")
    assert load_fixes(path) == LabelFixes()


@pytest.mark.parametrize(
    "info",
    [
        b"ImageID,ans\nb.jpg,0\na.jpg,0\n",
        b"\xef\xbb\xbfImageID,ans\r\nb.jpg,0\r\na.jpg,0\r\n",
    ],
)
def test_eval_follows_the_order_of_info(eval_photos: Write, info: bytes) -> None:
    manifest = read_eval(eval_photos(["a.jpg", "b.jpg"], info))
    assert manifest.photos["image_id"].tolist() == ["b.jpg", "a.jpg"]
    assert manifest.photos["key"].tolist() == ["eval/images/b.jpg", "eval/images/a.jpg"]
    assert (manifest.photos["status"] == "ok").all()
    assert not manifest.notes


def test_eval_without_info_takes_sorted_photos(eval_photos: Write) -> None:
    manifest = read_eval(eval_photos(["b.JPG", "a.png", ".hidden.jpg", "notes.txt"]))
    assert manifest.photos["image_id"].tolist() == ["a.png", "b.JPG"]
    assert "info.csv: not there" in manifest.notes[0]


def test_eval_names_missing_and_extra_photos(eval_photos: Write) -> None:
    info = b"ImageID,ans\ngone.jpg,0\na.jpg,0\n"
    root = eval_photos(["a.jpg", "extra.jpg"], info)
    manifest = read_eval(root)
    assert manifest.photos["status"].tolist() == ["missing file", "ok"]
    missing, extra = manifest.notes
    assert "not there: 1 (gone.jpg)" in missing
    assert "does not list: 1 (extra.jpg)" in extra


@pytest.mark.parametrize("info", [b"ImageID,ans\na.jpg,0\n", None])
def test_eval_names_what_it_does_not_take(eval_photos: Write, info: bytes | None) -> None:
    root = eval_photos(["a.jpg", "scan.tif"], info)
    images = root / "eval" / "images"
    (images / "more").mkdir()
    (images / "dangling.jpg").symlink_to("nowhere")
    (images / "circle.jpg").symlink_to("circle.jpg")
    os.mkfifo(images / "pipe.jpg")
    manifest = read_eval(root)
    assert manifest.photos["image_id"].tolist() == ["a.jpg"]
    note = manifest.notes[-1]
    assert "ignored, no photo by name: 5 (" in note
    for name in ("scan.tif", "more", "dangling.jpg", "circle.jpg", "pipe.jpg"):
        assert name in note


@pytest.mark.parametrize("extension", ["jpg", "JPEG", "png", "ppm", "bmp", "webp"])
def test_formats_are_the_same_in_train_and_eval(
    tmp_path: Path, person: Write, eval_photos: Write, extension: str
) -> None:
    person("000001_male_Asian_20", [f"mask1.{extension}"])
    assert len(read_train(tmp_path).photos) == 1
    root = eval_photos([f"a.{extension}"])
    assert read_eval(root).photos["image_id"].tolist() == [f"a.{extension}"]


CP949 = os.fsdecode("얼굴.jpg".encode("cp949"))


def test_names_that_are_not_utf_8_are_shown_escaped_and_harm_no_other_photo(
    tmp_path: Path, person: Write, eval_photos: Write
) -> None:
    folder = person("000001_male_Asian_20")
    (folder / CP949).write_bytes(b"photo")
    garbled = folder.parent / os.fsdecode("000002_male_얼굴_20".encode("cp949"))
    garbled.mkdir()
    (garbled / "mask1.jpg").write_bytes(b"photo")
    root = eval_photos(["a.jpg"], "ImageID,ans\na.jpg,0\n얼굴.jpg,0\n".encode())
    (root / "eval" / "images" / CP949).write_bytes(b"photo")
    train, evaluation = read_train(tmp_path), read_eval(root)
    assert len(train.photos) == 7
    assert evaluation.photos["status"].tolist() == ["ok", "missing file"]
    for manifest in (train, evaluation):
        manifest.photos.to_parquet(tmp_path / "table.parquet")
        (note,) = [note for note in manifest.notes if "not UTF-8" in note]
        assert note.encode()
        assert r"\xbe\xf3\xb1\xbc.jpg" in note
        assert "unzip -O cp949" in note
    assert r"000002_male_\xbe\xf3\xb1\xbc_20" in " ".join(train.notes)


def test_a_root_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"\xbe\xf3")
    (root / "train" / "images").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"\\xbe\\xf3/train/images: this path is not UTF-8"):
        read_train(root)


def test_line_breaks_and_terminal_codes_in_names_are_shown_escaped(
    tmp_path: Path, person: Write
) -> None:
    (person("000001_male_Asian_20") / "a\nb\x1b[2J.jpg").write_bytes(b"photo")
    (note,) = read_train(tmp_path).notes
    assert r"a\nb\x1b[2J.jpg" in note


@pytest.mark.parametrize(("disk", "listed"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_names_in_another_unicode_form_are_matched(
    eval_photos: Write, disk: Any, listed: Any
) -> None:
    of_disk, of_list = (unicodedata.normalize(form, "é 얼굴.jpg") for form in (disk, listed))
    manifest = read_eval(eval_photos([of_disk], f"ImageID,ans\n{of_list},0\n".encode()))
    assert manifest.photos["image_id"].tolist() == [of_list]
    assert Path(manifest.photos["path"][0]).is_file()
    (note,) = manifest.notes
    assert "Unicode form" in note


def test_an_exact_name_goes_before_another_unicode_form(eval_photos: Write) -> None:
    names = [unicodedata.normalize(form, "é.jpg") for form in ("NFD", "NFC")]
    info = "".join(f"{name},0\n" for name in names)
    manifest = read_eval(eval_photos(names, f"ImageID,ans\n{info}".encode()))
    assert [Path(path).name for path in manifest.photos["path"]] == names
    assert not manifest.notes


def test_people_of_another_unicode_form_are_one_person(tmp_path: Path, person: Write) -> None:
    nfd = unicodedata.normalize("NFD", "é1")
    person(f"{nfd}_male_Asian_20")
    fixes = tmp_path / "fixes.yaml"
    fixes.write_text('flip_gender: ["é1"]', encoding="utf-8")
    assert (read_train(tmp_path, fixes=load_fixes(fixes)).photos["gender"] == 1).all()
    person("é1_male_Asian_30")
    with pytest.raises(ValueError, match="one id must have one folder"):
        read_train(tmp_path)


def test_classes_of_nobody_are_named(tmp_path: Path, person: Write) -> None:
    person("000001_male_Asian_20")
    person("000002_male_Asian_60", ["mask1.jpg"])
    found = read_train(tmp_path).photos
    assert absent_classes(found) == ["gender female", "age from_30_to_59"]
    found.loc[found["stem"] == "normal", "status"] = "empty file"
    assert absent_classes(found)[0] == "mask not_worn"
    fixed = read_train(tmp_path, fixes=LabelFixes(leave_out=["000002"])).photos
    assert "age from_60" in absent_classes(fixed)


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/hostname", "sub/a.jpg", "..", "a.jpg/"])
def test_eval_reads_nothing_outside_its_folder(eval_photos: Write, name: str) -> None:
    root = eval_photos(["a.jpg"], f"ImageID,ans\na.jpg,0\n{name},0\n".encode())
    with pytest.raises(ValueError, match=r"info\.csv: an ImageID is the name of a file"):
        read_eval(root)


@pytest.mark.parametrize(
    "info",
    [b"ImageID,ans\na.jpg,0\na.jpg,0\n", b"ImageID,ans\n,0\na.jpg,0\n", b"image,ans\na.jpg,0\n",
     b"ImageID,ans\na.jpg\n", b"ImageID,ans\n", b"", b"ImageID,ans\na\xff.jpg,0\n"],
)  # fmt: skip
def test_bad_info(eval_photos: Write, info: bytes) -> None:
    with pytest.raises(ValueError, match=r"info\.csv: "):
        read_eval(eval_photos(["a.jpg"], info))


@pytest.mark.parametrize("info", [b"ImageID,ans\nb.jpg,0\n", None])
def test_eval_without_any_photo(eval_photos: Write, info: bytes | None) -> None:
    with pytest.raises(FileNotFoundError, match="no photo to predict"):
        read_eval(eval_photos(["notes.txt"], info))
