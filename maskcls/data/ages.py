"""Ages as people write them: years, bands and intervals -> years, a band, or neither."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from maskcls.labels import MISSING, OLDEST, AgeLimits, age_band, class_names

_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_BETWEEN: Final = re.compile(r"([0-9]+)(?:-|–|to|,|_to_)([0-9]+)")
_FROM: Final = re.compile(r"(?:>=|from_?)([0-9]+)|([0-9]+)(?:\+|andolder|andover|orolder|ormore)")
_ABOVE: Final = re.compile(r"(?:>|morethan|olderthan|over|above)([0-9]+)")
_BELOW: Final = re.compile(r"(?:<|under_?|below|lessthan|youngerthan)([0-9]+)")
_UP_TO: Final = re.compile(r"(?:<=|upto)([0-9]+)")


class Age(NamedTuple):
    """What is known of an age. Each is ``MISSING`` where it is not known."""

    years: int
    band: int


UNKNOWN: Final = Age(MISSING, MISSING)


def of_years(text: str, limits: AgeLimits) -> Age:
    """The age of a column ``age``: years, such as 25 or 25.0, or an interval, such as 25-32, 60+,
    <30 or "more than 70". An interval across a limit of the bands is ``UNKNOWN``.

    Raises ValueError for anything else, and for years outside 0 to 120.
    """
    text = _plain(text)
    if _NUMBER.fullmatch(text):
        years = float(text)
        _require_possible(years)
        return Age(int(years), int(age_band(int(years), limits)))
    interval = _interval(text)
    if interval is None:
        raise ValueError("expected years, such as 25, or an interval, such as 25-32 or 60+")
    first, last = interval
    if first > last:
        raise ValueError(f"the interval ends before it begins: write {last}-{first}")
    for years in interval:
        _require_possible(years)
    if first == last:
        return Age(first, int(age_band(first, limits)))
    bands = age_band([first, last], limits)
    return Age(MISSING, int(bands[0])) if bands[0] == bands[1] else UNKNOWN


def of_band(text: str, limits: AgeLimits) -> Age:
    """The age of a column ``age_band``: 0, 1 or 2, the name of a band, or an interval as in
    ``of_years``. Raises ValueError for anything else."""
    names = class_names("age", limits)
    text = text.strip().lower()
    word = re.sub(r"\s+", "_", text)
    if word in names or word in ("0", "1", "2"):
        return Age(MISSING, names.index(word) if word in names else int(word))
    if _NUMBER.fullmatch(text):
        raise ValueError("a band is 0, 1 or 2; years belong to the column age")
    try:
        return of_years(text, limits)
    except ValueError:
        raise ValueError(
            f"expected one of {', '.join(names)}, 0, 1, 2, or an interval, such as 25-32 or 60+"
        ) from None


def _plain(text: str) -> str:
    """Without spaces, brackets and the word years."""
    text = re.sub(r"\s+", "", text.lower())
    return text.strip("()[]").removesuffix("years").removesuffix("yrs")


def _interval(text: str) -> tuple[int, int] | None:
    """First and last year, both included."""
    if match := _BETWEEN.fullmatch(text):
        return int(match[1]), int(match[2])
    if match := _FROM.fullmatch(text):
        return int(match[1] or match[2]), OLDEST
    if match := _ABOVE.fullmatch(text):
        return int(match[1]) + 1, OLDEST
    if match := _BELOW.fullmatch(text):
        return 0, max(int(match[1]) - 1, 0)
    if match := _UP_TO.fullmatch(text):
        return 0, int(match[1])
    return None


def _require_possible(years: float) -> None:
    if not 0 <= years <= OLDEST:
        raise ValueError(f"years go from 0 to {OLDEST}")
