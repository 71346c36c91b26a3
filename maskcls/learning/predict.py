"""Photos in, probabilities out: what validation and prediction share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from maskcls.labels import Float32Array, UInt8Array
from maskcls.learning import backbones, checkpoint, heads
from maskcls.learning.heads import Head


def precision_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type that matrix products run in: ``auto`` is mixed on a GPU and float32 on a CPU.

    bfloat16 needs compute capability 8; older GPUs emulate it slowly and take float16.
    """
    if precision != "auto":
        chosen = getattr(torch, precision)
        assert isinstance(chosen, torch.dtype)
        return chosen
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16


def autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[Any]:
    """Mixed precision in ``dtype``, or nothing for float32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


class Normalize:
    """uint8 photos -> normalised float input on the device.

    Photos travel as uint8, a quarter of the bytes, and are channels_last already, which is the
    layout that convolutions want.
    """

    def __init__(
        self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
    ) -> None:
        self.mean, self.std, self.device = tuple(mean), tuple(std), device
        # (x / 255 - mean) / std as one multiply-add
        self._scale = (1 / 255 / torch.tensor(std)).to(device)
        self._shift = (-torch.tensor(mean) / torch.tensor(std)).to(device)

    def __call__(self, images_BHWC: UInt8Array) -> torch.Tensor:
        """[B, H, W, 3] uint8 -> [B, 3, H, W] float32, channels_last."""
        pinned = torch.empty(
            images_BHWC.shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda"
        )
        np.copyto(pinned.numpy(), images_BHWC)
        on_device = pinned.to(self.device, non_blocking=True)
        # Row by row and in place: with an inner loop over three channels, and a second tensor of
        # this size, it takes a multiple of the time on a CPU.
        width = images_BHWC.shape[2]
        rows = on_device.float().view(-1, width * 3)
        torch.addcmul(self._shift.repeat(width), rows, self._scale.repeat(width), out=rows)
        return rows.view(images_BHWC.shape).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Predictor:
    """A model and all that turns its input and output into photos and probabilities."""

    model: torch.nn.Module
    normalize: Normalize
    dtype: torch.dtype
    batch_size: int
    heads: Mapping[str, Head]
    views: Sequence[str] = ("plain",)
    """What the model sees of each photo: "plain", "flip" (mirrored), or both."""

    def __call__(
        self,
        photos_NHWC: UInt8Array,
        rows_M: npt.NDArray[np.int64],
        beat: Callable[[], None] = lambda: None,
    ) -> dict[str, Float32Array]:
        """Probabilities [M, K] of each head for the photos at ``rows_M``, in that order.

        No augmentation, no dropped row. Of several views, the mean of the probabilities. ``beat``
        is called once a batch.
        """
        self.model.eval()
        parts: dict[str, list[Float32Array]] = {}
        with torch.inference_mode():
            for rows_B in _batches(rows_M, self.batch_size):
                inputs_BCHW = self.normalize(photos_NHWC[rows_B])
                of_views = [self._seen(inputs_BCHW, view) for view in self.views]
                for head in of_views[0]:
                    mean_BK = sum(one[head] for one in of_views[1:]) + of_views[0][head]
                    parts.setdefault(head, []).append(mean_BK / np.float32(len(of_views)))
                beat()
        return {head: np.concatenate(values) for head, values in parts.items()}

    def _seen(self, inputs_BCHW: torch.Tensor, view: str) -> dict[str, Float32Array]:
        """Probabilities [B, K] of each head for one view of a batch."""
        if view == "flip":
            inputs_BCHW = inputs_BCHW.flip(3)
        with autocast(self.dtype, self.normalize.device):
            outputs = self.model(inputs_BCHW)
        return {
            head: self.heads[head].scores(values_BD).softmax(dim=1).cpu().numpy()
            for head, values_BD in outputs.items()
        }


def load(folder: Path, device: torch.device) -> tuple[Predictor, checkpoint.Info]:
    """The finished model of a job folder, ready to predict.

    Raises what ``checkpoint.read_info`` and ``checkpoint.load_weights`` raise.
    """
    info = checkpoint.read_info(folder)
    recipe = info.recipe
    model = backbones.build(
        recipe.model.name,
        heads.sizes(info.task, recipe),
        head=recipe.model.head,
        weights=None,
        image_size=recipe.image.size,
    )
    model.load_state_dict(checkpoint.load_weights(folder))
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    predictor = Predictor(
        model,
        Normalize(info.mean, info.std, device),
        precision_dtype(recipe.train.precision, device),
        recipe.train.eval_batch_size,
        heads.build(info.task, recipe),
        recipe.predict.views,
    )
    return predictor, info


def _batches(rows_M: npt.NDArray[np.int64], size: int) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, len(rows_M), size):
        yield rows_M[start : start + size]
