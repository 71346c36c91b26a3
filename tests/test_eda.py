import json
import re
import threading

import cv2
import numpy as np
import pytest

from maskcls import eda
from maskcls.labels import NUM_JOINT
from maskcls.manifest import STEMS

PEOPLE = {
    "000001_male_Asian_20": (8, 6),
    "000002_female_Asian_45": (8, 6),
    "000003_female_Asian_60": (10, 10),
}


@pytest.fixture
def root(tmp_path):
    """Three people with seven random PNG photos each, one of them broken and one empty."""
    rng = np.random.default_rng(0)
    images = tmp_path / "data/train/images"
    for folder, size in PEOPLE.items():
        (images / folder).mkdir(parents=True)
        for stem in STEMS:
            image_HWC = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            cv2.imwrite(str(images / folder / f"{stem}.png"), image_HWC)
    (images / "000001_male_Asian_20/mask1.png").write_bytes(b"no image")
    (images / "000003_female_Asian_60/normal.png").write_bytes(b"")
    return tmp_path / "data"


@pytest.fixture
def no_plots(monkeypatch):
    monkeypatch.setattr(eda, "PLOTS", {})


def readable(root):
    photos = sorted(root.rglob("*.png"))
    decoded = [cv2.imread(str(path)) for path in photos if path.stat().st_size > 8]
    return [image_HWC[..., ::-1] for image_HWC in decoded if image_HWC is not None]


def test_mean_and_std_are_those_of_all_pixels_at_once(root):
    channels = eda.describe(root)["channels"]
    pixels_NC = np.concatenate([image_HWC.reshape(-1, 3) for image_HWC in readable(root)]) / 255
    np.testing.assert_allclose(channels["mean"], pixels_NC.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(channels["std"], pixels_NC.std(axis=0), rtol=1e-12)
    assert [sum(counts) for counts in channels["histogram"]] == [len(pixels_NC)] * 3


def test_people_and_photos_are_counted_by_label(root):
    numbers = eda.describe(root)
    assert numbers["people"] == {
        "total": 3,
        "gender": {"male": 1, "female": 2},
        "age_band": {"under_30": 1, "from_30_to_59": 1, "from_60": 1},
        "race": {"Asian": 3},
    }
    assert numbers["photos"]["total"] == 21
    assert numbers["photos"]["mask"] == {"worn": 15, "incorrect": 3, "not_worn": 3}
    assert numbers["photos"]["gender"] == {"male": 7, "female": 14}
    joint = numbers["photos"]["joint"]
    assert len(joint) == NUM_JOINT
    assert {name for name, count in joint.items() if count == 5} == {
        "worn/male/under_30", "worn/female/from_30_to_59", "worn/female/from_60",
    }  # fmt: skip
    assert numbers["ages"] == [
        {"age": 20, "male": 1, "female": 0},
        {"age": 45, "male": 0, "female": 1},
        {"age": 60, "male": 0, "female": 1},
    ]


def test_sizes_are_of_the_photos_that_can_be_decoded(root):
    assert eda.describe(root)["sizes"] == [
        {"height": 8, "width": 6, "photos": 13},
        {"height": 10, "width": 10, "photos": 6},
    ]


def test_bad_files_are_listed_with_their_reason(root):
    bad = eda.describe(root)["bad"]
    assert [entry["photo"].split("/")[-2:] for entry in bad] == [
        ["000001_male_Asian_20", "mask1.png"],
        ["000003_female_Asian_60", "normal.png"],
    ]
    assert [entry["reason"] for entry in bad] == ["not an image, or cut off in its header",
                                                  "empty file"]  # fmt: skip


def test_a_photo_that_vanishes_meanwhile_is_bad_too(root, monkeypatch):
    photo = root / "train/images/000002_female_Asian_45/mask3.png"
    read_train = eda.read_train

    def read_then_lose(root):
        manifest = read_train(root)
        photo.unlink()
        return manifest

    monkeypatch.setattr(eda, "read_train", read_then_lose)
    bad = {entry["photo"].split("/")[-1]: entry["reason"] for entry in eda.describe(root)["bad"]}
    assert bad["mask3.png"] == "cannot be read: No such file or directory"


def test_nothing_to_measure_is_an_error(root):
    for photo in root.rglob("*.png"):
        photo.write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of 21 photos can be decoded.*empty file"):
        eda.describe(root)


def test_progress_is_told_after_each_photo(root):
    told = []
    eda.describe(root, progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 21) for done in range(1, 22)]


