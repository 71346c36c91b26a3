import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskcls.commands import eda
from maskcls.data.label_fixes import LabelFixes
from maskcls.data.manifest import read_eval, read_train
from maskcls.data.photos import decode
from maskcls.data.source import Source
from maskcls.quality.eda import COUNTED, Pixels, _size_and_histogram, count, explore, measure
from maskcls.reports.eda import write
from maskcls.storage import files
from tests.conftest import faults_of

GREY, BROKEN, EMPTY = "mask1.jpg", "mask2.jpg", "mask3.jpg"


@pytest.fixture
def data(drawn, tmp_path):
    """The drawn faces with a greyscale photo of another size, one cut off and one empty."""
    root = shutil.copytree(drawn, tmp_path / "faces <A>")
    person = min((root / "train" / "images").iterdir())
    cv2.imwrite(str(person / GREY), np.arange(30 * 20, dtype=np.uint8).reshape(30, 20))
    (person / BROKEN).write_bytes((person / BROKEN).read_bytes()[:700])
    (person / EMPTY).write_bytes(b"")
    return root


def run(data, out, *words):
    eda.main([str(data), "--out", str(out), "--threads", "2", *words])
    return files.read_json(out / "eda.json"), (out / "index.html").read_text(encoding="utf-8")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_means_and_deviations_are_those_of_all_pixels_at_once(drawn):
    findings = explore(Source(drawn), threads=2)
    for name, photos in (("train", read_train(drawn).photos), ("eval", read_eval(drawn).photos)):
        images = [decode(Path(path).read_bytes()) for path in photos["path"]]
        pixels_N3 = np.concatenate([image.reshape(-1, 3) for image in images]) / 255
        mean, std = findings.pixels[name].mean_std()
        np.testing.assert_allclose(mean, pixels_N3.mean(axis=0), rtol=1e-9)
        np.testing.assert_allclose(std, pixels_N3.std(axis=0), rtol=1e-9)


def test_large_sums_lose_nothing():
    histogram_CV = np.zeros((3, 256), np.int64)
    histogram_CV[:, 254], histogram_CV[:, 255] = 2**60, 2**60
    mean, std = Pixels(sizes={(1, 1): 1}, histogram_CV=histogram_CV).mean_std()
    assert mean == [254.5 / 255] * 3
    assert std == [0.5 / 255] * 3


def test_a_photo_larger_than_what_a_float_can_count(tmp_path):
    photo = tmp_path / "black.png"
    image = np.zeros((4099, 4099), np.uint8)
    image[0, :2] = 255
    cv2.imwrite(str(photo), image)
    size, histogram_CV = _size_and_histogram(str(photo))
    assert size == image.shape
    assert histogram_CV[:, 0].tolist() == [image.size - 2] * 3  # odd, and more than 2**24
    assert histogram_CV[:, 255].tolist() == [2] * 3


def test_labels_count_people_and_photos(drawn):
    photos = read_train(drawn).photos
    findings = explore(Source(drawn))
    assert (findings.people, findings.photos) == (42, 294)
    assert findings.counts["mask"].to_dict("index") == {
        "worn": {"people": 42, "photos": 210},
        "incorrect": {"people": 42, "photos": 42},
        "not_worn": {"people": 42, "photos": 42},
    }
    for table in (findings.counts[column] for column in ("gender", "age_band", "race", "age")):
        assert table["people"].sum() == 42
        assert (table["photos"] == 7 * table["people"]).all()
    joint = findings.counts["joint"]
    assert joint["photos"].tolist() == np.bincount(photos["joint"], minlength=18).tolist()
    ages = findings.counts["age"]
    assert ages.index.tolist() == list(range(photos["age"].min(), photos["age"].max() + 1))
    assert ages.loc[60, "photos"] == (photos["age"] == 60).sum()


def test_a_class_that_nobody_is_in_counts_zero(drawn):
    photos = read_train(drawn).photos
    table = count(photos[photos["gender"] == 1], "gender")
    assert table.to_dict("index")["male"] == {"people": 0, "photos": 0}


def test_races_come_the_most_frequent_first(drawn):
    photos = read_train(drawn).photos
    photos = photos.assign(race=np.where(photos["person"] == photos["person"][0], "A", "B"))
    assert count(photos, "race").to_dict("list") == {"people": [41, 1], "photos": [287, 7]}


def test_photos_that_cannot_be_read_are_listed_and_the_rest_measured(
    data, tmp_path, capsys, without_plots
):
    numbers, page = run(data, tmp_path / "out")
    train, predicted = numbers["pixels"]["train"], numbers["pixels"]["eval"]
    assert train["sizes"] == [
        {"height": 64, "width": 48, "photos": 291},
        {"height": 30, "width": 20, "photos": 1},
    ]
    assert [key.rpartition("/")[2] for key in train["unreadable"]] == [BROKEN, EMPTY]
    broken, empty = train["unreadable"].values()
    assert broken
    assert empty == "empty file"
    assert predicted["sizes"] == [{"height": 64, "width": 48, "photos": 42}]
    assert predicted["unreadable"] == {}
    assert numbers["photos"] == 294
    assert "Unreadable photos: 2<" in page
    assert all(key in page for key in train["unreadable"])
    told = capsys.readouterr().out
    assert told == f"334 of 336 photos read, see {tmp_path / 'out' / 'index.html'}\n"


def test_a_grey_photo_counts_alike_in_all_channels(tmp_path):
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((3, 5), 77, np.uint8))
    _, histogram_CV = _size_and_histogram(str(tmp_path / "grey.png"))
    assert histogram_CV[:, 77].tolist() == [15] * 3


