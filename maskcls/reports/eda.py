"""The page of a data set, with people, plots and numbers, and the numbers alone as eda.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maskcls import labels
from maskcls.data.label_fixes import STEMS
from maskcls.labels import MISSING, AgeLimits
from maskcls.quality.eda import CHANNELS, Findings, Pixels
from maskcls.reports import page
from maskcls.reports.finished_run import named, readable
from maskcls.reports.page import Picture, Table
from maskcls.storage import files

SHOWN: Final = 20
"""Rows of a list on the page; eda.json has them all."""

OF_A_CLASS: Final = 8
"""People of a gender and age band on the page."""

WHOLE: Final = 6
"""People who are shown with all their photos."""

OF_A_PERSON: Final = 14
"""Photos of one of those."""

HEIGHT: Final = 112
"""Of a photo on the page, in pixels."""


def write(folder: Path, findings: Findings) -> Path:
    """Write ``index.html`` and ``eda.json`` to ``folder``; return the path of the page.

    Raises OSError naming the file that cannot be written.
    """
    files.write_json(folder / "eda.json", _numbers(findings))
    with matplotlib.rc_context(page.PLOT_STYLE):
        plots = [
            page.plot(_count_plot(column, table, findings.age_limits), TITLES.get(column, column))
            for column, table in findings.counts.items()
        ]
        colours = page.plot(_colour_plot(findings.pixels), "pixels by value")
    odd = _odd_people(findings)
    return page.write(
        folder / "index.html",
        "eda.html.j2",
        name=findings.name,
        facts=_facts(findings),
        limit=SHOWN,
        unreadable={
            key: why for pixels in findings.pixels.values()
            for key, why in pixels.unreadable.items()
        },
        groups=_groups(findings.table, list(odd), findings.age_limits),
        whole=_whole(findings.table, odd, findings.age_limits),
        colours=_colours(findings.pixels),
        sizes=_sizes(findings.pixels),
        values=colours,
        plots=plots,
        notes=findings.notes,
    )  # fmt: skip


def _facts(findings: Findings) -> list[str]:
    facts = [f"{findings.people:,} people", f"{findings.photos:,} photos to train on"]
    if "eval" in findings.pixels:
        pixels = findings.pixels["eval"]
        facts.append(f"{pixels.sizes.total() + len(pixels.unreadable):,} to predict")
    return facts


def _odd_people(findings: Findings) -> dict[str, dict[str, str]]:
    """Person -> odd photo -> why it is odd: the people with the strangest photo first."""
    person_of = dict(zip(findings.table["key"], findings.table["person"], strict=True))
    found: dict[str, dict[str, str]] = {}
    for key, why in findings.pixels["train"].odd().items():
        found.setdefault(person_of[key], {})[key] = why
    return found


def _groups(table: pd.DataFrame, odd: Sequence[str], limits: AgeLimits) -> list[dict[str, Any]]:
    """Some people of each gender and age band, odd ones first, each by the photo without mask."""
    table = table.assign(bare=table["stem"].map({s: k for k, s in enumerate(reversed(STEMS))}))
    people = table.sort_values("bare", kind="stable").drop_duplicates("person").sort_values("key")
    place = {person: number for number, person in enumerate(odd)}
    people = people.assign(place=people["person"].map(place).fillna(len(place)))
    groups = []
    for gender, gender_name in enumerate(readable("gender")):
        for band, band_name in enumerate(readable("age", limits)):
            mine = people[(people["gender"] == gender) & (people["age_band"] == band)]
            classes = [
                f"{int(labels.encode(mask, gender, band))} {mask_name}"
                for mask, mask_name in enumerate(readable("mask"))
            ]
            examples = mine.sort_values("place", kind="stable").head(OF_A_CLASS).to_dict("records")
            groups.append(
                {
                    "title": f"{gender_name}, {band_name}",
                    "people": len(mine),
                    "classes": ", ".join(classes),
                    "photos": [
                        _photo(row, f"{row['person']}, {_age(row, limits)}", row["person"] in place)
                        for row in examples
                    ],
                }
            )
    return groups


def _whole(
    table: pd.DataFrame, odd: Mapping[str, Mapping[str, str]], limits: AgeLimits
) -> list[dict[str, Any]]:
    """A few people with all their photos, up to ``OF_A_PERSON``: those with odd photos, then the
    first ones."""
    order = {stem: place for place, stem in enumerate(STEMS)}
    examples = []
    for person in list(dict.fromkeys([*odd, *table["person"]]))[:WHOLE]:
        mine = table[table["person"] == person]
        mine = mine.sort_values("stem", key=lambda s: s.map(order)).head(OF_A_PERSON)
        first, reasons = mine.iloc[0], odd.get(person, {})
        names = (named("gender", first["gender"]), _age(first, limits))
        examples.append(
            {
                "title": f"{person}: {', '.join(names)}",
                "photos": [
                    _photo(row, f"{page.plain(row['stem'])}, class "
                           f"{named('joint', row['joint']) if row['joint'] < 0 else row['joint']}: "
                           f"mask {named('mask', row['mask'])}", row["key"] in reasons)
                    for row in mine.to_dict("records")
                ],
                "reasons": [f"{Path(key).name}: {why}" for key, why in reasons.items()],
            }
        )  # fmt: skip
    return examples


def _age(row: Mapping[Any, Any] | pd.Series, limits: AgeLimits) -> str:
    """The age in years, or else what is known of it."""
    if row["age"] != MISSING:
        return f"{row['age']} years"
    return f"age {named('age', row['age_band'], limits)}"


def _photo(row: Mapping[Any, Any], caption: str, odd: bool) -> dict[str, Any]:
    picture = page.thumbnail(row["path"], f"{row['person']} {page.plain(row['stem'])}", HEIGHT)
    return {"picture": Picture(picture.src, picture.alt, caption), "odd": odd}


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


def _colours(pixels_of: Mapping[str, Pixels]) -> Table:
    rows = [
        [f"{name} {what}", *(f"{value:.4f}" for value in values)]
        for name, pixels in pixels_of.items()
        for what, values in zip(("mean", "std"), pixels.mean_std() or ((), ()), strict=True)
    ]
    return Table("Mean and standard deviation", ["RGB, 0 to 1", *CHANNELS], rows)


def _sizes(pixels_of: Mapping[str, Pixels]) -> Table:
    every = _frequent(sum((pixels.sizes for pixels in pixels_of.values()), Counter()))
    rows = [
        [
            f"{height} × {width}",
            *(f"{pixels.sizes[height, width]:,}" for pixels in pixels_of.values()),
        ]
        for (height, width), _ in every[:SHOWN]
    ]
    if len(every) > SHOWN:
        rows.append([f"and {len(every) - SHOWN:,} more sizes, see eda.json"])
    return Table("Sizes", ["height × width", *(f"{name} photos" for name in pixels_of)], rows)


def _count_plot(column: str, table: pd.DataFrame, limits: AgeLimits) -> Figure:
    """Bars of people, and bars of photos beside them."""
    height = 2.6 if column == "age" else 0.8 + 0.24 * len(table)
    figure = Figure(figsize=(11.6 if column in WIDE else 5.7, height), layout="constrained")
    if column == "joint":
        table = table.set_axis([f"{k} {name}" for k, name in enumerate(table.index)])
    panels = figure.subplots(1, 2, sharey=column != "age")
    for panel, unit, colour in zip(panels, table, ("#2563eb", "#94a3b8"), strict=True):
        panel.set_title(f"{unit} by {TITLES.get(column, column)}", loc="left")
        if column == "age":
            _years(panel, table[unit], colour, limits)
        else:
            _bars(panel, table[unit], colour)
    return figure


def _years(panel: Axes, counts: pd.Series, colour: str, limits: AgeLimits) -> None:
    panel.bar(counts.index, counts, color=colour, width=0.8)
    for start in limits:
        panel.axvline(start - 0.5, color="#dc2626", linestyle=":")
    panel.grid(axis="x", visible=False)


def _bars(panel: Axes, counts: pd.Series, colour: str) -> None:
    bars = panel.barh([page.plain(str(name)) for name in counts.index], counts, color=colour)
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


TITLES: Final = {"age": "age in years", "age_band": "age band", "joint": "joint class"}

WIDE: Final = ("age", "joint")
"""Plots that take the whole width of the page."""
