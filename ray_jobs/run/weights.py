"""Where the models of a run start from, checked before Ray starts and said once."""

from __future__ import annotations

import importlib.util
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import constants as hub

from maskcls.config.backbone_names import OFFLINE, install, package_of
from maskcls.config.recipe import Model
from maskcls.config.schema import Config
from maskcls.labels import Task
from ray_jobs.run.folder import RunFolder

log = logging.getLogger(__name__)

HUB_S = 5.0
"""How long the hub may take to answer."""


def check(config: Config, tasks: Sequence[Task], folder: RunFolder) -> None:
    """Say which models start at random, and refuse weights that no worker could load.

    Raises FileNotFoundError or ConnectionError. Only tasks that have something left to train count.
    """
    for model, named in _models(config, tasks, folder).items():
        if model.weights is None and not model.pretrained:
            log.info(
                "%s: %s starts from RANDOM weights, which takes many more photos and epochs; "
                "model.pretrained=true or model.weights=FILE starts from trained ones",
                ", ".join(named), model.name,
            )  # fmt: skip
        elif fault := _fault(model):
            raise ConnectionError(f"model.name={model.name} ({', '.join(named)}): {fault}")


def _models(config: Config, tasks: Sequence[Task], folder: RunFolder) -> dict[Model, list[str]]:
    models: dict[Model, list[str]] = {}
    for task in tasks:
        jobs = [folder.job(task, fold) / "job.json" for fold in config.fold_numbers()]
        if not all(job.is_file() for job in jobs):
            models.setdefault(config.recipe(task).model, []).append(str(task))
    return models


def _fault(model: Model) -> str | None:
    """Why no worker could load the weights, as far as the driver's machine tells."""
    if model.weights and model.weights.startswith("package:"):
        if importlib.util.find_spec(package_of(model.weights)) is None:
            return f"{model.weights} needs a package: {install(model.weights)}"
    elif model.weights:
        if not Path(model.weights).is_file():
            return f"model.weights={model.weights}: no such file"
    elif not _is_cached(model.name) and (error := _hub_error()):
        there = f"its weights are not on this machine, and {hub.ENDPOINT} does not answer ({error})"
        return f"{there}. {OFFLINE}"
    return None


def _is_cached(name: str) -> bool:
    """Whether a download of the model's weights lies in the caches of timm or torchvision."""
    torch_home = Path(os.environ.get("TORCH_HOME", "~/.cache/torch")).expanduser()
    timm = Path(hub.HF_HUB_CACHE)
    return any(timm.glob(f"models--timm--{name}.*")) or any(
        (torch_home / "hub" / "checkpoints").glob(f"{name}-*")
    )


def _hub_error() -> str | None:
    """Why the hub cannot be reached; None where it answers, whatever it says."""
    if hub.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    question = urllib.request.Request(hub.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(question, timeout=HUB_S).close()
    except urllib.error.HTTPError:
        return None
    except OSError as error:
        return str(getattr(error, "reason", error))
    return None
