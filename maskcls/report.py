"""One HTML page that shows a finished sweep. It needs no other file and no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from maskcls import files, labels, metrics, page
from maskcls.labels import Task

SPACES: Final = ("joint", *labels.ATTRIBUTES)


def write(
    folder: Path,
    *,
    scores: Mapping[str, Any],
    answers: pd.DataFrame,
    histories: Mapping[str, pd.DataFrame],
) -> Path:
    """Write ``folder/report.html``, whole or not at all, and return its path.

    ``scores`` is the content of ``scores.json``. ``answers`` has a row for each photo with
    ``{space}_truth`` and ``{space}_predicted`` for ``joint`` and each attribute; spaces that it
    lacks are left out. ``histories`` are the epochs of each job, named ``{task}-fold{fold}``, with
    the columns ``epoch``, ``train/loss``, ``val/loss`` and ``val/macro_f1``.

    Raises OSError naming the file where it cannot be written.
    """
    best_epochs = {f"{job['task']}-fold{job['fold']}": job["best_epoch"] for job in scores["jobs"]}
    matrices = [
        _matrix(space, answers[f"{space}_truth"], answers[f"{space}_predicted"])
        for space in SPACES
        if f"{space}_predicted" in answers
    ]
    body = [
        _header(folder.name, scores),
        _missing(scores["failed"]),
        page.section("Out-of-fold scores", SCORES_NOTE, _cards(scores["out_of_fold"])),
        page.section("Classes", CLASSES_NOTE, *matrices) if matrices else "",
        page.section("Learning curves", CURVES_NOTE, _curves(histories, best_epochs))
        if histories
        else "",
        page.section("Jobs", JOBS_NOTE, _jobs(scores["jobs"])),
        _footer(scores["versions"]),
    ]
    path = folder / "report.html"
    files.write_text(
        path, page.PAGE.format(title=escape(folder.name), css=page.CSS, body="\n".join(body))
    )
    return path


def _header(name: str, scores: Mapping[str, Any]) -> str:
    ensemble = scores["ensemble"]
    facts = [
        f"{scores['people']:,} people",
        f"{scores['photos']:,} photos",
        f"{ensemble['models']} models in a {ensemble['name']} ensemble",
        f"seed {scores['seed']}",
        f"{page.duration(scores['seconds'])} h",
    ]
    return f"<header><h1>{escape(name)}</h1><p>{escape(' · '.join(facts))}</p></header>"


def _missing(failed: Mapping[str, str]) -> str:
    if not failed:
        return ""
    rows = "".join(
        f"<li><b>{escape(name)}</b> {escape(reason)}</li>" for name, reason in failed.items()
    )
    return f'<section class="missing"><h2>Missing models</h2><ul>{rows}</ul></section>'


def _cards(out_of_fold: Mapping[str, Mapping[str, Any]]) -> str:
    return "".join(
        f'<div class="card"><h3>{space}</h3>'
        f'<div class="big">{values["macro_f1"]:.3f}</div>'
        f"<div>macro F1, {values['macro_f1_interval'][0]:.3f} to "
        f"{values['macro_f1_interval'][1]:.3f}</div>"
        f"<dl><dt>accuracy</dt><dd>{values['accuracy']:.3f}</dd>"
        f"<dt>macro precision</dt><dd>{values['macro_precision']:.3f}</dd>"
        f"<dt>macro recall</dt><dd>{values['macro_recall']:.3f}</dd></dl></div>"
        for space, values in out_of_fold.items()
    )


def _matrix(space: str, truth_N: npt.ArrayLike, predicted_N: npt.ArrayLike) -> str:
    """The confusion matrix with the scores of each class at the end of its row."""
    names = [name.replace("_", " ") for name in labels.class_names(space)]
    cm_KK = metrics.confusion(truth_N, predicted_N, len(names))
    support_K, answered_K = cm_KK.sum(axis=1), cm_KK.sum(axis=0)
    share_KK = cm_KK / np.maximum(support_K, 1)[:, None]
    scores_K3 = np.stack(metrics.per_class(cm_KK), axis=1)
    rows = []
    for k, name in enumerate(names):
        cells = "".join(
            _cell(int(cm_KK[k, j]), float(share_KK[k, j]), f"{name}, answered {names[j]}", j == k)
            for j in range(len(names))
        )
        # A class that nobody has and nobody answered has no scores, and macro means skip it.
        seen = support_K[k] + answered_K[k] > 0
        ends = [f"{value:.2f}" if seen else "–" for value in scores_K3[k]] + [f"{support_K[k]:,}"]
        rows.append(
            f'<th><span>{k}</span> {name}</th>{cells}<td class="gap"></td>'
            + "".join(f"<td>{value}</td>" for value in ends)
        )
    columns = "".join(f"<th>{k}</th>" for k in range(len(names)))
    head = (
        f'<th>{space}</th>{columns}<td class="gap"></td>'
        "<th>prec.</th><th>recall</th><th>F1</th><th>photos</th>"
    )
    return f'<table class="matrix">{page.table_rows(head, rows)}</table>'


def _cell(count: int, share: float, meaning: str, right: bool) -> str:
    if not count:
        return "<td></td>"
    colour = "37,99,235" if right else "220,80,20"
    ink = ";color:#fff" if share > 0.5 else ""
    return (
        f'<td style="background:rgba({colour},{0.08 + 0.8 * share:.2f}){ink}" '
        f'title="{meaning}: {share:.1%}">{count}</td>'
    )


def _jobs(jobs: Iterable[Mapping[str, Any]]) -> str:
    head = "<th>task</th>" + "".join(
        f"<th>{name}</th>"
        for name in ("fold", "best epoch", "macro F1", "accuracy", "loss", "training", "whole job")
    )
    rows = []
    for job in jobs:
        cells = [
            job["fold"],
            f"{job['best_epoch']} of {job['epochs']}",
            *(f"{job['scores'][name]:.3f}" for name in ("macro_f1", "accuracy", "loss")),
            page.duration(job["training_seconds"]),
            page.duration(job["seconds"]),
        ]
        rows.append(f"<th>{job['task']}</th>" + "".join(f"<td>{cell}</td>" for cell in cells))
    return f"<table>{page.table_rows(head, rows)}</table>"


def _curves(histories: Mapping[str, pd.DataFrame], best_epochs: Mapping[str, int]) -> str:
    """One row of plots a task, one line a fold, as an embedded SVG."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    parts = [(name, *name.rpartition("-fold")[::2]) for name in histories]
    jobs = sorted((Task(task), int(fold), name) for name, task, fold in parts)
    tasks = [task for task in Task if task in {owner for owner, _, _ in jobs}]
    with matplotlib.rc_context(page.PLOT_STYLE):
        figure = Figure(figsize=(11.6, 2.5 * len(tasks)), layout="constrained")
        axes = figure.subplots(len(tasks), len(PANELS), squeeze=False)
        for task, fold, name in jobs:
            history, row = histories[name], axes[tasks.index(task)]
            for panel, key in zip(row, PANELS, strict=True):
                panel.plot(history["epoch"], history[key], f"C{fold}", label=f"fold {fold}")
                at = history[history["epoch"] == best_epochs.get(name)]
                panel.plot(at["epoch"], at[key], f"C{fold}o")
        for task, row in zip(tasks, axes, strict=True):
            for panel, title in zip(row, PANELS.values(), strict=True):
                panel.set_title(f"{task}: {title}", loc="left")
                panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            row[-1].legend(loc="lower right")
        for panel in axes[-1]:
            panel.set_xlabel("epoch")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    image = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="learning curves" src="data:image/svg+xml;base64,{image}">'


def _footer(versions: Mapping[str, str]) -> str:
    return f"<footer>{escape(' · '.join(f'{n} {v}' for n, v in sorted(versions.items())))}</footer>"


SCORES_NOTE: Final = (
    "Every photo is answered by models that never saw its person. "
    "Beside macro F1 stands its 95&nbsp;% interval over resampled people."
)
CLASSES_NOTE: Final = (
    "Rows are the truth, columns the answers; the colour shows the share of the row."
)
CURVES_NOTE: Final = "One line a fold; the dot marks the epoch whose weights were kept."
JOBS_NOTE: Final = "Scores of the kept epoch on the people of the fold; times in h:mm:ss."

PANELS: Final = {
    "train/loss": "training loss",
    "val/loss": "validation loss",
    "val/macro_f1": "validation macro F1",
}
