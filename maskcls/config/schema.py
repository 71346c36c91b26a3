"""The configuration: typed, documented, layered, and refused when it is wrong.

A configuration is made of layers: the defaults below, each ``--config`` file in order, then
``key.sub=value`` words from the command line. A later layer wins. ``recipes`` holds what one task
sets for itself; inside a layer a recipe beats the general value, and a general value of a later
layer beats the recipes of earlier ones, so ``train.epochs=3`` always means three epochs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from maskcls.config.layers import flatten, merged
from maskcls.config.methods import Ensemble, Hard
from maskcls.config.photo_tables import ColumnNames, TableFiles, Values
from maskcls.config.recipe import Model, Recipe
from maskcls.config.serve import Answers, Serve
from maskcls.config.types import (
    DEFAULT_CACHE,
    AbsolutePath,
    CachePath,
    Duration,
    FoldNumbers,
    Location,
    Section,
    Share,
    Tree,
    each_once,
)
from maskcls.labels import Task
from maskcls.storage import yaml_files
from maskcls.storage.place import Place


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
        description="Folder that holds `train/` and `eval/`, or its URI (`s3://`, `gs://`). With "
        "`data.table`: the folder that paths in the table are relative to, if they are not "
        "relative to the table.",
    )
    table: TableFiles | None = Field(
        None,
        description="Tables of photos, one or a list: `.csv` or `.parquet`, one row a photo, paths "
        "or URIs. They take the place of the folders; see docs/tables.md. null: the folders.",
    )
    columns: ColumnNames = Field(
        {},
        description="What the table calls our columns, as in `{mask: wearing}`; those are `path`, "
        "`person`, `group`, `mask`, `gender`, `age`, `age_band`, `split` and `weight`.",
    )
    values: Values = Field(
        {},
        description="What the words of the table mean, as in `{gender: {F: female, M: male}}`; an "
        "empty text says that a word means nothing.",
    )
    near_duplicates: Literal["together", "ignore"] = Field(
        "together",
        description="Photos without a person that look nearly the same: `together` keeps them in "
        "one fold, for which every photo is decoded once more, the first time; `ignore` does not "
        "look for them.",
    )
    cache: CachePath = Field(
        DEFAULT_CACHE,
        description="Folder of prepared (decoded, resized) images, local to a node or shared; "
        "local copies of what lies on an object store are kept there too, under `remote/`. Where "
        "the user has no home folder, the default is `maskcls-cache-<user id>` in the temporary "
        "folder.",
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


class Resources(Section):
    """How a run uses the cluster. Results depend on the number of threads and workers alone."""

    workers_per_job: PositiveInt = Field(
        1,
        description="Train workers that share one job. On GPUs they normalise over the whole batch "
        "(SyncBN); on CPUs each worker normalises its own share, so results differ from those of "
        "one worker where the backbone has batch norm.",
    )
    gpus_per_worker: NonNegativeFloat | None = Field(
        None,
        description="GPUs a worker: 1, 0, or a fraction to let jobs of one worker share a GPU; "
        "null: 1 where there are GPUs, else 0.",
    )
    max_gpus: NonNegativeInt | None = Field(
        None,
        description="GPUs that the cluster's autoscaler may have up in all, one a node; for "
        "KubeRay, which tells Ray no limit. null: what is up, and what `ray up` may start.",
    )
    allow_cpu: bool = Field(
        False,
        description="Whether a worker that was given a GPU and finds no CUDA trains on the CPU; "
        "otherwise its lane is closed.",
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
        900.0,
        description="Seconds without a sign of life after which the worker of a job is started "
        "again, which counts as a failed attempt of this job. Waiting for a CPU that other "
        "programs have does not count.",
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


class Budget(Section):
    """The time that a sweep may take."""

    time_s: Duration | None = Field(
        None,
        description="`30m`, `2h` or seconds; `sweep --budget 30m` is the same. `tasks` then are an "
        "ordered list, each of which adds the most to those before it: as many of them, with as "
        "many folds, epochs and pixels as end in that time, are trained, by what is measured here "
        "first. The choice is kept in the run. null: all is trained as it is written.",
    )

    @field_validator("time_s")
    @classmethod
    def _above_a_minute(cls, value: float | None) -> float | None:
        if value is not None and value < 60:
            raise ValueError(f"no sweep ends in {value:g} s; minutes are written as in {value:g}m")
        return value


class Pseudo(Section):
    """Sure answers of a finished run on its photos to predict, as further photos to train on."""

    run: AbsolutePath | None = Field(
        None,
        description="Folder of a finished run on the same data and folds. Fold k trains on the "
        "answers of that run's models of fold k alone, which have not seen its people either. "
        "null: none.",
    )
    confidence: Share = Field(
        0.95, description="Least mean probability, of every attribute that a task tells."
    )


class Config(Recipe):
    """A whole run."""

    tasks: Annotated[list[Task], Field(min_length=1), AfterValidator(each_once)] = Field(
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
    ensemble: Ensemble = Field(default_factory=Hard, description="The vote.")
    resources: Resources = Field(default_factory=Resources, description="The cluster.")
    tracking: Tracking = Field(default_factory=Tracking, description="Tracking.")
    tune: Tune = Field(default_factory=Tune, description="Tuning.")
    plan: Plan = Field(default_factory=Plan, description="The plan.")
    answers: Answers = Field(default_factory=Answers, description="The answers.")
    serve: Serve = Field(default_factory=Serve, description="The service.")
    budget: Budget = Field(default_factory=Budget, description="The budget.")
    pseudo: Pseudo = Field(default_factory=Pseudo, description="Pseudo-labels.")

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

    @field_validator("recipes")
    @classmethod
    def _one_set_of_labels(cls, recipes: dict[Task, Tree]) -> dict[Task, Tree]:
        for task, recipe in recipes.items():
            if "labels" in recipe:
                raise ValueError(
                    f"recipes.{task}.labels: all tasks have the same classes; set labels.age_limits"
                )
        return recipes

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
        return yaml_files.dump(self.model_dump(mode="json"))
