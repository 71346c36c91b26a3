"""What every page of this project shares: skeleton, style, and how its tables and plots look."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any, Final


def section(title: str, note: str, *content: str) -> str:
    inner = "\n".join(content)
    return f'<section><h2>{title}</h2><p>{note}</p><div class="flow">{inner}</div></section>'


def table_rows(head: str, rows: Sequence[str]) -> str:
    lines = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f"<thead><tr>{head}</tr></thead><tbody>\n{lines}</tbody>"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds: ``0:03:07``."""
    return str(datetime.timedelta(seconds=round(seconds)))


PLOT_STYLE: Final[dict[Any, Any]] = {
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
<meta name="viewport" content="width=device-width">
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
       max-width: 1160px; margin: 0 auto; padding: 24px 20px; }
h1 { font-size: 26px; margin: 0; }
h2 { font-size: 17px; margin: 0; }
h3 { font-size: 14px; margin: 0; }
p, footer { color: #6b7280; margin: 2px 0 12px; }
section { margin: 28px 0; }
.missing { background: #fef2f2; border-left: 4px solid #dc2626; padding: 12px 16px; }
.flow { display: flex; flex-wrap: wrap; align-items: start; gap: 12px; }
.card, table, img { background: #fff; border: 1px solid #e5e7eb; border-radius: 8px; }
.card { flex: 1; padding: 14px 18px; }
.big { font-size: 34px; font-weight: 600; }
dl { display: grid; grid-template-columns: 1fr auto; margin: 10px 0 0; color: #6b7280; }
dd { margin: 0; color: #1f2937; }
table { border-spacing: 0; padding: 8px 12px; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 8px; text-align: right; white-space: nowrap; font-weight: 400; }
thead th { color: #6b7280; }
th:first-child { text-align: left; }
tbody tr:hover { background: #f1f5f9; }
.matrix { font-size: 12px; padding: 8px; }
.matrix td, .matrix th { padding: 3px 4px; min-width: 26px; }
.matrix th span { display: inline-block; width: 18px; color: #6b7280; }
.matrix .gap { min-width: 4px; padding: 0; }
img { width: 100%; }
"""
