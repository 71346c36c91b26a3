"""What a cluster cannot do, as errors whose text is for the user."""

from __future__ import annotations


class Refused(ValueError):  # noqa: N818 -- an answer to the user, not a bug
    """What was asked for cannot run on this cluster; says why and what would."""


class RunFailed(RuntimeError):  # noqa: N818 -- an answer to the user, not a bug
    """The run cannot go on; says why. What is finished is kept."""


class LaneFailed(RuntimeError):  # noqa: N818 -- an answer to the user, not a bug
    """Why a lane ended."""
