"""What every page of this project shares: the template engine, pictures, and how plots look.

Python computes plain data, the templates beside this file lay it out; Jinja2 escapes every text.
A page is one file: it opens from disk, without a network, on a phone and in print.
"""

from __future__ import annotations

import base64
import datetime
import functools
import io
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cv2
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from maskcls.data.photos import PhotoError, decode_reduced
from maskcls.labels import UInt8Array
from maskcls.storage import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

JPEG_QUALITY: Final = 80

# Its list of fonts is one for all environments of a user: those of a deleted one it misses in
# many lines, and does without.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Picture:
    """A picture inside a page; ``src`` is a data URI, empty where the photo cannot be read."""

    src: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Table:
    """A table of texts; the first cell of each row names the row."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[object]]


def write(path: Path, template: str, **values: Any) -> Path:
    """Render a template of this room to ``path``, whole or not at all; return ``path``.

    Raises OSError naming the file that cannot be written.
    """
    files.write_text(path, render(template, **values))
    return path


def render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)


@functools.cache
def _environment() -> Environment:
    loader = PackageLoader("maskcls.reports")
    made = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {"anchor": anchor, "duration": duration, "plain": plain}
    # CSS and JavaScript as they are: to the template engine "{#" would begin a comment.
    made.globals["source"] = lambda name: Markup(loader.get_source(made, name)[0])
    return made


def anchor(title: str) -> str:
    """The id of the section with this title."""
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def duration(seconds: float) -> str:
    """Hours, minutes and seconds: ``0:03:07``."""
    return str(datetime.timedelta(seconds=round(seconds)))


def plain(name: str) -> str:
    """The name of a class or of a kind of photo as a reader wants it: ``not worn``."""
    return name.replace("_", " ")


def plot(figure: Figure, alt: str, caption: str = "") -> Picture:
    """A Matplotlib figure as an SVG."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context(PLOT_STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return Picture(_data_uri(buffer.getvalue(), "svg+xml"), alt, caption)


def jpeg(image_HWC: UInt8Array, alt: str, *, width: int, height: int) -> Picture:
    """A picture of ``width`` x ``height`` pixels as a JPEG."""
    small_HWC = cv2.resize(image_HWC, (width, height), interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(small_HWC, cv2.COLOR_RGB2BGR),
        [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY],
    )  # fmt: skip
    assert done, "OpenCV cannot write a JPEG"
    return Picture(_data_uri(data.tobytes(), "jpeg"), alt)


def thumbnail(path: str, alt: str, height: int) -> Picture:
    """The photo at ``path``, ``height`` pixels high; without ``src`` where it cannot be read."""
    try:
        image_HWC, _ = decode_reduced(Path(path).read_bytes(), height * 3 // 4)
    except (PhotoError, OSError):
        return Picture("", alt)
    width = round(image_HWC.shape[1] * height / image_HWC.shape[0])
    return jpeg(image_HWC, alt, width=min(max(width, 1), 3 * height), height=height)


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


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
