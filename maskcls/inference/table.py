"""Answers as rows: what Python, the command line, the service and Ray Data give back alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from maskcls import labels
from maskcls.data.status import OK
from maskcls.inference.prepared_photo import PreparedPhoto
from maskcls.labels import AGE_BAND_STARTS, ATTRIBUTES, AgeLimits
from maskcls.scoring.ensemble import Answer

if TYPE_CHECKING:
    import pandas as pd

BOX = ("box_left", "box_top", "box_width", "box_height")
COLUMNS = """
photo                   the path, or #3 for the fourth thing given
status                  ok, or why the photo cannot be read: then all else is empty
ans                     the joint class, 0 to 17, where the models tell all of it
mask, gender, age       the classes by name
p_mask_worn, ...        how likely each class is, by the models that vote on it together
p_joint_0 to 17         the same of the joint classes, where joint models alone vote
box_left, box_top,      the face in pixels of the photo; empty where none was found, or none was
box_width, box_height   looked for: the models need none and ``boxes`` was not asked for
"""
"""The columns of a table of answers."""


def probability_columns(target: str, age_limits: AgeLimits = AGE_BAND_STARTS) -> list[str]:
    """The columns of the probabilities of one target, in the order of its classes."""
    if target == "joint":
        return [f"p_joint_{number}" for number in range(labels.NUM_JOINT)]
    return [f"p_{target}_{name}" for name in labels.class_names(target, age_limits)]


def records(
    photos: Sequence[PreparedPhoto],
    answers: Mapping[str, Answer],
    age_limits: AgeLimits = AGE_BAND_STARTS,
) -> list[dict[str, Any]]:
    """One row a photo, in order, as plain values with None for what is not known.

    ``answers`` are those of ``Model.answer`` for these photos, whose models tell bands with these
    ``age_limits``. Needs no pandas.
    """
    names = {a: labels.class_names(a, age_limits) for a in ATTRIBUTES if a in answers}
    probabilities = {
        column: values
        for target, answer in answers.items()
        if answer.probabilities_NK is not None
        for column, values in zip(
            probability_columns(target, age_limits),
            answer.probabilities_NK.T.tolist(),
            strict=True,
        )
    }
    classes = {target: answer.classes_N.tolist() for target, answer in answers.items()}
    made, n = [], 0
    for photo in photos:
        row: dict[str, Any] = {"photo": photo.name, "status": photo.status}
        ok = photo.status == OK
        if "joint" in classes:
            row["ans"] = classes["joint"][n] if ok else None
        for attribute, of_class in names.items():
            row[attribute] = of_class[classes[attribute][n]] if ok else None
        for column, values in probabilities.items():
            row[column] = values[n] if ok else None
        for k, name in enumerate(BOX):
            row[name] = None if photo.box is None else photo.box[k]
        made.append(row)
        n += ok
    return made


def columns(
    answers: Mapping[str, Answer], age_limits: AgeLimits = AGE_BAND_STARTS
) -> dict[str, str]:
    """The columns of ``records`` of these answers, and the type of each in a table."""
    types = {"photo": "str", "status": "str"}
    types |= {"ans": "Int64"} if "joint" in answers else {}
    types |= {attribute: "str" for attribute in ATTRIBUTES if attribute in answers}
    for target, answer in answers.items():
        if answer.probabilities_NK is not None:
            types |= dict.fromkeys(probability_columns(target, age_limits), "float64")
    return types | dict.fromkeys(BOX, "Int64")


def rows(
    photos: Sequence[PreparedPhoto],
    answers: Mapping[str, Answer],
    age_limits: AgeLimits = AGE_BAND_STARTS,
) -> pd.DataFrame:
    """``records`` as a table."""
    return of_records(records(photos, answers, age_limits), columns(answers, age_limits))


def of_records(made: Sequence[Mapping[str, Any]], types: Mapping[str, str]) -> pd.DataFrame:
    """A table of ``records`` whose columns have the ``types`` that ``columns`` gives."""
    import pandas as pd

    return pd.DataFrame.from_records(list(made), columns=list(types)).astype(dict(types))
