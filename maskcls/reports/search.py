"""One HTML page that shows a search over configurations. It needs no other file and no network.

The importances are Optuna's, on a study made from the table of trials, not on the searcher's own:
there a trial that was stopped early is pruned, and Optuna's importances count completed trials
only. Of the 16 trials of configs/tune.yaml 13 are stopped, so that 3 would be left. For the same
reason the plots are ours: they show the stopped trials, and which one is the best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
import optuna
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from maskcls.reports import page
from maskcls.reports.page import GREY, PALETTE, Picture

MIN_TRIALS: Final = 4
"""Fewer scores than this say nothing about importance."""

SAME: Final = 1e-9
"""Scores this close are equal: their variance would vanish in rounding."""


def write(
    folder: Path,
    *,
    task: str,
    trials: pd.DataFrame,
    keys: Sequence[str],
    histories: Mapping[str, pd.DataFrame],
    rungs: Sequence[int],
    nested_selection_score: float | None,
) -> Path:
    """Write ``folder/search.html``, whole or not at all, and return its path.

    ``trials`` has a row for each trial, the first guess first, with ``trial`` (its name), ``state``
    (finished, stopped, failed or running), ``reason``, ``epochs``, ``best_epoch``, ``score``
    (missing where there is none), ``seconds`` and a column for each of the searched ``keys``
    (missing where a conditional key was not drawn). ``histories`` are the ``epoch`` and ``score``
    of trials by their name; ``rungs`` the epochs at which trials are judged;
    ``nested_selection_score`` is that of ``metrics``, None where people are too few.

    Raises OSError naming the file where it cannot be written.
    """
    ranked = trials.sort_values("score", ascending=False, kind="stable", ignore_index=True)
    return page.write(
        folder / "search.html",
        "search.html.j2",
        name=folder.name,
        facts=_facts(task, trials),
        cards=_cards(trials, ranked, keys, rungs, nested_selection_score),
        curves=_curves(ranked, histories, rungs),
        importances=importances(trials, keys),
        scatters=_scatters(ranked, keys),
        head=["trial", "score", "best epoch", "time", *keys, "state", "reason"],
        rows=_rows(ranked, keys),
    )


def importances(trials: pd.DataFrame, keys: Sequence[str]) -> dict[str, float]:
    """Each key's share in what makes scores differ, the largest first; they add up to 1.

    fANOVA (Hutter et al., 2014), as Optuna implements it, over all trials with a score. Keys that
    some of them lack, or that are the same in all, are left out; numbers over two decades count by
    their logarithm. Fewer than ``MIN_TRIALS`` scores, or scores that are all the same, give
    nothing.
    """
    scored = trials[trials["score"].notna()]
    columns = {key: _plain(scored[key]) for key in keys if scored[key].notna().all()}
    columns = {key: values for key, values in columns.items() if values.nunique() > 1}
    if len(scored) < MIN_TRIALS or np.ptp(scored["score"]) < SAME or not columns:
        return {}
    # Optuna's fANOVA weighs a range evenly even if its distribution is logarithmic, and would
    # judge a learning rate by its last decade alone.
    columns = {key: np.log10(v) if _is_wide(v) else v for key, v in columns.items()}
    distributions = {key: _distribution(values) for key, values in columns.items()}
    study = _quiet_study()
    for *drawn, score in zip(*columns.values(), scored["score"], strict=True):
        params = dict(zip(columns, drawn, strict=True))
        study.add_trial(
            optuna.create_trial(params=params, distributions=distributions, value=score)
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {key: float(share) for key, share in shares.items()}


def _quiet_study() -> optuna.Study:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(direction="maximize")
    finally:
        optuna.logging.set_verbosity(verbosity)


def _distribution(values: pd.Series) -> BaseDistribution:
    if is_numeric_dtype(values):
        return FloatDistribution(values.min(), values.max())
    return CategoricalDistribution(sorted(values.unique()))


def _plain(column: pd.Series) -> pd.Series:
    """What is not missing of a column: floats where all of it is numbers, else texts."""
    column = column.dropna().infer_objects()
    if is_numeric_dtype(column) and not is_bool_dtype(column):
        return column.astype(float)
    return column.map(_text).astype(str)


def _is_wide(values: pd.Series) -> bool:
    """Numbers over two decades, which only a logarithmic axis tells apart."""
    return is_numeric_dtype(values) and 0 < 100 * values.min() < values.max()


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _facts(task: str, trials: pd.DataFrame) -> list[str]:
    states = trials["state"].value_counts()
    return [
        f"task {task}",
        f"{len(trials)} trials",
        *(f"{states[state]} {state}" for state in COLOURS if state in states),
    ]


def _cards(
    trials: pd.DataFrame,
    ranked: pd.DataFrame,
    keys: Sequence[str],
    rungs: Sequence[int],
    nested_selection_score: float | None,
) -> list[dict[str, Any]]:
    first, best = trials.iloc[0], ranked.iloc[0]
    spent, full = trials["epochs"].sum(), _epochs_in_full(trials, rungs)
    effort = {
        "share": f"{spent / full:.0%}",
        "stopped early at epochs": ", ".join(map(str, rungs)),
        "time of all trials": page.duration(trials["seconds"].sum()),
    }
    nested = (
        {}
        if nested_selection_score is None
        else {"nested cross-validation": f"{nested_selection_score:.3f}"}
    )
    return [
        _card("best trial", _score(best), _trained(best), nested | _drawn(best, keys)),
        _card("first guess", _score(first), _trained(first), _drawn(first, keys)),
        _card("epochs", f"{spent:,}", f"of {full:,} if all trials had run in full", effort),
    ]


def _card(title: str, big: str, small: str, facts: Mapping[str, str]) -> dict[str, Any]:
    return {"title": title, "big": big, "small": small, "facts": facts}


def _drawn(trial: pd.Series, keys: Sequence[str]) -> dict[str, str]:
    return {key: _text(trial[key]) for key in trial[list(keys)].dropna().index}


def _trained(trial: pd.Series) -> str:
    return f"trial {trial['trial']}, epoch {_best_epoch(trial)}"


def _best_epoch(trial: pd.Series) -> str:
    best = trial["best_epoch"]
    return "–" if pd.isna(best) else f"{best:.0f} of {trial['epochs']}"


def _score(trial: pd.Series) -> str:
    return "–" if pd.isna(trial["score"]) else f"{trial['score']:.3f}"


def _epochs_in_full(trials: pd.DataFrame, rungs: Sequence[int]) -> int:
    """Epochs of all trials, had each run those that it drew, else as many as the longest."""
    longest = max([trials["epochs"].max(), *rungs])
    if "train.epochs" in trials:
        return int(trials["train.epochs"].fillna(longest).sum())
    return int(longest * len(trials))


def _curves(
    ranked: pd.DataFrame, histories: Mapping[str, pd.DataFrame], rungs: Sequence[int]
) -> Picture | None:
    begun = ranked[[len(histories.get(name, ())) > 0 for name in ranked["trial"]]]
    if begun.empty:
        return None
    is_best = (begun.index == 0) & begun["score"].notna()
    named = begun[is_best | (begun["state"] == "finished")].head(len(PALETTE))
    others = begun.drop(named.index)
    with matplotlib.rc_context(page.PLOT_STYLE):
        figure = Figure(figsize=(11.6, 4.4), layout="constrained")
        axes = figure.subplots()
        for rung in rungs:
            axes.axvline(rung, color=GREY, linestyle=":", zorder=0)
        for place, (name, state) in enumerate(zip(named["trial"], named["state"], strict=True)):
            style = {"label": f"{name} (best)", "linewidth": 3} if place == 0 else {"label": name}
            _curve(axes, histories[name], state, color=PALETTE[place], zorder=3, **style)
        for name, state in zip(others["trial"], others["state"], strict=True):
            _curve(axes, histories[name], state, color=COLOURS[state], label=state, linewidth=0.8)
        axes.set_xlabel("epoch")
        axes.set_ylabel("score")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        handles, labels = axes.get_legend_handles_labels()
        once = dict(zip(labels, handles, strict=True))
        axes.legend(once.values(), once.keys(), loc="upper left", bbox_to_anchor=(1, 1))
        return page.plot(figure, "learning curves")


def _curve(axes: Axes, history: pd.DataFrame, state: str, **style: Any) -> None:
    end = "x" if state in ("stopped", "failed") else "."
    axes.plot(history["epoch"], history["score"], marker=end, markevery=[-1], **style)


def _scatters(ranked: pd.DataFrame, keys: Sequence[str]) -> Picture | None:
    """One small plot of score over value for each key."""
    scored = ranked[ranked["score"].notna()]
    columns = {key: _plain(scored[key]) for key in keys if scored[key].notna().any()}
    if not columns:
        return None
    rows = -(-len(columns) // PER_ROW)
    with matplotlib.rc_context(page.PLOT_STYLE):
        figure = Figure(figsize=(11.6, 2.5 * rows), layout="constrained")
        panels = figure.subplots(rows, PER_ROW, sharey=True, squeeze=False)
        for panel in panels.flat[len(columns) :]:
            panel.set_visible(False)
        for panel, (key, values) in zip(panels.flat, columns.items(), strict=False):
            _scatter(panel, values, scored.loc[values.index])
            panel.set_title(key, loc="left")
        for panel in panels[:, 0]:
            panel.set_ylabel("score")
        return page.plot(figure, "score of each value")


def _scatter(panel: Axes, values: pd.Series, trials: pd.DataFrame) -> None:
    if is_numeric_dtype(values):
        x = values
        panel.set_xscale("log" if _is_wide(values) else "linear")
    else:
        names = sorted(values.unique())
        spread = np.random.default_rng(0).uniform(-0.15, 0.15, len(values))
        x = values.map(names.index) + spread
        panel.set_xticks(range(len(names)), [name[-20:] for name in names])
        if sum(map(len, names)) > 28:
            panel.tick_params(axis="x", labelrotation=20, labelrotation_mode="xtick")
        panel.set_xlim(-0.5, len(names) - 0.5)
    panel.scatter(x, trials["score"], c=trials["state"].map(COLOURS), s=22, zorder=2)
    best = x.index == 0
    panel.plot(x[best], trials["score"][best], "o", mfc="none", mec="#111827", ms=9)


def _rows(ranked: pd.DataFrame, keys: Sequence[str]) -> list[list[str]]:
    rows = []
    for _, trial in ranked.iterrows():
        drawn = _drawn(trial, keys)
        rows.append(
            [
                trial["trial"],
                _score(trial),
                _best_epoch(trial),
                page.duration(trial["seconds"]),
                *(drawn.get(key, "–") for key in keys),
                trial["state"],
                trial["reason"],
            ]
        )
    return rows


COLOURS: Final = {
    "finished": "#2563eb",
    "stopped": "#9ca3af",
    "failed": "#dc2626",
    "running": "#16a34a",
}

PER_ROW: Final = 4
