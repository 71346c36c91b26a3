"""The plots of a run's page. Each title says what the plot shows of this very run.

They are drawn in ``page.PLOT_STYLE``, which the caller sets.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from maskcls.labels import AGE_BAND_STARTS, AgeLimits, Task
from maskcls.reports.analysis import Agreement, Calibration, Difference
from maskcls.reports.curves import Fit
from maskcls.reports.finished_run import readable
from maskcls.reports.page import BLUE, GREY, ORANGE, PALETTE

WIDTH, HEIGHT = 4.6, 2.9
"""In inches: three stand side by side on a desk, and one fills a phone with readable letters."""

FEW = 10
"""Photos; a share of fewer is a dot, no part of a line."""

MARKERS = "os^Dv<>pX*"
"""One a fold, for those to whom colours look alike."""


def headline(
    scores: Mapping[str, Mapping[str, Any]],
    singles: Mapping[str, float],
    chances: Mapping[str, float],
) -> Figure:
    """Macro F1 of each target with its interval, the best single model and chance."""
    first = next(iter(scores))
    value, chance = scores[first]["macro_f1"], chances[first]
    figure, axes = _panel(
        f"{first} macro F1 {value:.3f} is {value / chance:.1f} times chance", height=2.7
    )
    for place, (target, values) in enumerate(scores.items()):
        low, high = values["macro_f1_interval"]
        axes.plot([low, high], [place, place], color=BLUE, lw=5, alpha=0.35, solid_capstyle="butt")
        axes.plot(values["macro_f1"], place, "o", color=BLUE, ms=8)
        axes.plot(singles[target], place, "D", mfc="none", mec=ORANGE, ms=11)
        axes.plot(chances[target], place, "x", color=GREY, ms=7, mew=2)
        axes.annotate(
            f"{values['macro_f1']:.3f}", (values["macro_f1"], place), (0, 9),
            textcoords="offset points", ha="center",
        )  # fmt: skip
    marks = {
        "ensemble (95 %)": {"marker": "o", "color": BLUE},
        "best single": {"marker": "D", "mec": ORANGE, "mfc": "none", "ls": ""},
        "chance": {"marker": "x", "color": GREY, "ls": "", "mew": 2},
    }
    for label, style in marks.items():
        axes.plot([], [], label=label, **style)  # type: ignore[arg-type]
    axes.set_yticks(range(len(scores)), list(scores))
    axes.set_ylim(len(scores) - 0.5, -0.8)
    axes.set_xlim(0, 1.03)
    axes.set_xlabel("macro F1, out of fold")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def learning(
    task: Task, histories: Mapping[int, pd.DataFrame], best_epochs: Mapping[int, int], fit: Fit
) -> list[Figure]:
    """Macro F1 and losses of the jobs of one task, one line a fold."""
    best = [history["val/macro_f1"].max() for history in histories.values()]
    story = fit.reason if fit.verdict in ("good", "too short") else f"{fit.verdict}: {fit.reason}"
    scored, score_axes = _panel(f"{task}: {_range(best)} macro F1 at the kept epoch")
    lost, loss_axes = _panel(f"{task}: {story}")
    for fold, history in sorted(histories.items()):
        style: dict[str, Any] = {"color": PALETTE[fold % len(PALETTE)]}
        marker = MARKERS[fold % len(MARKERS)]
        kept = history[history["epoch"] == best_epochs[fold]]
        label = f"fold {fold}"
        score_axes.plot(history["epoch"], history["val/macro_f1"], label=label, **style)
        score_axes.plot(kept["epoch"], kept["val/macro_f1"], marker, **style)
        loss_axes.plot(history["epoch"], history["val/loss"], label=label, **style)
        loss_axes.plot(history["epoch"], history["train/loss"], ls="--", **style)
        loss_axes.plot(kept["epoch"], kept["val/loss"], marker, **style)
    loss_axes.plot([], [], color=GREY, ls="--", label="training")
    score_axes.set_ylabel("validation macro F1")
    loss_axes.set_ylabel("loss of a photo")
    for axes in (score_axes, loss_axes):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="best", fontsize=8)
    return [scored, lost]


def reliability(name: str, calibration: Calibration) -> Figure:
    """Share of right answers over the probability given to them."""
    sides = {True: "overconfident", False: "underconfident"}
    story = "well calibrated" if calibration.error < 0.03 else sides[calibration.surplus > 0]
    figure, axes = _panel(f"{name}: {story}, calibration error {calibration.error:.3f}")
    bins = calibration.bins
    axes.plot([0, 1], [0, 1], color=GREY, ls=":", label="ideal")
    frequent = bins[bins["photos"] >= FEW]
    axes.plot(frequent["confidence"], frequent["right"], color=BLUE)
    sizes = 12 + 150 * bins["photos"] / bins["photos"].max()
    axes.scatter(bins["confidence"], bins["right"], sizes, color=BLUE, alpha=0.7, zorder=3)
    axes.set_xlabel("probability of the answer (dot size: photos)")
    axes.set_ylabel("share correct")
    axes.set_xlim(0.2, 1.03)
    axes.set_ylim(-0.05, 1.08)
    axes.legend(loc="lower right")
    return figure


def years(table: pd.DataFrame, limits: AgeLimits = AGE_BAND_STARTS) -> list[Figure]:
    """Where age answers fail, and which band is answered, by age in years."""
    border = table[[any(-2 <= age - start < 2 for start in limits) for age in table.index]]
    inside = table.drop(border.index)
    story = "correct age answers by age in years"
    if len(border) and len(inside):
        story = f"correct age: {_mean(border):.0%} near a limit, {_mean(inside):.0%} elsewhere"
    right, axes = _panel(story)
    sizes = 8 + 70 * table["photos"] / table["photos"].max()
    axes.scatter(table.index, table["right"], sizes, color=BLUE, alpha=0.55, lw=0)
    for band in _bands(table, limits):
        axes.plot(band.index, _smooth(band), color=BLUE, lw=2)
    axes.set_ylabel("share correct (line: 5-year mean)")
    axes.set_ylim(-0.05, 1.08)
    named, band_axes = _panel(_limit_story(table, limits))
    edges = np.vstack([np.zeros(len(table)), table[[0, 1, 2]].to_numpy().cumsum(axis=1).T])
    for band_number, name in enumerate(readable("age", limits)):
        band_axes.bar(
            table.index, edges[band_number + 1] - edges[band_number], 1.0,
            bottom=edges[band_number], color=("#56b4e9", "#f0e442", "#374151")[band_number],
            label=name,
        )  # fmt: skip
    band_axes.set_ylabel("share of the answers")
    band_axes.set_ylim(0, 1)
    named.legend(*band_axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    for panel in (axes, band_axes):
        for start in limits:
            panel.axvline(start - 0.5, color=ORANGE, ls="--", lw=1.5)
        panel.set_xlabel("age in years (dashed: limits of the age bands)")
        panel.yaxis.set_major_formatter(PercentFormatter(1))
    return [right, named]


def groups(table: pd.DataFrame, target: str) -> Figure:
    """Share of right answers in each group, with its interval."""
    best, last = table[target].idxmax(), table[target].idxmin()
    figure, axes = _panel(
        f"{target} correct: "
        f"{table[target].min():.0%} ({last}) to {table[target].max():.0%} ({best})"
    )
    for place, (_, row) in enumerate(table.iterrows()):
        axes.plot([row["low"], row["high"]], [place] * 2, color=BLUE, lw=5, alpha=0.35)
        axes.plot(row[target], place, "o", color=BLUE, ms=6)
    axes.set_yticks(range(len(table)), [str(name) for name in table.index])
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.set_xlim(0, 1.03)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("share of correct photos, 95 % interval over people")
    return figure


def agreement(target: str, found: Agreement) -> Figure:
    """A heat map of the share of photos to which two models give the same answer."""
    count = len(found.names)
    side = max(2.9, 1.2 + 0.36 * count)
    figure, axes = _panel(
        f"{target}: all {count} agree on {found.unanimous:.0%} of the photos", height=side
    )
    axes.imshow(found.shares_MM, cmap="Blues", vmin=0.5, vmax=1)
    for (row, column), share in np.ndenumerate(found.shares_MM):
        ink = "white" if share > 0.8 else "#1f2937"
        small = 9 if count < 7 else 6
        axes.text(column, row, f"{share:.0%}", ha="center", va="center", color=ink, size=small)
    axes.set_xticks(range(count), found.names, rotation=90)
    axes.set_yticks(range(count), found.names)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    return figure


def times(jobs: Sequence[Mapping[str, Any]]) -> Figure:
    """Minutes of each job, what it trained and the rest."""
    total = sum(job["seconds"] for job in jobs)
    trained = sum(job["training_seconds"] for job in jobs)
    figure, axes = _panel(
        f"{trained / total:.0%} of the jobs' time is training",
        height=1.4 + 0.24 * len(jobs),
    )
    names = [f"{job['task']} {job['fold']}" for job in jobs]
    training = np.array([job["training_seconds"] for job in jobs]) / 60
    rest = np.array([job["seconds"] for job in jobs]) / 60 - training
    axes.barh(names, training, color=BLUE, label="epochs")
    axes.barh(names, rest, left=training, color="#e69f00", label="start, end and prediction")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("minutes")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def differences(title: str, found: Mapping[str, Difference]) -> Figure:
    """Differences of macro F1 with their intervals around 0."""
    figure, axes = _panel(title, height=1.3 + 0.32 * len(found))
    for place, gain in enumerate(found.values()):
        colour = (BLUE if gain.value > 0 else ORANGE) if gain.clear else GREY
        axes.plot([gain.low, gain.high], [place] * 2, color=colour, lw=5, alpha=0.35)
        axes.plot(gain.value, place, "o", color=colour, ms=7)
    axes.axvline(0, color="#1f2937", lw=1)
    axes.set_yticks(range(len(found)), list(found))
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlabel("difference in macro F1, 95 % interval over people")
    return figure


def _panel(title: str, *, height: float = HEIGHT) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure, figure.subplots()


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.3f}", f"{max(values):.3f}"
    return low if low == high else f"{low} to {high}"


def _limit_story(table: pd.DataFrame, limits: AgeLimits) -> str:
    """The share of people next to the first limit who are predicted to be on its other side."""
    limit = limits[0]
    below, above = (
        table[(table.index >= start) & (table.index < start + 2)] for start in (limit - 2, limit)
    )
    if below.empty or above.empty:
        return "answered age band, by age in years"
    older = np.average(below[1] + below[2], weights=below["photos"])
    younger = np.average(above[0], weights=above["photos"])
    return (
        f"{limit - 2}-{limit - 1} predicted {limit} or older: {older:.0%}, "
        f"{limit}-{limit + 1} younger: {younger:.0%}"
    )


def _bands(table: pd.DataFrame, limits: AgeLimits) -> list[pd.DataFrame]:
    edges = [-1, *(start - 1 for start in limits), 200]
    parts = [table[(table.index > a) & (table.index <= b)] for a, b in itertools.pairwise(edges)]
    return [part for part in parts if len(part)]


def _smooth(band: pd.DataFrame) -> list[float]:
    """Means over years within two of each year, and of its band, weighted by photos."""
    near = [band[abs(band.index - age) <= 2] for age in band.index]
    return [_mean(part) for part in near]


def _mean(part: pd.DataFrame) -> float:
    return float(np.average(part["right"], weights=part["photos"]))
