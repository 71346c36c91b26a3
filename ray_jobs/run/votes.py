"""The voting actor: gathers the answers of each model as they come, and survives its own death."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import ray

from maskcls.labels import FloatArray, Task
from maskcls.scoring import ensemble
from maskcls.scoring.ensemble import ModelVotes
from maskcls.scoring.voting import FittedVote
from maskcls.storage import files
from maskcls.storage.place import Place
from ray_jobs.cluster.names import ascii_name

Model = tuple[str, int]
"""(task, fold)."""


class _Ensemble:
    """Probabilities by (task, fold, image). Added twice, they count once.

    Every ``add`` is on disk in ``folder`` before it returns, one file a model; the constructor
    reads them back, so that neither a restarted actor nor a restarted run forgets. With ``uri``
    that folder is a copy of one on an object store, and "on disk" means there.
    """

    def __init__(self, folder: Path, uri: str | None = None) -> None:
        self._place = Place(folder, uri)
        self._place.pull()
        self._votes: dict[Model, dict[str, pd.DataFrame]] = {}
        # Not "*.parquet": a write that was cut off leaves a temporary file of that ending.
        for path in sorted(folder.glob("*-fold*.parquet")):
            table = files.read_parquet(path)
            task, fold = path.stem.rsplit("-fold", 1)
            self._votes[task, int(fold)] = {
                str(head): rows.set_index("image_id")["probabilities"].to_frame()
                for head, rows in table.groupby("head")
            }

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
        """The answers of model (task, fold) on some photos: probabilities [N, K] of each head."""
        known = self._votes.setdefault((task, fold), {})
        for head, values_NK in probabilities.items():
            rows = pd.DataFrame({"probabilities": list(values_NK)}, index=list(image_ids))
            before = known.get(head, rows.iloc[:0])
            known[head] = pd.concat([before.drop(rows.index, errors="ignore"), rows])
        table = pd.concat(
            [rows.rename_axis("image_id").reset_index().assign(head=head)
             for head, rows in known.items()], ignore_index=True)  # fmt: skip
        name = f"{task}-fold{fold}.parquet"
        with files.replacing(self._place.local / name) as temporary:
            table.to_parquet(temporary, index=False)
        self._place.push(lambda file: file == name)

    def has(self, task: str, fold: int) -> bool:
        """Whether the model has given any answers."""
        return (task, fold) in self._votes

    def vote(self, fitted: Mapping[str, FittedVote], models: Sequence[Model]) -> pd.DataFrame:
        """The answers of these models together; see ``results.vote``."""
        return ensemble.vote(
            fitted,
            [
                ModelVotes(
                    Task(task),
                    fold,
                    list(next(iter(self._votes[task, fold].values())).index),
                    {
                        head: np.stack(rows["probabilities"].tolist())
                        for head, rows in self._votes[task, fold].items()
                    },
                )
                for task, fold in models
            ],
        )


Ensemble = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Ensemble)
