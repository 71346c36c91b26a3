import csv
import hashlib
from collections import Counter

import cv2
import numpy as np
import pytest

from examples.drawn_faces import draw
from maskcls.data.manifest import read_eval, read_train
from maskcls.labels import NUM_JOINT, AgeBand, Gender, Mask, age_band, decode
from maskcls.scoring.submission import read_answers

SMALL = {"people": 6, "eval_people": 6, "seed": 3, "height": 64, "width": 48}


def contents(root):
    """Path -> digest of every file."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return draw.draw(tmp_path_factory.mktemp("small") / "faces", **SMALL)


def test_training_photos_are_laid_out_as_in_the_competition(small):
    manifest = read_train(small)
    photos = manifest.photos
    assert manifest.notes == []
    assert (photos["status"] == "ok").all()
    assert photos.groupby("person").size().tolist() == [7] * 6
    assert Counter(photos["mask"]) == {Mask.WORN: 30, Mask.INCORRECT: 6, Mask.NOT_WORN: 6}
    assert photos["joint"].nunique() == NUM_JOINT
    with (small / "train/train.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    people = photos.drop_duplicates("person")
    assert [(row["id"], row["gender"], int(row["age"])) for row in listed] == [
        (person, Gender(gender).name.lower(), age)
        for person, gender, age in zip(
            people["person"], people["gender"], people["age"], strict=True
        )
    ]
    assert {row["path"] for row in listed} == {
        path.name for path in (small / "train/images").iterdir()
    }


def test_photos_to_predict_keep_their_classes_to_themselves(small):
    manifest = read_eval(small)
    answers = read_answers(small / "answers.csv")
    assert manifest.notes == []
    assert manifest.photos["image_id"].tolist() == answers["ImageID"].tolist()
    assert answers["ImageID"].str.fullmatch(r"[0-9a-f]{40}\.jpg").all()
    assert set(read_answers(small / "eval/info.csv")["ans"]) == {0}
    masks = Counter(decode(answers["ans"])["mask"].tolist())
    assert masks == {Mask.WORN: 30, Mask.INCORRECT: 6, Mask.NOT_WORN: 6}
    # Sorted by a name that is a digest: neighbours are not of one person.
    assert answers["ans"].diff().ne(0).mean() > 0.5


def test_nobody_is_both_in_train_and_eval(small):
    photos = {name: digest for name, digest in contents(small).items() if name.endswith(".jpg")}
    assert len(set(photos.values())) == len(photos) == 84


@pytest.mark.parametrize("count", [6, 7, 20, 30, 42, 120, 2700])
def test_rare_groups_are_there_and_frequent_ones_are_frequent(count):
    people = draw._people(count, seed=1, part=1)
    groups = Counter((gender, AgeBand(int(age_band(age)))) for gender, age in people)
    assert len(people) == count
    assert set(groups) == set(draw.PEOPLE_OF_COMPETITION)
    assert min(groups.values()) >= count / 20
    if count == 2700:
        enough = {group: n for group, n in draw.PEOPLE_OF_COMPETITION.items() if n > 135}
        assert all(abs(groups[group] / n - 1) < 0.05 for group, n in enough.items())


@pytest.mark.parametrize("threads", [1, 4])
def test_same_arguments_same_bytes(small, tmp_path, threads):
    before = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    try:
        again = draw.draw(tmp_path / "again", **SMALL)
    finally:
        cv2.setNumThreads(before)
    assert contents(again) == contents(small)


def test_another_seed_draws_other_people(small, tmp_path):
    other = contents(draw.draw(tmp_path / "other", **{**SMALL, "seed": 4}))
    assert not set(other.values()) & set(contents(small).values())


def test_every_photo_has_its_own_chance():
    # A seed sequence ignores trailing zeros: (seed, person) and (seed, person, 0) are the same.
    images = [
        image
        for person in (1, 2)
        for _, _, image in draw._photos(0, person, Gender.MALE, 40, (64, 48))
    ]
    backgrounds = {image[:4, :4].tobytes() for image in images}
    assert len(backgrounds) == 14


@pytest.mark.parametrize(("height", "width"), [(48, 48), (128, 96), (96, 160), (512, 384)])
def test_faces_fill_any_size_alike(height, width):
    size = (height, width)
    *_, (_, _, image) = draw._photos(3, 1, Gender.FEMALE, 20, size)
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8
    unit = min(height, width * 4 / 3)
    reference = list(draw._photos(3, 1, Gender.FEMALE, 20, (512, 384)))[-1][2]
    y, x = int(0.47 * height), width // 2
    half = max(int(0.1 * unit), 1)
    middle = image[y - half : y + half, x - half : x + half].mean(axis=(0, 1))
    expected = reference[240 - 51 : 240 + 51, 192 - 51 : 192 + 51].mean(axis=(0, 1))
    assert np.abs(middle - expected).max() < 20


def test_a_finished_folder_is_left_alone(small):
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    draw.draw(small, **SMALL)
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before


def test_an_empty_folder_is_filled(small, tmp_path):
    (tmp_path / "faces").mkdir()
    assert contents(draw.draw(tmp_path / "faces", **SMALL)) == contents(small)


@pytest.mark.parametrize("kind", ["no stamp", "other arguments"])
def test_what_is_something_else_is_never_overwritten(tmp_path, kind):
    root = tmp_path / "faces"
    if kind == "no stamp":
        root.mkdir()
    else:
        draw.draw(root, **{**SMALL, "seed": 9})
    (root / "notes.txt").write_text("mine")
    before = contents(root)
    with pytest.raises(FileExistsError, match="choose another folder or delete it"):
        draw.draw(root, **SMALL)
    assert contents(root) == before


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(path, image, quality):
        raise OSError(28, "no space left")

    monkeypatch.setattr(draw, "_write_jpeg", full)
    with pytest.raises(OSError, match="no space left"):
        draw.draw(tmp_path / "faces", **SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong", [{"people": 5}, {"eval_people": 0}, {"height": 8}, {"width": 0}, {"quality": 101}]
)
def test_numbers_that_make_no_sense_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        draw.draw(tmp_path / "faces", **{**SMALL, **wrong})
    assert list(tmp_path.iterdir()) == []


def test_the_classes_can_be_learned(tmp_path):
    from sklearn.linear_model import RidgeClassifier
    from sklearn.metrics import balanced_accuracy_score

    root = draw.draw(tmp_path / "faces", people=60, eval_people=30, height=64, width=48)
    photos, answers = read_train(root).photos, read_answers(root / "answers.csv")
    eval_paths = [root / "eval/images" / name for name in answers["ImageID"]]
    train_ND, eval_ND = thumbnails(photos["path"]), thumbnails(eval_paths)
    truth = decode(answers["ans"])
    columns = {"mask": "mask", "gender": "gender", "age": "age_band"}
    for attribute, chance in (("mask", 1 / 3), ("gender", 1 / 2), ("age", 1 / 3)):
        learner = RidgeClassifier(alpha=30, class_weight="balanced")
        learner.fit(train_ND, photos[columns[attribute]])
        score = balanced_accuracy_score(truth[attribute], learner.predict(eval_ND))
        assert chance + 0.2 < score < 0.99, attribute


def thumbnails(paths):
    """Photos [N, 24 * 18 * 3], each standardised."""
    small = [cv2.resize(cv2.imread(str(path)), (18, 24), interpolation=cv2.INTER_AREA)
             for path in paths]  # fmt: skip
    flat = np.stack(small).reshape(len(small), -1).astype(float)
    return (flat - flat.mean(axis=1, keepdims=True)) / flat.std(axis=1, keepdims=True)


def test_the_command_draws_and_says_where(tmp_path, capsys):
    root = tmp_path / "faces"
    words = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    draw.main([str(root), *words])
    assert str(root) in capsys.readouterr().out
    assert len(read_train(root).photos) == 42


def test_the_command_explains_what_it_refuses(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        draw.main([str(tmp_path), "--people", "1"])
    assert "people must be at least 6" in capsys.readouterr().err
