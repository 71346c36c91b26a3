from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold

from maskcls.data import folds
from maskcls.data.label_fixes import STEMS
from maskcls.labels import age_band, encode

DROP_AGES = [(28, 29), (57, 59)]
BLEND = [{"ages": (30, 39), "gender": "male"}, {"ages": (60, 120), "gender": None}]


def photos_of(people: list[tuple[str, int, int]], variants: int = 1) -> pd.DataFrame:
    """A manifest of (id, gender, age) people with all their photos."""
    rows = [
        {
            "key": f"train/images/{person}/{stem}{suffix}.jpg",
            "person": person,
            "group": person.split("-")[0],
            "stem": stem,
            "variant": "rembg" if suffix else "original",
            "gender": gender,
            "age": age,
            "mask": int(mask),
            "status": "ok",
            "weight": 1.0,
        }
        for person, gender, age in people
        for stem, mask in STEMS.items()
        for suffix in ("", "_rembg")[:variants]
    ]
    frame = pd.DataFrame(rows).sort_values("key", ignore_index=True)
    frame["age_band"] = age_band(frame["age"])
    frame["joint"] = encode(frame["mask"], frame["gender"], frame["age_band"])
    return frame


def crowd(size: int, ages: tuple[int, ...] = (20, 28, 35, 45, 58, 60)) -> pd.DataFrame:
    people = [(f"{number:06}", number % 2, ages[number // 2 % len(ages)]) for number in range(size)]
    return photos_of(people)


@st.composite
def people(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    """At least five people, some of whom share a group."""
    ages = st.integers(18, 70)
    singles = draw(st.lists(st.tuples(st.integers(0, 1), ages), min_size=5, max_size=60))
    result = [(f"{n:06}", gender, age) for n, (gender, age) in enumerate(singles)]
    for n in draw(st.sets(st.integers(0, len(singles) - 1), max_size=5)):
        result.append((f"{n:06}-1", draw(st.integers(0, 1)), draw(ages)))
    return result


@settings(max_examples=15, deadline=None)
@given(people(), st.integers(2, 5), st.integers(0, 99), st.integers(1, 2), st.randoms())
def test_no_one_stands_on_both_sides(
    who: list[tuple[str, int, int]], count: int, seed: int, variants: int, random: Any
) -> None:
    photos = photos_of(who, variants)
    assigned = folds.assign(photos, count, seed, allow_thin=True)

    assert sorted(assigned.index) == sorted(person for person, _, _ in who)
    groups = photos.drop_duplicates("person").set_index("person")["group"]
    fold_of_group = assigned.groupby(groups).agg(["nunique", "first"])
    assert (fold_of_group["nunique"] == 1).all()
    sizes = fold_of_group["first"].value_counts().reindex(range(count), fill_value=0)
    assert sizes.max() - sizes.min() <= 1

    seen: list[int] = []
    for fold in range(count):
        validation = folds.validation_table(photos, assigned, fold)
        try:
            training = folds.training_table(
                photos, assigned, fold, seed=seed, drop_ages=DROP_AGES, blend=BLEND
            )
        except ValueError as error:
            assert "drop_ages" in str(error)
        else:
            members = {name for person in training["person"] for name in person.split("+")}
            assert not {groups[m] for m in members} & set(validation["person"].map(groups))
            rows = set(training["row"]) | set(training["row2"]) - {-1}
            assert not rows & set(validation["row"])
        seen += validation["row"].tolist()
    assert sorted(seen) == list(range(len(photos)))

    shuffled = photos.iloc[random.sample(range(len(photos)), len(photos))]
    again = folds.assign(shuffled, count, seed, allow_thin=True)
    assert again.to_dict() == assigned.to_dict()


def test_folds_are_stratified_on_gender_and_band() -> None:
    photos = crowd(60)
    assigned = folds.assign(photos, 5, 42)
    assert assigned.value_counts().tolist() == [12] * 5
    people = photos.drop_duplicates("person").set_index("person")
    counts = people.assign(fold=assigned).groupby(["gender", "age_band", "fold"]).size().unstack()
    assert (counts.max(axis=1) - counts.min(axis=1)).max() <= 1
    assert counts.notna().all(axis=None)


def test_folds_are_the_same_on_every_machine() -> None:
    """Written down once: a change here means that old runs cannot be continued."""
    assigned = folds.assign(crowd(24), 2, 42)
    assert "".join(map(str, assigned.sort_index())) == "100100010010100111101101"
    assert not assigned.equals(folds.assign(crowd(24), 2, 43))


def test_a_thin_class_is_refused_with_advice() -> None:
    photos = photos_of([(f"{n:06}", 0, 20) for n in range(6)] + [("100000", 1, 60)])
    with pytest.raises(ValueError, match="female from_60 has 1") as error:
        folds.assign(photos, 5, 42)
    assert "male under_30" not in str(error.value).replace("female", "")
    assert "folds.allow_thin=true" in str(error.value)
    assert folds.assign(photos, 5, 42, allow_thin=True).nunique() == 5


def test_more_folds_than_people_are_refused_always() -> None:
    with pytest.raises(ValueError, match="only 3 people"):
        folds.assign(crowd(3), 4, 42, allow_thin=True)


def test_validation_is_untouched_by_what_training_leaves_out_or_adds() -> None:
    photos = crowd(60)
    assigned = folds.assign(photos, 5, 42)
    validation = folds.validation_table(photos, assigned, 2)
    own = photos[photos["person"].map(assigned) == 2]
    assert validation["row"].tolist() == own.index.tolist()
    assert {28, 58} <= set(validation["age"])
    for column in ("person", "mask", "gender", "age", "age_band", "joint"):
        assert validation[column].tolist() == own[column].tolist()


def test_photos_that_cannot_be_used_are_in_no_table() -> None:
    photos = crowd(24)
    assigned = folds.assign(photos, 2, 42)
    photos.loc[::3, "status"] = "cannot be decoded"
    usable = set(photos.index[photos["status"] == "ok"])
    for fold in (0, 1):
        training = folds.training_table(photos, assigned, fold, seed=42, blend=BLEND)
        validation = folds.validation_table(photos, assigned, fold)
        assert set(training["row2"]) - {-1} <= usable
        assert set(training["row"]) | set(validation["row"]) == usable


def test_tables_share_columns_and_types() -> None:
    photos = crowd(60)
    assigned = folds.assign(photos, 2, 42)
    plain = folds.training_table(photos, assigned, 0, seed=42)
    blends = folds.training_table(photos, assigned, 0, seed=42, blend=BLEND)
    validation = folds.validation_table(photos, assigned, 0)
    assert len(blends) > len(plain)
    for table in (plain, blends, validation):
        assert list(table.columns) == folds.COLUMNS
        assert table.dtypes.equals(validation.dtypes)
        assert (table["key"] >= 0).all()
        assert table["key"].is_unique
        assert list(table.index) == list(range(len(table)))
    for table in (plain, validation):
        assert (table["row2"] == -1).all()
        assert (table["weight2"] == 0).all()


def test_the_key_of_a_photo_depends_on_nothing_else() -> None:
    few, many = crowd(12), crowd(24)
    by_key = []
    for photos in (few, many):
        assigned = pd.Series(0, index=photos["person"].unique())
        table = folds.validation_table(photos, assigned, 0)
        by_key.append(dict(zip(photos["key"], table["key"], strict=True)))
    assert by_key[0].items() <= by_key[1].items()
    assert by_key[0]["train/images/000000/mask1.jpg"] == 4996413679102460437


@pytest.mark.parametrize(
    ("ranges", "left"),
    [([], [27, 28, 29, 30, 57]), (DROP_AGES, [27, 30]), ([(30, 30)], [27, 28, 29, 57])],
)
def test_ages_are_dropped_with_both_ends(ranges: list[tuple[int, int]], left: list[int]) -> None:
    items = pd.DataFrame({"age": [27, 28, 29, 30, 57]})
    assert folds.without_ages(items, ranges)["age"].tolist() == left


def test_dropping_everybody_is_refused() -> None:
    photos = crowd(24)
    with pytest.raises(ValueError, match=r"people\.drop_ages"):
        folds.training_table(photos, folds.assign(photos, 2, 42), 0, seed=42, drop_ages=[(0, 99)])


def test_people_without_a_fold_are_refused() -> None:
    photos = crowd(24)
    with pytest.raises(ValueError, match=r"no fold for .*000000"):
        folds.training_table(photos, folds.assign(photos, 2, 42).drop("000000"), 0, seed=42)


def blends_of(who: list[tuple[str, int, int]], **options: Any) -> pd.DataFrame:
    """The blends when everybody is on the training side, and the photos under ``photos``."""
    photos = photos_of(who)
    nobody_validates = pd.Series(1, index=photos["person"].unique())
    options = {"seed": 42, "blend": BLEND} | options
    table = folds.training_table(photos, nobody_validates, 0, **options)
    blends = table[table["row2"] >= 0]
    for side in ("row", "row2"):
        sides = photos.loc[blends[side], ["person", "stem", "variant", "mask", "gender", "age"]]
        blends = blends.join(sides.set_index(blends.index), rsuffix=f"_of_{side}")
    return blends


def test_blends_pair_disjoint_people_of_one_group() -> None:
    who = [(f"{n:06}", n % 2, 33 if n < 14 else 60) for n in range(30)]
    blends = blends_of(who)
    pairs = blends["person"].str.split("+", expand=True).drop_duplicates()
    members = pd.concat([pairs[0], pairs[1]])
    assert members.is_unique  # disjoint halves
    # 7 men of 33 make 3 pairs; 8 men and 8 women of 60 make 4 each.
    assert len(pairs) == 3 + 4 + 4
    assert len(blends) == 7 * len(pairs)
    assert (blends["person_of_row"] + "+" + blends["person_of_row2"]).equals(blends["person"])
    assert (blends["stem"] == blends["stem_of_row2"]).all()
    assert (blends["gender"] == blends["gender_of_row2"]).all()
    assert (blends["mask"] == blends["mask_of_row2"]).all()
    assert not ((blends["gender"] == 1) & (blends["age"] == 33)).any()


@pytest.mark.parametrize("weight", [0.0, 0.25, 0.5, 1.0])
def test_the_age_of_a_blend_is_the_weighted_mean(weight: float) -> None:
    blends = blends_of([("000000", 0, 30), ("000001", 0, 38)], blend_weight=weight)
    assert len(blends) == 7
    assert (blends["weight2"] == weight).all()
    mean = (1 - weight) * blends["age_of_row"] + weight * blends["age_of_row2"]
    assert (blends["age"] == mean).all()
    assert (blends["joint"] == encode(blends["mask"], blends["gender"], blends["age_band"])).all()


@pytest.mark.parametrize(("ages", "blend", "band"), [((29, 30), 30, 1), ((22, 23), 23, 0)])
def test_a_half_year_is_rounded_up_and_the_band_follows(
    ages: tuple[int, int], blend: int, band: int
) -> None:
    rule = [{"ages": (20, 70), "gender": "female"}]
    blends = blends_of([("000000", 1, ages[0]), ("000001", 1, ages[1])], blend=rule)
    assert set(blends["age"]) == {blend}
    assert set(blends["age_band"]) == {band}


@pytest.mark.parametrize("size", [0, 1])
def test_too_few_people_make_no_blend(size: int) -> None:
    who = [(f"{n:06}", 0, 33) for n in range(size)] + [("100000", 0, 20)]
    assert blends_of(who).empty


def test_photos_that_a_label_fix_made_unlike_do_not_blend() -> None:
    photos = photos_of([("000000", 0, 33), ("000001", 0, 33)])
    photos.loc[(photos["person"] == "000000") & (photos["stem"] == "incorrect_mask"), "mask"] = 0
    table = folds.training_table(
        photos, pd.Series(1, index=["000000", "000001"]), 0, seed=42, blend=BLEND
    )
    blends = table[table["row2"] >= 0]
    assert len(blends) == 6
    assert "incorrect_mask" not in set(photos.loc[blends["row"], "stem"])


def test_pairs_depend_on_the_seed_and_not_on_the_listing() -> None:
    who = [(f"{n:06}", 0, 33) for n in range(20)]
    pairs = set(blends_of(who)["person"])
    assert pairs == set(blends_of(who[::-1])["person"])
    assert pairs != set(blends_of(who, seed=43)["person"])
    assert np.mean([pair in pairs for pair in set(blends_of(who, seed=43)["person"])]) < 0.5


@pytest.mark.parametrize("count", [2, 5])
def test_each_cell_has_as_many_people_as_with_scikit_learn(count: int) -> None:
    rng = np.random.default_rng(0)
    # The public counts of the full set: men and women under 30, from 30 and from 60.
    cells = [(0, 20, 549), (0, 40, 410), (0, 60, 83), (1, 20, 732), (1, 40, 817), (1, 60, 109)]
    who = [(gender, age) for gender, age, size in cells for _ in range(size)]
    photos = pd.DataFrame(who, columns=["gender", "age"]).iloc[rng.permutation(len(who))]
    names = [f"{n:06}" for n in range(len(who))]
    people = photos.assign(person=names, group=names, age_band=age_band(photos["age"]), mask=0)
    people["ours"] = people["person"].map(folds.assign(people, count, 42))
    people = people.sort_values(["gender", "age_band"], kind="stable", ignore_index=True)
    strata = people["gender"] * 3 + people["age_band"]
    split = StratifiedKFold(count, shuffle=True, random_state=42).split(people, strata)
    for fold, (_, held) in enumerate(split):
        people.loc[held, "theirs"] = fold
    tables = [pd.crosstab(strata, people[name]).to_numpy() for name in ("ours", "theirs")]
    np.testing.assert_array_equal(*tables)


def test_where_each_photo_is_its_own_person_its_mask_counts() -> None:
    photos = photos_of([(f"{n:06}", 0, 33) for n in range(10)])
    alone = photos.assign(person=photos["key"], group=photos["key"])
    fold_of = folds.assign(alone, 5, seed=1)
    counts = pd.crosstab(alone["person"].map(fold_of), alone["mask"])
    assert (counts.max() - counts.min() <= 1).all()
    # Of people with photos of all kinds no kind counts.
    assert (folds._one_each(photos)["mask"] == -1).all()
    assert sorted(folds._one_each(alone)["mask"]) == sorted(photos["mask"])


def test_the_band_of_a_group_does_not_depend_on_who_is_listed_first() -> None:
    who = [(f"{n:06}{end}", 0, age) for n in range(12) for end, age in (("", 33), ("-1", 65))]
    photos = photos_of(who)
    dealt = folds.assign(photos, 3, seed=1)
    assert dealt.name == "fold"
    backwards = folds.assign(photos[::-1], 3, seed=1)
    pd.testing.assert_series_equal(backwards[dealt.index], dealt)


def test_as_many_groups_as_folds_are_enough() -> None:
    assert sorted(folds.assign(photos_of([(f"{n:06}", 0, 33) for n in range(3)]), 3, seed=1)) == [
        0, 1, 2,
    ]  # fmt: skip


def test_a_blend_has_the_weighted_mean_of_the_weights_and_the_run_s_bands() -> None:
    photos = photos_of([("000000", 0, 33), ("000001", 0, 35)])
    photos["weight"] = photos["person"].map({"000000": 2.0, "000001": 5.0})
    nobody = pd.Series(1, index=["000000", "000001"])
    table = folds.training_table(
        photos, nobody, 0, seed=42, blend=BLEND, blend_weight=0.25, age_limits=(20, 34)
    )
    blends = table[table["row2"] >= 0]
    first = photos["weight"][blends["row"]].to_numpy()
    np.testing.assert_allclose(blends["weight"], 0.75 * first + 0.25 * (7 - first))
    assert (blends["age"] >= 34).all()
    assert (blends["age_band"] == 2).all()
