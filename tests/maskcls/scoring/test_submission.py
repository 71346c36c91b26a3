import unicodedata

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from maskcls.commands import score
from maskcls.scoring import submission

INFO = "ImageID,ans\nb.jpg,0\na.jpg,0\nc.jpg,0\n"
IMAGE_IDS = ["b.jpg", "a.jpg", "c.jpg"]
CLASSES = {"a.jpg": 1, "b.jpg": 17, "c.jpg": 3}


@pytest.mark.parametrize(
    "content",
    [
        INFO.encode(),
        INFO.replace("\n", "\r\n").encode(),
        INFO.encode("utf-8-sig"),
        INFO.strip().encode(),
        b"ans,ImageID\n0,b.jpg\n0,a.jpg\n0,c.jpg\n",
        b'ImageID\n"b.jpg"\na.jpg\n\nc.jpg\n',
    ],
    ids=["plain", "crlf", "bom", "no last newline", "other columns first", "quotes, blank line"],
)
def test_ids_are_read_in_file_order(tmp_path, content):
    path = tmp_path / "info.csv"
    path.write_bytes(content)
    frame = submission.read_info(path)
    assert frame.columns.tolist() == ["ImageID"]
    assert frame["ImageID"].tolist() == ["b.jpg", "a.jpg", "c.jpg"]


def test_ids_that_look_like_numbers_or_missing_values_stay_text(tmp_path):
    path = tmp_path / "info.csv"
    path.write_text("ImageID,ans\n007,0\nNA,0\n1e5,0\n")
    assert submission.read_info(path)["ImageID"].tolist() == ["007", "NA", "1e5"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"columns \['ImageID'\], as in submission.csv of a run, found \[\]"),
        ("id,ans\na.jpg,0\n", r"expected the columns \['ImageID'\], .* found \['id', 'ans'\]"),
        ("ImageID,ans\n", "no rows"),
        ("ImageID,ans\na.jpg,0\n,0\n", "1 rows have no ImageID"),
        ("ImageID,ans\na.jpg,0\nb.jpg,0\na.jpg,0\n", r"once, but 1 \(a.jpg\)"),
        ("ImageID,ans\na.jpg,0\nb.jpg\n", "line 3: expected 2 fields"),
        ("ImageID,ans\na.jpg,0,0\n", "line 2: expected 2 fields"),
        ("ImageID,ans\n\xff\xfe,0\n", "utf-8"),
        ('ImageID,ans\n"a.jpg,0\n', "unexpected end of data"),
    ],
)
def test_a_broken_info_file_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "info.csv"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=message) as caught:
        submission.read_info(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("ans", ["18", "-1", "", "x", "3.0", "nan", " 3"])
def test_an_answer_that_is_no_class_is_refused(tmp_path, ans):
    path = tmp_path / "submission.csv"
    path.write_text(f"ImageID,ans\na.jpg,0\nb.jpg,{ans}\n")
    with pytest.raises(ValueError, match="0 to 17") as caught:
        submission.read_answers(path)
    assert str(path) in str(caught.value)
    assert f"{ans!r} for b.jpg" in str(caught.value)


def test_answers_need_their_column(tmp_path):
    path = tmp_path / "submission.csv"
    path.write_text("ImageID,answer\na.jpg,0\n")
    with pytest.raises(ValueError, match=r"'ans'\], .* found \['ImageID', 'answer'\]"):
        submission.read_answers(path)


@pytest.mark.parametrize(
    "classes",
    [CLASSES, pd.Series(CLASSES), pd.Series(CLASSES)[::-1], pd.Series(CLASSES, dtype="int8")],
    ids=["dict", "series", "reversed", "int8"],
)
def test_a_submission_has_the_rows_of_info_in_their_order(tmp_path, classes):
    out = tmp_path / "out" / "submission.csv"
    submission.write(IMAGE_IDS, classes, out)
    assert out.read_bytes() == b"ImageID,ans\nb.jpg,17\na.jpg,1\nc.jpg,3\n"
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({}, r"3 \(a.jpg, b.jpg, c.jpg\) missing, 0 too many"),
        ({"a.jpg": 1, "b.jpg": 1}, r"1 \(c.jpg\) missing"),
        (CLASSES | {"d.jpg": 0}, r"0 missing, 1 \(d.jpg\) too many"),
        (CLASSES | {str(i): 0 for i in range(5)}, r"5 \(0, 1, 2, 3, 4\) too many"),
        (CLASSES | {"c.jpg": 18}, "got 18 for c.jpg"),
        (CLASSES | {"c.jpg": 0.5}, "got 0.5 for c.jpg"),
        (CLASSES | {"c.jpg": "3"}, "got '3' for c.jpg"),
        (pd.Series({"a.jpg": 1, "b.jpg": np.nan, "c.jpg": 2}), "got .*nan.* for b.jpg"),
        (pd.Series([0, 0, 0, 0], index=["a.jpg", "b.jpg", "c.jpg", "c.jpg"]), r"1 \(c.jpg\) do"),
    ],
)
def test_predictions_that_do_not_match_info_write_nothing(tmp_path, classes, message):
    out = tmp_path / "submission.csv"
    with pytest.raises(ValueError, match=message):
        submission.write(IMAGE_IDS, classes, out)
    assert not out.exists()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 17), min_size=1, max_size=30), st.randoms())