def test_a_photo_that_is_gone_is_listed(drawn):
    photos = read_train(drawn).photos[:2].assign(path=["/nowhere.jpg"] * 2)
    pixels = measure(photos, threads=1)
    assert list(pixels.unreadable) == photos["key"].tolist()
    assert "No such file" in pixels.unreadable[photos["key"][0]]
    assert pixels.mean_std() is None


def test_the_number_of_threads_changes_no_byte(data, tmp_path):
    run(data, tmp_path / "one", "--threads", "1")
    run(data, tmp_path / "five", "--threads", "5")
    assert contents(tmp_path / "one") == contents(tmp_path / "five")


def test_every_photo_moves_progress_once(drawn):
    told = []
    explore(Source(drawn), threads=3, progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 336) for done in range(1, 337)]


def test_the_page_holds_all_plots_and_escapes_names(data, tmp_path):
    _, page = run(data, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["eda.json", "index.html"]
    assert page.count("data:image/svg+xml") == len(COUNTED) + 1
    assert "<h1>faces &lt;A&gt;</h1>" in page
    assert "http" not in page


@pytest.mark.parametrize("width", [390, 1400])
def test_a_browser_shows_it_offline_without_a_fault(browser, data, tmp_path, width):
    run(data, tmp_path)
    assert faults_of(browser, tmp_path / "index.html", width) == []


def test_people_of_each_class_are_shown_and_odd_photos_come_first(data, tmp_path, without_plots):
    person = read_train(data).photos["person"].min()
    _, page = run(data, tmp_path)
    people, whole = page.split("All photos of a few people</h2>")[:2]
    shown = re.findall(r"<h3>(.+?): (\d+) people", people)
    assert [title for title, _ in shown] == [
        f"{gender}, {band}"
        for gender in ("male", "female")
        for band in ("under 30", "from 30 to 59", "from 60")
    ]
    assert sum(int(count) for _, count in shown) == 42
    assert "joint classes 4 worn, 10 incorrect, 16 not worn" in people
    first = whole.partition("</div>")[0]
    assert f"<h3>{person}:" in first
    assert first.count('<figure class="odd">') == 3
    assert f"{GREY}: 30 x 20, most are 64 x 48" in first
    assert f"{EMPTY}: empty file" in first
    assert first.count("not readable") == 2
    assert first.count("<figure") == 7
    assert "incorrect mask, class" in first


def test_a_very_dark_photo_is_odd(drawn, tmp_path):
    root = shutil.copytree(drawn, tmp_path / "faces")
    dark = root / read_train(root).photos["key"].iloc[30]
    cv2.imwrite(str(dark), np.zeros((64, 48, 3), np.uint8))
    found = explore(Source(root)).pixels["train"].odd()
    assert found[dark.relative_to(root).as_posix()] == "very dark"


def test_without_photos_to_predict_only_those_to_train_on_are_shown(data, tmp_path, without_plots):
    shutil.rmtree(data / "eval")
    numbers, page = run(data, tmp_path / "out")
    assert list(numbers["pixels"]) == ["train"]
    assert "eval" not in page


def test_a_data_set_of_broken_photos_has_no_colours(data, tmp_path):
    for photo in data.rglob("*.jpg"):
        photo.write_bytes(b"photo")
    numbers, page = run(data, tmp_path / "out")
    assert numbers["pixels"]["train"]["mean"] is None
    assert "Unreadable photos: 336<" in page
    assert "and 316 more, see eda.json" in page


def test_many_sizes_are_cut_short_on_the_page_only(drawn, tmp_path, without_plots):
    findings = explore(Source(drawn))
    findings.pixels["train"].sizes.update((height, 10) for height in range(1, 41))
    page = write(tmp_path, findings).read_text(encoding="utf-8")
    assert "and 21 more sizes, see eda.json" in page
    sizes = files.read_json(tmp_path / "eda.json")["pixels"]["train"]["sizes"]
    assert len(sizes) == 41


def test_label_fixes_are_applied_and_noted(drawn, tmp_path, without_plots):
    person = read_train(drawn).photos["person"][0]
    fixes = tmp_path / "fixes.yaml"
    fixes.write_text(f'leave_out: ["{person}"]\nflip_gender: ["nobody"]\n')
    numbers, page = run(drawn, tmp_path / "out", "--fixes", str(fixes))
    assert numbers["people"] == 41
    assert numbers["pixels"]["train"]["sizes"][0]["photos"] == 287
    assert any("nobody" in note for note in numbers["notes"])
    assert all(note in page for note in numbers["notes"])
    assert explore(Source(drawn), fixes=LabelFixes(leave_out=[person])).people == 41


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{tmp}/none"], "none/train/images: no such folder"),
        (["{drawn}", "--fixes", "{tmp}/none.yaml"], "none.yaml: no such file"),
        (["{drawn}", "--threads", "0"], "greater than 0, got '0'"),
        (["{drawn}", "--out", "{tmp}/file"], "cannot write"),
    ],
)
def test_refusals_are_sentences(drawn, tmp_path, capsys, words, sentence):
    (tmp_path / "file").write_text("")
    words = [word.format(drawn=drawn, tmp=tmp_path) for word in words]
    with pytest.raises(SystemExit) as refusal:
        eda.main(["--out", str(tmp_path / "out"), *words])
    assert refusal.value.code == 2
    assert sentence in capsys.readouterr().err
