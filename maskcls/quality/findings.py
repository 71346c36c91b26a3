"""Kinds of findings about a data set, and what a check returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import pandas as pd


class Kind(NamedTuple):
    """A kind of finding: whether it would stop a run, and what it means."""

    level: Literal["error", "warning"]
    title: str
    meaning: str


KINDS: Final[dict[str, Kind]] = {
    "layout": Kind(
        "error", "Folders and lists", "What cannot be listed is not checked any further either."
    ),
    "too many unreadable": Kind(
        "error", "Too many unreadable photos", "More than <code>data.max_bad_share</code> allows."
    ),
    "unreadable to predict": Kind(
        "error",
        "Unreadable photos to predict",
        "A run stops at them, unless <code>data.bad_eval=most_frequent</code>.",
    ),
    "thin classes": Kind(
        "error",
        "Classes too small for the folds",
        "Fewer folds, or <code>folds.allow_thin=true</code>, which leaves some folds without them.",
    ),
    "empty classes": Kind(
        "warning",
        "Classes without anybody",
        "No model learns what they look like, and scores are means over the other classes.",
    ),
    "unreadable": Kind("warning", "Unreadable photos", "A run trains without them."),
    "in train and eval": Kind(
        "warning",
        "In train and in eval",
        "The same or nearly the same photo on both sides: scores on eval would be too good.",
    ),
    "in several people": Kind(
        "warning",
        "In several people",
        "The same or nearly the same photo in folders of several people. Folds part people, so it "
        "may be trained on and validated on; where their labels differ, one is wrong.",
    ),
    "twice in one person": Kind(
        "warning", "Twice in one person", "Two names for one photo: one of the labels may be wrong."
    ),
    "twice in eval": Kind("warning", "Twice in eval", "Two names for one photo to predict."),
    "another person": Kind(
        "warning",
        "Photos that may show another person",
        "Hair, forehead and eyes look unlike the person's other photos, much more than usual here. "
        "Only a hint: light and hats do the same, and people who look alike are not noticed.",
    ),
    "no face": Kind(
        "warning",
        "No face found",
        "With <code>image.crop=face</code> these are cropped where the person's other faces are, "
        "or those of most people.",
    ),
    "blank": Kind("warning", "Blank photos", "Of one grey or nearly so."),
    "size": Kind("warning", "Odd sizes", "Photos of another size than most."),
    "missing photos": Kind(
        "warning",
        "People with missing photos",
        "Each should have seven; a run takes what is there.",
    ),
    "label fix": Kind(
        "warning", "Label fixes that change nothing", "Misspelled, or meant for another data set."
    ),
    "train.csv": Kind(
        "warning",
        "Folder names against train.csv",
        "A run goes by the folders and ignores the file.",
    ),
    "note": Kind("warning", "Other notes", "Told by a run, too."),
}
"""In the order of the page."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: its kind in ``KINDS``, in words, and whom and what it is about.

    ``photos`` are keys of photos. ``score`` says how far beyond the usual, where that is a number.
    """

    kind: str
    message: str
    people: tuple[str, ...] = ()
    photos: tuple[str, ...] = ()
    score: float | None = None


@dataclass(frozen=True)
class Checked:
    """All findings, in the order of ``KINDS``, and the photos that were looked at.

    ``photos`` has a row a photo to train on or to predict: ``key``, ``path``, ``side`` (``train``
    or ``eval``), ``person``, ``stem`` and ``variant`` (empty in eval) and ``status``; where faces
    were looked for, also the columns of ``face_table.locate``.
    """

    name: str
    photos: pd.DataFrame
    findings: list[Finding]

    @property
    def would_stop(self) -> bool:
        """Whether any finding is an error."""
        return any(KINDS[finding.kind].level == "error" for finding in self.findings)
