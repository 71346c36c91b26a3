"""How very many photos are predicted."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from maskcls.config.types import AbsolutePath, Section


class Answers(Section):
    """The verb `ray_jobs.predict`."""

    out: AbsolutePath | None = Field(
        None,
        description="Folder of the answers; null: `predictions/<photos>` in `run.dir`. A bundle "
        "needs one.",
    )
    photos_per_part: PositiveInt = Field(
        512,
        description="Photos in one file of answers, at most; what was not written when a program "
        "ended is done again.",
    )
