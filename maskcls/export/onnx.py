"""Models of PyTorch as ONNX files that take photos and give probabilities.

Normalisation is part of the graph, and so is what turns each head's outputs into probabilities: a
reader has nothing to get wrong. Input: ``photos`` [N, H, W, 3] uint8 RGB. Outputs: one for each
head, by its name, [N, K] float32 probabilities.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from maskcls.learning.predict import Predictor

OPSET: Final = 18
_SMALL: Final = 1024
"""Tensors with fewer numbers stay float32 in a float16 file: they weigh nothing."""


class _WholeModel(nn.Module):
    """uint8 photos -> probabilities, as ``learning.predict.Predictor`` computes them."""

    scale: Tensor
    shift: Tensor

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.model, self.heads = predictor.model, predictor.heads
        self.views = list(predictor.views)
        std = torch.tensor(predictor.normalize.std)
        self.register_buffer("scale", (1 / 255 / std).view(1, 3, 1, 1))
        mean = torch.tensor(predictor.normalize.mean)
        self.register_buffer("shift", (-mean / std).view(1, 3, 1, 1))

    def forward(self, photos_NHWC: Tensor) -> tuple[Tensor, ...]:
        images_NCHW = photos_NHWC.permute(0, 3, 1, 2).float() * self.scale + self.shift
        of_views = [self._seen(images_NCHW.flip(3) if view == "flip" else images_NCHW)
                for view in self.views]  # fmt: skip
        return tuple(torch.stack(of_head).mean(dim=0) for of_head in zip(*of_views, strict=True))

    def _seen(self, images_NCHW: Tensor) -> tuple[Tensor, ...]:
        outputs = self.model(images_NCHW)
        return tuple(head.scores(outputs[name]).softmax(dim=1) for name, head in self.heads.items())


def write(predictor: Predictor, size: tuple[int, int], path: Path, *, half: bool = False) -> None:
    """Write the model as ONNX. ``size`` is (height, width) of its photos.

    With ``half`` its weights are stored in float16, and computed with in float32: half the size,
    on any device. Raises RuntimeError where PyTorch cannot express the model in ONNX.
    """
    whole = _WholeModel(predictor).eval().cpu()
    example = torch.zeros((2, *size, 3), dtype=torch.uint8)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # deprecations within PyTorch's own exporter
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            whole,
            (example,),
            input_names=["photos"],
            output_names=list(whole.heads),
            dynamic_shapes={"photos_NHWC": {0: torch.export.Dim("photos", min=1)}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    if half:
        _halve(model)
    path.write_bytes(model.SerializeToString())


def _halve(model: Any) -> None:
    """Store large float32 weights as float16, each with a cast back to float32 before its use.

    onnxruntime folds the casts when it loads the file, so nothing is slower.
    """
    import onnx
    from onnx import helper, numpy_helper

    graph = model.graph
    casts = []
    for number, weight in enumerate(graph.initializer):
        if weight.data_type != onnx.TensorProto.FLOAT or np.prod(weight.dims) < _SMALL:
            continue
        name = weight.name
        values = numpy_helper.to_array(weight)
        limit = float(np.finfo(np.float16).max)
        stored = numpy_helper.from_array(
            values.clip(-limit, limit).astype(np.float16), f"{name}.half"
        )
        graph.initializer[number].CopyFrom(stored)
        casts.append(helper.make_node("Cast", [stored.name], [name], to=onnx.TensorProto.FLOAT))
    for node in reversed(casts):
        graph.node.insert(0, node)
