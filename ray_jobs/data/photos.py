"""python -m ray_jobs.prepare: manifest, folds, and every photo decoded and resized once."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from maskcls.config import layers
from maskcls.config.recipe import Image
from maskcls.config.schema import Config
from maskcls.data import folds, label_fixes, manifest, pseudo
from maskcls.data.manifest import OK
from maskcls.data.prepared import Prepared
from maskcls.data.prepared import prepare as prepare_images
from maskcls.data.preprocess import Preprocessing
from maskcls.labels import Task
from maskcls.progress import Progress
from maskcls.reports import finished_run
from maskcls.storage import files
from maskcls.storage.place import Place
from ray_jobs.data.source import ImageSource

log = logging.getLogger(__name__)
NAMED = 10
"""Bad files that a message names; the manifest lists all."""


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
    found = training_photos(config)
    place = Place(tables, uri)
    if config.pseudo.run is None:
        train = prepare_photos(config, found, images, place, "manifest.parquet")
    else:
        found = replace(found, photos=with_pseudo_labels(config, found.photos))
        train = prepare_photos(config, found, images, place, "training.parquet")
        train = replace(train, table=_manifest_alone(train.table, place))
    source = next(iter(train.images.values()))
    Prepared(source.folder).check(config.data.max_bad_share)
    photos = pd.read_parquet(source.table)
    columns = ["key", "mask", "gender", "age", "fold", "status"]
    columns += [str(name) for name in photos if str(name).startswith("pseudo_")]
    return Dataset(
        train=train,
        evaluation=prepare_eval(config, images, tables, uri),
        digest=layers.digest(
            train.digest,
            photos[columns].to_csv(index=False),
        ),
        pseudo=_pseudo_counts(config, photos),
    )


def with_pseudo_labels(config: Config, photos: pd.DataFrame) -> pd.DataFrame:
    """The photos, and after them those to predict of which ``pseudo.run`` is sure.

    Raises ValueError where that run has other folds or predicted nothing, FileNotFoundError where
    it is not finished or there is nothing to predict.
    """
    assert config.pseudo.run is not None
    run = finished_run.read(config.pseudo.run)
    theirs = run.photos.drop_duplicates("person").set_index("person")["fold"]
    ours = photos.drop_duplicates("person").set_index("person")["fold"]
    if len(theirs) != len(ours) or not (theirs.reindex(ours.index) == ours).all():
        raise ValueError(
            f"pseudo.run={config.pseudo.run} has other folds, so its answers carry labels of "
            "people that this run validates on: use the same data, run.seed and folds.count"
        )
    evaluation = photos_to_predict(config)
    if evaluation is None or not run.votes:
        raise FileNotFoundError(
            f"pseudo.run={config.pseudo.run}: there are no photos to predict that it answered"
        )
    answers = pseudo.sure_answers(run.votes, config.pseudo.confidence)
    further = pseudo.further_rows(photos, evaluation.photos, answers)
    return pd.concat([photos, further], ignore_index=True)


def _manifest_alone(table: Path, place: Place) -> Path:
    """Write manifest.parquet: the table without pseudo-labelled photos."""
    path = place.local / "manifest.parquet"
    photos = pseudo.plain(pd.read_parquet(table))
    kept = photos[[name for name in photos if not str(name).startswith("pseudo_")]]
    with files.replacing(path) as temporary:
        kept.to_parquet(temporary, index=False)
    place.push(lambda file: file == path.name)
    return path


def _pseudo_counts(config: Config, photos: pd.DataFrame) -> dict[str, Any] | None:
    if config.pseudo.run is None:
        return None
    counts = pseudo.counts(photos, config.folds.count)
    told = ", ".join(f"{name} {number:,.0f}" for name, number in counts.items())
    log.info("pseudo-labels: photos to predict that %s is sure of, mean over folds: %s",
             config.pseudo.run, told)  # fmt: skip
    return {
        "run": str(config.pseudo.run),
        "confidence": config.pseudo.confidence,
        "photos": dict(counts),
    }


def training_photos(config: Config) -> manifest.Manifest:
    """The photos to train on, with their ``fold``; those on an object store are fetched, and none
    is opened.

    Raises ValueError or FileNotFoundError where they cannot be used.
    """
    fixes = label_fixes.load_fixes(config.data.label_fixes) if config.data.label_fixes else None
    root = config.place(config.data.root)
    (root / "train").pull(
        manifest.of_variants(config.data.variants), Progress("train: files fetched")
    )
    found = manifest.read_train(root.local, variants=config.data.variants, fixes=fixes)
    people = folds.assign(
        found.photos, config.folds.count, config.run.seed, config.folds.allow_thin
    )
    found.photos["fold"] = found.photos["person"].map(people)
    if absent := manifest.absent_classes(found.photos):
        found.notes.append(
            f"no photo to train on of {', '.join(absent)}: no model learns what these look like, "
            "and scores are means over the other classes"
        )
    return found


def photos_to_predict(config: Config, plain: bool = False) -> manifest.Manifest | None:
    """The photos to predict, fetched if on an object store; None where there is no eval folder.

    With ``plain``, data.root itself may hold them.
    """
    root = config.place(config.data.root)
    (root / "eval").pull(progress=Progress("eval: files fetched"))
    if (root.local / "eval").is_dir():
        return manifest.read_eval(root.local)
    if not plain:
        return None
    root.pull(progress=Progress("photos fetched"))
    return manifest.read_folder(root.local)


def prepare_eval(
    config: Config,
    images: Sequence[Image],
    tables: Path,
    uri: str | None = None,
    plain: bool = False,
) -> Photos | None:
    """Prepare the photos to predict; None where the data has no eval folder.

    Raises ValueError with the list of those that cannot be read, unless data.bad_eval allows them.
    """
    found = photos_to_predict(config, plain)
    if found is None:
        log.info("%s has no eval folder: nothing to predict", config.data.root)
        return None
    photos = prepare_photos(config, found, images, Place(tables, uri), "eval.parquet")
    table = pd.read_parquet(photos.table)
    bad = table[table["status"] != OK]
    if len(bad) and config.data.bad_eval == "error":
        raise ValueError(
            f"{len(bad)} photo(s) to predict cannot be read: {_listed(bad)}\nRepair them, or set "
            "data.bad_eval=most_frequent to answer the most frequent class for them"
        )
    return photos


def prepare_photos(
    config: Config, found: manifest.Manifest, images: Sequence[Image], tables: Place, name: str
) -> Photos:
    """Decode and resize, write the table with what became of each photo, tell what is odd."""
    table = tables.local / name
    for note in found.notes:
        log.info("%s", note)
    wanted = {image: preprocessing(image) for image in images}
    what = f"{table.stem}: photos prepared"
    prepared = prepare_images(
        found.photos,
        list(dict.fromkeys(wanted.values())),
        config.data.cache,
        threads=os.cpu_count() or 1,
        progress=Progress(what),
    )
    by_image = dict(zip(dict.fromkeys(wanted.values()), prepared, strict=True))
    photos = found.photos.assign(status=prepared[0].index["status"].to_numpy())
    bad = photos[photos["status"] != OK]
    if len(bad):
        log.info("%d of %d photos cannot be used: %s", len(bad), len(photos), _listed(bad))
    with files.replacing(table) as temporary:
        photos.to_parquet(temporary, index=False)
    tables.push(lambda file: file == name)
    root = config.place(config.data.root)
    remote = {
        "tables": tables if tables.uri else None,
        "root": root if root.uri else None,
    }
    return Photos(
        table,
        {image: ImageSource(by_image[p].folder, table, p, **remote) for image, p in wanted.items()},
    )


def preprocessing(image: Image) -> Preprocessing:
    """How photos are prepared for a model that sees ``image``."""
    return Preprocessing(
        height=image.size[0],
        width=image.size[1],
        crop=image.crop,
        crop_margin=image.crop_margin,
        background=image.background,
        zoom=image.zoom,
    )


def _listed(bad: pd.DataFrame) -> str:
    named = [f"{row.key} ({row.status})" for row in bad.head(NAMED).itertuples()]
    return ", ".join(named) + (", ..." if len(bad) > NAMED else "")
