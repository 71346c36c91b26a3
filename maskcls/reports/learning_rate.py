"""The curve of a learning-rate range test."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from maskcls.reports.page import BLUE, GREY, ORANGE, PLOT_STYLE
from maskcls.storage import files


def write(path: Path, tried: pd.DataFrame, suggested: float) -> None:
    """Draw ``loss`` and ``smoothed`` over ``lr`` with the suggested rate, as an SVG."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(tried["lr"], tried["loss"], color=GREY, lw=0.8, label="loss of a step")
    axes.plot(tried["lr"], tried["smoothed"], color=BLUE, label="smoothed")
    axes.axvline(suggested, color=ORANGE, label=f"suggested: train.lr={suggested:.1e}")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.legend()
    with rc_context(PLOT_STYLE), files.replacing(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
