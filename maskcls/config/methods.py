"""Loss, optimiser, schedule and sampler: the methods and the options of each.

The defaults are those of ``maskcls.learning`` and ``maskcls.data.sampling``; a test compares them.
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

from maskcls.config.types import Method, Share, named

_FocalGamma = Annotated[
    NonNegativeFloat,
    Field(description="Lowers the weight of photos already classified well; 0 is cross entropy."),
]
_Smoothing = Annotated[
    Share, Field(description="Share of a target that is spread over all classes.")
]


class _Weighted(Method):
    name: str
    class_weights: list[PositiveFloat] | None = Field(
        None, description="One weight above 0 for each class of the task; null: all are equal."
    )


class CrossEntropy(_Weighted):
    """Cross entropy."""

    name: Literal["cross_entropy"] = "cross_entropy"


class LabelSmoothing(_Weighted):
    """Cross entropy with smoothed targets."""

    name: Literal["label_smoothing"] = "label_smoothing"
    smoothing: _Smoothing = 0.1


class Focal(_Weighted):
    """Focal loss (arXiv 1708.02002)."""

    name: Literal["focal"] = "focal"
    gamma: _FocalGamma = 2.0


class FocalSmoothing(_Weighted):
    """Focal loss with smoothed targets."""

    name: Literal["focal_smoothing"] = "focal_smoothing"
    gamma: _FocalGamma = 2.0
    smoothing: _Smoothing = 0.1


class SoftF1(Method):
    """One minus the macro F1 of the probabilities in a batch."""

    name: Literal["soft_f1"] = "soft_f1"


class ClassBalancedFocal(Method):
    """Focal loss weighted by the effective number of photos a class (arXiv 1901.05555)."""

    name: Literal["class_balanced_focal"] = "class_balanced_focal"
    gamma: _FocalGamma = 2.0
    beta: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.999, description="Nearer to 1 weighs rare classes more; 0 weighs all alike."
    )


class LogitAdjusted(Method):
    """Cross entropy that expects a class as often as the training fold has it, so that predictions
    treat all classes alike, as macro F1 does (arXiv 2007.07314)."""

    name: Literal["logit_adjusted"] = "logit_adjusted"
    tau: NonNegativeFloat = Field(
        1.0, description="Strength of the adjustment; 0 is cross entropy, 1 balances in theory."
    )


class AgeRegression(Method):
    """Squared error of the age in years, turned into age bands afterwards; task age only."""

    name: Literal["age_regression"] = "age_regression"


Loss = Annotated[
    CrossEntropy
    | LabelSmoothing
    | Focal
    | FocalSmoothing
    | SoftF1
    | ClassBalancedFocal
    | LogitAdjusted
    | AgeRegression,
    Discriminator("name"),
    named("cross_entropy"),
]


class _Optimizer(Method):
    name: str
    weight_decay: NonNegativeFloat = Field(5e-4, description="Weight decay.")
    no_decay_norms: bool = Field(
        False, description="No weight decay on norms and biases; false decays every parameter."
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="Factor of the learning rate from each layer to the one below it, timm's "
        "backbones only (0.65 to 0.9 is usual); null trains all layers alike.",
    )
    head_lr: PositiveFloat = Field(
        1.0, description="Factor of the learning rate for the heads, which start at random."
    )


class AdamW(_Optimizer):
    """Adam with decoupled weight decay (arXiv 1711.05101)."""

    name: Literal["adamw"] = "adamw"
    amsgrad: bool = Field(False, description="The AMSGrad variant.")


class Adam(_Optimizer):
    """Adam (arXiv 1412.6980); weight decay is added to the gradient."""

    name: Literal["adam"] = "adam"
    amsgrad: bool = Field(False, description="The AMSGrad variant.")


class RMSprop(_Optimizer):
    """RMSprop with momentum."""

    name: Literal["rmsprop"] = "rmsprop"
    momentum: NonNegativeFloat = Field(0.9, description="Momentum.")
    alpha: Share = Field(0.9, description="Smoothing constant of the squared gradients.")


class SGD(_Optimizer):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    momentum: NonNegativeFloat = Field(0.9, description="Momentum.")


Optimizer = Annotated[AdamW | Adam | RMSprop | SGD, Discriminator("name"), named("adamw")]


class _Schedule(Method):
    name: str
    warmup_epochs: NonNegativeFloat = Field(
        0.0, description="Epochs in which the rate rises from almost 0; fewer than `train.epochs`."
    )


class _Falling(_Schedule):
    min_factor: Share = Field(0.0, description="Lowest rate, as a share of `train.lr`.")


class Cosine(_Falling):
    """Half a cosine from `train.lr` down (arXiv 1608.03983)."""

    name: Literal["cosine"] = "cosine"


class CosineRestarts(_Falling):
    """Several half cosines, each from `train.lr` again."""

    name: Literal["cosine_restarts"] = "cosine_restarts"
    cycles: PositiveInt = Field(3, description="Number of half cosines.")


class Step(_Falling):
    """Sudden drops."""

    name: Literal["step"] = "step"
    step_epochs: PositiveFloat | None = Field(
        None, description="Epochs between two drops; null: a third of the run."
    )
    gamma: Annotated[float, Field(gt=0, le=1)] = Field(
        0.1, description="Factor by which the rate drops."
    )


class Exponential(_Falling):
    """The same factor every epoch."""

    name: Literal["exponential"] = "exponential"
    gamma: Annotated[float, Field(gt=0, le=1)] = Field(0.9, description="Factor of an epoch.")


class Linear(_Falling):
    """A straight line down."""

    name: Literal["linear"] = "linear"


class Constant(_Schedule):
    """The same rate throughout."""

    name: Literal["constant"] = "constant"


Schedule = Annotated[
    Cosine | CosineRestarts | Step | Exponential | Linear | Constant,
    Discriminator("name"),
    named("cosine"),
]


def _some(shares: list[float]) -> list[float]:
    if sum(shares) <= 0:
        raise ValueError("at least one share must be above 0")
    return shares


class NoSampler(Method):
    """Every photo once an epoch."""

    name: Literal["none"] = "none"


class ClassBalanced(Method):
    """Every class equally often."""

    name: Literal["class_balanced"] = "class_balanced"


class Explicit(Method):
    """Classes as often as the shares say."""

    name: Literal["explicit"] = "explicit"
    shares: Annotated[list[NonNegativeFloat], AfterValidator(_some)] = Field(
        description="One relative share for each class of the task."
    )


Sampler = Annotated[NoSampler | ClassBalanced | Explicit, Discriminator("name"), named("none")]


class _Ensemble(Method):
    name: str
    allow_missing: bool = Field(
        False, description="Write a submission although models are missing; it is marked as such."
    )

    @property
    def fits_offsets(self) -> bool:
        """Whether decision offsets for macro F1 are tried."""
        return False


class Hard(_Ensemble):
    """Majority of the models; ties go to the higher mean probability."""

    name: Literal["hard"] = "hard"


class _OfProbabilities(_Ensemble):
    offsets: Literal["none", "fit"] = Field(
        "none",
        description="`fit`: offsets on the log-probabilities of the classes, for macro F1. Used "
        "only where their gain on other people is clear of luck.",
    )

    @property
    def fits_offsets(self) -> bool:
        return self.offsets == "fit"


class Soft(_OfProbabilities):
    """Mean probability."""

    name: Literal["soft"] = "soft"


class Weighted(_OfProbabilities):
    """Weighted mean probability, by one selection on all people (Caruana et al. 2004)."""

    name: Literal["weighted"] = "weighted"


class Greedy(_OfProbabilities):
    """Weighted mean probability of the members that add something: the mean of ten selections,
    each on another half of the people (Caruana et al. 2004)."""

    name: Literal["greedy"] = "greedy"


class Stacking(_OfProbabilities):
    """Logistic regression on the log-probabilities."""

    name: Literal["stacking"] = "stacking"


Ensemble = Annotated[
    Hard | Soft | Weighted | Greedy | Stacking, Discriminator("name"), named("hard")
]
