"""What every page of this project shares: skeleton, style, and how its tables and plots look.

A page is one file: it opens from disk, without a network, on a phone and in print.
"""

from __future__ import annotations

import base64
import datetime
import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def section(title: str, note: str, *content: str) -> str:
    inner = "\n".join(content)
    return (
        f'<section id="{anchor(title)}"><h2>{title}</h2><p>{note}</p>'
        f'<div class="flow">{inner}</div></section>'
    )


def anchor(title: str) -> str:
    """The id of the section with this title."""
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def navigation(titles: Sequence[str]) -> str:
    """Links to the sections with these titles."""
    links = "".join(f'<li><a href="#{anchor(title)}">{title}</a></li>' for title in titles)
    return f'<nav aria-label="Sections"><ul>{links}</ul></nav>'


def table_rows(head: str, rows: Sequence[str]) -> str:
    lines = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f"<thead><tr>{head}</tr></thead><tbody>\n{lines}</tbody>"


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table whose first column names its rows, in a box of its own that scrolls where it must.

    Texts are escaped.
    """
    inner = table_caption(escape(caption)) + plain_rows(head, rows)
    return scrolling(caption, f"<table>{inner}</table>")


def plain_rows(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """The inside of a table of texts, which are escaped; the first column names the rows."""
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = [
        f'<th scope="row">{escape(str(name))}</th>'
        + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells)
        for name, *cells in rows
    ]
    return table_rows(columns, lines)


def table_caption(text: str) -> str:
    """A caption that stays in sight where its table scrolls."""
    return f"<caption><span>{text}</span></caption>"


def scrolling(name: str, content: str) -> str:
    """A box for what is wider than a phone; the keyboard can reach and scroll it."""
    label = f'role="region" aria-label="{escape(name)}"'
    return f'<div class="scroll" {label} tabindex="0">{content}</div>'


def plot(figure: Figure, alt: str, caption: str = "") -> str:
    """A Matplotlib figure as an embedded SVG. Texts are escaped."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context(PLOT_STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    said = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{image(buffer.getvalue(), 'svg+xml', alt)}{said}</figure>"


def image(data: bytes, kind: str, alt: str) -> str:
    """An embedded picture; ``kind`` is its subtype, such as ``jpeg``. The text is escaped."""
    coded = base64.b64encode(data).decode()
    return f'<img alt="{escape(alt)}" src="data:image/{kind};base64,{coded}">'


def facts(pairs: Mapping[str, str]) -> str:
    """Names with what is to say of each. Texts are escaped."""
    lines = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in pairs.items())
    return f"<dl>{lines}</dl>"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds: ``0:03:07``."""
    return str(datetime.timedelta(seconds=round(seconds)))


BLUE: Final = "#0072b2"
ORANGE: Final = "#d55e00"
GREY: Final = "#6b7280"
PALETTE: Final = (BLUE, "#e69f00", "#009e73", ORANGE, "#cc79a7", "#56b4e9", "#374151")
"""Colours that stay apart for colour-blind eyes (Okabe and Ito, 2008)."""

PLOT_STYLE: Final[dict[Any, Any]] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#9ca3af",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "font.size": 9,
    "grid.color": "#e5e7eb",
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 5,
    "svg.hashsalt": "maskcls",  # else the same curves give another file each time
}

PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{css}</style>
</head>
<body>
{body}
</body>
</html>
"""

CSS: Final = """
body { font: 14px/1.45 system-ui, sans-serif; color: #1f2937; background: #f8fafc;
       max-width: 1160px; margin: 0 auto; padding: 24px 20px; overflow-wrap: break-word; }
h1 { font-size: 26px; margin: 0; }
h2 { font-size: 17px; margin: 0; }
h3 { font-size: 14px; margin: 0; }
p, footer, caption, figcaption { color: #5b6472; margin: 2px 0 12px; }
section { margin: 28px 0; }
nav ul { display: flex; flex-wrap: wrap; gap: 4px 16px; list-style: none; margin: 0; padding: 0; }
a { color: #005a8e; }
.missing { background: #fef2f2; border-left: 4px solid #dc2626; padding: 12px 16px; }
.flow { display: flex; flex-wrap: wrap; align-items: start; gap: 12px; }
.flow > * { min-width: 0; }
.scroll { max-width: 100%; overflow-x: auto; }
.scroll > table { box-sizing: border-box; }
.plots { display: grid; gap: 12px; width: 100%;
         grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); }
.flow > figure, .plots > figure { flex: 0 1 480px; }
.card, table, img { background: #fff; border: 1px solid #e5e7eb; border-radius: 8px; }
.card { flex: 1; padding: 14px 18px; }
.big { font-size: 34px; font-weight: 600; }
dl { display: grid; grid-template-columns: 1fr auto; margin: 10px 0 0; color: #5b6472; }
dd { margin: 0; color: #1f2937; }
figure { margin: 0; }
figcaption { margin: 4px 0 0; }
table { border-spacing: 0; padding: 8px 12px; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 0 0 4px; margin: 0; }
caption span { display: inline-block; position: sticky; left: 0; max-width: calc(100vw - 44px); }
th, td { padding: 3px 8px; text-align: right; white-space: nowrap; font-weight: 400; }
thead th { color: #5b6472; }
th:first-child { text-align: left; }
.scroll th:first-child { position: sticky; left: 0; background: #fff; }
tbody tr:hover, tbody tr:hover th { background: #f1f5f9; }
.matrix { font-size: 12px; padding: 8px; }
.matrix td, .matrix th { padding: 3px 4px; min-width: 26px; }
.matrix th span { display: inline-block; width: 18px; color: #5b6472; }
.matrix .gap { min-width: 4px; padding: 0; }
img { box-sizing: border-box; height: auto; max-width: 100%; width: 100%; }
@media print {
  body { background: #fff; max-width: none; padding: 0; font-size: 11px; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  nav { display: none; }
  figure, .card, tr { break-inside: avoid; }
  h2, h2 + p { break-after: avoid; }
  .scroll { overflow: visible; }
  table { font-size: 10px; }
  th, td { padding: 2px 5px; white-space: normal; }
  caption span, .scroll th:first-child { position: static; }
  .big { font-size: 24px; }
  .matrix { font-size: 8px; }
  .matrix td, .matrix th { min-width: 16px; padding: 1px 2px; white-space: nowrap; }
}
"""
