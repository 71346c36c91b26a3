"""The configuration: typed, documented, layered, and refused when it is wrong.

A configuration is made of layers: the defaults below, each ``--config`` file in order, then
``key.sub=value`` words from the command line. A later layer wins. ``recipes`` holds what one task
sets for itself; inside a layer a recipe beats the general value, and a general value of a later
layer beats the recipes of earlier ones, so ``train.epochs=3`` always means three epochs.
"""

from __future__ import annotations

import copy
import hashlib
import json
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from maskcls import storage
from maskcls.labels import Task
from maskcls.storage import Place

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Tree = dict[str, Any]


def _absolute(path: Path) -> Path:
    if storage.is_uri(str(path)):
        raise ValueError(
            "a path on this machine is expected; only run.dir and data.root take s3:// and gs://"
        )
    return Path(path).expanduser().absolute()


def _location(value: Any) -> Path | str:
    if isinstance(value, str) and storage.is_uri(value):
        return storage.check_uri(value)
    if not isinstance(value, str | Path):
        raise ValueError("a path, or a URI such as s3://bucket/name, is expected")
    return _absolute(Path(value))


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
Location = Annotated[Path | str, BeforeValidator(_location)]
"""A folder: an absolute path, or the URI of one on an object store as a string."""


def _each_once(values: list[Any]) -> list[Any]:
    twice = sorted({str(value) for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} stands there twice")
    return values


FoldNumbers = Annotated[list[NonNegativeInt], Field(min_length=1), AfterValidator(_each_once)]


class Section(BaseModel):
    """A group of keys: unknown ones are refused, values cannot change once read."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True
    )


class Run(Section):
    """Where a run lives and what makes it repeatable."""

    dir: Location = Field(
        Path("runs/run"),
        description="Folder of all results, or its URI (`s3://`, `gs://`). The same command goes "
        "on where it stopped; a changed configuration needs another folder.",
    )
    seed: NonNegativeInt = Field(42, description="Seed of folds, order, augmentation and weights.")


class Data(Section):
    """The photos."""

    root: Location = Field(
        Path("data"),
        description="Folder that holds `train/` and `eval/`, or its URI (`s3://`, `gs://`).",
    )
    cache: AbsolutePath = Field(
        Path("~/.cache/maskcls"),
        description="Folder of prepared (decoded, resized) images, local to a node or shared; "
        "local copies of what lies on an object store are kept there too, under `remote/`.",
    )
    variants: list[Literal["original", "rembg"]] = Field(
        ["original"],
        min_length=1,
        description="Which photos of a person to use: `original`, or also the `_rembg` copies.",
    )
    label_fixes: AbsolutePath | None = Field(
        None, description="YAML of known label errors; null changes no label."
    )
    max_bad_share: Share = Field(
        0.02, description="Share of training photos that may be unreadable before a run is refused."
    )
    bad_eval: Literal["error", "most_frequent"] = Field(
        "error",
        description="An unreadable photo to predict: stop with the list, or give it the most "
        "frequent training class, marked in `predictions.parquet`.",
    )


class Folds(Section):
    """The split by person."""

    count: int = Field(5, ge=2, description="Number of folds; each job trains on all but one.")
    only: FoldNumbers | None = Field(
        None, description="Run only these folds, numbered from 0; null runs all."
    )
    allow_thin: bool = Field(
        False,
        description="Accept a gender x age band with fewer people than folds, which some folds "
        "then validate on nobody of.",
    )


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
        return str(_absolute(Path(weights)))


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


class Ensemble(Section):
    """How the models of a run vote."""

    name: Literal["hard", "soft", "weighted", "stacking"] = Field(
        "hard", description="Majority, mean probability, learned weights, learned combination."
    )
    allow_missing: bool = Field(
        False, description="Write a submission although models are missing; it is marked as such."
    )


class Resources(Section):
    """How a run uses the cluster. Results depend on the number of threads and workers alone."""

    workers_per_job: PositiveInt = Field(1, description="Train workers that share one job.")
    gpus_per_worker: NonNegativeFloat | None = Field(
        None, description="GPUs a worker, may be a fraction; null: 1 where there are GPUs, else 0."
    )
    jobs_at_once: PositiveInt | None = Field(
        None, description="Jobs side by side; null: as many as the GPUs, or else the CPUs, carry."
    )
    threads_per_worker: PositiveInt | None = Field(
        2,
        description="CPU threads a worker computes with; more than its share cost nothing on two "
        "cores, and use those that other jobs leave idle. Another number rounds sums otherwise, so "
        "results are the same only for the same number; null: the worker's share of the machine.",
    )
    start_timeout_s: PositiveFloat = Field(
        300.0, description="Seconds to wait for the first worker before the run is refused."
    )
    node_timeout_s: PositiveFloat = Field(
        1800.0,
        description="The same while no node that is up could take a worker: the autoscaler has to "
        "start one, which takes minutes.",
    )
    stall_timeout_s: PositiveFloat = Field(
        900.0, description="Seconds without a sign of life after which a job counts as dead."
    )
    attempts: PositiveInt = Field(
        3,
        description="Times that a job may start without ending an epoch, when its worker process "
        "dies, and that a worker may start without asking for a job.",
    )


class Tracking(Section):
    """Where the numbers go, beside the console and `metrics.jsonl`."""

    tensorboard: bool = Field(False, description="Write TensorBoard events to each job's folder.")
    wandb: Literal["off", "offline", "online"] = Field("off", description="Weights & Biases.")
    wandb_project: str = Field("maskcls", description="W&B project.")
    wandb_entity: str | None = Field(None, description="W&B entity; null: the account's own.")

    @field_validator("wandb", mode="before")
    @classmethod
    def _off_is_a_word(cls, wandb: Any) -> Any:
        # YAML reads an unquoted off as false.
        return "off" if wandb is False else wandb


class Tune(Section):
    """The search over configurations."""

    space: dict[str, Any] = Field(
        {},
        description="Key of the configuration -> how it is drawn: a list (choice), or "
        "`{uniform: [lo, hi]}`, `{loguniform: [lo, hi]}`, `{int: [lo, hi]}`, each with an "
        "optional `when: {key: value or list}`.",
    )
    trials: PositiveInt = Field(
        16,
        description="Number of trials, the first guess included. A search that has ended goes on "
        "with more.",
    )
    searcher: Literal["random", "tpe"] = Field("tpe", description="How trials are proposed.")
    max_epochs: PositiveInt = Field(9, description="Epochs of a trial that is never stopped.")
    grace_epochs: PositiveInt = Field(1, description="Epochs before a trial may be stopped.")
    reduction_factor: int = Field(3, ge=2, description="One in this many survives a rung.")
    folds: FoldNumbers = Field(
        [0], description="Folds whose out-of-fold macro F1 is a trial's score."
    )
    time_limit_s: PositiveFloat | None = Field(
        None,
        description="Seconds after which a search pauses; the same command goes on with it. "
        "null: no limit.",
    )


class Plan(Section):
    """What `sweep --plan` cannot measure. Changes no result."""

    price_per_hour: NonNegativeFloat | dict[str, NonNegativeFloat] | None = Field(
        None,
        description="Price of a node for an hour: one number, or one a node type of the cluster's "
        "YAML, as in `{head: 0.4, gpu_worker: 0.2}`; null tells no cost.",
    )
    node_start_s: PositiveFloat = Field(
        300.0, description="Seconds from asking the autoscaler for a node until it is up (assumed)."
    )
    start_node: bool = Field(
        False,
        description="Start a node to measure on where none of the kind is up, which takes minutes "
        "and money; else times are left open then.",
    )


class Config(Recipe):
    """A whole run."""

    tasks: Annotated[list[Task], Field(min_length=1), AfterValidator(_each_once)] = Field(
        [Task.MASK, Task.GENDER, Task.AGE], description="Tasks of a sweep."
    )
    task: Task | None = Field(None, description="The task of `train` and `tune`.")
    fold: NonNegativeInt = Field(0, description="The fold of `train`, numbered from 0.")
    recipes: dict[Task, Tree] = Field(
        {}, description="Task -> recipe keys of its own, inline or the path of a YAML."
    )
    run: Run = Field(default_factory=Run, description="The run.")
    data: Data = Field(default_factory=Data, description="The photos.")
    folds: Folds = Field(default_factory=Folds, description="The split.")
    ensemble: Ensemble = Field(default_factory=Ensemble, description="The vote.")
    resources: Resources = Field(default_factory=Resources, description="The cluster.")
    tracking: Tracking = Field(default_factory=Tracking, description="Tracking.")
    tune: Tune = Field(default_factory=Tune, description="Tuning.")
    plan: Plan = Field(default_factory=Plan, description="The plan.")

    @field_validator("recipes")
    @classmethod
    def _absolute_weights(cls, recipes: dict[Task, Tree]) -> dict[Task, Tree]:
        # A recipe stays as written until its task is known, but not what depends on the folder
        # that a program was started in.
        return {
            task: merged(recipe, {"model": {"weights": Model.absolute_file(weights)}})
            if isinstance(weights := dict(flatten(recipe)).get("model.weights"), str)
            else recipe
            for task, recipe in recipes.items()
        }

    @model_validator(mode="after")
    def _folds_exist(self) -> Config:
        chosen = [*(self.folds.only or []), self.fold, *self.tune.folds]
        if max(chosen) >= self.folds.count:
            raise ValueError(
                f"fold {max(chosen)} does not exist: folds.count={self.folds.count} numbers them "
                f"0 to {self.folds.count - 1} (see fold, folds.only and tune.folds)"
            )
        return self

    def recipe(self, task: Task) -> Recipe:
        """The general recipe with the task's own keys on top."""
        general = self.model_dump(include=set(Recipe.model_fields))
        return Recipe.model_validate(merged(general, self.recipes.get(task, {})))

    def place(self, location: Path | str) -> Place:
        """Where ``run.dir`` or ``data.root`` is worked on, and where it lives."""
        return Place.of(location, self.data.cache)

    def fold_numbers(self) -> list[int]:
        """The folds to run, in order."""
        return sorted(self.folds.only) if self.folds.only else list(range(self.folds.count))

    def yaml(self) -> str:
        """The configuration as YAML that reads back as the same configuration."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A nested mapping -> (dotted key, leaf) pairs. Empty mappings are leaves."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value and f"{prefix}{name}" != "tune.space":
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


METHOD_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "augment": ("ops", "magnitude", "severity", "width", "depth", "alpha", "noise"),
    "augment.mix": ("alpha",),
    "loss": ("gamma", "smoothing", "beta", "class_weights"),
    "optimizer": ("amsgrad", "momentum", "alpha"),
    "schedule": ("min_factor", "cycles", "step_epochs", "gamma"),
    "sampler": ("shares",),
}
"""Section -> the keys that belong to the method it names: another name leaves them behind."""


def merged(below: Mapping[str, Any], above: Mapping[str, Any], prefix: str = "") -> Tree:
    """A copy of ``below`` with ``above`` on top, section by section.

    Where ``above`` names another method (``loss.name``), the options of the one below go.
    """
    result = copy.deepcopy(dict(below))
    if "name" in above and above["name"] != below.get("name", above["name"]):
        for option in method_options(prefix.rstrip(".")):
            result.pop(option, None)
    for name, value in above.items():
        key = f"{prefix}{name}"
        old = result.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping) and key != "tune.space":
            result[name] = merged(old, value, f"{key}.")
        else:
            result[name] = copy.deepcopy(value)
    return result


def method_options(section: str) -> tuple[str, ...]:
    """The options of the method that a section names, also of ``recipes.<task>.<section>``."""
    if section.startswith("recipes."):
        section = section.split(".", 2)[-1]
    return METHOD_OPTIONS.get(section, ())


def digest(*parts: Any) -> str:
    """Sixteen hexadecimal digits that change when any JSON-able part changes."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def documentation() -> str:
    """The page of all keys (docs/config.md), generated from the types above."""
    lines = [
        "# Configuration keys",
        "",
        "Generated by `python -m maskcls.config`; edit `maskcls/config.py` instead. Every key can "
        "be set in a YAML and on the command line as `key.sub=value`. The keys of "
        + ", ".join(f"`{name}`" for name in Recipe.model_fields)
        + " can also be set for one task, under `recipes.<task>`.",
    ]
    top: list[tuple[str, type[BaseModel] | None]] = [("", None)]
    top += [(n, section_of(f.annotation)) for n, f in Config.model_fields.items()]
    for name, section in top:
        if name and section is None:
            continue
        title = name or "top level"
        intro = (section.__doc__ or "").strip() if section else "Keys outside any section."
        lines += ["", f"## {title}", "", intro, "", "| key | type | default | meaning |"]
        lines += ["|---|---|---|---|", *_rows(section or Config, f"{name}." if name else "")]
    return "\n".join(lines) + "\n"


def _rows(section: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        inner = section_of(field.annotation)
        if inner is not None:
            if prefix:
                yield from _rows(inner, f"{prefix}{name}.")
            continue
        default = "required" if field.is_required() else json.dumps(field.default, default=str)
        kind = _type_name(field.annotation).replace("|", "\\|")
        yield f"| `{prefix}{name}` | {kind} | `{default}` | {field.description} |"


def _type_name(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation == Path | str:
        return "path | URI"
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return " | ".join(f"`{value}`" for value in arguments)
    if origin in (types.UnionType, typing.Union):
        return " | ".join(_type_name(part) for part in arguments)
    if origin in (list, tuple):
        return f"{origin.__name__} of " + ", ".join(dict.fromkeys(map(_type_name, arguments)))
    if origin is dict:
        return "mapping"
    if annotation is type(None):
        return "null"
    if annotation is Task:
        return " | ".join(f"`{task}`" for task in Task)
    if (section := section_of(annotation)) is not None:
        return f"{{{', '.join(section.model_fields)}}}"
    return {Path: "path"}.get(annotation, getattr(annotation, "__name__", str(annotation)))


def section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


if __name__ == "__main__":
    print(documentation(), end="")
