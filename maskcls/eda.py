"""What is in a data set, before anything is trained on it: one page, its plots and its numbers.

python -m maskcls.eda DATA_ROOT --out FOLDER --fixes configs/label_fixes.yaml

Photos stream through a few threads, so any number of them takes the same memory.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Final

import cv2
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maskcls import files, page
from maskcls.images import PhotoError, ahead, decode
from maskcls.labels import AGE_BAND_STARTS, IntArray, class_names
from maskcls.manifest import LabelFixes, load_fixes, read_eval, read_train
from maskcls.storage import on_this_machine

CHANNELS: Final = ("red", "green", "blue")
COUNTED: Final = ("gender", "age_band", "mask", "race", "age", "joint")
"""Columns of the manifest by which people and photos are counted, in the order of the page."""

SHOWN: Final = 20
"""Rows of a list on the page; eda.json has them all."""

Look = tuple[tuple[int, int], IntArray]
"""(Height, width) of a photo and its histogram [3, 256]."""


@dataclass
class Pixels:
    """Sizes and colours of photos as whole numbers: the same sums in whatever order they add up.

    ``sizes`` maps (height, width) to photos, ``histogram_CV`` [3, 256] counts the pixels of each
    value in each RGB channel, ``unreadable`` maps the key of a photo to what is wrong with it.
    """

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    histogram_CV: IntArray = field(default_factory=lambda: np.zeros((3, 256), np.int64))
    unreadable: dict[str, str] = field(default_factory=dict)

    def mean_std(self) -> tuple[list[float], list[float]] | None:
        """Mean and (population) standard deviation of each channel over all pixels, 0 to 1.

        Exact up to the last rounding. None where no photo could be read.
        """
        if not self.sizes:
            return None
        mean, std = [], []
        for counts in self.histogram_CV.tolist():  # Python's integers do not overflow
            pixels = sum(counts)
            total = sum(value * n for value, n in enumerate(counts))
            squares = sum(value**2 * n for value, n in enumerate(counts))
            mean.append(total / (255 * pixels))
            std.append(math.sqrt((pixels * squares - total**2) / (255 * pixels) ** 2))
        return mean, std


@dataclass(frozen=True)
class Findings:
    """All that the page shows of the data set ``name``.

    ``people``, ``photos`` and ``counts``, a table of both for each of ``COUNTED``, are of the train
    folder; ``pixels`` are of ``train`` and, where there is such a folder, ``eval``.
    """

    name: str
    people: int
    photos: int
    counts: dict[str, pd.DataFrame]
    pixels: dict[str, Pixels]
    notes: list[str]


def explore(
    root: Path,
    *,
    fixes: LabelFixes | None = None,
    threads: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Findings:
    """Count, measure and decode every photo under ``root``; findings do not depend on ``threads``.

    ``progress`` is told ``(done, total)`` after each photo. Photos that cannot be read still count
    as photos. Raises what ``read_train`` and ``read_eval`` raise, and ValueError for no threads.
    """
    manifests = {"train": read_train(root, fixes=fixes)}
    if (root / "eval" / "images").is_dir():
        manifests["eval"] = read_eval(root)
    train = manifests["train"].photos
    done, total = itertools.count(1), sum(len(manifest.photos) for manifest in manifests.values())
    return Findings(
        name=root.absolute().name,
        people=train["person"].nunique(),
        photos=len(train),
        counts={column: count(train, column) for column in COUNTED},
        pixels={
            name: measure(
                manifest.photos, threads=threads, progress=lambda: progress(next(done), total)
            )
            for name, manifest in manifests.items()
        },
        notes=[note for manifest in manifests.values() for note in manifest.notes],
    )


def count(photos: pd.DataFrame, column: str) -> pd.DataFrame:
    """``people`` and ``photos`` for each value of one of the columns ``COUNTED``.

    Classes have a row each, named, even where nobody is in them; so has each year of age from the
    youngest to the oldest. Races come the most frequent first.
    """
    groups = photos.groupby(column)["person"]
    table = pd.DataFrame({"people": groups.nunique(), "photos": groups.size()})
    if column == "race":
        return table.sort_values("photos", ascending=False, kind="stable")
    if column == "age":
        return table.reindex(range(table.index.min(), table.index.max() + 1), fill_value=0)
    names = class_names("age" if column == "age_band" else column)
    return table.reindex(range(len(names)), fill_value=0).set_axis(names)


def measure(
    photos: pd.DataFrame, *, threads: int, progress: Callable[[], None] = lambda: None
) -> Pixels:
    """Decode ``photos`` (columns ``key`` and ``path``) and add up their sizes and colours.

    ``progress`` is called after each. Raises ValueError for fewer than one thread.
    """
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    pixels = Pixels()
    with ThreadPoolExecutor(threads) as pool:
        looks = ahead(pool, _look_at, photos["path"], window=4 * threads)
        for key, photo in zip(photos["key"], looks, strict=True):
            try:
                size, histogram_CV = photo.result()
                pixels.sizes[size] += 1
                pixels.histogram_CV += histogram_CV
            except PhotoError as error:
                pixels.unreadable[key] = str(error)
            progress()
    return pixels


def _look_at(path: str) -> Look:
    """Raises PhotoError where a photo cannot be read."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise PhotoError(f"cannot be read: {error.strerror}") from error
    image_HWC = decode(data)
    histogram_CV = np.zeros((3, 256), np.int64)
    pixels = image_HWC.reshape(-1, 1, 3)
    # OpenCV hands counts back as float32, which is exact up to 2**24.
    for start in range(0, len(pixels), 2**24):
        for channel in range(3):
            counts = cv2.calcHist([pixels[start : start + 2**24]], [channel], None, [256], [0, 256])
            histogram_CV[channel] += counts[:, 0].astype(np.int64)
    return image_HWC.shape[:2], histogram_CV


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


def _show_progress(done: int, total: int) -> None:
    if sys.stdout.isatty() and done % 50 == 0:
        print(f"{done:,} of {total:,} photos", end="\r", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Explore a data set from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m maskcls.eda",
        description="Sizes, colours and counts of a data set, as one page.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "root", type=on_this_machine, metavar="DATA_ROOT", help="holds train/ and eval/"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="to write to")
    parser.add_argument("--fixes", type=Path, metavar="YAML", help="known label errors")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="that decode photos")
    arguments = parser.parse_args(argv)
    try:
        fixes = load_fixes(arguments.fixes) if arguments.fixes else None
        findings = explore(
            arguments.root, fixes=fixes, threads=arguments.threads, progress=_show_progress
        )
        page = write(arguments.out, findings)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    read = sum(pixels.sizes.total() for pixels in findings.pixels.values())
    total = read + sum(len(pixels.unreadable) for pixels in findings.pixels.values())
    print(f"{read:,} of {total:,} photos read, see {page}")


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


if __name__ == "__main__":
    main()