def test_few_photos_are_in_memory_at_a_time(root, monkeypatch):
    measured, lock = 0, threading.Lock()
    measure = eda._measure

    def counting(path, status):
        nonlocal measured
        with lock:
            measured += 1
        return measure(path, status)

    monkeypatch.setattr(eda, "_measure", counting)
    monkeypatch.setattr(eda.os, "cpu_count", lambda: 1)
    ahead = []
    eda.describe(root, progress=lambda done, total: ahead.append(measured - done))
    assert max(ahead) <= 5


def test_the_page_shows_every_plot_and_needs_nothing_from_elsewhere(root, tmp_path):
    page = eda.write(tmp_path / "out", eda.describe(root))
    text = page.read_text(encoding="utf-8")
    shown = re.findall(r'src="([^"]+)"', text)
    assert sorted(shown) == sorted(f"{name}.png" for name in eda.PLOTS)
    for name in shown:
        height, width, _ = cv2.imread(str(page.parent / name)).shape
        assert min(height, width) > 300
    assert "http" not in text
    assert "mask1.png: not an image" in text
    written = {path.name for path in page.parent.iterdir()}
    assert written == {"index.html", "eda.json", *shown}


def test_the_numbers_can_be_read_back(root, tmp_path, no_plots):
    numbers = eda.describe(root)
    eda.write(tmp_path / "out", numbers)
    assert json.loads((tmp_path / "out/eda.json").read_text(encoding="utf-8")) == numbers


def test_names_from_disk_are_escaped(root, tmp_path, no_plots):
    strange = root.rename(root.with_name("a<b>&c"))
    text = eda.write(tmp_path / "out", eda.describe(strange)).read_text(encoding="utf-8")
    assert "a&lt;b&gt;&amp;c" in text
    assert "<b>&c" not in text


@pytest.mark.parametrize(("count", "more"), [(0, None), (50, None), (51, "and 1 more")])
def test_the_page_names_some_bad_files(root, tmp_path, no_plots, count, more):
    bad = [{"photo": f"{k}.jpg", "reason": "empty file"} for k in range(count)]
    page = eda.write(tmp_path / "out", eda.describe(root) | {"bad": bad})
    text = page.read_text(encoding="utf-8")
    assert text.count("empty file") == min(count, eda.LISTED)
    assert (more in text) if more else ("see eda.json" not in text)
    assert ("Bad files" in text) == (count > 0)


def test_many_sizes_and_one_gender_can_be_plotted(root, tmp_path):
    numbers = eda.describe(root)
    numbers["sizes"] = [{"height": k, "width": k, "photos": 30 - k} for k in range(1, 30)]
    numbers["people"]["gender"] = {"male": 3, "female": 0}
    assert "1 x 1 and 28 more" in eda.write(tmp_path / "out", numbers).read_text(encoding="utf-8")


def test_the_command_says_what_it_found_and_where(root, tmp_path, no_plots, capsys):
    eda.main([str(root), "--out", str(tmp_path / "out")])
    said = capsys.readouterr()
    assert said.out == f"21 photos of 3 people, 2 bad: {tmp_path / 'out/index.html'}\n"
    assert "\r21 of 21 photos\n" in said.err


def test_the_command_explains_what_it_refuses(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        eda.main([str(tmp_path), "--out", str(tmp_path / "out")])
    assert "data.root must hold train/images" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
