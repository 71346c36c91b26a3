"""What a data set looks like: its numbers, plots of them and a page that shows both.

python -m maskcls.eda DATA_ROOT --out FOLDER
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from maskcls import files, report
from maskcls.images import PhotoError, decode
from maskcls.labels import AGE_BAND_STARTS, class_names
from maskcls.manifest import OK, read_train

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IntArray = npt.NDArray[np.int64]
Plot = Callable[["Figure", Mapping[str, Any]], None]
Progress = Callable[[int, int], None]

CHANNELS: Final = {"red": "#d1495b", "green": "#4c956c", "blue": "#3d6fb6"}
GENDERS: Final = {"male": "#3d6fb6", "female": "#e08e45"}
NEUTRAL: Final = "#5b7083"
LISTED: Final = 50
"""Bad files that the page names; ``eda.json`` lists all."""


@dataclass(frozen=True)
class _Pixels:
    """What is kept of a photo: its size, and how often each value occurs in each channel."""

    height: int
    width: int
    histogram_C256: IntArray


def describe(root: Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """The numbers of the photos to train on under ``root``, as they go into ``eda.json``.

    Each photo is decoded once, and only a few are in memory at a time. Channels are 0 to 1, in the
    order red, green, blue; ``mean`` and ``std`` are over every pixel of every photo, from exact
    counts. Photos that cannot be decoded are counted by label like the others, and listed under
    ``bad`` with the reason. ``progress`` is told ``(done, total)`` after each photo.

    Raises what ``manifest.read_train`` raises, and ValueError where no photo can be decoded.
    """
    manifest = read_train(root)
    photos = manifest.photos
    sizes: Counter[tuple[int, int]] = Counter()
    histogram_C256 = np.zeros((3, 256), np.int64)
    bad = []
    for done, (key, found) in enumerate(zip(photos["key"], _pixels_of(photos), strict=True), 1):
        if isinstance(found, str):
            bad.append({"photo": key, "reason": found})
        else:
            sizes[found.height, found.width] += 1
            histogram_C256 += found.histogram_C256
        if progress:
            progress(done, len(photos))
    if not sizes:
        raise ValueError(f"{root}: none of {len(photos)} photos can be decoded; {bad[0]}")
    people = photos.drop_duplicates("person")
    return {
        "root": str(root),
        "people": _counts(people, ("gender", "age_band", "race")),
        "photos": _counts(photos, ("mask", "gender", "age_band", "joint")),
        "ages": _ages(people),
        "sizes": [
            {"height": height, "width": width, "photos": count}
            for (height, width), count in sizes.most_common()
        ],
        "channels": _channels(histogram_C256),
        "bad": bad,
        "notes": manifest.notes,
    }


def write(folder: Path, numbers: Mapping[str, Any]) -> Path:
    """Write ``eda.json``, the plots and ``index.html``, which shows them; returns its path.

    Raises OSError naming the file where it cannot be written.
    """
    files.write_json(folder / "eda.json", numbers)
    for name, plot in PLOTS.items():
        _save_plot(folder / f"{name}.png", plot, numbers)
    title = f"Photos in {Path(numbers['root']).name}"
    body = [
        f"<header><h1>{escape(title)}</h1><p>{escape(numbers['root'])}</p></header>",
        f'<section><div class="flow">{_cards(numbers)}</div></section>',
        _section("Classes", "Photos of each class that a model can answer.", "mask", "joint"),
        _section("People", "Each person counts once.", "groups", "ages"),
        _section("Pixels", "Over all pixels of all photos.", "channels", "sizes"),
        _list("Notes", numbers["notes"]),
        _list("Bad files", [f"{entry['photo']}: {entry['reason']}" for entry in numbers["bad"]]),
    ]
    page = report.PAGE.format(title=escape(title), css=report.CSS + CSS, body="\n".join(body))
    files.write_text(folder / "index.html", page)
    return folder / "index.html"


def _pixels_of(photos: pd.DataFrame) -> Iterator[_Pixels | str]:
    """The pixels of each photo, in order, or what is wrong with it."""
    threads = os.cpu_count() or 1
    waiting: deque[Future[_Pixels | str]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for path, status in zip(photos["path"], photos["status"], strict=True):
            waiting.append(pool.submit(_measure, path, status))
            # The results of a whole data set would fill the memory if nobody took them in time.
            if len(waiting) > 4 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _measure(path: str, status: str) -> _Pixels | str:
    if status != OK:
        return status
    try:
        image_HWC = decode(Path(path).read_bytes())
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except PhotoError as error:
        return str(error)
    counts = [np.bincount(image_HWC[..., c].ravel(), minlength=256) for c in range(3)]
    height, width = image_HWC.shape[:2]
    return _Pixels(height, width, np.stack(counts))


def _counts(rows: pd.DataFrame, columns: Iterable[str]) -> dict[str, Any]:
    """How many there are, and of each value of the columns: ``total`` and a dict a column."""
    counts: dict[str, Any] = {"total": len(rows)}
    for column in columns:
        found = rows[column].value_counts()
        if column == "race":
            counts[column] = {str(name): int(count) for name, count in found.items()}
        else:
            names = class_names(HEAD_OF.get(column, column))
            counts[column] = {name: int(found.get(k, 0)) for k, name in enumerate(names)}
    return counts


def _ages(people: pd.DataFrame) -> list[dict[str, int]]:
    """Men and women of each age in years that occurs."""
    table = pd.crosstab(people["age"], people["gender"]).reindex(columns=[0, 1], fill_value=0)
    return [
        {"age": int(age), "male": int(male), "female": int(female)}
        for age, male, female in table.itertuples()
    ]


def _channels(histogram_C256: IntArray) -> dict[str, Any]:
    """Mean and standard deviation of each channel, from how often each of its values occurs."""
    values = np.arange(256) / 255
    shares_C256 = histogram_C256 / histogram_C256.sum(axis=1, keepdims=True)
    mean_C = shares_C256 @ values
    variance_C = (shares_C256 * (values - mean_C[:, None]) ** 2).sum(axis=1)
    return {
        "mean": mean_C.tolist(),
        "std": np.sqrt(variance_C).tolist(),
        "histogram": histogram_C256.tolist(),
    }


def _cards(numbers: Mapping[str, Any]) -> str:
    sizes, channels = numbers["sizes"], numbers["channels"]
    facts = {
        "people": f"{numbers['people']['total']:,}",
        "photos": f"{numbers['photos']['total']:,}",
        "bad files": f"{len(numbers['bad']):,}",
        "height x width": f"{sizes[0]['height']} x {sizes[0]['width']}"
        + (f" and {len(sizes) - 1:,} more" if len(sizes) > 1 else ""),
        "mean of red, green, blue": ", ".join(f"{value:.3f}" for value in channels["mean"]),
        "their standard deviation": ", ".join(f"{value:.3f}" for value in channels["std"]),
    }
    return "".join(
        f'<div class="card"><h3>{name}</h3><div class="fact">{fact}</div></div>'
        for name, fact in facts.items()
    )


def _section(title: str, note: str, *plots: str) -> str:
    images = "".join(f'<img class="{name}" src="{name}.png" alt="{name}">' for name in plots)
    return f'<section><h2>{title}</h2><p>{note}</p><div class="flow">{images}</div></section>'


def _list(title: str, entries: Sequence[str]) -> str:
    if not entries:
        return ""
    shown = [f"<li>{escape(entry)}</li>" for entry in entries[:LISTED]]
    more = len(entries) - len(shown)
    rest = f"<p>and {more:,} more, see eda.json</p>" if more else ""
    return f"<section><h2>{title}</h2><ul>{''.join(shown)}</ul>{rest}</section>"


def _save_plot(path: Path, plot: Plot, numbers: Mapping[str, Any]) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    style = report.PLOT_STYLE | {"axes.axisbelow": True}
    with matplotlib.rc_context(style), files.replacing(path) as temporary:
        figure = Figure(layout="constrained", dpi=150)
        plot(figure, numbers)
        figure.savefig(temporary)


def _plot_mask(figure: Figure, numbers: Mapping[str, Any]) -> None:
    figure.set_size_inches(3.3, 4.6)
    _bars(figure.subplots(), "Mask", numbers["photos"]["mask"])


def _plot_joint(figure: Figure, numbers: Mapping[str, Any]) -> None:
    figure.set_size_inches(8.2, 4.6)
    panel = figure.subplots()
    counts = numbers["photos"]["joint"]
    names = [f"{name.replace('_', ' ')}   {k}" for k, name in enumerate(counts)]
    colours = [GENDERS[name.split("/")[1]] for name in counts]
    bars = panel.barh(names, list(counts.values()), color=colours, height=0.75)
    panel.bar_label(bars, fmt="{:,.0f}", padding=3)
    panel.set_title("Joint class: mask, gender, age", loc="left")
    panel.grid(axis="y", visible=False)
    panel.margins(x=0.08, y=0.01)
    panel.invert_yaxis()


def _plot_groups(figure: Figure, numbers: Mapping[str, Any]) -> None:
    figure.set_size_inches(11.6, 2.8)
    people = numbers["people"]
    columns = {"gender": "Gender", "age_band": "Age band", "race": "Race"}
    for panel, (column, title) in zip(figure.subplots(1, 3), columns.items(), strict=True):
        _bars(panel, title, people[column])


def _plot_ages(figure: Figure, numbers: Mapping[str, Any]) -> None:
    figure.set_size_inches(11.6, 2.8)
    panel = figure.subplots()
    ages = pd.DataFrame(numbers["ages"])
    below = np.zeros(len(ages))
    for gender, colour in GENDERS.items():
        panel.bar(ages["age"], ages[gender], bottom=below, color=colour, label=gender, width=0.85)
        below += ages[gender]
    for start in AGE_BAND_STARTS:
        panel.axvline(start - 0.5, color="#6b7280", linewidth=1, linestyle=":")
    panel.set_title("Age in years; dotted lines part the bands", loc="left")
    panel.grid(axis="x", visible=False)
    panel.legend()


def _plot_channels(figure: Figure, numbers: Mapping[str, Any]) -> None:
    figure.set_size_inches(5.8, 3.2)
    panel = figure.subplots()
    for (name, colour), counts in zip(
        CHANNELS.items(), numbers["channels"]["histogram"], strict=True
    ):
        panel.plot(np.array(counts) / sum(counts), color=colour, label=name)
    panel.set_title("Share of pixels by value, 0 to 255", loc="left")
    panel.set_ylim(bottom=0)
    panel.legend()


def _plot_sizes(figure: Figure, numbers: Mapping[str, Any]) -> None:
    figure.set_size_inches(5.8, 3.2)
    sizes = {f"{s['height']} x {s['width']}": s["photos"] for s in numbers["sizes"]}
    shown = dict(list(sizes.items())[:8])
    if len(sizes) > len(shown):
        shown["others"] = sum(sizes.values()) - sum(shown.values())
    _bars(figure.subplots(), "Photos by height x width", shown)


def _bars(panel: Axes, title: str, counts: Mapping[str, int]) -> None:
    names = [name.replace("_", " ") for name in counts]
    colours = [GENDERS.get(name, NEUTRAL) for name in counts]
    bars = panel.bar(names, list(counts.values()), color=colours, width=0.6)
    panel.bar_label(bars, fmt="{:,.0f}", padding=2)
    panel.set_title(title, loc="left")
    panel.grid(axis="x", visible=False)
    aside = 0.6 + max(0, 3 - len(names)) / 2  # one or two bars need not fill the panel
    panel.set_xlim(-aside, len(names) - 1 + aside)
    panel.margins(y=0.12)


HEAD_OF: Final = {"age_band": "age"}
"""Columns of the manifest that are not named like the head that they belong to."""

PLOTS: Final[dict[str, Plot]] = {
    "mask": _plot_mask,
    "joint": _plot_joint,
    "groups": _plot_groups,
    "ages": _plot_ages,
    "channels": _plot_channels,
    "sizes": _plot_sizes,
}

CSS: Final = """
.fact { font-size: 18px; font-weight: 600; white-space: nowrap; }
.flow .card { flex: 1 1 auto; }
.flow img { box-sizing: border-box; padding: 8px; }
.flow .mask { width: calc(29.3% - 6px); } .flow .joint { width: calc(70.7% - 6px); }
.flow .channels, .flow .sizes { width: calc(50% - 6px); }
"""


def _show_progress(done: int, total: int) -> None:
    """One line on the terminal that counts."""
    if done % 100 == 0 or done == total:
        end = "\n" if done == total else ""
        print(f"\r{done:,} of {total:,} photos", end=end, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Describe a data set from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m maskcls.eda", description="Describe the photos to train on, in one page."
    )
    parser.add_argument("root", type=Path, metavar="DATA_ROOT", help="folder that holds train/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the page")
    arguments = parser.parse_args(argv)
    try:
        numbers = describe(arguments.root, progress=_show_progress)
        page = write(arguments.out, numbers)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    people, photos = numbers["people"]["total"], numbers["photos"]["total"]
    print(f"{photos:,} photos of {people:,} people, {len(numbers['bad']):,} bad: {page}")


if __name__ == "__main__":
    main()
