"""Detectors and the choice of a face, on drawn faces, which are simple enough to be certain of."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskcls.config.recipe import DETECTORS as NAMES
from maskcls.data import detectors, faces
from maskcls.data.detectors import DETECTORS, FOLDER
from maskcls.data.faces import find_face, median_box
from maskcls.data.photos import decode

PUBLISHED = {
    "centerface.onnx": "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
    "blazeface_short_range.tflite": (
        "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8"
    ),
    "selfie_segmentation.tflite": (
        "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c"
    ),
}


@pytest.fixture(scope="module")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    from examples.drawn_faces import draw

    root = tmp_path_factory.mktemp("portraits")
    draw.draw(root, people=6, eval_people=6, seed=1, height=192, width=144)
    photos = sorted(root.glob("train/images/*/normal.*"))
    return [decode(path.read_bytes()) for path in photos]


def test_the_files_are_those_that_were_published() -> None:
    found = {path.name: path for path in FOLDER.iterdir() if path.suffix != ".md"}
    assert {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()
    } == PUBLISHED
    licences = (FOLDER / "LICENSES.md").read_text(encoding="utf-8")
    for name, digest in PUBLISHED.items():
        assert name in licences
        assert digest in licences


def test_the_configuration_names_every_detector() -> None:
    assert tuple(DETECTORS) == NAMES


@pytest.mark.parametrize("detector", NAMES)
def test_a_face_is_found_where_it_is(detector: str, portraits: list[np.ndarray]) -> None:
    """Pasted into a grey photo of another shape, at a fifth of its width."""
    photo = np.full((300, 500, 3), 128, np.uint8)
    photo[60 : 60 + 192, 200 : 200 + 144] = portraits[2]
    found = find_face(photo, detector)
    assert found is not None
    left, top, width, height = found.box
    assert 0.2 < found.score <= 1
    assert (left + width / 2) * 500 == pytest.approx(272, abs=12)
    assert 60 + 192 * 0.45 < (top + height / 2) * 300 < 60 + 192 * 0.65
    assert width * 500 == pytest.approx(80, abs=25)


@pytest.mark.parametrize("detector", NAMES)
@pytest.mark.parametrize("shape", [(200, 150), (1, 1), (3, 900)])
def test_a_blank_photo_has_no_face(detector: str, shape: tuple[int, int]) -> None:
    assert find_face(np.full((*shape, 3), 128, np.uint8), detector) is None


@pytest.mark.parametrize("detector", NAMES)
def test_what_was_seen_before_changes_nothing(detector: str, portraits: list[np.ndarray]) -> None:
    """OpenCV's networks give other answers once they have had inputs of several shapes."""
    portrait = portraits[2]
    shapes = [portrait, portrait.transpose(1, 0, 2), portrait[:144], portrait[:20]]
    detectors._local.__dict__.clear()
    first = detectors.detect(portrait, detector)
    for shape in shapes:
        detectors.detect(np.ascontiguousarray(shape), detector)
        for before, after in zip(first, detectors.detect(portrait, detector), strict=True):
            assert np.array_equal(before, after)


def choose(
    monkeypatch: pytest.MonkeyPatch, *boxes: tuple[float, float, float, float, float]
) -> Any:
    """The face that is chosen of these boxes, the fifth number of which is a score."""
    array = np.array(boxes, np.float32).reshape(-1, 5)
    likely = detectors.Likely(array[:, :4], array[:, 1] + array[:, 3] * 0.4, array[:, 4])
    monkeypatch.setattr(faces, "detect", lambda *_: likely)
    # Of a shape in which a box of equal shares has the shape of a face.
    return find_face(np.zeros((120, 100, 3), np.uint8), "centerface")


def test_the_largest_near_the_centre_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    middle, aside = (0.4, 0.4, 0.2, 0.2, 0.9), (0.0, 0.0, 0.21, 0.21, 0.9)
    assert choose(monkeypatch, aside, middle).box == (0.4, 0.4, 0.2, 0.2)
    # A much larger one, off the centre, is the one that the photo is of.
    larger = (0.05, 0.1, 0.5, 0.6, 0.9)
    assert choose(monkeypatch, middle, larger).box == (0.05, 0.1, 0.5, 0.5)
    # Faces of which the detector is hardly sure stand back.
    doubtful = (0.3, 0.3, 0.3, 0.3, 0.25)
    assert choose(monkeypatch, doubtful, middle).box == (0.4, 0.4, 0.2, 0.2)
    assert choose(monkeypatch, doubtful).score == 0.25
    assert choose(monkeypatch, (0.4, 0.4, 0.2, 0.2, 0.19)) is None
    assert choose(monkeypatch) is None


