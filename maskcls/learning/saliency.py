"""Which part of a photo spoke for a class.

Grad-CAM: the last feature map of a network, its channels weighted by the mean gradient of the
class's logit (Selvaraju et al., "Grad-CAM", ICCV 2017, equations 1 and 2). Of a transformer with a
class token it is the patches that its last block reads, since behind it only that token counts.

Our own, since what libraries would take over are these two equations: captum 0.9 takes [B, N, C]
tokens for maps of channels, and pytorch-grad-cam 1.5.7 (a source package that brings ttach) wants
to be told the layer and how its tokens lie, which is most of this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from maskcls.labels import Float32Array, UInt8Array
from maskcls.learning.heads import Head
from maskcls.learning.predict import Predictor

AsMap = Callable[[Tensor], Tensor]
"""Makes [B, C, h, w] of a layer's output."""


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@_one_thread()
def heat_maps(
    predictor: Predictor, images_NHWC: UInt8Array, head: str, classes_N: Sequence[int]
) -> Float32Array:
    """What spoke for class ``classes_N[i]`` of ``head`` in each image: [N, H, W], 0 to 1.

    A map of zeros means that nothing did. The model is left as it was, its hooks removed. Computed
    in one thread, so that the same map comes out of every process. Raises
    ValueError where there is nothing to explain: a network without a feature map of more than one
    cell.
    """
    model = predictor.model.eval()
    inputs = [predictor.normalize(image_HWC[None]) for image_HWC in images_NHWC]
    layer, as_map = _last_feature_map(model, inputs[0])
    # One by one: with gradients, a batch of large photos takes gigabytes.
    maps = [
        _heat_map(model, layer, as_map, input_BCHW, predictor.heads[head], head, index)
        for input_BCHW, index in zip(inputs, classes_N, strict=True)
    ]
    return np.stack(maps)


def _heat_map(
    model: nn.Module, layer: nn.Module, as_map: AsMap, input_BCHW: Tensor, head: Head, name: str,
    index: int,
) -> Float32Array:  # fmt: skip
    kept: list[Tensor] = []

    def keep(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        # Cut off from what came before, which needs no gradient; cloned, since the next layer may
        # work in place.
        kept.append(output.detach().requires_grad_())
        return kept[-1].clone()

    with torch.enable_grad(), _hooks([layer], keep):
        score = head.scores(model(input_BCHW)[name])[0, index]
    (gradient,) = torch.autograd.grad(score, kept[-1])
    weights_BC11 = as_map(gradient).mean(dim=(2, 3), keepdim=True)
    map_B1hw = (weights_BC11 * as_map(kept[-1].detach())).sum(dim=1, keepdim=True).relu()
    map_HW = interpolate(map_B1hw, input_BCHW.shape[2:], mode="bilinear")[0, 0]
    scaled = map_HW / map_HW.max().clamp(min=1e-12)
    return scaled.float().cpu().numpy()


def _last_feature_map(model: nn.Module, input_BCHW: Tensor) -> tuple[nn.Module, AsMap]:
    """The module that puts out the last feature map, and how to make [B, C, h, w] of its output."""
    backbone: Any = getattr(model, "backbone", None)
    if getattr(backbone, "output_fmt", "NCHW") == "NLC" or hasattr(backbone, "cls_token"):
        return backbone.blocks[-1].norm1, _map_of_tokens(backbone)
    channels_last = getattr(backbone, "output_fmt", "NCHW") == "NHWC"
    ran: list[tuple[nn.Module, torch.Size]] = []

    def note(module: nn.Module, arguments: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            ran.append((module, output.shape))

    with torch.no_grad(), _hooks(list(model.modules()), note):
        model(input_BCHW)
    cells = slice(1, 3) if channels_last else slice(2, 4)
    for module, shape in reversed(ran):
        if len(shape) == 4 and max(tuple(shape)[cells]) > 1:
            return module, (lambda x: x.permute(0, 3, 1, 2)) if channels_last else (lambda x: x)
    raise ValueError("it has no feature map of more than one cell")


def _map_of_tokens(backbone: Any) -> AsMap:
    """Tokens [B, N, C] of timm's vision transformers -> [B, C, h, w] of the patches alone."""
    height, width = backbone.patch_embed.grid_size
    first = backbone.num_prefix_tokens
    return lambda tokens_BNC: (
        tokens_BNC[:, first:].unflatten(1, (height, width)).permute(0, 3, 1, 2)
    )


@contextmanager
def _hooks(modules: Sequence[nn.Module], hook: Callable[..., Any]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