def test_what_is_written_is_read_back(tmp_path_factory, classes, random):
    folder = tmp_path_factory.mktemp("submission")
    image_ids = [f"{i}.jpg" for i in range(len(classes))]
    random.shuffle(image_ids)
    by_id = dict(zip(sorted(image_ids), classes, strict=True))
    submission.write(image_ids, by_id, folder / "out.csv")
    frame = submission.read_answers(folder / "out.csv")
    assert frame["ImageID"].tolist() == image_ids
    assert dict(zip(frame["ImageID"], frame["ans"], strict=True)) == by_id


def write_answers(path, image_ids, classes):
    pd.DataFrame({"ImageID": image_ids, "ans": classes}).to_csv(path, index=False)
    return path


def test_scores_are_joined_on_the_id(tmp_path):
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(18, size=(2, 200))
    image_ids = np.array([f"{i}.jpg" for i in range(200)])
    answers = write_answers(tmp_path / "answers.csv", image_ids, truth)
    order = rng.permutation(200)
    submitted = write_answers(tmp_path / "submission.csv", image_ids[order], predicted[order])
    by_head = submission.score(submitted, answers)
    parts = {
        "joint": (truth, predicted),
        "mask": (truth // 6, predicted // 6),
        "gender": (truth // 3 % 2, predicted // 3 % 2),
        "age": (truth % 3, predicted % 3),
    }
    assert list(by_head) == list(parts)
    for head, (true_N, predicted_N) in parts.items():
        assert by_head[head]["macro_f1"] == pytest.approx(
            f1_score(true_N, predicted_N, average="macro")
        )
        assert by_head[head]["accuracy"] == pytest.approx(np.mean(true_N == predicted_N))


def test_a_submission_for_other_photos_is_not_scored(tmp_path):
    answers = write_answers(tmp_path / "answers.csv", ["a", "b"], [0, 1])
    submitted = write_answers(tmp_path / "submission.csv", ["a", "c"], [0, 1])
    with pytest.raises(ValueError, match=r"submission.csv must .* 1 \(b\) missing, 1 \(c\) too"):
        submission.score(submitted, answers)


def test_the_command_prints_a_table(tmp_path, capsys):
    answers = write_answers(tmp_path / "answers.csv", ["a", "b"], [0, 17])
    score.main([str(answers), str(answers)])
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["macro_f1", "accuracy", "macro_precision", "macro_recall"]
    assert [row.split()[:2] for row in rows] == [
        [head, "1.0000"] for head in ("joint", "mask", "gender", "age")
    ]


def test_the_command_reports_an_error_without_a_traceback(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        score.main(["score", str(tmp_path / "none.csv"), str(tmp_path / "none.csv")])
    assert caught.value.code == 2
    assert "none.csv" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["cp949", "utf-16"])
def test_a_file_in_another_encoding_is_told_with_how_to_convert(tmp_path, encoding):
    path = tmp_path / "info.csv"
    path.write_bytes("ImageID,ans\n얼굴.jpg,0\n".encode(encoding))
    with pytest.raises(ValueError, match=r"info\.csv: not UTF-8.*iconv"):
        submission.read_info(path)


def test_names_that_differ_in_their_unicode_form_alone_are_told(tmp_path):
    paths = []
    for form in ("NFC", "NFD"):
        paths.append(tmp_path / f"{form}.csv")
        name = unicodedata.normalize(form, "é.jpg")
        paths[-1].write_text(f"ImageID,ans\n{name},0\n", encoding="utf-8")
    with pytest.raises(ValueError, match="Unicode form of names alone"):
        submission.score(*paths)
