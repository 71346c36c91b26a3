"""Pipelines of Albumentations: seeded a photo, refused where they cannot work."""

import copy

import numpy as np
import pytest
import yaml

from maskcls.augment import albumentations_file
from tests.conftest import ROOT

SHIPPED = yaml.safe_load((ROOT / "configs" / "albumentations.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def augment():
    return albumentations_file.build(SHIPPED)


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)


def test_pixels_depend_on_the_generator_alone(augment, photo):
    first = [augment(photo, np.random.default_rng(seed)) for seed in range(12)]
    other = albumentations_file.build(SHIPPED)  # another worker, in another order
    again = [other(photo, np.random.default_rng(seed)) for seed in reversed(range(12))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({image.tobytes() for image in first}) > 6


def test_transforms_are_drawn_independently(photo):
    half = [{"__class_fullname__": "HorizontalFlip", "p": 0.5},
            {"__class_fullname__": "VerticalFlip", "p": 0.5}]  # fmt: skip
    pipeline = {"transform": {"__class_fullname__": "Compose", "p": 1.0, "transforms": half}}
    augment = albumentations_file.build(pipeline)
    made = {augment(photo, np.random.default_rng(seed)).tobytes() for seed in range(40)}
    flipped = [photo, photo[:, ::-1], photo[::-1], photo[::-1, ::-1]]
    assert made == {image.tobytes() for image in flipped}


def test_photos_keep_their_size_and_the_original(augment, photo):
    before = photo.copy()
    for seed in range(12):
        image = augment(photo, np.random.default_rng(seed))
        assert image.shape == photo.shape
        assert image.dtype == np.uint8
    assert np.array_equal(photo, before)


def changed(**transform):
    pipeline = copy.deepcopy(SHIPPED)
    pipeline["transform"]["transforms"] = [transform]
    return pipeline


@pytest.mark.parametrize(
    ("pipeline", "reason"),
    [
        ({"transforms": []}, "top key is 'transform'"),
        ({"transform": {"p": 1.0}}, "__class_fullname__"),
        (changed(__class_fullname__="CoarseDropuot", p=1.0), "did you mean CoarseDropout"),
        (changed(__class_fullname__="ImageCompression", quality_range=[90, 30], p=1.0), "refuses"),
    ],
)
def test_what_the_library_does_not_know_is_refused(pipeline, reason):
    with pytest.raises(ValueError, match=reason):
        albumentations_file.build(pipeline)


def test_a_pipeline_that_changes_the_size_says_so(photo):
    smaller = albumentations_file.build(
        changed(__class_fullname__="CenterCrop", height=32, width=32, p=1.0)
    )
    with pytest.raises(ValueError, match="sizes and types must stay"):
        smaller(photo, np.random.default_rng(0))
