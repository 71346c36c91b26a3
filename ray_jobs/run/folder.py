"""A run's folder: whose it is, what is in it, and that only one program works in it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from maskcls.config import layers
from maskcls.config.schema import Config
from maskcls.labels import Task
from maskcls.progress import Progress
from maskcls.storage import files, yaml_files
from maskcls.storage.place import Place
from maskcls.storage.remote import StorageError
from ray_jobs.data.photos import Dataset
from ray_jobs.run import lease
from ray_jobs.training import job as jobs
from ray_jobs.training.job import Job

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run. With ``uri``, they are those of this node's copy of it."""

    path: Path
    uri: str | None = None

    @staticmethod
    def of(config: Config) -> RunFolder:
        """The folder that ``config`` names."""
        place = config.place(config.run.dir)
        return RunFolder(place.local, place.uri)

    @property
    def place(self) -> Place:
        """The folder, and where it lives."""
        return Place(self.path, self.uri)

    def pull(self) -> None:
        """Bring this node's copy up to date, as far as a driver needs it."""
        self.place.pull(for_driver, Progress("run: files fetched"))

    def push(self) -> None:
        """Send what the driver wrote; workers and the ensemble send their own."""
        self.place.push(lambda name: not name.startswith(("jobs/", "votes/")))

    @property
    def scores(self) -> Path:
        return self.path / "scores.json"

    @property
    def out_of_fold(self) -> Path:
        return self.path / "out_of_fold.parquet"

    @property
    def ensemble(self) -> Path:
        return self.path / "ensemble.json"

    @property
    def log(self) -> Path:
        return self.path / "run.log"

    def job(self, task: Task, fold: int) -> Path:
        return self.path / "jobs" / f"{task}-fold{fold}"

    def config(self) -> Config:
        """The configuration of the run.

        Raises FileNotFoundError where there is no run and ValueError where the file is damaged.
        """
        path = self.path / "config.yaml"
        if not path.is_file():
            raise FileNotFoundError(f"{self.path}: no config.yaml; is this the folder of a run?")
        try:
            return Config.model_validate(yaml_files.read(path))
        except ValueError as error:
            raise ValueError(f"{path}: not the configuration of a run: {error}") from None


def for_driver(name: str) -> bool:
    """Whether a file of a run is of use to anybody but its worker."""
    return Path(name).name not in ("resume.pt", "last.safetensors")


@contextmanager
def reading(config: Config) -> Iterator[RunFolder]:
    """The run folder of ``config``, to read a finished run and add to it.

    Of one on an object store, a copy of its own: to bring up to date the copy in which a sweep
    works would remove what that has not sent yet. One reader at a time has it, the next waits.
    """
    place = Place.of(config.run.dir, config.data.cache / "readers")
    folder = RunFolder(place.local, place.uri)
    if place.uri is None:
        yield folder
        return
    place.local.mkdir(parents=True, exist_ok=True)
    with files.lock(place.local / ".reader.lock", files.LOCK_WAIT_S, "reading the same run"):
        folder.pull()
        yield folder


@contextmanager
def claim(config: Config, tasks: Sequence[Task]) -> Iterator[RunFolder]:
    """The run folder of ``config``, held for this program alone.

    One on an object store is fetched, and at the end, however that comes, the results are sent.
    Raises ValueError where another program works in it or where it belongs to another
    configuration, naming the keys that differ; OSError where it cannot be written and StorageError
    where its store refuses it.
    """
    folder = RunFolder.of(config)
    with _held(folder, config) as lost:
        folder.pull()
        _check_config(folder, config, tasks)
        files.remove_cut_off(folder.path)
        files.write_text(folder.path / "config.yaml", config.yaml())
        folder.push()
        try:
            yield folder
        except BaseException:
            if not lost.is_set():
                _send_anyway(folder)
            raise
        files.remove_cut_off(folder.path)
        folder.push()


@contextmanager
def _held(folder: RunFolder, config: Config) -> Iterator[threading.Event]:
    with ExitStack() as stack:
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            lost = stack.enter_context(lease.held(folder.place))
        except OSError as error:
            raise OSError(f"run.dir={config.run.dir} cannot be written: {error}") from None
        yield lost


def _send_anyway(folder: RunFolder) -> None:
    try:
        folder.push()
    except StorageError as error:  # told, but what ended the run is the news
        log.warning("the results so far are in %s alone: %s", folder.path, error)


def make_jobs(
    config: Config, folder: RunFolder, data: Dataset, models: Sequence[tuple[Task, int]]
) -> list[Job]:
    """A job for each (task, fold), the longest first, so that no long one starts last."""
    made = []
    for task, fold in models:
        recipe = data.complete(config.recipe(task))
        made.append(
            Job(
                name=f"{task}-fold{fold}",
                task=task,
                fold=fold,
                recipe=recipe,
                seed=config.run.seed,
                identity=jobs.identity(
                    recipe, task=task, fold=fold, seed=config.run.seed, data=data.digest
                ),
                folder=folder.job(task, fold),
                train=data.train.images[recipe.image],
                evaluation=data.evaluation.images[recipe.image] if data.evaluation else None,
                group=folder.path.name,
                tracking=config.tracking,
                uri=(folder.place / "jobs" / f"{task}-fold{fold}").uri,
            )
        )
    return sorted(made, key=lambda job: -_cost(job))


def read_out_of_fold(made: Sequence[Job]) -> pd.DataFrame:
    """The out-of-fold rows of finished jobs, in a stable order."""
    parts = [files.read_parquet(job.folder / "out_of_fold.parquet") for job in made]
    table = pd.concat(parts, ignore_index=True)
    return table.sort_values(["task", "head", "photo"], ignore_index=True)


def shape(config: Config, tasks: Sequence[Task]) -> dict[str, Any]:
    """What a run's results depend on, as dotted keys: a change of any is another run."""
    kept: dict[str, Any] = {
        "run.seed": config.run.seed,
        "folds.count": config.folds.count,
        "data.variants": config.data.variants,
        "data.label_fixes": config.data.label_fixes,
        "data.table": config.data.table,
        "data.columns": config.data.columns,
        "data.values": config.data.values,
        "data.near_duplicates": config.data.near_duplicates,
        "pseudo.run": config.pseudo.run,
        "pseudo.confidence": config.pseudo.confidence if config.pseudo.run else None,
    }
    for task in tasks:
        recipe = layers.flatten(config.recipe(task).model_dump(mode="json"))
        kept |= {f"{key} (task {task})": value for key, value in recipe}
    return kept


def _check_config(folder: RunFolder, config: Config, tasks: Sequence[Task]) -> None:
    if not (folder.path / "config.yaml").is_file():
        return
    before = folder.config()
    trained = [task for task in tasks if list(folder.path.glob(f"jobs/{task}-fold*"))]
    then, now = shape(before, trained), shape(config, trained)
    changed = [f"{key}: {then[key]} -> {now[key]}" for key in now if then[key] != now[key]]
    if trained and changed:
        raise ValueError(
            f"run.dir={config.run.dir} belongs to a run with another configuration: choose another "
            "run.dir (or delete this one). What differs:\n  " + "\n  ".join(changed[:10])
        )


def _cost(job: Job) -> float:
    """How long a job takes, up to a factor: the pixels it computes on."""
    height, width = job.recipe.image.size
    return float(job.recipe.train.epochs * height * width)
