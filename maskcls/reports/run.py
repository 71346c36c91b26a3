"""One HTML page that shows a finished sweep. It needs no other file and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
import pandas as pd

from maskcls.labels import HEADS, Task
from maskcls.reports import (
    advice,
    analysis,
    charts,
    curves,
    finished_run,
    gallery,
    groups,
    page,
    seen,
    vote_section,
)
from maskcls.reports.analysis import Calibration
from maskcls.reports.curves import Fit
from maskcls.reports.finished_run import FinishedRun, readable
from maskcls.reports.page import Picture, Table
from maskcls.scoring import metrics

MISTAKES: Final = 12
"""Wrong answers that are shown, and explained."""

REASONS: Final = 3
"""Reasons that a list of what is missing tells."""

UNCERTAIN: Final = 12
"""Uncertain answers that are shown."""


def write(folder: Path, explain: gallery.Explain = gallery.explain) -> Path:
    """Write ``folder/report.html``, whole or not at all, and return its path.

    All of it comes from the files of the run, and the pictures from the photos that its manifest
    names; where those are gone the page says so. ``explain`` makes the heat maps. Raises
    FileNotFoundError where ``folder`` holds no finished run and OSError naming the page where it
    cannot be written.
    """
    run = finished_run.read(folder)
    opinions = analysis.opinions(run)
    calibrations = _calibrations(run)
    fits = curves.fits(run)
    with matplotlib.rc_context(page.PLOT_STYLE):
        return page.write(
            folder / "report.html",
            "run.html.j2",
            name=run.name,
            facts=_facts(run),
            failed=run.scores["failed"],
            versions=run.scores["versions"],
            reasons=REASONS,
            result=_result(run, opinions, calibrations, fits),
            recipes=_recipes(run),
            matrices=[_matrix(run, target) for target in run.targets],
            learning=_learning(run, fits),
            reliability=[
                page.plot(charts.reliability(name, c), f"{name}: share correct by probability")
                for name, c in calibrations.items()
            ],
            groups=groups.section(run),
            mistakes=_mistakes(run, opinions, explain),
            uncertain=_uncertain(run, opinions),
            agreement=vote_section.agreement(run),
            vote=vote_section.tables(run),
            times=_times(run),
            data=groups.data(run),
            faces=seen.of_run(run),
        )


def _facts(run: FinishedRun) -> list[str]:
    scores = run.scores
    backbones = dict.fromkeys(recipe.model.name for recipe in run.recipes.values())
    return [
        f"{', '.join(map(str, run.tasks))} with {', '.join(backbones)}",
        f"{scores['people']:,} people",
        f"{scores['photos']:,} photos",
        *_pseudo(scores.get("pseudo")),
        f"{scores['ensemble']['models']} models in a {run.ensemble} ensemble",
        f"seed {run.seed}",
    ]


def _pseudo(counts: Mapping[str, Any] | None) -> list[str]:
    return [f"{counts['photos']['all']:,.0f} pseudo-labelled photos a fold"] if counts else []


def _result(
    run: FinishedRun,
    opinions: pd.DataFrame,
    calibrations: Mapping[str, Calibration],
    fits: Mapping[Task, Fit],
) -> dict[str, Any]:
    scores = run.scores["out_of_fold"]
    singles = {target: analysis.best_single(run, target) for target in scores}
    chances = {
        target: analysis.chance(run.labelled(target)[f"{target}_truth"]) for target in scores
    }
    first, values = next(iter(scores.items()))
    figure = charts.headline(scores, {t: one.macro_f1 for t, one in singles.items()}, chances)
    rows = [
        [
            target,
            f"{values['macro_f1']:.3f}",
            "{:.3f} to {:.3f}".format(*values["macro_f1_interval"]),
            f"{singles[target].macro_f1:.3f} ({singles[target].name})",
            singles[target].gain or "same answers",
            f"{chances[target]:.3f}",
            *(f"{values[n]:.3f}" for n in ("accuracy", "macro_precision", "macro_recall")),
            f"{values['photos']:,}",
            f"{values['people']:,}",
        ]
        for target, values in scores.items()
    ]
    head = ["", "macro F1", "95 % interval", "best single", "ensemble minus best single", "chance",
            "accuracy", "macro precision", "macro recall", "photos", "people"]  # fmt: skip
    return {
        "target": first,
        "macro_f1": values["macro_f1"],
        "interval": values["macro_f1_interval"],
        "figure": page.plot(
            figure, "macro F1 beside the best single model and chance; see the table"
        ),
        "steps": advice.next_steps(run, opinions, calibrations, singles, fits),
        "remarks": _remarks(run),
        "table": Table("Scores out of fold", head, rows),
        "alone": all(single.gain is None for single in singles.values()),
    }


def _remarks(run: FinishedRun) -> list[str]:
    """What a reader of the score must know: classes without people, random weights."""
    remarks = []
    for target in run.targets:
        names = readable(target, run.age_limits)
        present = set(run.labelled(target)[f"{target}_truth"])
        empty = [f"{k} {name}" for k, name in enumerate(names) if k not in present]
        if empty:
            remarks.append(
                f"{target}: the data has nobody of {len(empty)} of {len(names)} classes "
                f"({advice.named(empty)}). The score says nothing about them, and the models "
                "cannot answer them."
            )
    random = [task for task, recipe in run.recipes.items() if advice.random_weights(recipe)]
    if random:
        remarks.append(
            f"{advice.named(random)}: trained from random weights (neither model.weights nor "
            "model.pretrained was set). Pretrained weights usually score much higher."
        )
    return remarks


def _recipes(run: FinishedRun) -> Table:
    rows: dict[str, list[str]] = {}
    for task, recipe in run.recipes.items():
        people = recipe.people
        values = {
            "fold models": str(sum(job["task"] == task for job in run.scores["jobs"])),
            "backbone": recipe.model.name,
            "weights": recipe.model.weights or ("hub" if recipe.model.pretrained else "random"),
            "input (H x W)": f"{recipe.image.size[0]} x {recipe.image.size[1]}",
            "preprocessing": f"crop {recipe.image.crop}, background {recipe.image.background}",
            "augmentation": f"{recipe.augment.name}, mix {recipe.augment.mix.name}",
            "loss": recipe.loss.name,
            "optimiser": f"{recipe.optimizer.name}, lr {recipe.train.lr:g}",
            "schedule": recipe.schedule.name,
            "sampler": recipe.sampler.name,
            "ages not trained on": ", ".join(f"{a}-{b}" for a, b in people.drop_ages) or "none",
            "groups with blended photos": str(len(people.blend) or "none"),
            "epochs, batch": f"{recipe.train.epochs}, {recipe.train.batch_size}",
        }
        for name, value in values.items():
            rows.setdefault(name, []).append(value)
    return Table(
        "Recipe of each task",
        ["", *map(str, run.tasks)],
        [[name, *values] for name, values in rows.items()],
    )


def _matrix(run: FinishedRun, target: str) -> dict[str, Any]:
    """The confusion matrix with the scores of each class at the end of its row."""
    names = readable(target, run.age_limits)
    truth, predicted = (run.labelled(target)[f"{target}_{kind}"] for kind in ("truth", "predicted"))
    cm_KK = metrics.confusion(truth, predicted, len(names))
    support_K, answered_K = cm_KK.sum(axis=1), cm_KK.sum(axis=0)
    share_KK = cm_KK / np.maximum(support_K, 1)[:, None]
    scores_K3 = np.stack(metrics.per_class(cm_KK), axis=1)
    wrong_KK = cm_KK - np.diag(np.diag(cm_KK))
    label, answer = divmod(int(wrong_KK.argmax()), len(names))
    return {
        "target": target,
        "names": names,
        "counts": cm_KK.tolist(),
        "shares": share_KK.tolist(),
        # A class that nobody has and nobody answered has no scores, and macro means skip it.
        "scores": [
            scores_K3[k].tolist() if support_K[k] + answered_K[k] else None
            for k in range(len(names))
        ],
        "photos": support_K.tolist(),
        "confusion": (names[label], names[answer]) if wrong_KK.any() else None,
        "confused": int(wrong_KK.max()),
        "wrong": int(wrong_KK.sum()),
    }


def _learning(run: FinishedRun, fits: Mapping[Task, Fit]) -> list[Picture]:
    best = {(job["task"], job["fold"]): job["best_epoch"] for job in run.scores["jobs"]}
    pictures = []
    for task, fit in fits.items():
        mine = {fold: h for (owner, fold), h in run.histories.items() if owner is task}
        epochs = {fold: best[task, fold] for fold in mine}
        names = (f"{task}: macro F1 by epoch and fold", f"{task}: losses by epoch and fold")
        pictures += list(map(page.plot, charts.learning(task, mine, epochs, fit), names))
    return pictures


def _calibrations(run: FinishedRun) -> dict[str, Calibration]:
    """The calibration of each head, by its task's name or, where that has several, its own too."""
    rows_of = dict(iter(run.out_of_fold.groupby(["task", "head"])))
    return {
        str(task) if len(HEADS[task]) == 1 else f"{head} of task {task}": analysis.calibration(
            rows_of[str(task), head]
        )
        for task in run.tasks
        for head in HEADS[task]
    }


