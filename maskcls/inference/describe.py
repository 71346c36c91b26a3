"""What a run, a job or a bundle is, read without its weights and without PyTorch."""

from __future__ import annotations

from pathlib import Path

from maskcls.config import layers
from maskcls.data.preprocess import Preprocessing
from maskcls.inference import bundle
from maskcls.learning import checkpoint
from maskcls.storage import files


def recipes_of(path: Path) -> tuple[list[Preprocessing], str]:
    """The kinds of preprocessing that its models want, in the order of ``Model.recipes``; and an
    identity that changes when an answer might.

    Raises FileNotFoundError where there is nothing of the kind.
    """
    if bundle.is_bundle(path):
        described = bundle.read_description(path)
        recipes = [bundle.preprocessing_of(path, entry) for entry in described["models"]]
        return list(dict.fromkeys(recipes)), layers.digest(described)
    if (path / "ensemble.json").is_file():
        infos = [checkpoint.read_info(folder) for folder in job_folders(path)]
        vote = files.read_json(path / "ensemble.json")
    else:
        if not (path / "checkpoint.json").is_file():
            raise FileNotFoundError(f"{path}: no finished run here (no ensemble.json)")
        infos, vote = [checkpoint.read_info(path)], None
    recipes = [Preprocessing.of(info.recipe.image) for info in infos]
    models = [info.model_dump(mode="json") for info in infos]
    return list(dict.fromkeys(recipes)), layers.digest([models, vote])


def job_folders(run: Path) -> list[Path]:
    """The job folders of those models of a finished run that vote, by name."""
    scores = run / "scores.json"
    if not scores.is_file():
        raise FileNotFoundError(f"{run}: no finished run here (no {scores.name})")
    voting = {f"{job['task']}-fold{job['fold']}" for job in files.read_json(scores)["jobs"]}
    return [run / "jobs" / name for name in sorted(voting)]
