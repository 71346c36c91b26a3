"""What shapes one model: the part of a configuration that a task may set for itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from maskcls.config.types import Section, Share, absolute


class Image(Section):
    """What a model sees. Stored in each checkpoint: prediction repeats it."""

    size: tuple[PositiveInt, PositiveInt] = Field(
        (256, 192), description="Height and width in pixels."
    )
    mean: tuple[float, float, float] | None = Field(
        None, description="RGB mean, 0 to 1; null takes that of the loaded weights."
    )
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = Field(
        None, description="RGB standard deviation, 0 to 1; null takes that of the loaded weights."
    )
    crop: Literal["none", "face"] = Field(
        "none", description="`face` cuts out the largest face; a photo with none stays whole."
    )
    crop_margin: NonNegativeFloat = Field(
        0.3, description="Margin around the face, as a share of its size."
    )
    background: Literal["keep", "grabcut"] = Field(
        "keep", description="`grabcut` blackens what is not the person."
    )
    zoom: float = Field(
        1.0,
        ge=1,
        allow_inf_nan=False,
        description="Keeps the centre, 1 / zoom of the height and of the width, after any crop to "
        "the face; 1 keeps everything. `image.zoom=1.5 augment.name=custom` is what the old "
        "scripts called custom.",
    )


class BlendRule(Section):
    """People who may be blended: within one gender, between two ages."""

    ages: tuple[NonNegativeInt, NonNegativeInt] = Field(
        description="First and last age in years, both included."
    )
    gender: Literal["male", "female"] | None = Field(
        None, description="Only this gender; null blends each gender within itself."
    )


class People(Section):
    """Who is trained on. Never touches validation."""

    drop_ages: list[tuple[NonNegativeInt, NonNegativeInt]] = Field(
        [], description="Age ranges in years, ends included, left out of training."
    )
    blend: list[BlendRule] = Field(
        [], description="Rare groups whose people are averaged in pairs into new training people."
    )
    blend_weight: Share = Field(0.5, description="Share of the second person in a blend.")


class Model(Section):
    """The backbone."""

    name: str = Field(
        "tf_efficientnetv2_m",
        description="A timm name, `squeezenet1_1` or `shufflenet_v2_x1_0` (torchvision).",
    )
    pretrained: bool = Field(
        False,
        description="Fetch timm's pretrained weights from the hub; `model.weights` beats it.",
    )
    weights: str | None = Field(
        None,
        description="A .safetensors or .pth file, or `package:efficientnet_lite0`; "
        "null goes by `model.pretrained`, which else starts at random.",
    )
    drop_rate: Share = Field(0.0, description="Dropout before the classifier.")
    drop_path_rate: Share = Field(0.0, description="Stochastic depth, where the backbone has it.")

    @field_validator("weights")
    @classmethod
    def absolute_file(cls, weights: str | None) -> str | None:
        if weights is None or weights.startswith("package:"):
            return weights
        return str(absolute(Path(weights)))


class Mix(Section):
    """Mixing photos of a batch; targets stay soft."""

    name: Literal["none", "mixup", "cutmix", "vertical_cutmix"] = Field(
        "none", description="How two photos become one."
    )
    alpha: PositiveFloat | None = Field(
        None, description="Parameter of the mixing distribution; null takes the method's own."
    )
    probability: Share = Field(1.0, description="Share of batches that are mixed.")


class Augment(Section):
    """What training does to a photo, after it was resized. Null options take the method's own."""

    name: Literal[
        "base",
        "flip",
        "flip_jitter",
        "custom",
        "randaugment",
        "augmix",
        "autoaugment",
        "trivialaugment",
    ] = Field("base", description="The augmentation; `base` leaves photos as they are.")
    flip: Share = Field(0.0, description="Probability of a horizontal flip after it.")
    jitter: tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat, NonNegativeFloat] | None = (
        Field(None, description="Brightness, contrast, saturation, hue jitter after it.")
    )
    ops: PositiveInt | None = Field(None, description="randaugment: operations a photo (3).")
    magnitude: NonNegativeInt | None = Field(None, description="randaugment: 0 to 30 (10).")
    severity: PositiveInt | None = Field(None, description="augmix: 1 to 10 (3).")
    width: PositiveInt | None = Field(None, description="augmix: chains (3).")
    depth: int | None = Field(None, description="augmix: operations a chain, -1 draws 1 to 3.")
    alpha: PositiveFloat | None = Field(None, description="augmix: Dirichlet and Beta (1).")
    noise: NonNegativeFloat | None = Field(None, description="custom: noise std in grey levels.")
    mix: Mix = Field(default_factory=Mix, description="Batch mixing.")


