"""What shapes one model: the part of a configuration that a task may set for itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
)

from maskcls.config.ages import Age, AgeClasses
from maskcls.config.augment import Augment, Base
from maskcls.config.methods import (
    AdamW,
    Cosine,
    CrossEntropy,
    Loss,
    NoSampler,
    Optimizer,
    Sampler,
    Schedule,
)
from maskcls.config.types import AgeRange, PeopleGroup, Section, Share, absolute, each_once
from maskcls.labels import AGE_BAND_STARTS, OLDEST

DETECTORS: Final = ("centerface", "blazeface")
"""The face detectors that come with the installation."""

_BelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]


class Image(Section):
    """What a model sees. Stored in each checkpoint: prediction repeats it."""

    size: tuple[PositiveInt, PositiveInt] = Field(
        (256, 192), description="Height and width in pixels."
    )
    mean: tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat] | None = Field(
        None, description="RGB mean, 0 to 1; null takes that of the loaded weights."
    )
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = Field(
        None, description="RGB standard deviation, 0 to 1; null takes that of the loaded weights."
    )
    crop: Literal["none", "face", "auto"] = Field(
        "none",
        description="`face` cuts out the face: the largest near the centre. `auto` does so where "
        "faces are small: where that of the median photo to train on, of a sample, is narrower "
        "than half of the photo.",
    )
    crop_margin: NonNegativeFloat = Field(
        0.3, description="Margin around the face, as a share of its size."
    )
    detector: str = Field(
        "centerface",
        description="What finds faces, for the crop and so that the background never takes them: "
        "`centerface`, `blazeface` (faster, for faces that fill the photo), or a network file of "
        "one of these kinds.",
    )
    fallback: tuple[Share, Share, Share, Share] | None = Field(
        None,
        description="The face's box where none is found: left, top, width, height as shares of "
        "the photo. null: the median of the training photos, which checkpoints keep.",
    )
    background: Literal["keep", "black", "blur"] = Field(
        "keep",
        description="`black` or `blur` takes the place of what a segmentation network does not "
        "take for the person.",
    )
    fit: Literal["stretch", "pad", "crop"] = Field(
        "stretch",
        description="How a photo of another shape is brought to `size`: stretched, padded with "
        "black, or its middle cut out. A crop to the face has the right shape already.",
    )
    zoom: float = Field(
        1.0,
        ge=1,
        allow_inf_nan=False,
        description="Keeps the centre, 1 / zoom of the height and of the width, after any crop to "
        "the face; 1 keeps everything. `image.zoom=1.5 augment.name=custom` is what the old "
        "scripts called custom.",
    )

    @field_validator("mean", "std")
    @classmethod
    def _of_one(cls, values: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if values is not None and max(values) > 1:
            raise ValueError("numbers from 0 to 1 are expected: divide those of 0 to 255 by 255")
        return values

    @field_validator("detector")
    @classmethod
    def _name_or_file(cls, detector: str) -> str:
        if detector in DETECTORS:
            return detector
        if Path(detector).suffix in (".onnx", ".tflite"):
            return str(absolute(Path(detector)))
        raise ValueError(f"{', '.join(DETECTORS)}, or a file .onnx or .tflite is expected")

    @field_validator("size", mode="before")
    @classmethod
    def _two_numbers(cls, size: Any) -> Any:
        if isinstance(size, int | float | str):
            raise ValueError("height and width in pixels are expected, as in image.size=[128,96]")
        return size


class People(Section):
    """Who is trained on. Never touches validation."""

    drop_ages: list[AgeRange] = Field(
        [], description="Age ranges in years, ends included, left out of training."
    )
    blend: list[PeopleGroup] = Field(
        [],
        description="Rare groups whose people are averaged in pairs into new training people; "
        "where no gender is named, each within itself.",
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
        description="A .safetensors or .pth file, or `package:efficientnet_lite0` (also lite1, "
        "lite2); null goes by `model.pretrained`, which else starts at random.",
    )
    head: Literal["linear", "deep"] | None = Field(
        None,
        description="`deep`: two layers of 512 and 256 before the classes, with batch norm; "
        "`linear`: the classes at once. null: deep for `multi`, linear for tasks with one head.",
    )
    drop_rate: _BelowOne = Field(0.0, description="Dropout before the classifier, below 1.")
    drop_path_rate: _BelowOne = Field(
        0.0, description="Stochastic depth, where the backbone has it, below 1."
    )

    @field_validator("weights")
    @classmethod
    def absolute_file(cls, weights: str | None) -> str | None:
        if weights is None or weights.startswith("package:"):
            return weights
        return str(absolute(Path(weights)))


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
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="Decay a step of an exponential moving average of the weights, which then is "
        "what is validated, kept and predicted with; in early steps it forgets faster (0.99 to "
        "0.9999 is usual, the more steps the higher); null: none.",
    )
    freeze_epochs: NonNegativeInt = Field(
        0, description="First epochs in which only the heads learn; pretrained backbones only."
    )
    freeze_layers: NonNegativeInt = Field(
        0,
        description="Lowest layers of the backbone, counted as timm does, that keep their "
        "pretrained weights throughout: cheaper steps.",
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="`auto`: mixed precision on a GPU, float32 on a CPU."
    )


class Labels(Section):
    """What the classes are. One and the same for all tasks, and stored in each checkpoint."""

    age_limits: tuple[PositiveInt, PositiveInt] = Field(
        AGE_BAND_STARTS,
        description="Ages in years at which the second and the third age band begin.",
    )

    @field_validator("age_limits")
    @classmethod
    def _rising(cls, limits: tuple[int, int]) -> tuple[int, int]:
        if not limits[0] < limits[1] <= OLDEST:
            raise ValueError(f"two rising ages up to {OLDEST} are expected, as in [30, 60]")
        return limits


class Predict(Section):
    """How a model answers a photo. Stored in each checkpoint: prediction repeats it."""

    views: Annotated[
        list[Literal["plain", "flip"]], Field(min_length=1), AfterValidator(each_once)
    ] = Field(
        ["plain"],
        description="What the finished model sees of a photo, for its answers out of fold as for "
        "those to predict; the mean of the probabilities is its answer. `[plain, flip]` adds the "
        "mirrored photo, for twice the time. Epochs of a sweep are compared by the plain photo.",
    )

    @property
    def answers_again(self) -> bool:
        """Whether the finished model has more to say out of fold than epochs are compared by."""
        return self.views != ["plain"]


class Recipe(Section):
    """Everything that shapes one model; a task may set each of these for itself."""

    labels: Labels = Field(default_factory=Labels, description="What the classes are.")
    image: Image = Field(default_factory=Image, description="What a model sees.")
    people: People = Field(default_factory=People, description="Who is trained on.")
    model: Model = Field(default_factory=Model, description="The backbone.")
    augment: Augment = Field(default_factory=Base, description="Augmentation.")
    loss: Loss = Field(default_factory=CrossEntropy, description="The loss.")
    age: Age = Field(default_factory=AgeClasses, description="What the head for age tells.")
    optimizer: Optimizer = Field(default_factory=AdamW, description="The optimiser.")
    schedule: Schedule = Field(default_factory=Cosine, description="The schedule.")
    sampler: Sampler = Field(default_factory=NoSampler, description="The sampler.")
    train: Train = Field(default_factory=Train, description="The loop.")
    predict: Predict = Field(default_factory=Predict, description="How a model answers.")
