"""What to do next, as far as a finished run can tell, ranked by what it would gain."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

from maskcls.config.recipe import Recipe
from maskcls.labels import ATTRIBUTES, Task
from maskcls.reports import analysis
from maskcls.reports.analysis import Calibration, Single
from maskcls.reports.curves import Fit
from maskcls.reports.finished_run import FinishedRun, readable
from maskcls.scoring.metrics import confusion, macro_f1, per_class

NAMED: Final = 6
"""What a piece of advice names at most of one kind."""

RANDOM_WEIGHTS, BAD_FIT, SEARCH = 0.6, 0.4, 0.2
"""Share of the gap to perfect answers that each is taken to close: rough, and only to rank."""

LONGER: Final = 2
"""Times the epochs of a model that is advised to train longer."""

TRIALS: Final = 12
"""Of a search that is advised: a bound on its time, by choice."""

CALIBRATED: Final = 0.05
"""Mean probability minus share right from which on a model is called overconfident."""


@dataclass(frozen=True)
class Advice:
    """What to do, why, and the command that does it; ``gain`` is in macro F1, to rank by.

    ``training_s``: about how many seconds the jobs of the command train, all together, judged by
    those of the run; 0 where it trains nothing.
    """

    title: str
    reason: str
    gain: float
    command: str = ""
    training_s: float = 0.0


def next_steps(
    run: FinishedRun,
    opinions: pd.DataFrame,
    calibrations: Mapping[str, Calibration],
    singles: Mapping[str, Single],
    fits: Mapping[Task, Fit],
) -> list[Advice]:
    """Advice for this run, the most useful first."""
    weak = weak_attributes(run)
    steps = [
        *_missing(run),
        *_weak(run, weak),
        *_random_weights(run),
        *_fit(run, fits),
        *_ensemble(run, singles),
        *_search(run),
        *_labels(run, opinions, weak),
        *_confidence(calibrations),
        *_compare(run),
        *_use(run),
    ]
    return sorted(steps, key=lambda step: -step.gain)


def weak_attributes(run: FinishedRun) -> dict[str, tuple[float, float]]:
    """Attributes whose macro F1 is nearer to that of guessing than to 1, with both figures."""
    found = {}
    for attribute in ATTRIBUTES:
        if attribute in run.targets:
            score = run.scores["out_of_fold"][attribute]["macro_f1"]
            guessing = analysis.chance(run.labelled(attribute)[f"{attribute}_truth"])
            if guessing < 1 and score < (1 + guessing) / 2:
                found[attribute] = score, guessing
    return found


def random_weights(recipe: Recipe) -> bool:
    """Whether training began without pretrained weights."""
    return not (recipe.model.weights or recipe.model.pretrained)


def named(things: Iterable[object]) -> str:
    """The first of them."""
    listed = list(map(str, things))
    return ", ".join(listed[:NAMED]) + (", ..." if len(listed) > NAMED else "")


def sweep(run: FinishedRun, *words: str, into: str = "") -> str:
    """The sweep of this run with these words changed, in a folder of its own if they retrain."""
    return _command("sweep", run, *words, f"run.dir={run.folder}{into}")


def _command(verb: str, run: FinishedRun, *words: str) -> str:
    given = ["--config", str(run.folder / "config.yaml"), *words]
    return shlex.join(["python", "-m", f"ray_jobs.{verb}", *given])


def _training_s(run: FinishedRun, epochs: Mapping[Task, float] | None = None) -> float:
    """Seconds that the jobs of this run would train, with ``epochs`` times as many of a task."""
    times = epochs or {}
    return sum(job["training_seconds"] * times.get(Task(job["task"]), 1.0)
               for job in run.scores["jobs"])  # fmt: skip


def _recipe_words(tasks: Iterable[Task], word: str) -> list[str]:
    return [f"recipes.{task}.{word}" for task in tasks]


def _gap(run: FinishedRun, tasks: Sequence[Task]) -> float:
    """About what the first target's macro F1 would rise by if these tasks' models were always
    right. Where all attributes are bad, one that is perfect changes little, and yet each must be
    mended: it counts with a third of its own gap then."""
    first = run.targets[0]
    now = float(run.scores["out_of_fold"][first]["macro_f1"])
    single = [task for task in tasks if task not in (Task.JOINT, Task.MULTI)]
    if first != "joint" or len(single) < len(tasks):
        return 1 - now
    perfect = analysis.if_perfect(run.answers)
    scores = run.scores["out_of_fold"]
    return max(max(perfect[t] - now, (1 - scores[t]["macro_f1"]) / 3) for t in single)


def _missing(run: FinishedRun) -> list[Advice]:
    failed = run.scores["failed"]
    if not failed:
        return []
    reason = f"These models are missing: {named(failed)}."
    return [Advice("Run the same command again", reason, math.inf, sweep(run))]


def _weak(run: FinishedRun, weak: Mapping[str, tuple[float, float]]) -> list[Advice]:
    if not weak:
        return []
    scores = ", ".join(f"{a} {f1:.2f} (guessing: {g:.2f})" for a, (f1, g) in weak.items())
    reason = (
        f"Macro F1 is low for {scores}. Follow the advice on training below. Check labels and "
        "compare ensembles later: weak models doubt correct labels too."
    )
    return [Advice("Train better first", reason, 10.0)]


def _random_weights(run: FinishedRun) -> list[Advice]:
    tasks = [task for task, recipe in run.recipes.items() if random_weights(recipe)]
    if not tasks:
        return []
    packaged = all(run.recipes[task].model.name == "tf_efficientnet_lite0" for task in tasks)
    word = "model.weights=package:efficientnet_lite0" if packaged else "model.pretrained=true"
    command = sweep(run, *_recipe_words(tasks, word), into="-pretrained")
    reason = f"Training of {named(tasks)} began with random weights, which needs far more photos."
    gain = RANDOM_WEIGHTS * _gap(run, tasks)
    return [Advice("Start from pretrained weights", reason, gain, command, _training_s(run))]


def _fit(run: FinishedRun, fits: Mapping[Task, Fit]) -> list[Advice]:
    """Tasks that overfit, underfit, or ended too early."""
    steps = []
    for verdict, title, into in (
        ("overfitting", "Reduce overfitting of", "-regularised"),
        ("underfitting", "Train more strongly:", "-stronger"),
        ("too short", "Train longer:", "-longer"),
    ):
        tasks = [task for task, fit in fits.items() if fit.verdict == verdict]
        if tasks:
            reasons = "; ".join(f"{task}: {fits[task].reason}" for task in tasks)
            words = [word for task in tasks for word in _remedy(task, run.recipes[task], verdict)]
            gain = BAD_FIT * _gap(run, tasks)
            hint = HINTS[verdict]
            longer = 1.0 if verdict == "overfitting" else float(LONGER)
            steps.append(
                Advice(f"{title} {named(tasks)}", f"{reasons}. {hint}", gain,
                       sweep(run, *words, into=into),
                       _training_s(run, dict.fromkeys(tasks, longer)))
            )  # fmt: skip
    return steps


HINTS: Final = {
    "overfitting": "The models learn the training photos by heart. Stronger augmentation, mixing "
    "or label smoothing help.",
    "underfitting": "The models do not even fit the training photos. More epochs, another "
    "learning rate, or a larger backbone or image help.",
    "too short": "More epochs help.",
}


def _remedy(task: Task, recipe: Recipe, verdict: str) -> list[str]:
    """The next means against a bad fit that the recipe does not use yet."""
    if verdict != "overfitting":
        return _recipe_words([task], f"train.epochs={LONGER * recipe.train.epochs}")
    if recipe.augment.name in ("base", "flip"):
        return _recipe_words([task], "augment.name=autoaugment")
    if recipe.augment.mix.name == "none":
        return _recipe_words([task], "augment.mix.name=vertical_cutmix")
    return _recipe_words([task], "loss.name=label_smoothing")


def _search(run: FinishedRun) -> list[Advice]:
    """The attribute whose mistakes cost most, its hardest class, and a search for its models."""
    first = run.targets[0]
    now = run.scores["out_of_fold"][first]["macro_f1"]
    if now >= 1:
        return []
    if first == "joint":
        perfect = analysis.if_perfect(run.answers)
        worst = max(perfect, key=lambda attribute: perfect[attribute])
        table = ", ".join(f"{attribute} {perfect[attribute]:.3f}" for attribute in ATTRIBUTES)
        reason = f"Joint macro F1 is {now:.3f}. With one attribute answered perfectly: {table}."
    else:
        worst = min(run.targets, key=lambda t: run.scores["out_of_fold"][t]["macro_f1"])
        perfect = {worst: 1.0}
        reason = f"{worst} macro F1 is {run.scores['out_of_fold'][worst]['macro_f1']:.3f}."
    answers = run.labelled(worst)
    cm_KK = confusion(
        answers[f"{worst}_truth"], answers[f"{worst}_predicted"], analysis.size(worst)
    )
    f1_K = per_class(cm_KK)[2]
    f1_K[cm_KK.sum(axis=0) + cm_KK.sum(axis=1) == 0] = 1.0  # a class that nobody has
    hard = int(f1_K.argmin())
    task = analysis.tasks_of(run, worst)[0]
    train = run.recipes[task].train
    words = [
        f"task={task}",
        f"tune.space={{train.lr: {{loguniform: [{train.lr / 10:.1e}, {train.lr * 10:.1e}]}}}}",
        f"tune.trials={TRIALS}",
        f"tune.max_epochs={train.epochs}",
        "tune.folds=[0]",
        f"run.dir={run.folder}-tune-{task}",
    ]
    jobs = [job["training_seconds"] for job in run.scores["jobs"] if job["task"] == task]
    return [
        Advice(
            f"Work on {worst}",
            f"{reason} The hardest {worst} class is {readable(worst, run.age_limits)[hard]} "
            f"(F1 {f1_K[hard]:.2f}). A search may find a better learning rate.",
            SEARCH * (perfect[worst] - now),
            _command("tune", run, *words),
            TRIALS * sum(jobs) / len(jobs),
        )
    ]


def _labels(
    run: FinishedRun, opinions: pd.DataFrame, weak: Mapping[str, tuple[float, float]]
) -> list[Advice]:
    """People whose label all their photos contradict, unless the models are too weak to judge."""
    steps = []
    for attribute, people in analysis.doubtful_labels(opinions).items():
        if people and attribute not in weak:
            steps.append(
                Advice(
                    f"Check the {attribute} label of {len(people)} "
                    f"{'person' if len(people) == 1 else 'people'}",
                    f"The models are confident of another label on every photo ({named(people)}). "
                    "The page shows the photos and writes the label fixes.",
                    _gain_of_labels(run, attribute, people),
                    shlex.join(["python", "-m", "maskcls", "labels", str(run.folder)]),
                )
            )
    return steps


def _gain_of_labels(run: FinishedRun, attribute: str, people: Iterable[str]) -> float:
    """Macro F1 of the attribute if the models are right about all these people."""
    labelled = run.labelled(attribute)
    truth, answers = (
        labelled[f"{attribute}_{kind}"].to_numpy().copy() for kind in ("truth", "predicted")
    )
    size = analysis.size(attribute)
    now = macro_f1(confusion(truth, answers, size))
    theirs = labelled["person"].isin(list(people)).to_numpy()
    truth[theirs] = answers[theirs]
    return macro_f1(confusion(truth, answers, size)) - now


def _ensemble(run: FinishedRun, singles: Mapping[str, Single]) -> list[Advice]:
    """Where some models alone are clearly better than all together."""
    worse = {
        target: single for target, single in singles.items() if single.gain and single.gain.high < 0
    }
    if not worse:
        return []
    targets = ", ".join(f"{target} ({single.name})" for target, single in worse.items())
    gain = max(-single.gain.value for single in worse.values() if single.gain)
    other = "stacking" if run.ensemble == "soft" else "soft"
    return [
        Advice(
            "Use another ensemble",
            f"The {run.ensemble} ensemble is worse than the best single models of {targets}. "
            "Other tasks may be left out, too.",
            gain,
            sweep(run, f"ensemble.name={other}"),
        )
    ]


def _confidence(calibrations: Mapping[str, Calibration]) -> list[Advice]:
    sure = {name: c for name, c in calibrations.items() if c.surplus > CALIBRATED}
    if not sure:
        return []
    surplus = ", ".join(f"{name} by {c.surplus:.2f}" for name, c in sure.items())
    reason = (
        f"Probabilities are too high on average: {surplus}. Label smoothing or mixup helps. A hard "
        "vote is hardly affected."
    )
    return [Advice("Do not rely on the probabilities", reason, 0.0)]


def _compare(run: FinishedRun) -> list[Advice]:
    low, high = run.scores["out_of_fold"][run.targets[0]]["macro_f1_interval"]
    reason = (
        f"With other people, the score of this run could be {low:.3f} to {high:.3f}. This command "
        "compares two runs on the same people."
    )
    command = shlex.join(["python", "-m", "ray_jobs.report", str(run.folder), "OTHER_RUN"])
    return [Advice("Compare runs before you trust a better score", reason, -1.0, command)]


def _use(run: FinishedRun) -> list[Advice]:
    words = ["maskcls", "predict", str(run.folder), "PHOTOS", "--out", "predicted.csv"]
    command = shlex.join(["python", "-m", *words])
    return [Advice("Use the ensemble", "Any folder of photos will do.", -2.0, command)]
