"""Tables of photos: what they may say, what they may not, and that they say what folders say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskcls.data import ages, coverage, folds
from maskcls.data.label_fixes import STEMS, LabelFixes
from maskcls.data.source import Source
from maskcls.data.table import Tables
from maskcls.labels import MISSING, Gender, Mask, Task, class_names

LIMITS = (30, 60)


@pytest.fixture
def photo(tmp_path):
    """Make files of these names, each with something in it."""

    def make(*names: str) -> None:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"photo")

    return make


@pytest.fixture
def table(tmp_path, photo):
    """Write a CSV with these lines, and the photos that its first column names; its source."""

    def write(text: str, name: str = "photos.csv", files: bool = True, **options) -> Source:
        (tmp_path / name).write_text(text, encoding="utf-8")
        if files:
            photo(*(line.split(",")[0] for line in text.strip().split("\n")[1:]))
        return Source(tmp_path, Tables((tmp_path / name,), **options))

    return write


def as_table(source: Source, path: Path) -> None:
    """Write what folders say as a table."""
    train, evaluation = source.train().photos, source.evaluation()
    assert evaluation is not None
    told = {"path": train["key"], "person": train["person"], "age": train["age"]}
    told["mask"] = [Mask(k).name.lower() for k in train["mask"]]
    told["gender"] = [Gender(k).name.lower() for k in train["gender"]]
    rows = pd.concat(
        [
            pd.DataFrame(told).assign(split="train").sample(frac=1, random_state=0),
            pd.DataFrame({"path": evaluation.photos["key"], "split": "eval"}),
        ]
    )
    (rows.to_parquet if path.suffix == ".parquet" else rows.to_csv)(path, index=False)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_folders_written_as_a_table_make_the_same_manifests(drawn, tmp_path, suffix):
    path = tmp_path / f"photos{suffix}"
    as_table(Source(drawn), path)
    source = Source(drawn, Tables((path,)))

    there, here = Source(drawn).train().photos, source.train().photos
    pd.testing.assert_frame_equal(here.drop(columns="race"), there.drop(columns="race"))
    pd.testing.assert_series_equal(folds.assign(here, 3, 42), folds.assign(there, 3, 42))
    columns = ["key", "path", "image_id", "status"]
    pd.testing.assert_frame_equal(
        source.evaluation().photos[columns], Source(drawn).evaluation().photos[columns]
    )


def test_label_fixes_work_on_a_table_as_on_folders(drawn, tmp_path):
    as_table(Source(drawn), tmp_path / "photos.csv")
    person = Source(drawn).train().photos["person"][0]
    fixes = LabelFixes(
        swap_incorrect_and_normal=[person], set_mask={person: {"mask3": "not_worn"}},
        flip_gender=[person], set_age={person: 61},
    )  # fmt: skip
    there = Source(drawn).train(fixes).photos
    here = Source(drawn, Tables((tmp_path / "photos.csv",))).train(fixes).photos
    pd.testing.assert_frame_equal(here.drop(columns="race"), there.drop(columns="race"))
    assert (here["fix"] != "").sum() == 7


def test_columns_and_words_are_translated(table):
    source = table(
        "file,who,wearing,sex\na.jpg,1,yes,F\nb.jpg,1,badly,F\nc.jpg,2,no,M\nd.jpg,2,?,m\n",
        columns={"path": "file", "person": "who", "mask": "wearing", "gender": "sex"},
        values={
            "mask": {"yes": "worn", "badly": "incorrect", "no": "not_worn", "?": ""},
            "gender": {"F": "female", "M": "male"},
        },
    )
    photos = source.train().photos
    assert photos["mask"].tolist() == [0, 1, 2, MISSING]
    assert photos["gender"].tolist() == [1, 1, 0, 0]
    assert photos["person"].tolist() == ["1", "1", "2", "2"]
    assert (photos["age"] == MISSING).all() and (photos["joint"] == MISSING).all()


def test_names_of_columns_may_be_written_large_and_classes_as_numbers(table):
    photos = table("Path,Gender,MASK,Age\na.jpg,1,2,25.0\nb.jpg,Male,Not_Worn,\n").train().photos
    assert photos[["gender", "mask", "age"]].to_numpy().tolist() == [[1, 2, 25], [0, 2, MISSING]]


BAD = {
    "unknown column": ("path,gendr\na.jpg,male\n", {}, "unknown column 'gendr'; if it is gender"),
    "no path": ("file,mask\na.jpg,worn\n", {}, "no column path.*data.columns={path: NAME}"),
    "a column that is not there": (
        "path,wearing\na.jpg,worn\n",
        {"columns": {"mask": "wering"}},
        "no column 'wering'.*did you mean 'wearing'",
    ),
    "an unknown word": (
        "path,mask\na.jpg,worn\nb.jpg,wornn\n",
        {},
        "mask 'wornn' in lines 3: .*did you mean worn.*data.values={mask: {wornn: worn}}",
    ),
    "an age below 0": ("path,age\na.jpg,-3\n", {}, "age '-3' in lines 2: years go from 0 to 120"),
    "an age above 120": ("path,age\na.jpg,130\n", {}, "age '130'.*from 0 to 120"),
    "no age at all": ("path,age\na.jpg,old\n", {}, "age 'old'.*expected years"),
    "an interval that falls": ("path,age\na.jpg,40-30\n", {}, "write 30-40"),
    "years as a band": ("path,age_band\na.jpg,25\n", {}, "years belong to the column age"),
    "ages that differ": (
        "path,age,age_band\na.jpg,25,from_60\n",
        {},
        "contradict each other in lines 2: 25 is not from_60",
    ),
    "an empty table": ("", {}, "an empty table"),
    "a header alone": ("path,mask\n", {}, "an empty table"),
    "an empty path": ("path,mask\na.jpg,worn\n,worn\n", {}, "without a path, in lines 3"),
    "a path outside": ("path,mask\n../a.jpg,worn\n", {}, "lead out of their folder, in lines 2"),
    "a hidden way outside": ("path\na/../../b.jpg\n", {}, "lead out of their folder"),
    "one path twice": (
        "path,mask\na.jpg,worn\n./a.jpg,incorrect\n",
        {},
        "one photo with two values of mask: .*a.jpg \\(photos.csv line 2, photos.csv line 3\\)",
    ),
    "two persons on one photo": ("path,person\na.jpg,1\na.jpg,2\n", {}, "two values of person"),
    "a photo on both sides": ("path,split\na.jpg,train\na.jpg,eval\n", {}, "two values of split"),
    "a weight below 0": ("path,weight\na.jpg,-1\n", {}, "a weight is a number from 0"),
    "a weight in words": ("path,weight\na.jpg,much\n", {}, "weight 'much' in lines 2"),
    "nothing to train on": ("path,split\na.jpg,eval\n", {}, "no row to train on"),
    "another split": ("path,split\na.jpg,validation\n", {}, "split is train, eval or nothing"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_refused_with_what_to_do(table, case):
    text, options, message = BAD[case]
    with pytest.raises(ValueError, match=message) as refused:
        # What the table says is refused before any photo is looked for.
        table(text, files=".." not in text and "\n," not in text, **options).train()
    assert "photos.csv" in str(refused.value)


def test_a_table_that_is_not_there_or_not_text_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file; correct data\.table"):
        Source(tmp_path, Tables((tmp_path / "photos.csv",))).train()
    (tmp_path / "photos.csv").write_bytes("path,person\na.jpg,김\n".encode("cp949"))
    with pytest.raises(ValueError, match=r"not UTF-8.*iconv"):
        Source(tmp_path, Tables((tmp_path / "photos.csv",))).train()
    (tmp_path / "photos.parquet").write_bytes(b"path")
    with pytest.raises(ValueError, match="cannot be read as a table"):
        Source(tmp_path, Tables((tmp_path / "photos.parquet",))).train()


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_and_a_mark_of_excel_are_read(table, tmp_path, separator):
    source = table("path,mask\na.jpg,worn\n")
    text = f"\ufeffpath{separator}mask\r\na.jpg{separator}worn\r\n"
    (tmp_path / "photos.csv").write_text(text, encoding="utf-8")
    assert source.train().photos["mask"].tolist() == [0]


def test_missing_files_are_told_and_none_at_all_is_refused(table, photo):
    source = table("path\na.jpg\nb.jpg\n", files=False)
    with pytest.raises(FileNotFoundError, match="none of the 2 photos is there"):
        source.train()
    photo("a.jpg")
    found = table("path\na.jpg\nb.jpg\n", files=False).train()
    assert found.photos["status"].tolist() == ["ok", "missing file"]
    assert any("not there: 1 (b.jpg)" in note for note in found.notes)


@pytest.mark.parametrize("name", ["folder", "x" * 300, "a.jpg/b.jpg", "a\0.jpg"])
def test_what_cannot_be_a_file_is_missing_and_the_others_are_found(table, photo, tmp_path, name):
    photo("a.jpg")
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.jpg").touch()
    text = f'path\na.jpg\nempty.jpg\n"{name}"\n'
    photos = table(text, files=False).train().photos.set_index("key")
    expected = {"a.jpg": "ok", "empty.jpg": "empty file", name: "missing file"}
    assert photos["status"].to_dict() == expected


def test_columns_that_are_not_used_are_told(table):
    notes = table("path,race,x\na.jpg,,\n").train().notes
    assert any("not used: 2 (race, x)" in note for note in notes)


def test_paths_are_relative_to_the_root_or_else_to_the_table(tmp_path, photo):
    photo("there/x/a.jpg", "tables/x/b.jpg")
    for name, text in (("a.csv", "path\nx/a.jpg\n"), ("b.csv", "path\nx/b.jpg\n")):
        (tmp_path / "tables" / name).write_text(text)
    tables = Tables((tmp_path / "tables/a.csv", tmp_path / "tables/b.csv"))
    photos = Source(tmp_path / "there", tables).train().photos
    assert (photos["status"] == "ok").all()
    assert photos["key"].tolist() == ["tables/x/b.jpg", "x/a.jpg"]


def test_paths_from_the_root_and_of_windows_are_read(table, tmp_path, photo):
    photo("x/a.jpg", "x/b.jpg")
    found = table(f"path\n{tmp_path}/x/a.jpg\nx\\b.jpg\n", files=False).train()
    assert found.photos["key"].tolist() == ["x/a.jpg", "x/b.jpg"]
    assert (found.photos["status"] == "ok").all()


def test_tables_add_up_what_they_know_of_a_photo(tmp_path, photo):
    photo("a.jpg", "b.jpg")
    (tmp_path / "masks.csv").write_text("path,mask\na.jpg,worn\nb.jpg,incorrect\n")
    (tmp_path / "ages.csv").write_text("path,age,gender,person\nb.jpg,61,male,x\n")
    tables = Tables((tmp_path / "masks.csv", tmp_path / "ages.csv"))
    photos = Source(tmp_path, tables).train().photos
    columns = ["mask", "gender", "age", "age_band", "joint", "person"]
    assert photos[columns].to_numpy().tolist() == [
        [0, -1, -1, -1, -1, "a.jpg"],
        [1, 0, 61, 2, 8, "x"],
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("25", (25, 0)), ("25.7", (25, 0)), ("0", (0, 0)), ("60", (60, 2)), ("25-29", (-1, 0)),
        ("25 - 29", (-1, 0)), ("(25, 29)", (-1, 0)), ("25-32", (-1, -1)), ("25-30", (-1, -1)),
        ("30 to 59", (-1, 1)), ("60+", (-1, 2)), ("59+", (-1, -1)), ("<30", (-1, 0)),
        ("<=30", (-1, -1)), (">59", (-1, 2)), ("more than 70", (-1, 2)), ("45-45", (45, 1)),
        ("0-2", (-1, 0)), ("under 30", (-1, 0)), ("60 and older", (-1, 2)),
    ],
)  # fmt: skip
def test_ages_in_years_and_intervals(text, expected):
    assert ages.of_years(text, LIMITS) == expected


@given(st.integers(0, 120), st.integers(0, 120), st.integers(1, 60), st.integers(61, 120))
def test_an_interval_has_a_band_only_where_all_its_years_have(first, second, low, high):
    first, second = sorted((first, second))
    bands = {ages.of_years(str(year), (low, high)).band for year in (first, second)}
    bands |= {ages.of_years(str(year), (low, high)).band for year in range(first, second + 1)}
    found = ages.of_years(f"{first}-{second}", (low, high)).band
    assert found == (bands.pop() if len(bands) == 1 else MISSING)


def test_bands_have_the_names_of_their_limits_and_follow_them(table):
    names = class_names("age", (25, 55))
    assert names == ["under_25", "from_25_to_54", "from_55"]
    assert [ages.of_band(name, (25, 55)).band for name in names] == [0, 1, 2]
    photos = table("path,age\na.jpg,24\nb.jpg,25\nc.jpg,55\nd.jpg,20-30\n", age_limits=(25, 55))
    found = photos.train()
    assert found.photos["age_band"].tolist() == [0, 1, 2, MISSING]
    assert any("1 ages are left out" in note and "25 and 55" in note for note in found.notes)


def test_a_photo_without_a_person_is_its_own_and_a_person_may_have_many(table):
    rows = [f"p/{n}.jpg,many,worn" for n in range(1000)] + ["q.jpg,,worn", "r.jpg,,incorrect"]
    photos = table("path,person,mask\n" + "\n".join(rows) + "\n").train().photos
    assert photos["person"].nunique() == 3
    assert photos.set_index("key").loc["q.jpg", "person"] == "q.jpg"
    # Label fixes name a photo by person and stem: no two photos may share them.
    assert not photos.duplicated(["person", "stem", "variant"]).any()


def test_photos_with_other_masks_of_unknown_people_are_spread_evenly(table):
    words = ["worn", "incorrect", "not_worn"]
    rows = [f"{n}.jpg,{words[n % 3]}" for n in range(60)]
    photos = table("path,mask\n" + "\n".join(rows) + "\n").train().photos
    fold = photos["person"].map(folds.assign(photos, 5, 1))
    assert (pd.crosstab(photos["mask"], fold) == 4).all(axis=None)


def test_to_predict_are_the_rows_of_that_split(table):
    source = table("path,split\nx/b.jpg,eval\nx/a.jpg,train\ny/b.jpg,eval\n")
    assert source.evaluation().photos["image_id"].tolist() == ["x/b.jpg", "y/b.jpg"]
    assert table("path\nx/b.jpg\nx/a.jpg\n").evaluation() is None


def test_a_task_without_labels_or_with_one_class_is_refused(table):
    photos = table("path,mask,gender\na.jpg,worn,male\nb.jpg,incorrect,male\n").train().photos
    coverage.require(photos, [Task.MASK])
    with pytest.raises(ValueError, match=r"task age: no photo has a label for age.*leave it out"):
        coverage.require(photos, [Task.MASK, Task.AGE])
    with pytest.raises(ValueError, match=r"task gender: every photo has the same class.*male"):
        coverage.require(photos, [Task.GENDER])
    with pytest.raises(ValueError, match="task joint: no photo has all three labels"):
        coverage.require(photos, [Task.JOINT])


def test_a_task_sees_the_photos_that_have_its_label(table):
    photos = table("path,mask,age\na.jpg,worn,\nb.jpg,,25\nc.jpg,,25-29\nd.jpg,,\n").train().photos

    def seen(task: Task, **options: bool) -> list[str]:
        chosen = coverage.for_task(photos, task, **options)
        return chosen.loc[chosen["status"] == "ok", "key"].tolist()

    assert seen(Task.MASK) == ["a.jpg"]
    assert seen(Task.AGE) == ["b.jpg", "c.jpg"]
    assert seen(Task.AGE, years=True) == ["b.jpg"]
    assert seen(Task.MULTI) == ["a.jpg", "b.jpg", "c.jpg"]
    assert seen(Task.JOINT) == []


def test_blends_and_age_drops_work_where_ages_are_known(table):
    rows = [f"{n}/{stem}.jpg,{n},male,{65 if n < 4 else ''}" for n in range(6) for stem in STEMS]
    photos = table("path,person,gender,age\n" + "\n".join(rows) + "\n").train().photos
    nobody = pd.Series(0, index=photos["person"].unique())
    rules = [{"ages": (60, 120), "gender": None}]
    items = folds.training_table(photos, nobody, 1, seed=1, blend=rules, drop_ages=[(0, 59)])
    blends = items[items["row2"] >= 0]
    assert len(blends) == 2 * 7 and (blends["age"] == 65).all() and (blends["age_band"] == 2).all()
    assert (items["age_band"] == MISSING).sum() == 2 * 7  # of unknown ages nothing is dropped
    assert np.isin(blends["mask"], MISSING).all() and (blends["joint"] == MISSING).all()


def test_names_do_not_depend_on_where_the_folder_of_all_photos_lies(tmp_path):
    """They seed the augmentation: the competition's folders as a table name photos alike."""
    found = []
    for place in ("here", "deeper/there"):
        paths = [tmp_path / place / "set" / name for name in ("train/a/1.jpg", "train/b/2.jpg",
                                                             "eval/3.jpg")]  # fmt: skip
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"photo")
        lines = [f"{path},worn,{path.parts[-3 if 'train' in path.parts else -2]}" for path in paths]
        file = tmp_path / f"{place.replace('/', '-')}.csv"
        file.write_text("\n".join(["path,mask,split", *lines]))
        for root in (None, Path("/elsewhere"), tmp_path / place / "set"):
            found.append(Source(root, Tables((file,))).train().photos["key"].tolist())
    assert found == [["train/a/1.jpg", "train/b/2.jpg"]] * 6
