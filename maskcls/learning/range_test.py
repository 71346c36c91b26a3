"""The learning-rate range test: train with a rate that rises from step to step, and see how far the
loss falls (Smith 2017, arXiv 1506.01186, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

LOWEST: Final = 1e-5
HIGHEST: Final = 1.0

STEPS: Final = 100
"""Of the whole test, in equal ratios between the two rates."""

SMOOTHING: Final = 0.9
"""Weight of the past in the moving average of the losses."""

DIVERGED: Final = 2.0
"""Times its least value: a smoothed loss above that will not come back."""


def factor(number: int) -> float:
    """The rate of step ``number``, from 0, over ``LOWEST``."""
    return float((HIGHEST / LOWEST) ** (number / (STEPS - 1)))


def smoothed(losses_S: Sequence[float]) -> npt.NDArray[np.float64]:
    """The exponential moving average, [S], without the pull to 0 of its beginning (Kingma and Ba
    2015, section 3)."""
    average, means = 0.0, []
    for number, loss in enumerate(losses_S, 1):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        means.append(average / (1 - SMOOTHING**number))
    return np.array(means)


def diverged(losses_S: Sequence[float]) -> bool:
    """Whether further steps would tell nothing."""
    means_S = smoothed(losses_S)
    return not np.isfinite(losses_S[-1]) or means_S[-1] > DIVERGED * means_S.min()


def suggestion(losses_S: Sequence[float]) -> float:
    """A highest rate for a schedule: half of the one at which the smoothed loss is least, since
    the loss of a step is that of the rates before it.

    Raises ValueError where the loss never falls.
    """
    finite_S = [loss for loss in losses_S if np.isfinite(loss)]
    best = int(smoothed(finite_S).argmin()) if finite_S else 0
    if best == 0:
        raise ValueError("the loss falls at no rate: look at the labels, weights and mixing")
    return LOWEST * factor(best) / 2
