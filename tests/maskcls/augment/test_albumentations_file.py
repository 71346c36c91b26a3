"""Pipelines of Albumentations: seeded a photo, refused where they cannot work."""

import copy
import json

import numpy as np
import pytest

from maskcls.augment import albumentations_file
from maskcls.config.load import ConfigError, load
from maskcls.storage import yaml_files
from tests.conftest import ROOT

FILE = ROOT / "configs" / "albumentations.yaml"
SHIPPED = yaml_files.read(FILE)


@pytest.fixture(scope="module")
def augment():
    return albumentations_file.build(json.dumps(SHIPPED))


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)


def test_pixels_depend_on_the_generator_alone(augment, photo):
    first = [augment(photo, np.random.default_rng(seed)) for seed in range(12)]
    other = albumentations_file.build(json.dumps(SHIPPED))  # another worker, in another order
    again = [other(photo, np.random.default_rng(seed)) for seed in reversed(range(12))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({image.tobytes() for image in first}) > 6


def test_transforms_are_drawn_independently(photo):
    half = [{"__class_fullname__": "HorizontalFlip", "p": 0.5},
            {"__class_fullname__": "VerticalFlip", "p": 0.5}]  # fmt: skip
    pipeline = {"transform": {"__class_fullname__": "Compose", "p": 1.0, "transforms": half}}
    augment = albumentations_file.build(json.dumps(pipeline))
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
        albumentations_file.build(json.dumps(pipeline))


def test_a_pipeline_that_changes_the_size_says_so(photo):
    crop = changed(__class_fullname__="CenterCrop", height=32, width=32, p=1.0)
    smaller = albumentations_file.build(json.dumps(crop))
    with pytest.raises(ValueError, match="sizes and types must stay"):
        smaller(photo, np.random.default_rng(0))


WORDS = ["augment.name=albumentations"]


def test_a_configuration_holds_the_content_of_the_file(tmp_path):
    augment = load(words=[*WORDS, f"augment.pipeline={FILE}"]).config.augment
    assert json.loads(augment.pipeline) == SHIPPED
    assert load(words=[*WORDS, f"augment.pipeline={augment.pipeline}"]).config.augment == augment


@pytest.mark.parametrize(
    ("text", "reason"),
    [(None, "no such file"), ("a: 1", "top key is 'transform'"),
     ("transform: {__class_fullname__: CoarseDropuot, p: 1.0}", "did you mean CoarseDropout")],
)  # fmt: skip
def test_a_file_that_is_no_pipeline_is_refused_when_read(tmp_path, text, reason):
    path = tmp_path / "pipeline.yaml"
    if text:
        path.write_text(text)
    with pytest.raises(ConfigError, match=rf"augment\.pipeline.*{reason}"):
        load(words=[*WORDS, f"augment.pipeline={path}"])
