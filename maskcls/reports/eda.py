"""The page of a data set, its plots and its numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maskcls.labels import AGE_BAND_STARTS
from maskcls.quality.eda import CHANNELS, Findings, Pixels
from maskcls.reports import page
from maskcls.storage import files

SHOWN: Final = 20
"""Rows of a list on the page; eda.json has them all."""


def write(folder: Path, findings: Findings) -> Path:
    """Write ``index.html``, its plots and ``eda.json`` to ``folder``; return the path of the page.

    Raises OSError naming the file that cannot be written.
    """
    files.write_json(folder / "eda.json", _numbers(findings))
    with matplotlib.rc_context(page.PLOT_STYLE):
        for column, table in findings.counts.items():
            _save(_count_plot(column, table), folder / f"{column}.png")
        _save(_colour_plot(findings.pixels), folder / "colours.png")
    body = [
        _header(findings),
        _unreadable(findings.pixels),
        page.section(
            "Sizes and colours", PIXELS_NOTE, _colours(findings.pixels), _sizes(findings.pixels)
        ),
        page.section("Values", VALUES_NOTE, _image("colours")),
        page.section("Labels", LABELS_NOTE, *(_image(column) for column in findings.counts)),
        _notes(findings.notes),
    ]
    path = folder / "index.html"
    title = escape(findings.name)
    text = page.PAGE.format(title=title, css=page.CSS + CSS, body="\n".join(body))
    files.write_text(path, text)
    return path


def _numbers(findings: Findings) -> dict[str, Any]:
    return {
        "name": findings.name,
        "people": findings.people,
        "photos": findings.photos,
        "counts": {column: table.to_dict("index") for column, table in findings.counts.items()},
        "pixels": {name: _pixel_numbers(pixels) for name, pixels in findings.pixels.items()},
        "notes": findings.notes,
    }


def _pixel_numbers(pixels: Pixels) -> dict[str, Any]:
    mean, std = pixels.mean_std() or (None, None)
    return {
        "sizes": [
            {"height": height, "width": width, "photos": photos}
            for (height, width), photos in _frequent(pixels.sizes)
        ],
        "mean": mean,
        "std": std,
        "unreadable": pixels.unreadable,
    }


def _frequent(sizes: Counter[tuple[int, int]]) -> list[tuple[tuple[int, int], int]]:
    """Sizes with their photos, the most frequent first, then the smallest."""
    return sorted(sizes.items(), key=lambda item: (-item[1], item[0]))


def _count_plot(column: str, table: pd.DataFrame) -> Figure:
    """Bars of people, and bars of photos beside them."""
    height = 2.6 if column == "age" else 0.8 + 0.24 * len(table)
    figure = Figure(figsize=(11.6 if column in WIDE else 5.7, height), layout="constrained")
    panels = figure.subplots(1, 2, sharey=column != "age")
    for panel, unit, colour in zip(panels, table, ("#2563eb", "#94a3b8"), strict=True):
        panel.set_title(f"{unit} by {TITLES.get(column, column)}", loc="left")
        (_years if column == "age" else _bars)(panel, table[unit], colour)
    return figure


def _years(panel: Axes, counts: pd.Series, colour: str) -> None:
    panel.bar(counts.index, counts, color=colour, width=0.8)
    for start in AGE_BAND_STARTS:
        panel.axvline(start - 0.5, color="#dc2626", linestyle=":")
    panel.grid(axis="x", visible=False)
    panel.set_axisbelow(True)


def _bars(panel: Axes, counts: pd.Series, colour: str) -> None:
    bars = panel.barh([str(name).replace("_", " ") for name in counts.index], counts, color=colour)
    panel.bar_label(bars, fmt="{:,.0f}", padding=3)
    panel.margins(x=0.2)
    panel.grid(visible=False)
    panel.tick_params(length=0)
    panel.xaxis.set_visible(False)
    panel.spines["bottom"].set_visible(False)
    panel.set_ylim(len(counts) - 0.5, -0.5)


def _colour_plot(pixels_of: Mapping[str, Pixels]) -> Figure:
    """How often each value occurs in each channel."""
    figure = Figure(figsize=(11.6, 2.6), layout="constrained")
    panels = figure.subplots(1, len(pixels_of), sharey=True, squeeze=False)[0]
    for panel, (name, pixels) in zip(panels, pixels_of.items(), strict=True):
        for channel, counts_V in zip(CHANNELS, pixels.histogram_CV, strict=True):
            share_V = 100 * counts_V / max(counts_V.sum(), 1)
            panel.plot(share_V, color=channel, alpha=0.7, label=channel)
        panel.set_title(f"{name}: % of pixels by value", loc="left")
        panel.legend(loc="upper center")
    panels[0].set_ylim(bottom=0)
    return figure


def _save(figure: Figure, path: Path) -> None:
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _image(name: str) -> str:
    shape = "whole" if name in WIDE else "half"
    return f'<img class="{shape}" alt="{TITLES.get(name, name)}" src="{name}.png">'


def _header(findings: Findings) -> str:
    facts = [f"{findings.people:,} people", f"{findings.photos:,} photos to train on"]
    if "eval" in findings.pixels:
        pixels = findings.pixels["eval"]
        facts.append(f"{pixels.sizes.total() + len(pixels.unreadable):,} to predict")
    return f"<header><h1>{escape(findings.name)}</h1><p>{' · '.join(facts)}</p></header>"


def _unreadable(pixels_of: Mapping[str, Pixels]) -> str:
    bad = {key: why for pixels in pixels_of.values() for key, why in pixels.unreadable.items()}
    if not bad:
        return ""
    items = [f"<b>{escape(key)}</b> {escape(why)}" for key, why in bad.items()]
    title = f"Unreadable photos: {len(bad):,}"
    return f'<section class="missing"><h2>{title}</h2>{_list(items)}</section>'


def _notes(notes: Sequence[str]) -> str:
    return f"<section><h2>Notes</h2>{_list([escape(n) for n in notes])}</section>" if notes else ""


def _list(items: Sequence[str]) -> str:
    more = [f"and {len(items) - SHOWN:,} more, see eda.json"] if len(items) > SHOWN else []
    return "<ul>" + "".join(f"<li>{item}</li>" for item in [*items[:SHOWN], *more]) + "</ul>"


def _colours(pixels_of: Mapping[str, Pixels]) -> str:
    head = "<th>RGB, 0 to 1</th>" + "".join(f"<th>{channel}</th>" for channel in CHANNELS)
    rows = []
    for name, pixels in pixels_of.items():
        for what, values in zip(("mean", "std"), pixels.mean_std() or ((), ()), strict=True):
            cells = "".join(f"<td>{value:.4f}</td>" for value in values)
            rows.append(f"<th>{name} {what}</th>{cells}")
    return f"<table>{page.table_rows(head, rows)}</table>"


def _sizes(pixels_of: Mapping[str, Pixels]) -> str:
    names = "".join(f"<th>{name} photos</th>" for name in pixels_of)
    every = _frequent(sum((pixels.sizes for pixels in pixels_of.values()), Counter()))
    rows = [
        f"<th>{height} × {width}</th>"
        + "".join(f"<td>{pixels.sizes[height, width]:,}</td>" for pixels in pixels_of.values())
        for (height, width), _ in every[:SHOWN]
    ]
    if len(every) > SHOWN:
        rows.append(f"<th>and {len(every) - SHOWN:,} more sizes, see eda.json</th>")
    return f"<table>{page.table_rows(f'<th>height × width</th>{names}', rows)}</table>"


TITLES: Final = {"age": "year of age", "age_band": "age band", "joint": "joint class"}

WIDE: Final = ("age", "joint", "colours")
"""Plots that take the whole width of the page."""

PIXELS_NOTE: Final = (
    "Over all pixels of the photos as they lie on disk. "
    "Those of train are what <code>image.mean</code> and <code>image.std</code> may be set to."
)
VALUES_NOTE: Final = "Peaks at 0 and 255 come from cut-out backgrounds, padding and overexposure."
LABELS_NOTE: Final = (
    "All photos to train on, with label fixes. A person counts in every class of their photos. "
    "Red lines part the age bands."
)

CSS: Final = """
ul { margin: 4px 0; padding-left: 20px; }
.half { width: calc(50% - 6px); }
.half, .whole { box-sizing: border-box; padding: 8px; }
"""
