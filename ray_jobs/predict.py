"""python -m ray_jobs.predict RUN data.root=PHOTOS: a finished run or a bundle on new photos.

PHOTOS is a folder, with its sub-folders; one that holds the photos in eval/images; a folder on an
object store; or a .parquet file with a column `path` or `bytes`. data.table=photos.csv in its place
names a table as in training: its rows of the split eval, or all where none is. However many photos
there are, they are streamed: nothing is kept but the answers, in files of answers.photos_per_part
rows. The same command goes on where it stopped. A photo that cannot be read is a row with the
reason.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pandas as pd

from maskcls.config import layers
from maskcls.config.load import from_command_line
from maskcls.config.schema import Config
from maskcls.data.status import OK
from maskcls.inference import bundle
from maskcls.inference.describe import recipes_of
from maskcls.progress import Progress
from maskcls.scoring import submission
from maskcls.storage import files
from maskcls.storage.place import Place
from maskcls.storage.remote import Store
from ray_jobs.batch import parts, pipeline
from ray_jobs.batch.parts import Listing
from ray_jobs.cluster import connect, nodes
from ray_jobs.data import sources
from ray_jobs.run import arguments, console, jobs
from ray_jobs.run.folder import RunFolder, reading

log = logging.getLogger(__name__)


def main() -> None:
    config = from_command_line(__doc__ or "", arguments.words())
    with console.report_errors("predict", config), reading(config) as run:
        console.show_as_uri(run.place)
        predict(config, run)


def predict(config: Config, run: RunFolder) -> None:
    """Answer for the photos in data.root or data.table.

    Raises FileNotFoundError where there is no finished run or no photo, and ValueError where a
    submission is due and photos to submit cannot be read.
    """
    recipes, identity = recipes_of(run.path)
    size = pipeline.part_size(recipes, config.answers.photos_per_part)
    if config.data.table is None:
        listing = parts.find(_root(config), size)
    else:
        listing = parts.of_table(sources.opened(config).source, size)
    for note in listing.notes:
        log.info("%s", note)
    out = _out(config, run, layers.digest([listing.digest, identity, size]))
    out.local.mkdir(parents=True, exist_ok=True)
    files.remove_cut_off(out.local)
    left = pipeline.unwritten(out.local, listing.parts)
    if done := len(listing.parts) - len(left):
        log.info("%d of %d files of answers are there already", done, len(listing.parts))
    if left:
        _answer(config, run, out, recipes, left)
    _finish(config, run, out, listing)


def _root(config: Config) -> Path | str:
    """Where the photos are read from. Those to submit are fetched: their order is in a file."""
    root = config.place(config.data.root)
    if root.uri is None:
        return root.local
    if not any(name.startswith("eval/images/") for name in Store(root.uri).listing()):
        return root.uri
    (root / "eval").pull(progress=Progress("eval: files fetched"))
    return root.local


def _answer(
    config: Config, run: RunFolder, out: Place, recipes: list, left: list[parts.Part]
) -> None:
    connect.connect()
    gpus, actors, threads = _resources(config)
    work = pipeline.Work(run.place, out, "cuda" if gpus else "cpu", threads)
    total = sum(len(part.names) for part in left)
    log.info("%s photos, %d actors, %s", f"{total:,}", actors, "GPUs" if gpus else "CPUs alone")
    progress, seen = Progress("photos predicted", always=True), 0
    for photos, _ in pipeline.run(left, recipes, work, actors=actors, gpus=gpus):
        seen += photos
        progress(seen, total)


def _resources(config: Config) -> tuple[float, int, int]:
    """GPUs an actor, actors, and CPU threads of each."""
    live = nodes.nodes()
    gpus, cpus = sum(node.gpus for node in live), sum(node.cpus for node in live)
    asked = config.resources.gpus_per_worker
    each = (1.0 if gpus else 0.0) if asked is None else asked
    if each > max((node.gpus for node in live), default=0):
        raise ValueError(
            f"resources.gpus_per_worker={each:g}: the largest node has "
            f"{max((node.gpus for node in live), default=0):g} GPU; set it to 0 for CPUs"
        )
    most = int(gpus / each) if each else max(1, int(cpus))
    actors = min(config.resources.jobs_at_once or most, most)
    return each, actors, max(1, (os.cpu_count() or 1) // actors)


def _out(config: Config, run: RunFolder, digest: str) -> Place:
    if config.answers.out is not None:
        return Place(config.answers.out / digest)
    if bundle.is_bundle(run.path):
        raise ValueError(f"run.dir={run.path} is a bundle: say where answers go (answers.out)")
    return run.place / "predictions" / digest


def _finish(config: Config, run: RunFolder, out: Place, listing: Listing) -> None:
    """Tell where the answers are, and write the submission where the photos are to submit."""
    files_ = [out.local / pipeline.part_name(part.number) for part in listing.parts]
    read = [pd.read_parquet(file, columns=["photo", "status"]) for file in files_]
    bad = pd.concat([one[one["status"] != OK] for one in read])
    log.info("answers: %s (%s photos, %s that cannot be read)",
             out.local, f"{listing.photos:,}", f"{len(bad):,}")  # fmt: skip
    if listing.image_ids is not None:
        _submit(config, run, out, listing, bad)


def _submit(
    config: Config, run: RunFolder, out: Place, listing: Listing, bad: pd.DataFrame
) -> None:
    assert listing.image_ids is not None
    if len(bad) and config.data.bad_eval == "error":
        named = ", ".join(f"{row.photo} ({row.status})" for row in bad.head(10).itertuples())
        raise ValueError(
            f"{len(bad)} photo(s) to predict cannot be read: {named}\nRepair them, or set "
            "data.bad_eval=most_frequent to answer the most frequent class for them"
        )
    answers = pd.concat([pd.read_parquet(out.local / pipeline.part_name(part.number))
                         for part in listing.parts])  # fmt: skip
    files.write_table(out.local / "predictions.csv", answers)
    log.info("the same as one table: %s", out.local / "predictions.csv")
    if "ans" in answers:
        classes = answers.set_index("photo")["ans"]
        if len(bad):
            classes = classes.fillna(most_frequent(run.path / "manifest.parquet"))
        submission.write(listing.image_ids, classes.astype("int64"), out.local / "submission.csv")
        log.info("submission: %s", out.local / "submission.csv")
    else:
        log.info("no submission: these models do not make up a class")
    out.push()


def most_frequent(table: Path) -> int:
    """The most frequent class of the photos that the run was trained on."""
    if not table.is_file():
        raise FileNotFoundError(
            f"{table}: not there, so the most frequent class is not known; use the run itself"
        )
    train = pd.read_parquet(table)
    return jobs.most_frequent_class(train[train["status"] == OK])


if __name__ == "__main__":
    main()
