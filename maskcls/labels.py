"""The label schema: three attributes, eighteen joint classes, five tasks.

Nothing here is learned from data, so class 4 means the same in every file of every run.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]
"""Photos: [H, W, 3] or [N, H, W, 3], RGB."""


class Mask(IntEnum):
    WORN = 0
    INCORRECT = 1
    NOT_WORN = 2


class Gender(IntEnum):
    MALE = 0
    FEMALE = 1


class AgeBand(IntEnum):
    UNDER_30 = 0
    FROM_30_TO_59 = 1
    FROM_60 = 2


AgeLimits = tuple[int, int]

AGE_BAND_STARTS: Final[AgeLimits] = (30, 60)
"""Ages in years at which bands 1 and 2 begin, unless ``labels.age_limits`` says otherwise."""

OLDEST: Final = 120
"""Years; a higher age is taken for a typing error."""

MISSING: Final = -1
"""Stands where nobody knows the label of a photo, in every column of labels."""

ATTRIBUTES: Final[dict[str, type[IntEnum]]] = {"mask": Mask, "gender": Gender, "age": AgeBand}
"""The three attributes in the order in which they make up the joint class."""

LABEL_COLUMNS: Final = {"mask": "mask", "gender": "gender", "age": "age_band", "joint": "joint"}
"""Head -> the column of a table of photos or of items that holds its classes."""

NUM_JOINT: Final = 18


class Task(StrEnum):
    """What one model is trained to tell."""

    MASK = "mask"
    GENDER = "gender"
    AGE = "age"
    JOINT = "joint"
    MULTI = "multi"


HEADS: Final[dict[Task, dict[str, int]]] = {
    Task.MASK: {"mask": len(Mask)},
    Task.GENDER: {"gender": len(Gender)},
    Task.AGE: {"age": len(AgeBand)},
    Task.JOINT: {"joint": NUM_JOINT},
    Task.MULTI: {name: len(values) for name, values in ATTRIBUTES.items()},
}
"""The classification heads of each task: head name -> number of classes."""


def tells(task: Task, attribute: str) -> bool:
    """Whether a model of ``task`` tells ``attribute``: a joint one does by its marginals."""
    return task is Task.JOINT or attribute in HEADS[task]


def age_band(age_years: npt.ArrayLike, limits: AgeLimits = AGE_BAND_STARTS) -> IntArray:
    """Age in years, any shape -> band 0 (under the first limit), 1 or 2 (from the second), same
    shape; ``MISSING`` stays so."""
    years = np.asarray(age_years)
    band = np.searchsorted(limits, years, side="right").astype(np.int64)
    return np.where(years == MISSING, MISSING, band)


def encode(mask: npt.ArrayLike, gender: npt.ArrayLike, age: npt.ArrayLike) -> IntArray:
    """Joint class ``mask * 6 + gender * 3 + age`` of attribute classes, elementwise.

    Raises ValueError for a class outside its attribute.
    """
    parts = {"mask": np.asarray(mask), "gender": np.asarray(gender), "age": np.asarray(age)}
    for name, values in parts.items():
        if values.size and (values.min() < 0 or values.max() >= len(ATTRIBUTES[name])):
            raise ValueError(
                f"{name} classes go from 0 to {len(ATTRIBUTES[name]) - 1}, "
                f"got {values.min()} to {values.max()}"
            )
    return (parts["mask"] * 6 + parts["gender"] * 3 + parts["age"]).astype(np.int64)


def joint_class(mask: npt.ArrayLike, gender: npt.ArrayLike, age: npt.ArrayLike) -> IntArray:
    """``encode`` where all three are known, ``MISSING`` elsewhere."""
    parts = [np.asarray(mask), np.asarray(gender), np.asarray(age)]
    known = (np.stack(parts) != MISSING).all(axis=0)
    return np.where(known, encode(*(np.where(known, part, 0) for part in parts)), MISSING)


def decode(joint: npt.ArrayLike) -> dict[str, IntArray]:
    """Joint classes -> ``{"mask": ..., "gender": ..., "age": ...}``, the inverse of ``encode``.

    Raises ValueError for a class outside 0 to 17.
    """
    classes = np.asarray(joint, dtype=np.int64)
    if classes.size and (classes.min() < 0 or classes.max() >= NUM_JOINT):
        raise ValueError(f"joint classes go from 0 to 17, got {classes.min()} to {classes.max()}")
    return {"mask": classes // 6, "gender": classes // 3 % 2, "age": classes % 3}


def marginal(joint_NK: FloatArray, attribute: str) -> FloatArray:
    """Joint probabilities [N, 18] -> probabilities of one attribute [N, classes]."""
    cube = joint_NK.reshape(-1, len(Mask), len(Gender), len(AgeBand))
    kept = 1 + list(ATTRIBUTES).index(attribute)
    return cube.sum(axis=tuple(axis for axis in (1, 2, 3) if axis != kept))


def class_names(head: str, age_limits: AgeLimits = AGE_BAND_STARTS) -> list[str]:
    """Readable class names of a head (``mask``, ``gender``, ``age`` or ``joint``), in order."""
    if head == "joint":
        names = {attribute: class_names(attribute, age_limits) for attribute in ATTRIBUTES}
        parts = decode(np.arange(NUM_JOINT))
        return ["/".join(names[a][parts[a][j]] for a in ATTRIBUTES) for j in range(NUM_JOINT)]
    if head == "age":
        first, second = age_limits
        return [f"under_{first}", f"from_{first}_to_{second - 1}", f"from_{second}"]
    return [value.name.lower() for value in ATTRIBUTES[head]]