class Loss(Section):
    """The training loss. Null options take the loss's own default."""

    name: Literal[
        "cross_entropy",
        "label_smoothing",
        "focal",
        "focal_smoothing",
        "soft_f1",
        "class_balanced_focal",
        "age_regression",
    ] = Field("cross_entropy", description="The loss.")
    gamma: NonNegativeFloat | None = Field(None, description="Focal exponent (2).")
    smoothing: Share | None = Field(None, description="Label smoothing (0.1).")
    beta: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="Class-balanced focal: effective-number beta (0.999)."
    )
    class_weights: list[NonNegativeFloat] | None = Field(
        None, description="One weight a class, for the losses that take them."
    )


class Optimizer(Section):
    """The optimiser. Null options take the optimiser's own default."""

    name: Literal["adam", "adamw", "rmsprop", "sgd"] = Field("adamw", description="The optimiser.")
    weight_decay: NonNegativeFloat = Field(5e-4, description="Weight decay.")
    no_decay_norms: bool = Field(
        False, description="No weight decay on norms and biases; false decays every parameter."
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="Factor of the learning rate from each layer to the one below it, timm's "
        "backbones only (0.65 to 0.9 is usual); null trains all layers alike.",
    )
    amsgrad: bool | None = Field(None, description="adam, adamw: the AMSGrad variant.")
    momentum: NonNegativeFloat | None = Field(None, description="sgd, rmsprop: momentum (0.9).")
    alpha: Share | None = Field(None, description="rmsprop: smoothing constant (0.9).")


class Schedule(Section):
    """The learning rate over the steps of a job. Null options take the schedule's own default."""

    name: Literal["constant", "cosine", "cosine_restarts", "step", "exponential", "linear"] = Field(
        "cosine", description="The schedule."
    )
    warmup_epochs: NonNegativeFloat = Field(0.0, description="Epochs of linear warm-up.")
    min_factor: Share | None = Field(None, description="Lowest rate as a share of `train.lr` (0).")
    cycles: PositiveInt | None = Field(None, description="cosine_restarts: number of cycles.")
    step_epochs: PositiveFloat | None = Field(None, description="step: epochs between drops.")
    gamma: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="step, exponential: factor of a drop, of an epoch."
    )


class Sampler(Section):
    """Which training photos an epoch shows, decided from labels alone."""

    name: Literal["none", "class_balanced", "explicit"] = Field(
        "none", description="Every photo once, equal class shares, or the shares given."
    )
    shares: list[NonNegativeFloat] | None = Field(
        None, description="explicit: one relative share a class."
    )

    @model_validator(mode="after")
    def _shares_match(self) -> Sampler:
        if (self.name == "explicit") != (self.shares is not None):
            raise ValueError("shares belong to the explicit sampler, and it needs them")
        if self.shares is not None and sum(self.shares) <= 0:
            raise ValueError("at least one share must be above 0")
        return self


class Train(Section):
    """The loop."""

    epochs: PositiveInt = Field(30, description="Epochs of a job.")
    batch_size: PositiveInt = Field(32, description="Photos a step, over all workers of a job.")
    eval_batch_size: PositiveInt = Field(64, description="Photos a forward pass in validation.")
    lr: PositiveFloat = Field(1e-4, description="Highest learning rate.")
    patience: PositiveInt | None = Field(
        None, description="Stop after this many epochs without a better score; null never stops."
    )
    clip_grad_norm: PositiveFloat | None = Field(None, description="Largest gradient norm.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="`auto`: mixed precision on a GPU, float32 on a CPU."
    )


class Recipe(Section):
    """Everything that shapes one model; a task may set each of these for itself."""

    image: Image = Field(default_factory=Image, description="What a model sees.")
    people: People = Field(default_factory=People, description="Who is trained on.")
    model: Model = Field(default_factory=Model, description="The backbone.")
    augment: Augment = Field(default_factory=Augment, description="Augmentation.")
    loss: Loss = Field(default_factory=Loss, description="The loss.")
    optimizer: Optimizer = Field(default_factory=Optimizer, description="The optimiser.")
    schedule: Schedule = Field(default_factory=Schedule, description="The schedule.")
    sampler: Sampler = Field(default_factory=Sampler, description="The sampler.")
    train: Train = Field(default_factory=Train, description="The loop.")