def _mistakes(run: FinishedRun, opinions: pd.DataFrame, explain: gallery.Explain) -> dict[str, Any]:
    chosen = analysis.worst(opinions, MISTAKES)
    if chosen.empty:
        return {"cards": [], "problems": [], "unexplained": []}
    photos, problems = gallery.read_photos(run, chosen["photo"].tolist())
    explained = explain(run, chosen, photos)
    cards = gallery.cards(run, chosen, photos, explained.pictures)
    return {"cards": cards, "problems": problems, "unexplained": explained.notes}


def _uncertain(run: FinishedRun, opinions: pd.DataFrame) -> dict[str, Any]:
    chosen = analysis.most_uncertain(opinions, UNCERTAIN)
    photos, problems = gallery.read_photos(run, chosen["photo"].tolist())
    return {"cards": gallery.cards(run, chosen, photos, {}), "problems": problems}


def _times(run: FinishedRun) -> dict[str, Any]:
    jobs = run.scores["jobs"]
    phases = [
        [name, page.duration(seconds), f"{seconds / max(run.scores['seconds'], 1e-9):.0%}"]
        for name, seconds in run.scores.get("phases", {}).items()
    ]
    head = ["phase", "time", "share"]
    return {
        "figure": page.plot(charts.times(jobs), "minutes of each job; see the table"),
        "phases": Table("Phases of the last sweep command", head, phases) if phases else None,
        "jobs": _jobs(jobs),
    }


def _jobs(jobs: Sequence[Mapping[str, Any]]) -> Table:
    devices = any("device" in job for job in jobs)
    rows = [
        [
            job["task"],
            job["fold"],
            f"{job['best_epoch']} of {job['epochs']}",
            *(f"{job['scores'][name]:.3f}" for name in ("macro_f1", "accuracy", "loss")),
            page.duration(job["training_seconds"]),
            page.duration(job["seconds"]),
            *([job.get("device", "not known")] if devices else []),
        ]
        for job in jobs
    ]
    head = ["task", "fold", "best epoch", "macro F1", "accuracy", "loss", "training", "whole job"]
    caption = (
        "Jobs: scores of the kept epoch on the people of the fold, in all predict.views together "
        "(learning curves: of the plain photo)"
    )
    return Table(caption, [*head, *(["device"] if devices else [])], rows)
