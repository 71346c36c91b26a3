"""Preprocessing is part of the checkpoint: what it keeps gives the same pixels again."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from maskcls.config.load import load
from maskcls.config.recipe import Image, Recipe
from maskcls.data import face_table
from maskcls.data.faces import CENTRE, Face
from maskcls.data.photos import decode
from maskcls.data.prepared import Prepared
from maskcls.data.preprocess import Preprocessing, preprocess
from ray_jobs.data import sources
from ray_jobs.data.photos import (
    SAMPLE,
    decide_crops,
    image_settings,
    known_images,
    prepare,
    training_photos,
)


def settings(drawn, cache, *words):
    return load(
        words=[
            f"data.root={drawn}", f"data.cache={cache}", "tasks=[multi]", "folds.count=2",
            "image.size=[32,24]", "image.crop=face", "image.background=black",
            "image.detector=blazeface", *words,
        ]
    ).config  # fmt: skip


def test_prediction_repeats_from_the_checkpoint_alone(drawn, tmp_path, monkeypatch):
    missing = {3, 20}
    found, calls = face_table.find_face, []

    def find(image_HWC, detector):
        calls.append(detector)
        return None if len(calls) - 1 in missing else found(image_HWC, detector)

    monkeypatch.setattr(face_table, "find_face", find)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    config = settings(drawn, tmp_path / "cache")
    images = image_settings(config, config.tasks)
    photos = training_photos(config, sources.opened(config))
    assert known_images(config, photos, images) == images
    data = prepare(config, images, tmp_path)
    assert len(calls) == 42 * 7 + 6 * 7
    # What a checkpoint writes and reads.
    recipe = data.complete(config.recipe(config.tasks[0]))
    again = Recipe.model_validate_json(recipe.model_dump_json()).image
    assert again == recipe.image
    manifest = pd.read_parquet(data.train.table)
    missed = face_table.missed(manifest)
    assert missed[list(missing)].all()
    assert missed.sum() < len(manifest) / 4
    assert again.fallback == face_table.fallback_of(manifest) != CENTRE
    form = Preprocessing.of(again)
    for side in (data.evaluation, data.train):
        stored = Prepared(side.images[again].folder).open()
        table = pd.read_parquet(side.table)
        # A missed face of a training photo has the person's own box, which no settings know.
        known = table["face_left"].notna() if "person" in table else table["status"] == "ok"
        for row in table.index[known][::9]:
            data_of = Path(table["path"][row]).read_bytes()
            assert np.array_equal(stored[row], preprocess(decode(data_of), form))
    # Everything is known now: nothing is looked for again.
    assert [known.fallback for known in known_images(config, photos, images)] == [again.fallback]
    prepare(config, images, tmp_path)
    assert len(calls) == 42 * 7 + 6 * 7


@pytest.mark.parametrize(("width", "crop"), [(0.49, "face"), (0.5, "none"), (None, "none")])
def test_faces_are_cropped_to_where_they_are_small(width, crop, drawn, tmp_path, monkeypatch):
    """`auto` looks at a sample alone; what it decides is what a checkpoint keeps."""
    calls = []

    def find(image_HWC, detector):
        calls.append(detector)
        return width and Face((0.2, 0.2, width, 0.5), 0.9)

    monkeypatch.setattr(face_table, "find_face", find)
    config = settings(drawn, tmp_path / "cache", "image.crop=auto", "image.background=keep")
    images = image_settings(config, config.tasks)
    photos = training_photos(config, sources.opened(config))
    decided = list(decide_crops(config, photos, images).values())
    (known,) = known_images(config, photos, decided)
    assert (known.crop, known.fallback) == (crop, None)
    assert len(calls) == SAMPLE < len(photos.photos)
    data = prepare(config, images, tmp_path)
    assert len(calls) == SAMPLE + (42 * 7 + 6 * 7 if crop == "face" else 0)
    image = data.complete(config.recipe(config.tasks[0])).image
    assert image.crop == crop
    assert (image.fallback is not None) == (crop == "face")
    assert list(data.train.images) == list(data.evaluation.images) == [image]


def test_settings_that_need_no_face_look_for_none(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(face_table, "find_face", lambda *_: 1 / 0)
    config = settings(drawn, tmp_path / "cache", "image.crop=none", "image.background=keep")
    data = prepare(config, image_settings(config, config.tasks), tmp_path)
    assert "face_left" not in pd.read_parquet(data.train.table)
    recipe = config.recipe(config.tasks[0])
    assert data.complete(recipe) == recipe
    assert isinstance(recipe.image, Image)
