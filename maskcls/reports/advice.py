"""What to do next, as far as a finished run can tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Final

import pandas as pd

from maskcls.labels import ATTRIBUTES
from maskcls.reports import analysis, charts
from maskcls.reports.analysis import Calibration, Single
from maskcls.reports.finished_run import FinishedRun, readable
from maskcls.scoring.metrics import confusion, per_class

NAMED: Final = 6
"""What a piece of advice names at most of one kind."""


def next_steps(
    run: FinishedRun,
    opinions: pd.DataFrame,
    calibrations: Mapping[str, Calibration],
    singles: Mapping[str, Single],
) -> list[str]:
    """Advice with its reason, as HTML, the most useful first."""
    return [
        *_missing(run),
        *_ensemble(run, singles),
        *_weakest(run),
        *_labels(opinions),
        *_epochs(run),
        *_confidence(calibrations),
        *_noise(run),
    ]


def named(things: Iterable[str]) -> str:
    """The first of them, as HTML."""
    listed = list(things)
    return escape(", ".join(listed[:NAMED]) + (", ..." if len(listed) > NAMED else ""))


def _missing(run: FinishedRun) -> list[str]:
    failed = run.scores["failed"]
    if not failed:
        return []
    return [f"<b>Run the same command again:</b> these models are missing: {named(failed)}."]


def _weakest(run: FinishedRun) -> list[str]:
    """The attribute whose mistakes cost most, and its hardest class."""
    if "joint" not in run.spaces:
        return []
    now = run.scores["out_of_fold"]["joint"]["macro_f1"]
    perfect = analysis.if_perfect(run.answers)
    first = max(perfect, key=lambda attribute: perfect[attribute])
    if perfect[first] == now:
        return []
    table = ", ".join(f"{attribute} {perfect[attribute]:.3f}" for attribute in ATTRIBUTES)
    size = analysis.size(first)
    cm_KK = confusion(run.answers[f"{first}_truth"], run.answers[f"{first}_predicted"], size)
    f1_K = per_class(cm_KK)[2]
    f1_K[cm_KK.sum(axis=0) + cm_KK.sum(axis=1) == 0] = 1.0  # a class that nobody has
    hard = int(f1_K.argmin())
    return [
        f"<b>Work on {first} first.</b> Joint macro F1 is {now:.3f}; with one attribute always "
        f"right it would be: {table}. The hardest {first} class is {readable(first)[hard]} "
        f"(F1 {f1_K[hard]:.2f}): see <code>ray_jobs.tune task={first}</code>."
    ]


def _labels(opinions: pd.DataFrame) -> list[str]:
    steps = []
    for attribute, people in analysis.doubtful_labels(opinions).items():
        if people:
            steps.append(
                f"<b>Look at the {attribute} label of {len(people)} "
                f"{'person' if len(people) == 1 else 'people'}:</b> every photo was surely "
                f"answered otherwise ({named(people)}). <code>python -m maskcls labels "
                "RUN</code> shows them and writes the fixes."
            )
    return steps


def _epochs(run: FinishedRun) -> list[str]:
    """Tasks most of whose jobs ended too early, or went on too long."""
    short, long = [], []
    for task in run.tasks:
        jobs = [job for job in run.scores["jobs"] if job["task"] == task]
        losses = [
            history["val/loss"].dropna()
            for (owner, _), history in run.histories.items()
            if owner is task
        ]
        rose = sum(loss.iloc[-1] > charts.RISE * loss.min() for loss in losses if len(loss))
        if 2 * sum(job["best_epoch"] == job["epochs"] for job in jobs) > len(jobs):
            short.append(str(task))
        elif 2 * rose > len(losses):
            long.append(str(task))
    steps = []
    if short:
        steps.append(
            f"<b>Train {named(short)} longer:</b> in most jobs the last epoch was the best "
            "(<code>train.epochs</code>)."
        )
    if long:
        steps.append(
            f"<b>Regularise {named(long)}:</b> in most jobs the validation loss rose again; "
            "stronger augmentation, batch mixing or label smoothing help."
        )
    return steps


def _ensemble(run: FinishedRun, singles: Mapping[str, Single]) -> list[str]:
    """Where some models alone are clearly better than all together."""
    worse = {
        space: single for space, single in singles.items() if single.gain and single.gain.high < 0
    }
    if not worse:
        return []
    told = ", ".join(f"{space} ({single.name})" for space, single in worse.items())
    return [
        f"<b>Vote otherwise:</b> the {run.ensemble} ensemble is worse than the best single models "
        f"of {told}: another <code>ensemble.name</code>, or fewer tasks."
    ]


def _confidence(calibrations: Mapping[str, Calibration]) -> list[str]:
    sure = {name: c for name, c in calibrations.items() if c.surplus > 0.05}
    if not sure:
        return []
    told = ", ".join(f"{name} by {c.surplus:.2f}" for name, c in sure.items())
    return [
        f"<b>Do not take probabilities at their word:</b> too sure are {told}. Label smoothing "
        "or mixup lower that; a hard vote hardly suffers from it."
    ]


def _noise(run: FinishedRun) -> list[str]:
    space = run.spaces[0]
    low, high = run.scores["out_of_fold"][space]["macro_f1_interval"]
    return [
        f"<b>Before you believe a better score, compare:</b> other people would have given "
        f"{low:.3f} to {high:.3f}. <code>python -m ray_jobs.report THIS OTHER</code> tells whether "
        "another run is better on the same people."
    ]
