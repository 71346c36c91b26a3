"""What the head for age tells: the ways and the options of each.

The defaults are those of ``maskcls.learning.heads``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, NonNegativeFloat, PositiveFloat

from maskcls.config.types import Method, named


class AgeClasses(Method):
    """The three bands as classes, with `loss` as any other head."""

    name: Literal["classes"] = "classes"
    years_weight: NonNegativeFloat = Field(
        0.0,
        description="Weight of the age in years as one more output of the head that tells age, "
        "trained by squared error in units of 20 years; 0 leaves it out.",
    )


class AgeDistribution(Method):
    """A probability for each year from 0 to 100, trained towards a bell around the true age; a band
    is the sum of its years (DLDL, arXiv 1611.01731). Of `loss` it takes logit_adjusted only."""

    name: Literal["distribution"] = "distribution"
    sigma_years: PositiveFloat = Field(
        3.0, description="Standard deviation in years of the bell around the true age."
    )


class AgeOrdinal(Method):
    """Two questions in order: 30 or older, and if so 60 or older (CORN, arXiv 2111.08851). It has
    a loss of its own; `loss` is that of the other heads."""

    name: Literal["ordinal"] = "ordinal"


Age = Annotated[AgeClasses | AgeDistribution | AgeOrdinal, Discriminator("name"), named("classes")]
