"""One HTML page that shows a search over configurations. It needs no other file and no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
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

from maskcls import files, report

MIN_TRIALS: Final = 4
"""Fewer scores than this say nothing about importance."""


def write(
    folder: Path,
    *,
    task: str,
    trials: pd.DataFrame,
    keys: Sequence[str],
    histories: Mapping[str, pd.DataFrame],
    rungs: Sequence[int],
) -> Path:
    """Write ``folder/search.html``, whole or not at all, and return its path.

    ``trials`` has a row for each trial, the first guess first, with ``trial`` (its id), ``state``
    (finished, stopped, failed or running), ``reason``, ``epochs``, ``best_epoch``, ``score``
    (missing where there is none), ``seconds`` and a column for each of the searched ``keys``
    (missing where a conditional key was not drawn). ``histories`` are the ``epoch`` and ``score``
    of trials by their id; ``rungs`` the epochs at which trials are judged.

    Raises OSError naming the file where it cannot be written.
    """
    ranked = trials.sort_values("score", ascending=False, kind="stable")
    body = [
        _header(folder.name, task, trials),
        _section("Result", RESULT_NOTE, _cards(trials, ranked, keys, rungs)),
        _section("Learning curves", CURVES_NOTE, _curves(ranked, histories, rungs)),
        _section("Importance", IMPORTANCE_NOTE, _bars(importances(trials, keys))),
        _section("Searched keys", KEYS_NOTE, _scatters(ranked, keys)),
        _section("Trials", TRIALS_NOTE, _table(ranked, keys)),
    ]
    page = report.PAGE.format(
        title=escape(folder.name), css=report.CSS + CSS, body="\n".join(filter(None, body))
    )
    path = folder / "search.html"
    files.write_text(path, page)
    return path


def importances(trials: pd.DataFrame, keys: Sequence[str]) -> dict[str, float]:
    """Each key's share in what makes scores differ, the largest first; they add up to 1.

    fANOVA (Hutter et al., 2014), as Optuna implements it, over all trials with a score. Keys that
    some of them lack, or that are the same in all, are left out. Fewer than ``MIN_TRIALS`` scores,
    or scores that are all the same, give nothing.
    """
    scored = trials[trials["score"].notna()]
    columns = {key: _plain(scored[key]) for key in keys if scored[key].notna().all()}
    columns = {key: values for key, values in columns.items() if values.nunique() > 1}
    if len(scored) < MIN_TRIALS or scored["score"].nunique() < 2 or not columns:
        return {}
    distributions = {key: _distribution(values) for key, values in columns.items()}
    study = _quiet_study()
    for drawn, score in zip(
        pd.DataFrame(columns).to_dict("records"), scored["score"], strict=True
    ):
        study.add_trial(
            optuna.create_trial(params=drawn, distributions=distributions, value=float(score))
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def _quiet_study() -> optuna.Study:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(direction="maximize")
    finally:
        optuna.logging.set_verbosity(verbosity)


def _distribution(values: pd.Series) -> BaseDistribution:
    if is_numeric_dtype(values):
        return FloatDistribution(values.min(), values.max(), log=_is_wide(values))
    return CategoricalDistribution(sorted(values.unique()))


def _plain(column: pd.Series) -> pd.Series:
    """What is there of a column: floats where all of it is numbers, else texts."""
    column = column.dropna().infer_objects()
    if is_numeric_dtype(column) and not is_bool_dtype(column):
        return column.astype(float)
    return column.map(_text).astype(str)


def _is_wide(values: pd.Series) -> bool:
    """Over two decades, where only a logarithmic axis shows something."""
    return bool(values.min() > 0 and values.max() > 100 * values.min())


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _section(title: str, note: str, content: str) -> str:
    return report._section(title, note, content) if content else ""


def _header(name: str, task: str, trials: pd.DataFrame) -> str:
    states = trials["state"].value_counts()
    facts = [
        f"task {task}",
        f"{len(trials)} trials",
        *(f"{states[state]} {state}" for state in COLOURS if state in states),
    ]
    return f"<header><h1>{escape(name)}</h1><p>{escape(' · '.join(facts))}</p></header>"


def _cards(
    trials: pd.DataFrame, ranked: pd.DataFrame, keys: Sequence[str], rungs: Sequence[int]
) -> str:
    first, best = trials.iloc[0], ranked.iloc[0]
    spent, full = trials["epochs"].sum(), _epochs_in_full(trials, rungs)
    efforts = {
        "judged after": f"{', '.join(map(str, rungs))} epochs",
        "time of all trials": report._duration(trials["seconds"].sum()),
    }
    return (
        _card("best trial", _number(best["score"]), _trained(best), _drawn(best, keys))
        + _card("first guess", _number(first["score"]), _trained(first), _drawn(first, keys))
        + _card("epochs", f"{spent:,}", f"of {full:,} in full: {spent / full:.0%}", efforts)
    )


def _card(title: str, big: str, small: str, facts: Mapping[str, str]) -> str:
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(fact)}</dd>" for name, fact in facts.items()
    )
    return (
        f'<div class="card"><h3>{title}</h3><div class="big">{big}</div>'
        f"<div>{escape(small)}</div><dl>{rows}</dl></div>"
    )


def _drawn(trial: pd.Series, keys: Sequence[str]) -> dict[str, str]:
    return {key: _text(value) for key, value in trial[list(keys)].dropna().items()}


def _trained(trial: pd.Series) -> str:
    return f"trial {trial['trial']}, {trial['state']}, best epoch {_epoch(trial)}"


def _epoch(trial: Mapping[str, Any] | pd.Series) -> str:
    """Its best epoch of those that it ran."""
    return "–" if pd.isna(trial["best_epoch"]) else f"{trial['best_epoch']:.0f} of {trial['epochs']}"


def _epochs_in_full(trials: pd.DataFrame, rungs: Sequence[int]) -> int:
    """Epochs of all trials had none been stopped, each as long as it was drawn, or as the longest."""
    longest = max(trials["epochs"].max(), *rungs)
    if "train.epochs" in trials:
        return int(trials["train.epochs"].fillna(longest).sum())
    return int(longest * len(trials))


def _curves(
    ranked: pd.DataFrame, histories: Mapping[str, pd.DataFrame], rungs: Sequence[int]
) -> str:
    lines = [
        (trial, histories[trial["trial"]])
        for trial in ranked.to_dict("records")
        if len(histories.get(trial["trial"], ()))
    ]
    if not lines:
        return ""
    named = [line for line in lines if line is lines[0] or line[0]["state"] == "finished"]
    named = named[: len(PALETTE)]
    with matplotlib.rc_context(report.PLOT_STYLE):
        figure = Figure(figsize=(11.6, 4.4), layout="constrained")
        axes = figure.subplots()
        for (trial, history), colour in zip(named, PALETTE, strict=False):
            best = trial is lines[0][0]
            label = f"{trial['trial']}{' (best)' if best else ''}"
            _curve(axes, trial, history, color=colour, label=label, linewidth=3 if best else 1.5)
        for trial, history in lines:
            if not any(trial is other for other, _ in named):
                state = trial["state"]
                _curve(axes, trial, history, color=COLOURS[state], label=state, linewidth=0.8)
        for rung in rungs:
            axes.axvline(rung, color="#6b7280", linestyle=":", linewidth=1, zorder=0)
        axes.set_xlabel("epoch")
        axes.set_ylabel("score")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        handles = {line.get_label(): line for line in axes.lines}
        figure.legend(...)
        return _image(figure, "learning curves")
