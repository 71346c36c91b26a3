"""The voting actor: gathers the answers of each model as they come, and survives its own death."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import ray

from maskcls.labels import FloatArray, Task
from maskcls.reports import finished_run
from maskcls.scoring import ensemble
from maskcls.scoring.ensemble import ModelVotes
from maskcls.scoring.voting import FittedVote
from maskcls.storage import files
from maskcls.storage.place import Place
from ray_jobs.cluster.names import ascii_name

Model = tuple[str, int]
"""(task, fold)."""


class _Ensemble:
    """What each model (task, fold) says. What one says again takes the place of what it said.

    Every ``add`` is on disk in ``folder`` before it returns, one file a model; the constructor
    reads them back, so that neither a restarted actor nor a restarted run forgets. With ``uri``
    that folder is a copy of one on an object store, and "on disk" means there.
    """

    def __init__(self, folder: Path, uri: str | None = None) -> None:
        self._place = Place(folder, uri)
        self._place.pull()
        self._votes: dict[Model, ModelVotes] = {}
        # Not "*.parquet": a write that was cut off leaves a temporary file of that ending.
        for path in sorted(folder.glob("*-fold*.parquet")):
            task, fold = path.stem.rsplit("-fold", 1)
            self._votes[task, int(fold)] = finished_run.read_votes(path, Task(task), int(fold))

    def __repr__(self) -> str:
        """What Ray's dashboard shows of it: the run, whose folder holds ``votes/<photos>``."""
        return f"{ascii_name(self._place.local.parents[1].name)}-ensemble"

    def add(
        self,
        task: str,
        fold: int,
        image_ids: Sequence[str],
        probabilities: Mapping[str, FloatArray],
    ) -> None:
        """The answers of model (task, fold) on all photos: probabilities [N, K] of each head."""
        self._votes[task, fold] = ModelVotes(Task(task), fold, list(image_ids), probabilities)
        table = pd.concat(
            [
                pd.DataFrame({"image_id": image_ids, "probabilities": list(values_NK)}).assign(
                    head=head
                )
                for head, values_NK in probabilities.items()
            ],
            ignore_index=True,
        )
        name = f"{task}-fold{fold}.parquet"
        files.write_table(self._place.local / name, table)
        self._place.push(lambda file: file == name)

    def has(self, task: str, fold: int) -> bool:
        """Whether the model has given its answers."""
        return (task, fold) in self._votes

    def vote(self, fitted: Mapping[str, FittedVote], models: Sequence[Model]) -> pd.DataFrame:
        """The answers of these models together; see ``ensemble.vote``."""
        return ensemble.vote(fitted, [self._votes[model] for model in models])


Ensemble = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Ensemble)