@pytest.mark.parametrize(
    ("size", "left", "top"),
    # Within a frame that adds three tenths on each side; of seven tenths of the photo.
    [((192, 160), 30, 36), ((84, 70), -15, -12)],
    ids=["only small", "only large"],
)
def test_a_face_that_is_found_only_in_another_size_has_its_box_in_the_whole_photo(
    size: tuple[int, int], left: int, top: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_so(image_HWC: np.ndarray, _: str) -> detectors.Likely:
        rows, columns = size
        # It has the middle half of the photo, 50 by 60 of 100 by 120 pixels.
        box = ((25 + left) / columns, (30 + top) / rows, 50 / columns, 60 / rows)
        # The second look, which covers what is below the eyes, leaves the middle as it is.
        seen = (
            [box]
            if image_HWC.shape == (*size, 3) and image_HWC[60 + top, 50 + left, 0] == 7
            else []
        )
        array = np.array(seen, np.float32).reshape(-1, 4)
        return detectors.Likely(array, np.full(len(array), 0.55, np.float32), np.ones(len(array)))

    monkeypatch.setattr(faces, "detect", only_so)
    found = find_face(np.full((120, 100, 3), 7, np.uint8), "centerface")
    assert found is not None
    assert np.allclose(found.box, (0.25, 0.25, 0.5, 0.5), atol=1e-3)


@pytest.mark.parametrize("detector", NAMES)
def test_what_is_below_the_eyes_does_not_move_the_box(
    detector: str, portraits: list[np.ndarray]
) -> None:
    """The first look finds another box, the second does not see what is different."""
    bare, masked = portraits[2].copy(), portraits[2].copy()
    below = masked[118:165, 28:116]
    below[:] = 0.7 * below + 0.3 * np.array((120, 170, 220))
    first = [detectors.detect(photo, detector) for photo in (bare, masked)]
    assert not np.array_equal(*(one.boxes_N4[one.scores_N.argmax()] for one in first))
    found = [find_face(photo, detector) for photo in (bare, masked)]
    assert None not in found
    assert np.allclose(*(face.box for face in found), atol=0.012)


def test_of_boxes_of_one_face_the_best_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = (0.35, 0.35, 0.3, 0.3, 0.5)
    assert choose(monkeypatch, wide, (0.37, 0.37, 0.26, 0.26, 0.9)).score == 0.9


def test_the_median_box_has_the_median_place_and_size() -> None:
    boxes = np.array([[0.1, 0.1, 0.2, 0.2], [0.2, 0.2, 0.4, 0.4], [0.9, 0.9, 0.8, 0.8]])
    assert median_box(boxes) == (0.2, 0.2, 0.4, 0.4)
    assert median_box(boxes[:0]) is None
    # A checkpoint keeps shares of the photo, from 0 to 1.
    assert median_box(np.array([[-0.2, 0.8, 0.6, 0.5]])) == (0.0, 0.8, 0.4, 0.2)


def test_another_file_of_a_known_kind(tmp_path: Path, portraits: list[np.ndarray]) -> None:
    for name in NAMES:
        copy = tmp_path / DETECTORS[name].name
        shutil.copy(DETECTORS[name], copy)
        assert find_face(portraits[2], str(copy)) == find_face(portraits[2], name)
    first = detectors.key_of(str(copy))
    copy.write_bytes(copy.read_bytes() + b"\0")
    assert detectors.key_of(str(copy)) != first


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(ValueError, match=r"broken\.onnx: OpenCV cannot read"):
        detectors.detect(np.zeros((64, 48, 3), np.uint8), str(broken))
    segmenter = tmp_path / "segmenter.tflite"
    shutil.copy(FOLDER / "selfie_segmentation.tflite", segmenter)
    with pytest.raises(ValueError, match="not a face detector of BlazeFace's kind"):
        detectors.detect(np.zeros((64, 48, 3), np.uint8), str(segmenter))
    with pytest.raises(FileNotFoundError, match="no such file, nor one of centerface, blazeface"):
        detectors.detect(np.zeros((64, 48, 3), np.uint8), "retinaface")
