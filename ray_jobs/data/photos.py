"""The photos of a run: manifest, folds, faces, and each photo decoded and resized once."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from maskcls.config import checks, layers
from maskcls.config.recipe import Image, Recipe
from maskcls.config.schema import Config
from maskcls.data import coverage, face_table, folds, label_fixes, manifest
from maskcls.data.prepared import Prepared
from maskcls.data.prepared import prepare as prepare_images
from maskcls.data.preprocess import Preprocessing
from maskcls.data.status import MISSING_FILE, OK
from maskcls.labels import Task
from maskcls.progress import Progress
from maskcls.storage import files
from maskcls.storage.names import some
from maskcls.storage.place import Place
from ray_jobs.data import copies, pseudo_labels, sources
from ray_jobs.data.source import ImageSource
from ray_jobs.data.sources import Opened

log = logging.getLogger(__name__)
NAMED = 10
"""Bad files that a message names; the manifest lists all."""

SAMPLE = 120
"""Photos by which ``image.crop=auto`` is decided."""

NARROW = 0.5
"""Faces of this share of the photo's width, or more, are not cropped to. Measured at .29, where the
crop is worth .22 of joint macro F1, and at .72, where it costs .06: see benchmarks/RESULTS.md."""


@dataclass(frozen=True)
class Photos:
    """Photos of one side, train or eval: their table, and their images for each image section."""

    table: Path
    images: dict[Image, ImageSource]

    @property
    def digest(self) -> str:
        """Changes when a pixel or the list of photos does."""
        return layers.digest(sorted({s.folder.name for s in self.images.values()}))


@dataclass(frozen=True)
class Dataset:
    """All that the jobs of a run read. ``digest`` changes when a trained model would."""

    train: Photos
    evaluation: Photos | None
    digest: str
    pseudo: dict[str, Any] | None = None
    """Which pseudo-labels there are: the run they come from, and how many; None: none."""
    completed: Mapping[Image, Image] = field(default_factory=dict)

    def complete(self, recipe: Recipe) -> Recipe:
        """The recipe with what its photos decide: the box taken where no face is found."""
        image = self.completed.get(recipe.image, recipe.image)
        return recipe.model_copy(update={"image": image})

    def without_evaluation(self) -> Dataset:
        """The same, with nothing to predict."""
        return replace(self, evaluation=None)


def image_settings(config: Config, tasks: Sequence[Task]) -> list[Image]:
    """The image sections by which the models of these tasks see a photo."""
    return list(dict.fromkeys(config.recipe(task).image for task in tasks))


def prepare(
    config: Config, images: Sequence[Image], tables: Path, uri: str | None = None
) -> Dataset:
    """Prepare photos for the image sections asked for; what is prepared already is only looked up.

    ``tables`` gets manifest.parquet (one row a training photo: person, labels, fold, status) and
    eval.parquet; ``uri`` is where that folder lives, if on an object store. Photos on one are
    fetched first. Raises ValueError or FileNotFoundError for photos that cannot be used.
    """
    opened = sources.opened(config)
    found = training_photos(config, opened)
    place = Place(tables, uri)
    located, completed = locate_faces(config, found, images)
    images = list(dict.fromkeys(completed.values()))
    if config.pseudo.run is None:
        train = prepare_photos(config, located, images, place, "manifest.parquet", opened)
    else:
        further = pseudo_labels.with_answers(
            config, found.photos, photos_to_predict(config, opened)
        )
        both = replace(found, photos=further)
        train = prepare_photos(config, both, images, place, "training.parquet", opened)
        train = replace(train, table=pseudo_labels.write_manifest(train.table, place))
    source = next(iter(train.images.values()))
    Prepared(source.folder).check(config.data.max_bad_share)
    photos = pd.read_parquet(source.table)
    columns = ["key", "mask", "gender", "age", "age_band", "weight", "fold", "status"]
    columns += [str(name) for name in photos if str(name).startswith("pseudo_")]
    return Dataset(
        train=train,
        evaluation=prepare_eval(config, images, tables, uri, opened=opened),
        digest=layers.digest(
            train.digest,
            photos[columns].to_csv(index=False),
        ),
        pseudo=pseudo_labels.counts(config, photos),
        completed=completed,
    )


def training_photos(
    config: Config, opened: Opened, *, look_for_copies: bool = True
) -> manifest.Manifest:
    """The photos to train on, with their ``fold``; those on an object store are fetched.

    None is opened but for those without a person, among which copies are looked for, unless
    ``look_for_copies`` is off. Raises ValueError or FileNotFoundError where they cannot be used.
    """
    fixes = label_fixes.load_fixes(config.data.label_fixes) if config.data.label_fixes else None
    if config.data.table is None:
        (config.place(config.data.root) / "train").pull(
            manifest.of_variants(config.data.variants), Progress("train: files fetched")
        )
    found = opened.source.train(fixes)
    _require_files(found.photos, config.data.max_bad_share)
    coverage.require(found.photos, checks.tasks_of(config))
    if config.data.near_duplicates == "together":
        found = copies.together(found, config.data.cache, look=look_for_copies)
    people = folds.assign(
        found.photos, config.folds.count, config.run.seed, config.folds.allow_thin
    )
    found.photos["fold"] = found.photos["person"].map(people)
    if absent := coverage.absent_classes(found.photos, config.labels.age_limits):
        found.notes.append(
            f"no photo to train on of {', '.join(absent)}: no model learns what these look like, "
            "and scores are means over the other classes"
        )
    return found


def _require_files(photos: pd.DataFrame, max_bad_share: float) -> None:
    """Missing files are known before any is opened: a run need not decode the others to stop."""
    missing = photos[photos["status"] == MISSING_FILE]
    if len(missing) > max_bad_share * len(photos):
        raise ValueError(
            f"{len(missing):,} of {len(photos):,} photos to train on are not there, the limit is "
            f"data.max_bad_share={max_bad_share:g}: {_listed(missing)}"
        )


def photos_to_predict(config: Config, opened: Opened) -> manifest.Manifest | None:
    """The photos to predict, fetched if on an object store; None where there are none."""
    if config.data.table is None:
        (config.place(config.data.root) / "eval").pull(progress=Progress("eval: files fetched"))
    return opened.source.evaluation()


def prepare_eval(
    config: Config,
    images: Sequence[Image],
    tables: Path,
    uri: str | None = None,
    opened: Opened | None = None,
) -> Photos | None:
    """Prepare the photos to predict; None where the data has none.

    Raises ValueError with the list of those that cannot be read, unless data.bad_eval allows them.
    """
    opened = opened or sources.opened(config)
    found = photos_to_predict(config, opened)
    if found is None:
        if config.data.table:
            log.info("no row of the table has the split eval: nothing to predict")
        else:
            log.info("%s has no eval folder: nothing to predict", config.data.root)
        return None
    photos = prepare_photos(config, found, images, Place(tables, uri), "eval.parquet", opened)
    table = pd.read_parquet(photos.table)
    bad = table[table["status"] != OK]
    if len(bad) and config.data.bad_eval == "error":
        raise ValueError(
            f"{len(bad)} photo(s) to predict cannot be read: {_listed(bad)}\nRepair them, or set "
            "data.bad_eval=most_frequent to answer the most frequent class for them"
        )
    return photos


def locate_faces(
    config: Config, found: manifest.Manifest, images: Sequence[Image]
) -> tuple[manifest.Manifest, dict[Image, Image]]:
    """Look for the faces of the photos to train on, where an image section needs them.

    Gives the photos with the boxes of the first detector that is asked for, and each image section
    with its crop decided and its ``fallback``: the median box of all photos to train on. These are
    of no label, and the same for all folds.
    """
    photos, completed = found.photos, decide_crops(config, found, images)
    for asked, image in completed.items():
        if not Preprocessing.of(image).needs_face or image.fallback is not None:
            continue
        located = _located(config, found.photos, image.detector, "train: faces looked for")
        photos = photos if "face_detector" in photos else located
        update = {"fallback": face_table.fallback_of(located)}
        completed[asked] = image.model_copy(update=update)
    return replace(found, photos=photos), completed


def decide_crops(
    config: Config, found: manifest.Manifest, images: Sequence[Image]
) -> dict[Image, Image]:
    """Each image section, and the same with ``crop="auto"`` decided by a sample of the photos to
    train on: to the face where it is narrower than ``NARROW`` in the median photo."""
    asked = dict.fromkeys(image.detector for image in images if image.crop == "auto")
    crops = {detector: _crop_of(config, found.photos, detector) for detector in asked}
    return {
        image: image.model_copy(update={"crop": crops[image.detector]})
        if image.crop == "auto"
        else image
        for image in images
    }


def _crop_of(config: Config, photos: pd.DataFrame, detector: str) -> Literal["none", "face"]:
    numbers = photos["key"].map(folds.number_of)
    sample = photos.loc[numbers.nsmallest(SAMPLE).index].reset_index(drop=True)
    located = _located(config, sample, detector, "faces of a sample looked for")
    width = float(located["face_width"].median())
    if np.isnan(width):
        log.info("image.crop=auto: no face in %d photos, so none is cropped", len(sample))
        return "none"
    crop: Literal["none", "face"] = "face" if width < NARROW else "none"
    log.info(
        "image.crop=auto: faces are %.0f %% as wide as the photos (median of %d): crop=%s",
        100 * width, len(sample), crop,
    )  # fmt: skip
    return crop


def known_images(
    config: Config, found: manifest.Manifest, images: Sequence[Image]
) -> Sequence[Image]:
    """The image sections, whose crops are decided, as ``locate_faces`` completes them, if that
    takes no search for faces."""
    threads = os.cpu_count() or 1
    for image in images:
        if Preprocessing.of(image).needs_face and not face_table.is_cached(
            found.photos, image.detector, config.data.cache, threads
        ):
            return images
    return list(locate_faces(config, found, images)[1].values())


def _located(config: Config, photos: pd.DataFrame, detector: str, what: str) -> pd.DataFrame:
    return face_table.locate(
        photos,
        detector,
        config.data.cache,
        threads=os.cpu_count() or 1,
        progress=Progress(what),
    )


def prepare_photos(
    config: Config,
    found: manifest.Manifest,
    images: Sequence[Image],
    tables: Place,
    name: str,
    opened: Opened,
) -> Photos:
    """Decode and resize, write the table with what became of each photo, tell what is odd."""
    table = tables.local / name
    for note in found.notes:
        log.info("%s", note)
    wanted = {image: Preprocessing.of(image) for image in images}
    photos = found.photos
    for recipe in wanted.values():
        if recipe.needs_face and "face_detector" not in photos:
            what = f"{table.stem}: faces looked for"
            photos = _located(config, photos, recipe.detector, what)
    prepared = prepare_images(
        photos,
        list(dict.fromkeys(wanted.values())),
        config.data.cache,
        threads=os.cpu_count() or 1,
        progress=Progress(f"{table.stem}: photos prepared"),
    )
    by_image = dict(zip(dict.fromkeys(wanted.values()), prepared, strict=True))
    photos = photos.assign(status=prepared[0].index["status"].to_numpy())
    bad = photos[photos["status"] != OK]
    if len(bad):
        log.info("%d of %d photos cannot be used: %s", len(bad), len(photos), _listed(bad))
    if "face_detector" in photos:
        _tell_missed(photos, table.stem)
    files.write_table(table, photos)
    tables.push(lambda file: file == name)
    return Photos(
        table,
        {
            image: ImageSource(
                by_image[p].folder, table, p, tables if tables.uri else None, opened.places
            )
            for image, p in wanted.items()
        },
    )


def _tell_missed(photos: pd.DataFrame, name: str) -> None:
    log.info(
        "%s: no face found in %s of %d photos, which are cropped where the face usually is",
        name, some(photos.loc[face_table.missed(photos), "key"]), (photos["status"] == OK).sum(),
    )  # fmt: skip


def _listed(bad: pd.DataFrame) -> str:
    named = [f"{row.key} ({row.status})" for row in bad.head(NAMED).itertuples()]
    return ", ".join(named) + (", ..." if len(bad) > NAMED else "")
