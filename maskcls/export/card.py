"""The model card of a bundle: what it was trained on, how good it is and for whom, its limits.

After Mitchell et al., "Model Cards for Model Reporting", FAT* 2019.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from maskcls import labels
from maskcls.config.recipe import Model as Weights
from maskcls.data.status import OK
from maskcls.learning import checkpoint
from maskcls.reports import finished_run
from maskcls.reports.finished_run import FinishedRun, readable

LIMITS = """## Limits

- It tells how a person looks in a photo of the kind it was trained on, not who or what somebody is.
  Gender has two classes and age three bands, because the labels had no more.
- Scores hold for people like those it was trained on. On other cameras, other groups of people,
  other masks they must be measured again: `maskcls predict` and `maskcls score`.
- Scores are of people whom the models had not seen, but each model's best epoch was chosen on the
  people it is scored on, which flatters it a little.
- It always answers. A photo without a face gets a class too.
- It is not made for decisions about single persons.
"""


def text(source: Path, *, half: bool = False) -> str:
    """The model card of a finished run, or of one job of a run, as Markdown."""
    if (source / "scores.json").is_file():
        return _of_run(finished_run.read(source), half)
    info = checkpoint.read_info(source)
    scores = ", ".join(f"{name} {value:.3f}" for name, value in sorted(info.scores.items()))
    lines = [
        f"# Model card: {source.resolve().name}", "",
        f"One model alone, of task {info.task}, fold {info.fold}, epoch {info.epoch}; on the "
        f"people of its fold: {scores}.", "", _precision(half), "",
        "## Weights", "", f"- {info.task}: {_weights(info.recipe.model)}", "", LIMITS,
    ]  # fmt: skip
    return "\n".join(lines)


def _of_run(run: FinishedRun, half: bool) -> str:
    used = run.photos[run.photos["status"] == OK]
    folds = len({job["fold"] for job in run.scores["jobs"]})
    models = "\n".join(
        f"- {task}: {folds} x {recipe.model.name} at {recipe.image.size[0]} x "
        f"{recipe.image.size[1]} pixels, crop {recipe.image.crop}, loss {recipe.loss.name}, "
        f"augmentation {recipe.augment.name}; {_weights(recipe.model)}"
        for task, recipe in run.recipes.items()
    )
    return "\n".join(
        [
            f"# Model card: {run.name}", "",
            f"An ensemble of {len(run.scores['jobs'])} models (vote: {run.ensemble}). From a photo "
            f"of a person it tells {', '.join(run.targets)}.", "", _precision(half), "",
            "## Trained on", "",
            f"{len(used):,} photos of {used['person'].nunique():,} people ({_people(used)}). Each "
            f"model saw the people of all folds but one of {folds}.", "",
            "## Models, and the licence of the weights that they started from", "", models, "",
            "## Scores", "",
            "Out of fold: each person is answered for by models that never saw the person. "
            "Macro F1 with its 95 % interval over people, and accuracy.", "",
            *_scores(run), "", LIMITS,
        ]
    )  # fmt: skip


def _people(used: pd.DataFrame) -> str:
    """Gender, ages and race, as far as they are known."""
    of_person = used.groupby("person")["gender"].max()  # MISSING is the least
    parts = [
        f"{(of_person == int(gender)).sum():,} {gender.name.lower()}" for gender in labels.Gender
    ]
    if unknown := int((of_person == labels.MISSING).sum()):
        parts.append(f"{unknown:,} of unknown gender")
    ages = used.loc[used["age"] != labels.MISSING, "age"]
    parts.append(f"{ages.min()} to {ages.max()} years" if len(ages) else "no age in years")
    races = sorted(name for name in map(str, used["race"].unique()) if name)
    if races:
        parts.append(f"as their folders name it: {', '.join(races)}")
    return ", ".join(parts)


def _scores(run: FinishedRun) -> Iterator[str]:
    columns, scores = run.targets, run.scores["out_of_fold"]
    yield "| who | photos | " + " | ".join(columns) + " |"
    yield "|---|---|" + "---|" * len(columns)
    cells = [
        f"{scores[c]['macro_f1']:.3f} ({scores[c]['macro_f1_interval'][0]:.3f} to "
        f"{scores[c]['macro_f1_interval'][1]:.3f}), {scores[c]['accuracy']:.3f}"
        for c in columns
    ]
    yield f"| everybody | {len(run.answers):,} | " + " | ".join(cells) + " |"
    yield from ["", "By group: the mean recall over the classes that the group has.", ""]
    yield "| who | photos | " + " | ".join(columns) + " |"
    yield "|---|---|" + "---|" * len(columns)
    for who, answers in _groups(run):
        cells = [_mean_recall(answers, target) for target in columns]
        yield f"| {who} | {len(answers):,} | " + " | ".join(cells) + " |"


def _mean_recall(answers: pd.DataFrame, target: str) -> str:
    """Unlike F1 it does not depend on how often other groups get the same answer."""
    labelled = answers[answers[f"{target}_truth"] != labels.MISSING]
    right = labelled[f"{target}_truth"] == labelled[f"{target}_predicted"]
    return f"{right.groupby(labelled[f'{target}_truth']).mean().mean():.3f}" if len(right) else "-"


def _groups(run: FinishedRun) -> Iterator[tuple[str, pd.DataFrame]]:
    for column, attribute in (("gender", "gender"), ("age_band", "age")):
        truth = run.answers["photo"].map(run.photos[column])
        for number, name in enumerate(readable(attribute, run.age_limits)):
            group = run.answers[truth == number]
            if len(group):
                yield f"{attribute}: {name}", group


def _weights(model: Weights) -> str:
    """Where the weights came from, and under which licence, as far as that is known."""
    if model.weights is not None and model.weights.startswith("package:"):
        return f"started from {model.weights} (ImageNet; licence: see that package)"
    if model.weights is not None:
        return f"started from the file {Path(model.weights).name} (licence: see its source)"
    if not model.pretrained:
        return "started from random weights (no licence of others)"
    import timm

    published = timm.get_pretrained_cfg(model.name) if timm.is_model(model.name) else None
    licence = getattr(published, "license", None) or "see its page on the hub"
    return f"started from the published weights of {model.name} (licence: {licence})"


def _precision(half: bool) -> str:
    return f"Weights are stored in {'float16' if half else 'float32'}, computed with in float32."
