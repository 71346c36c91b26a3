"""The split by person, and the tables of what a fold trains and validates on.

No person, and no copy or blend made from that person, stands on both sides. Leaving ages out and
blending people touch the training side only.

A fold gets as many people of each gender and age band as scikit-learn's StratifiedKFold gives it,
cell for cell, which a test holds. The deal itself takes three lines; importing
``sklearn.model_selection`` takes 1.5 s of CPU in every driver, and its shuffle would deal other
people, so that no earlier run could be continued.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from maskcls.data.status import OK
from maskcls.labels import (
    AGE_BAND_STARTS,
    MISSING,
    AgeBand,
    AgeLimits,
    Gender,
    age_band,
    joint_class,
)

COLUMNS: Final = [
    "row", "row2", "weight2", "person", "mask", "gender", "age", "age_band", "joint", "key",
    "weight",
]  # fmt: skip
"""A table of items. The image of an item is ``(1 - weight2) * images[row] + weight2 *
images[row2]``, where ``row2`` is -1 and ``weight2`` 0 for a plain photo. ``person`` is ``a+b`` and
``age`` the weighted mean, in years, for a blend. ``key`` is a number that belongs to the photo
whatever else is in the data set: it seeds the augmentation. ``weight`` is how often the photo is
shown, compared with others. Labels that nobody knows are ``MISSING``."""


def assign(people: pd.DataFrame, count: int, seed: int, allow_thin: bool = False) -> pd.Series:
    """Deal people into ``count`` folds: a Series ``fold`` (0 to ``count - 1``) indexed by person.

    ``people`` has the columns ``person``, ``group``, ``gender``, ``age_band`` and ``mask``, one or
    more rows a person, in any order. A group stays together; the groups of each gender x age band
    are dealt in turn in an order that depends on ``seed`` and their names alone, so that folds
    differ by at most one group. Where a person was seen with one kind of mask only, as where each
    photo is its own person, the mask counts, too. A label that nobody knows is a kind of its own.

    Raises ValueError where a gender x age band has fewer groups than folds, unless ``allow_thin``;
    and always where a fold would be empty.
    """
    people = _one_each(people)
    _require_enough(people, count, allow_thin)
    leaders = people.drop_duplicates("group")
    order = leaders["group"].map(lambda group: _shuffled(seed, group))
    kinds = ["gender", "age_band", "mask", "order"]
    deal = leaders.assign(order=order).sort_values(kinds)["group"]
    # The deal goes on from one gender x age band to the next: restarting would fill fold 0 first.
    folds = {group: position % count for position, group in enumerate(deal)}
    return people.set_index("person")["group"].map(folds).rename("fold")


def _one_each(people: pd.DataFrame) -> pd.DataFrame:
    """A row a person, sorted: their known labels, and the mask where all photos have one kind."""
    by_person = people.groupby("person", sort=True)
    known = by_person[["gender", "age_band"]].max()  # MISSING is the least
    mask = by_person["mask"].agg(["min", "max"])
    return known.assign(
        group=by_person["group"].first(),
        mask=mask["max"].where(mask["min"] == mask["max"], MISSING),
    ).reset_index()


def training_table(
    photos: pd.DataFrame,
    folds: pd.Series,
    fold: int,
    *,
    seed: int,
    drop_ages: Sequence[tuple[int, int]] = (),
    blend: Sequence[Mapping[str, Any]] = (),
    blend_weight: float = 0.5,
    age_limits: AgeLimits = AGE_BAND_STARTS,
) -> pd.DataFrame:
    """What ``fold`` trains on (see ``COLUMNS``): usable photos of all other folds, then blends.

    ``photos`` is that of a manifest; ``row`` counts its rows. ``drop_ages`` and ``blend`` are
    those of ``without_ages`` and ``blended``. Raises ValueError where nothing is left.
    """
    items = without_ages(_items(photos, _fold_of(photos, folds) != fold), drop_ages)
    if items.empty:
        raise ValueError(
            f"fold {fold}: no photo left to train on; see folds.count and people.drop_ages"
        )
    blends = blended(items, blend, blend_weight, seed)
    blends["age_band"] = age_band(blends["age"], age_limits)
    return _table(pd.concat([items, blends]))


def validation_table(photos: pd.DataFrame, folds: pd.Series, fold: int) -> pd.DataFrame:
    """What ``fold`` validates on (see ``COLUMNS``): every usable photo of its people.

    Raises ValueError where there is none.
    """
    items = _items(photos, _fold_of(photos, folds) == fold)
    if items.empty:
        raise ValueError(f"fold {fold}: no photo to validate on; lower folds.count")
    return _table(items)


def without_ages(items: pd.DataFrame, ranges: Sequence[tuple[int, int]]) -> pd.DataFrame:
    """The items outside all of the age ranges, given in years with both ends included."""
    dropped = np.zeros(len(items), dtype=bool)
    for first, last in ranges:
        dropped |= items["age"].between(first, last).to_numpy()
    return items[~dropped]


def blended(
    items: pd.DataFrame, rules: Sequence[Mapping[str, Any]], weight: float, seed: int
) -> pd.DataFrame:
    """New items, each two photos of one name and one mask label from two people.

    A rule ``{"ages": (first, last), "gender": "male", "female" or None}`` takes the people of one
    gender (None: of each in turn) and those ages, splits them at random into two disjoint halves
    and pairs those; where the number is odd, one person is left over. ``weight`` is the share of
    the second person, in the image and in the age.
    """
    blends = [items.iloc[:0]]
    for pool in _pools(items, rules):
        people = sorted(pool["person"].unique(), key=lambda person: _shuffled(seed, person))
        half = len(people) // 2
        couples = {"person": people[:half], "person_b": people[half : 2 * half]}
        # A label fix can give two photos of one name different mask labels: those do not pair.
        pairs = (
            pool.merge(pd.DataFrame(couples, dtype="str"), on="person")
            .merge(pool.rename(columns={"person": "person_b"}),
                   on=["person_b", "stem", "variant", "mask", "gender"], suffixes=("", "_b"))
        )  # fmt: skip
        age = (1 - weight) * pairs["age"] + weight * pairs["age_b"]
        pairs = pairs.assign(
            row2=pairs["row_b"],
            weight2=weight,
            person=pairs["person"] + "+" + pairs["person_b"],
            age=np.floor(age + 0.5).astype(np.int64),
            weight=(1 - weight) * pairs["weight"] + weight * pairs["weight_b"],
            key=pairs["key"] + "|" + pairs["key_b"],
        )
        blends.append(pairs[items.columns])
    return pd.concat(blends)


def _pools(items: pd.DataFrame, rules: Sequence[Mapping[str, Any]]) -> Iterator[pd.DataFrame]:
    for rule in rules:
        name = rule.get("gender")
        for gender in [Gender[name.upper()]] if name else Gender:
            yield items[(items["gender"] == gender) & items["age"].between(*rule["ages"])]


def _fold_of(photos: pd.DataFrame, folds: pd.Series) -> pd.Series:
    fold_of = photos["person"].map(folds)
    if fold_of.isna().any():
        raise ValueError(f"no fold for {photos['person'][fold_of.isna()].unique().tolist()[:10]}")
    return fold_of


def _items(photos: pd.DataFrame, chosen: pd.Series) -> pd.DataFrame:
    """The chosen usable photos as items, with the text key and what blending goes by."""
    photos = photos.assign(row=np.arange(len(photos)), row2=-1, weight2=0.0)
    columns = ["row", "row2", "weight2", "person", "mask", "gender", "age", "age_band", "key",
               "weight"]  # fmt: skip
    return photos.loc[chosen & (photos["status"] == OK), [*columns, "stem", "variant"]]


def _table(items: pd.DataFrame) -> pd.DataFrame:
    items = items.assign(
        joint=joint_class(items["mask"], items["gender"], items["age_band"]),
        key=np.fromiter(map(number_of, items["key"].tolist()), np.int64, len(items)),
    )
    return items[COLUMNS].reset_index(drop=True)


def _require_enough(people: pd.DataFrame, count: int, allow_thin: bool) -> None:
    groups = people["group"].nunique()
    if groups < count:
        raise ValueError(
            f"folds.count={count}, but there are only {groups} people: lower folds.count"
        )
    sizes = people.groupby(["gender", "age_band"])["group"].nunique()
    thin = [
        f"{Gender(gender).name.lower()} {AgeBand(band).name.lower()} has {size}"
        for gender, band, size in sizes.reset_index().to_numpy()
        if size < count and MISSING not in (gender, band)
    ]
    if thin and not allow_thin:
        raise ValueError(
            f"folds.count={count} needs that many people of each gender and age band, but "
            f"{', '.join(thin)}: lower folds.count, or set folds.allow_thin=true to let some folds "
            "validate on none of them"
        )


def _shuffled(seed: int, name: str) -> str:
    """A sort key that puts names into an order random in ``seed``, the same on every machine."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def number_of(key: str) -> int:
    """A text key -> 63 bits, the same in every process."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1
