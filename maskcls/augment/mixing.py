"""Mixing the photos of a batch with each other, on the device that trains.

A mixer takes images, a CPU generator and which photos may be partners, and gives mixed images, the
partner of each photo and the share of it that is left: ``(mixed_BCHW, partner_B, share)``. All
chance comes from the generator, so any device mixes alike. Targets follow with ``mix_targets`` and
stay soft.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import torch

from maskcls.labels import Gender, IntArray

BoolArray = npt.NDArray[np.bool_]


class Mixer(Protocol):
    def __call__(
        self,
        images_BCHW: torch.Tensor,
        generator: torch.Generator,
        partners_B: BoolArray | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, float]:
        """See the module; None lets every photo be a partner, once."""


_Rule = Callable[
    [torch.Tensor, torch.Tensor, float, np.random.Generator], tuple[torch.Tensor, float]
]
"""Images, their partners, the share to keep -> mixed images and the share really kept."""


def _mixup(
    images_BCHW: torch.Tensor, partners_BCHW: torch.Tensor, share: float, rng: np.random.Generator
) -> tuple[torch.Tensor, float]:
    return torch.lerp(partners_BCHW, images_BCHW, share), share


def _cutmix(
    images_BCHW: torch.Tensor, partners_BCHW: torch.Tensor, share: float, rng: np.random.Generator
) -> tuple[torch.Tensor, float]:
    height, width = images_BCHW.shape[2:]
    side = (1 - share) ** 0.5
    y, x = rng.integers(height), rng.integers(width)
    top, bottom = (round(y + sign * side * height / 2) for sign in (-1, 1))
    left, right = (round(x + sign * side * width / 2) for sign in (-1, 1))
    rows = slice(max(0, top), min(height, bottom))
    columns = slice(max(0, left), min(width, right))
    return _paste(images_BCHW, partners_BCHW, rows, columns)


def _vertical_cutmix(
    images_BCHW: torch.Tensor, partners_BCHW: torch.Tensor, share: float, rng: np.random.Generator
) -> tuple[torch.Tensor, float]:
    width = images_BCHW.shape[3]
    kept = round(share * width)
    columns = slice(kept, width) if rng.random() < 0.5 else slice(0, width - kept)
    return _paste(images_BCHW, partners_BCHW, slice(None), columns)


def _paste(
    images_BCHW: torch.Tensor, partners_BCHW: torch.Tensor, rows: slice, columns: slice
) -> tuple[torch.Tensor, float]:
    mixed_BCHW = images_BCHW.clone()
    patch = partners_BCHW[:, :, rows, columns]
    mixed_BCHW[:, :, rows, columns] = patch
    return mixed_BCHW, 1 - patch[0, 0].numel() / images_BCHW[0, 0].numel()


_RULES: Final[dict[str, tuple[_Rule, float]]] = {
    "mixup": (_mixup, 0.2),
    "cutmix": (_cutmix, 1.0),
    "vertical_cutmix": (_vertical_cutmix, 50.0),
}
"""Each method's rule and its own alpha."""


def build(name: str, *, alpha: float | None = None, probability: float = 1.0) -> Mixer:
    """A mixer by name. A share of ``probability`` of the batches is mixed, each one throughout.

    - ``none``: nothing is mixed.
    - ``mixup``: weighted mean with the partner (arXiv 1710.09412); alpha 0.2.
    - ``cutmix``: a box comes from the partner (arXiv 1905.04899); alpha 1.
    - ``vertical_cutmix``: the left or the right of the photo comes from the partner, cut at one
      column for the whole batch; alpha 50, which puts the cut at 0.5 +- 0.05 of the width.

    The share that a photo keeps is drawn from Beta(``alpha``, ``alpha``). What a mixer returns is
    the exact share of pixels (or weight) that is left, and 1.0 with the images themselves where a
    batch is not mixed. Images are floats of any device, partners int64 on the CPU: a permutation
    of the batch, or where only some photos may be partners one of those for each photo, drawn with
    replacement, and without any the batch is not mixed. A photo may be its own partner. Raises
    ValueError for an unknown name, an alpha that is not positive, an alpha for ``none`` and a
    probability outside 0 to 1.
    """
    if name != "none" and name not in _RULES:
        close = difflib.get_close_matches(name, ["none", *_RULES], n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: none, {', '.join(_RULES)}"
        raise ValueError(f"unknown mixing {name!r}; {hint}")
    if not 0 <= probability <= 1:
        raise ValueError(f"probability goes from 0 to 1, got {probability}")
    if alpha is not None and (alpha <= 0 or name == "none"):
        raise ValueError(f"alpha must be above 0, and none takes no alpha; got {alpha} for {name}")
    if name == "none":
        return _unmixed
    rule, own_alpha = _RULES[name]
    beta = own_alpha if alpha is None else alpha

    def mix(
        images_BCHW: torch.Tensor, generator: torch.Generator, partners_B: BoolArray | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, float]:
        # numpy has a public Beta that takes a generator, torch has not.
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        if rng.random() >= probability or (partners_B is not None and not partners_B.any()):
            return _unmixed(images_BCHW, generator)
        partner_B = torch.from_numpy(
            rng.permutation(len(images_BCHW))
            if partners_B is None
            else rng.choice(np.flatnonzero(partners_B), len(images_BCHW))
        )
        partners_BCHW = images_BCHW[partner_B.to(images_BCHW.device)]
        mixed_BCHW, share = rule(images_BCHW, partners_BCHW, rng.beta(beta, beta), rng)
        return mixed_BCHW, partner_B, share

    return mix


def may_be_partners(
    groups: Sequence[Mapping[str, Any]], ages_N: IntArray, genders_N: IntArray
) -> BoolArray | None:
    """Which photos are of people in one of the ``groups``, bool [N]; None without groups.

    A group has ``ages``, the first and the last in years, and ``gender``, or None for both.
    Raises ValueError where no photo is.
    """
    if not groups:
        return None
    inside_N = np.zeros(len(ages_N), bool)
    for group in groups:
        (first, last), gender = group["ages"], group["gender"]
        of_gender = gender is None or genders_N == Gender[gender.upper()]
        inside_N |= (ages_N >= first) & (ages_N <= last) & of_gender
    if not inside_N.any():
        ages = ", ".join("{} to {}".format(*group["ages"]) for group in groups)
        raise ValueError(f"augment.mix.partners: nobody in training is {ages} years old")
    return inside_N


def _unmixed(
    images_BCHW: torch.Tensor, generator: torch.Generator, partners_B: BoolArray | None = None
) -> tuple[torch.Tensor, torch.Tensor, float]:
    return images_BCHW, torch.arange(len(images_BCHW)), 1.0


def mix_targets(targets_B: torch.Tensor, partner_B: torch.Tensor, share: float) -> torch.Tensor:
    """Float targets, ``[B, K]`` probabilities or ``[B]`` ages, mixed as their photos were."""
    return torch.lerp(targets_B[partner_B], targets_B, share)
