"""Which part of a photo spoke for a class.

Grad-CAM: the last feature map of a convolutional network, its channels weighted by the mean
gradient of the class's logit (Selvaraju et al., "Grad-CAM", ICCV 2017, equations 1 and 2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from maskcls.learning.predict import Float32Array, Predictor, UInt8Array


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
    ValueError where there is nothing to explain: a network without a final [B, C, h, w] feature
    map, such as a transformer, or a regression, which has no logits of classes.
    """
    if predictor.regression:
        raise ValueError("a regression of age has no classes to explain")
    model = predictor.model.eval()
    inputs = [predictor.normalize(image_HWC[None]) for image_HWC in images_NHWC]
    layer = _last_feature_map(model, inputs[0])
    # One by one: with gradients, a batch of large photos takes gigabytes.
    maps = [
        _heat_map(model, layer, input_BCHW, head, index)
        for input_BCHW, index in zip(inputs, classes_N, strict=True)
    ]
    return np.stack(maps)


def _heat_map(
    model: nn.Module, layer: nn.Module, input_BCHW: Tensor, head: str, index: int
) -> Float32Array:
    kept: list[Tensor] = []

    def keep(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        # Cut off from what came before, which needs no gradient; cloned, since the next layer may
        # work in place.
        kept.append(output.detach().requires_grad_())
        return kept[-1].clone()

    with torch.enable_grad(), _hooks([layer], keep):
        logit = model(input_BCHW)[head][0, index]
    features_BChw = kept[-1]
    (gradient_BChw,) = torch.autograd.grad(logit, features_BChw)
    weights_BC11 = gradient_BChw.mean(dim=(2, 3), keepdim=True)
    map_B1hw = (weights_BC11 * features_BChw.detach()).sum(dim=1, keepdim=True).relu()
    map_HW = interpolate(map_B1hw, input_BCHW.shape[2:], mode="bilinear")[0, 0]
    scaled = map_HW / map_HW.max().clamp(min=1e-12)
    return scaled.float().cpu().numpy()


def _last_feature_map(model: nn.Module, input_BCHW: Tensor) -> nn.Module:
    """The last module that puts out a [B, C, h, w] of more than one cell."""
    if getattr(getattr(model, "backbone", None), "output_fmt", "NCHW") != "NCHW":
        raise ValueError("its feature maps have the channels last, as those of transformers do")
    ran: list[tuple[nn.Module, torch.Size]] = []

    def note(module: nn.Module, arguments: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            ran.append((module, output.shape))

    with torch.no_grad(), _hooks(list(model.modules()), note):
        model(input_BCHW)
    for module, shape in reversed(ran):
        if len(shape) == 4 and shape[2] * shape[3] > 1:
            return module
        if len(shape) == 3:
            break  # tokens: an earlier map, such as the patches, is not what the head looks at
    raise ValueError("it has no last feature map [B, C, h, w], as transformers have none")


@contextmanager
def _hooks(modules: Sequence[nn.Module], hook: Callable[..., Any]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
