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

from maskcls.reports import page
from maskcls.storage import files

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
    sections = [
        ("Result", RESULT_NOTE, _cards(trials, ranked, keys, rungs, nested_selection_score)),
        ("Learning curves", CURVES_NOTE, _curves(ranked, histories, rungs)),
        ("Importance", IMPORTANCE_NOTE, _bars(importances(trials, keys))),
        ("Searched keys", KEYS_NOTE, _scatters(ranked, keys)),
        ("Trials", TRIALS_NOTE, _table(ranked, keys)),
    ]
    body = [
        _header(folder.name, task, trials),
        *(page.section(title, note, content) for title, note, content in sections if content),
    ]
    path = folder / "search.html"
    text = page.PAGE.format(title=escape(folder.name), css=page.CSS + CSS, body="\n".join(body))
    files.write_text(path, text)
    return path


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


def _header(name: str, task: str, trials: pd.DataFrame) -> str:
    states = trials["state"].value_counts()
    facts = [
        f"task {task}",
        f"{len(trials)} trials",
        *(f"{states[state]} {state}" for state in COLOURS if state in states),
    ]
    return f"<header><h1>{escape(name)}</h1><p>{escape(' · '.join(facts))}</p></header>"


def _cards(
    trials: pd.DataFrame,
    ranked: pd.DataFrame,
    keys: Sequence[str],
    rungs: Sequence[int],
    nested_selection_score: float | None,
) -> str:
    first, best = trials.iloc[0], ranked.iloc[0]
    spent, full = trials["epochs"].sum(), _epochs_in_full(trials, rungs)
    effort = {
        "share": f"{spent / full:.0%}",
        "judged at epochs": ", ".join(map(str, rungs)),
        "time of all trials": page.duration(trials["seconds"].sum()),
    }
    honest = (
        {}
        if nested_selection_score is None
        else {"on people who did not pick": f"{nested_selection_score:.3f}"}
    )
    return (
        _card("best trial", _score(best), _trained(best), honest | _drawn(best, keys))
        + _card("first guess", _score(first), _trained(first), _drawn(first, keys))
        + _card("epochs", f"{spent:,}", f"of {full:,} had all trials run in full", effort)
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
) -> str:
    begun = ranked[[len(histories.get(name, ())) > 0 for name in ranked["trial"]]]
    if begun.empty:
        return ""
    is_best = (begun.index == 0) & begun["score"].notna()
    named = begun[is_best | (begun["state"] == "finished")].head(len(PALETTE))
    others = begun.drop(named.index)
    with matplotlib.rc_context(page.PLOT_STYLE):
        figure = Figure(figsize=(11.6, 4.4), layout="constrained")
        axes = figure.subplots()
        for rung in rungs:
            axes.axvline(rung, color="#6b7280", linestyle=":", zorder=0)
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
        return _image(figure, "learning curves")


def _curve(axes: Axes, history: pd.DataFrame, state: str, **style: Any) -> None:
    end = "x" if state in ("stopped", "failed") else "."
    axes.plot(history["epoch"], history["score"], marker=end, markevery=[-1], **style)


def _bars(shares: Mapping[str, float]) -> str:
    rows = "".join(
        f'<tr><th>{escape(key)}</th><td><div style="width:{share:.1%}"></div></td>'
        f"<td>{share:.2f}</td></tr>"
        for key, share in shares.items()
    )
    return f'<table class="bars"><tbody>{rows}</tbody></table>' if rows else ""


def _scatters(ranked: pd.DataFrame, keys: Sequence[str]) -> str:
    """One small plot of score over value a key, as an embedded SVG."""
    scored = ranked[ranked["score"].notna()]
    columns = {key: _plain(scored[key]) for key in keys if scored[key].notna().any()}
    if not columns:
        return ""
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
        return _image(figure, "score of each value")


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


def _image(figure: Figure, meaning: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    image = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{meaning}" src="data:image/svg+xml;base64,{image}">'


def _table(ranked: pd.DataFrame, keys: Sequence[str]) -> str:
    names = ["trial", "score", "best epoch", "time", *keys, "state", "reason"]
    head = "".join(f"<th>{escape(name).replace('.', '.<wbr>')}</th>" for name in names)
    rows = []
    for _, trial in ranked.iterrows():
        drawn = _drawn(trial, keys)
        cells = [
            _score(trial),
            _best_epoch(trial),
            page.duration(trial["seconds"]),
            *(drawn.get(key, "–") for key in keys),
            trial["state"],
            trial["reason"],
        ]
        rows.append(
            f"<th>{escape(trial['trial'])}</th>"
            + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        )
    return f'<div class="wide"><table class="trials">{page.table_rows(head, rows)}</table></div>'


RESULT_NOTE: Final = (
    "The score is the macro F1 of a trial's best epoch on people it never saw. The best of many "
    "scores is partly luck: what picking the best brings on people who had no say in the pick is "
    "the number to expect of it."
)
CURVES_NOTE: Final = (
    "The thick line is the best trial, grey ones were stopped at their x; "
    "trials are judged at the dotted epochs."
)
IMPORTANCE_NOTE: Final = (
    "How much of the difference between scores each key explains (fANOVA). Stopped trials count "
    "with what they had reached, so quick learning counts too. Left out: keys that some trials "
    "did not draw, or that all drew alike."
)
KEYS_NOTE: Final = (
    "One dot a trial: blue finished, grey was stopped, green still runs; the ring is the best."
)
TRIALS_NOTE: Final = "The best first; times in h:mm:ss."

COLOURS: Final = {
    "finished": "#2563eb",
    "stopped": "#9ca3af",
    "failed": "#dc2626",
    "running": "#16a34a",
}

PALETTE: Final = (
    "#2563eb",
    "#ea580c",
    "#9333ea",
    "#0891b2",
    "#ca8a04",
    "#db2777",
    "#4d7c0f",
    "#78350f",
)
"""Of the lines that are named, the best first."""

PER_ROW: Final = 4

CSS: Final = """
.bars { width: 100%; }
.bars th, .bars td:last-child { width: 1px; }
.bars div { background: #2563eb; border-radius: 3px; height: 12px; }
.wide { overflow-x: auto; }
.trials { font-size: 12px; }
.trials td, .trials th { padding: 3px 6px; }
.trials thead th { vertical-align: bottom; white-space: normal; }
.trials td:last-child { text-align: left; white-space: normal; min-width: 140px; }
.trials th:last-child { text-align: left; }
"""
