"""Models of a run or of a job folder, by PyTorch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from maskcls.data.preprocess import Preprocessing
from maskcls.inference.describe import job_folders
from maskcls.inference.model import Model
from maskcls.labels import HEADS, Float32Array, Task, UInt8Array
from maskcls.learning import checkpoint
from maskcls.learning import predict as inference
from maskcls.learning.predict import Predictor
from maskcls.scoring import ensemble
from maskcls.scoring.voting import FittedVote
from maskcls.storage import files


@dataclass(frozen=True)
class TorchMember:
    """A model of PyTorch and what its checkpoint says of it."""

    info: checkpoint.Info
    predictor: Predictor

    @property
    def task(self) -> Task:
        return self.info.task

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing.of(self.info.recipe.image)

    def __call__(self, images_NHWC: UInt8Array) -> dict[str, Float32Array]:
        if not len(images_NHWC):
            return {
                head: np.empty((0, classes), np.float32)
                for head, classes in HEADS[self.task].items()
            }
        return self.predictor(images_NHWC, np.arange(len(images_NHWC)))


def load_run(folder: Path, device: str, threads: int | None) -> Model:
    """The ensemble of a finished run.

    Raises FileNotFoundError where the run is not finished, and what ``checkpoint.read_info`` and
    ``checkpoint.load_weights`` raise.
    """
    fitted = ensemble.from_json(files.read_json(folder / "ensemble.json"))
    members = [_member(path, device) for path in job_folders(folder)]
    _set_threads(threads)
    limits = members[0].info.recipe.labels.age_limits
    return Model(
        str(folder), members, fitted, lambda there: load_run(folder, there, threads), limits
    )


def load_job(folder: Path, device: str, threads: int | None) -> Model:
    """One model of a run alone."""
    member = _member(folder, device)
    _set_threads(threads)
    alone = {
        target: FittedVote("soft", 1, HEADS[member.task][target], {"weights": [1.0]})
        for target in ensemble.targets([member.task])
    }
    limits = member.info.recipe.labels.age_limits
    return Model(
        str(folder), [member], alone, lambda there: load_job(folder, there, threads), limits
    )


def _member(folder: Path, device: str) -> TorchMember:
    predictor, info = inference.load(folder, _device(device))
    return TorchMember(info, predictor)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device={name}: auto, cpu, cuda or cuda:1 is expected") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={name}: PyTorch finds no GPU here; use device=cpu")
    return device


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        torch.set_num_threads(min(threads, os.cpu_count() or 1))
