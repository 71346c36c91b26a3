"""Augmentation and batch mixing: the methods and the options of each.

The defaults are those of ``maskcls.augment``; a test compares them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
)

from maskcls.config import pipelines
from maskcls.config.types import Method, PeopleGroup, Share, named

_Alpha = Annotated[
    PositiveFloat,
    Field(description="The share of a photo that is kept is drawn from Beta(alpha, alpha)."),
]


class NoMix(Method):
    """No mixing."""

    name: Literal["none"] = "none"


class _Mix(Method):
    name: str
    alpha: _Alpha = 1.0
    probability: Share = Field(1.0, description="Share of the batches that are mixed.")
    partners: list[PeopleGroup] = Field(
        [],
        description="Groups from which all partners come, such as `[{ages: [60, 100]}]`: with "
        "whom each photo of a batch is mixed is drawn among their photos in it, and a batch "
        "without any is not mixed; [] takes everybody, each once.",
    )


class Mixup(_Mix):
    """The weighted mean of two photos (arXiv 1710.09412)."""

    name: Literal["mixup"] = "mixup"
    alpha: _Alpha = 0.2


class CutMix(_Mix):
    """A box of another photo (arXiv 1905.04899)."""

    name: Literal["cutmix"] = "cutmix"


class VerticalCutMix(_Mix):
    """The left or right part of another photo; alpha 50 cuts near the middle."""

    name: Literal["vertical_cutmix"] = "vertical_cutmix"
    alpha: _Alpha = 50.0


Mix = Annotated[NoMix | Mixup | CutMix | VerticalCutMix, Discriminator("name"), named("none")]


Jitter = tuple[
    NonNegativeFloat, NonNegativeFloat, NonNegativeFloat, Annotated[float, Field(ge=0, le=0.5)]
]


def _depth(depth: int) -> int:
    if depth != -1 and depth < 1:
        raise ValueError("at least 1, or -1 to draw it from 1 to 3")
    return depth


class _Augment(Method):
    name: str
    flip: Share = Field(0.0, description="Probability of a horizontal flip after the augmentation.")
    jitter: Jitter | None = Field(
        None,
        description="Strength of a change of brightness, contrast, saturation and hue (hue at most "
        "0.5) after the augmentation; null: none.",
    )
    erase: Share = Field(
        0.0,
        description="Probability that a box of 2 to 33 % of the photo becomes noise, after all "
        "else (random erasing, arXiv 1708.04896).",
    )
    mix: Mix = Field(default_factory=NoMix, description="Batch mixing.")


class Base(_Augment):
    """No change."""

    name: Literal["base"] = "base"


class Flip(_Augment):
    """A horizontal flip of every second photo."""

    name: Literal["flip"] = "flip"


class FlipJitter(_Augment):
    """`flip`, then colour jitter of .4, .4, .4 and .1."""

    name: Literal["flip_jitter"] = "flip_jitter"


class Custom(_Augment):
    """Colour jitter of .1, Gaussian noise; the old scripts also had `image.zoom=1.5`."""

    name: Literal["custom"] = "custom"
    noise: NonNegativeFloat = Field(
        10.0, description="Standard deviation of the noise, in grey levels of 255."
    )


class RandAugment(_Augment):
    """RandAugment (arXiv 1909.13719)."""

    name: Literal["randaugment"] = "randaugment"
    ops: PositiveInt = Field(3, description="Random operations a photo.")
    magnitude: Annotated[int, Field(ge=0, le=30)] = Field(
        10, description="Strength of the operations, 0 to 30."
    )


class AugMix(_Augment):
    """AugMix (arXiv 1912.02781)."""

    name: Literal["augmix"] = "augmix"
    severity: Annotated[int, Field(ge=1, le=10)] = Field(
        3, description="Largest strength of the operations, 1 to 10."
    )
    width: PositiveInt = Field(3, description="Number of chains that are mixed.")
    depth: Annotated[int, AfterValidator(_depth)] = Field(
        -1, description="Operations a chain; -1 draws 1 to 3."
    )
    alpha: PositiveFloat = Field(
        1.0, description="Parameter of the Dirichlet and Beta distributions of the weights."
    )


class AutoAugment(_Augment):
    """AutoAugment with the CIFAR-10 policy (arXiv 1805.09501)."""

    name: Literal["autoaugment"] = "autoaugment"


class TrivialAugment(_Augment):
    """TrivialAugmentWide (arXiv 2103.10158)."""

    name: Literal["trivialaugment"] = "trivialaugment"


class Albumentations(_Augment):
    """Any pipeline of the library Albumentations, seeded a photo and epoch."""

    name: Literal["albumentations"] = "albumentations"
    pipeline: Annotated[str, AfterValidator(pipelines.read)] = Field(
        description="A YAML file that `albumentations.save` wrote, such as "
        "configs/albumentations.yaml; kept as its content. A fixed crop or zoom belongs to "
        "`image.*`, since validation and prediction do not go through the pipeline."
    )


Augment = Annotated[
    Base
    | Flip
    | FlipJitter
    | Custom
    | RandAugment
    | AugMix
    | AutoAugment
    | TrivialAugment
    | Albumentations,
    Discriminator("name"),
    named("base"),
]
