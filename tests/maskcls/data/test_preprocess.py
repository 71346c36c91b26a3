from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskcls.config.recipe import Image
from maskcls.data import preprocess as module
from maskcls.data.faces import Box, Face
from maskcls.data.preprocess import (
    Preprocessing,
    crop_window,
    preprocess,
    preprocess_each,
)
from tests.maskcls.data.test_prepared import SMALL, scene

QUARTER: Box = (0.25, 0.25, 0.5, 0.5)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes every search find the given box, and lists the searches."""
    searches: list[str] = []

    def set_face(box: Box | None) -> list[str]:
        def find(_: Any, detector: str) -> Face | None:
            searches.append(detector)
            return Face(box, 0.9) if box else None

        monkeypatch.setattr(module, "find_face", find)
        return searches

    return set_face


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (Preprocessing(256, 192), "256x192"),
        (Preprocessing(256, 192, crop_margin=0.5, detector="blazeface"), "256x192"),
        (Preprocessing(256, 192, fallback=QUARTER), "256x192"),
        (Preprocessing(256, 192, crop="face"), "256x192-face0.3-centerface"),
        (Preprocessing(256, 192, "face", 1, "black"), "256x192-face1-black-centerface"),
        (Preprocessing(256, 192, background="blur"), "256x192-blur-centerface"),
        (Preprocessing(256, 192, zoom=1.5, fit="pad"), "256x192-zoom1.5-pad"),
    ],
)
def test_names_are_stable(settings: Preprocessing, name: str) -> None:
    assert settings.name == name


def test_a_name_changes_with_all_that_changes_pixels() -> None:
    base = Preprocessing(32, 24, crop="face", background="black")
    others = [
        {"height": 33}, {"width": 25}, {"crop": "none"}, {"crop_margin": 0.4},
        {"background": "blur"}, {"zoom": 2.0}, {"fit": "pad"}, {"detector": "blazeface"},
        {"fallback": QUARTER}, {"fallback": (0.2, 0.25, 0.5, 0.5)},
    ]  # fmt: skip
    assert {f.name for f in dataclasses.fields(base)} == {key for other in others for key in other}
    names = {dataclasses.replace(base, **other).name for other in others} | {base.name}
    assert len(names) == len(others) + 1


@pytest.mark.parametrize(
    "values",
    [
        {"height": 0},
        {"crop": "eyes"},
        {"background": "grabcut"},
        {"fit": "squeeze"},
        {"crop_margin": -1.0},
        {"zoom": 0.5},
    ],
)
def test_impossible_settings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="got Preprocessing"):
        Preprocessing(**{"height": 32, "width": 24} | values)


def test_settings_survive_json() -> None:
    settings = Preprocessing(32, 24, "face", background="blur", fallback=QUARTER)
    again = Preprocessing(**json.loads(json.dumps(dataclasses.asdict(settings))))
    assert again == settings
    assert hash(again) == hash(settings)


def test_a_checkpoints_section_gives_all_settings() -> None:
    """A key that is forgotten here would be one thing in training and another in prediction."""
    changed = {
        "size": (33, 25), "crop": "face", "crop_margin": 0.7, "detector": "blazeface",
        "fallback": QUARTER, "background": "blur", "fit": "pad", "zoom": 1.5,
    }  # fmt: skip
    assert changed.keys() | {"mean", "std"} == set(Image.model_fields)
    settings = Preprocessing.of(Image.model_validate(changed))
    assert (settings.height, settings.width) == (33, 25)
    for key in changed.keys() - {"size"}:
        assert getattr(settings, key) == changed[key]
        assert getattr(settings, key) != getattr(SMALL, key)


@pytest.mark.parametrize("shape", [(64, 48), (1, 1), (1, 500), (500, 1), (10, 900)])
@pytest.mark.parametrize("crop", ["none", "face"])
@pytest.mark.parametrize("background", ["keep", "black", "blur"])
@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_photos_of_any_shape_come_out_alike(
    shape: tuple[int, int], crop: Any, background: Any, fit: Any
) -> None:
    settings = Preprocessing(32, 24, crop=crop, background=background, fit=fit)
    image = preprocess(scene(*shape), settings)
    assert image.shape == (32, 24, 3)
    assert image.dtype == np.uint8


@pytest.mark.parametrize("zoom", [1.0, 1.5, 2.0, 1e6])
def test_zoom_keeps_the_centre(zoom: float) -> None:
    height, width = 120, 90
    photo = np.zeros((height, width, 3), np.uint8)
    photo[..., 0], photo[..., 1] = np.arange(height)[:, None] * 2, np.arange(width) * 2
    image = preprocess(photo, Preprocessing(height, width, zoom=zoom))
    for axis, size in ((0, height), (1, width)):
        seen = np.unique(image[..., axis]) / 2
        assert seen.max() - seen.min() + 1 == pytest.approx(max(1, size / zoom), abs=1)
        assert (seen.max() + seen.min()) / 2 == pytest.approx((size - 1) / 2, abs=1)


def test_shrinking_averages_over_areas() -> None:
    checkers = (np.indices((64, 48)).sum(axis=0) % 2 * 255).astype(np.uint8)
    image = preprocess(np.repeat(checkers[:, :, None], 3, axis=2), SMALL)
    assert set(np.unique(image)) <= {127, 128}


@pytest.mark.parametrize(
    ("fit", "shown", "width"),
    [("stretch", (0, 199), 60), ("pad", (0, 199), 60), ("crop", (70, 129), 60)],
)
def test_fits(fit: Any, shown: tuple[int, int], width: int) -> None:
    """A photo of 40 x 200, whose columns have their number for colour, as one of 40 x 60."""
    photo = np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None], (40, 200, 3)).copy()
    image = preprocess(photo, Preprocessing(40, width, fit=fit))
    rows = image[:, :, 0].any(axis=1).sum()
    assert rows == (12 if fit == "pad" else 40)
    middle = image[20, :, 0]
    assert float(middle[0]) == pytest.approx(shown[0], abs=2)
    assert float(middle[-1]) == pytest.approx(shown[1], abs=2)


def test_a_crop_keeps_the_shape_and_holds_face_and_margin(found: Any) -> None:
    photo = np.zeros((400, 300, 3), np.uint8)
    photo[100:140, 90:150] = 255
    found((0.3, 0.25, 0.2, 0.1))
    # 60 pixels of face, 120 for a shape of 2 : 1, and half as much on each side.
    image = preprocess(photo, Preprocessing(240, 120, crop="face", crop_margin=0.5))
    white = np.argwhere(image[:, :, 0] > 127)
    assert white.min(axis=0).tolist() == [100, 30]
    assert white.max(axis=0).tolist() == [139, 89]


@given(
    st.tuples(*[st.integers(1, 300)] * 2),
    st.tuples(*[st.floats(-0.3, 1)] * 2, *[st.floats(0.01, 1.5)] * 2),
    st.tuples(*[st.integers(1, 60)] * 2),
    st.floats(0, 3),
)
def test_a_crop_never_leaves_the_photo(
    shape: tuple[int, int], face: Box, size: tuple[int, int], margin: float
) -> None:
    rows, columns = crop_window(shape, face, Preprocessing(*size, "face", margin))
    assert 0 <= rows.start < rows.stop <= shape[0]
    assert 0 <= columns.start < columns.stop <= shape[1]
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if min(height, width) > 20:
        assert height / width == pytest.approx(size[0] / size[1], rel=0.1)


def test_a_missed_face_is_cropped_where_the_settings_say(found: Any) -> None:
    found(None)
    missed = Preprocessing(32, 24, crop="face", crop_margin=0, fallback=QUARTER)
    found_there = preprocess_each(scene(), [missed], [QUARTER])[0]
    assert np.array_equal(preprocess(scene(), missed), found_there)
    assert np.array_equal(found_there, scene()[16:48, 12:36])
    without = dataclasses.replace(missed, fallback=None)
    assert not np.array_equal(preprocess(scene(), without), preprocess(scene(), SMALL))


def test_one_search_serves_all_models(found: Any) -> None:
    searches = found(QUARTER)
    preprocess(scene(), SMALL)
    assert not searches
    several = [Preprocessing(size, size, crop="face") for size in (16, 32)]
    several += [Preprocessing(16, 16, background="black"), SMALL]
    together = preprocess_each(scene(), several)
    assert searches == ["centerface"]
    for image, settings in zip(together, several, strict=True):
        assert np.array_equal(image, preprocess(scene(), settings))
    preprocess_each(scene(), several, [QUARTER] * len(several))
    assert len(searches) == 1 + 3


def test_it_needs_numpy_and_opencv_alone() -> None:
    """So that what reads an exported model can use it."""
    code = (
        "import sys; from maskcls.data import preprocess; "
        "print({'torch', 'ray', 'pandas', 'pydantic', 'PIL', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_threads_do_not_change_a_pixel() -> None:
    settings = Preprocessing(64, 48, crop="face", background="blur")
    before, images = cv2.getNumThreads(), []
    try:
        for threads in (1, 2):
            cv2.setNumThreads(threads)
            images.append(preprocess(scene(256, 192), settings))
    finally:
        cv2.setNumThreads(before)
    assert np.array_equal(*images)
