"""Age as more than three classes: a distribution over years, and questions in order.

Both end in probabilities of the three bands. Targets are soft throughout, so batches may be mixed.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, one_hot

from maskcls.labels import AGE_BAND_STARTS, AgeBand
from maskcls.learning.losses import sums_over_workers

YEARS: Final = 101
"""Years 0 to 100; an age beyond counts as 100."""


def year_distributions(ages_N: Tensor, sigma_years: float) -> Tensor:
    """Ages in years [N] -> a bell of ``sigma_years`` around each, over the years: float32 [N, 101].

    Each row sums to 1, also where the ends cut a bell off (Gao et al. 2017, eq. 1).
    """
    years_Y = torch.arange(YEARS, dtype=torch.float64)
    ages_N = ages_N.double().clamp(0, YEARS - 1)
    distances_NY = (years_Y - ages_N[:, None]) / sigma_years
    return torch.softmax(-distances_NY.square() / 2, dim=1).float()


def bands_of_years(per_year_BY: Tensor) -> Tensor:
    """Probabilities of the years [B, 101] -> of the bands [B, 3]: sums of their years."""
    bands_Y = band_of_year().to(per_year_BY.device)
    return per_year_BY @ one_hot(bands_Y, len(AgeBand)).to(per_year_BY.dtype)


def band_of_year() -> Tensor:
    """The band of each year, int64 [101]."""
    return torch.bucketize(torch.arange(YEARS), torch.tensor(AGE_BAND_STARTS), right=True)


def corn_loss(logits_BQ: Tensor, target_BK: Tensor) -> Tensor:
    """CORN (Shi et al. 2023, eq. 3): question q asks for a class above q of those at q or above.

    ``target_BK`` are probabilities of the K = Q + 1 classes in order. Each question is asked as
    often as its class or a higher one has mass in the batch of all workers; the loss is the mean
    binary cross entropy of all that is asked. Raises ValueError for other shapes.
    """
    if target_BK.shape != (len(logits_BQ), logits_BQ.shape[1] + 1):
        raise ValueError(
            "CORN expects logits [B, K - 1] and probabilities of the classes [B, K], "
            f"got {tuple(logits_BQ.shape)} and {tuple(target_BK.shape)}"
        )
    logits_BQ = logits_BQ.float()
    reached_BK = target_BK.flip(1).cumsum(1).flip(1)  # the mass of a class and all above it
    asked_BQ, above_BQ = reached_BK[:, :-1], reached_BK[:, 1:]
    losses_BQ = above_BQ * logsigmoid(logits_BQ) + (asked_BQ - above_BQ) * logsigmoid(-logits_BQ)
    total, asked = sums_over_workers(-losses_BQ.sum(), asked_BQ.sum())
    return total / asked


def corn_probabilities(logits_BQ: Tensor) -> Tensor:
    """Logits of the questions [B, Q] -> probabilities of the classes, float32 [B, Q + 1].

    To be above q takes a yes to every question up to q: probabilities of yes multiply.
    """
    above_BQ = logits_BQ.float().sigmoid().cumprod(dim=1)
    edges = torch.nn.functional.pad(above_BQ, (1, 0), value=1.0)
    return edges - torch.nn.functional.pad(above_BQ, (0, 1), value=0.0)
