import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskcls.labels import (
    ATTRIBUTES,
    HEADS,
    NUM_JOINT,
    Task,
    age_band,
    class_names,
    decode,
    encode,
    marginal,
)

TRIPLES = list(itertools.product(range(3), range(2), range(3)))


@pytest.mark.parametrize(("joint", "triple"), enumerate(TRIPLES))
def test_each_joint_class_is_one_triple_and_back(joint, triple):
    assert encode(*triple) == joint
    assert tuple(int(part) for part in decode(joint).values()) == triple


def test_encode_and_decode_are_inverse_over_arrays_of_any_shape():
    joint = np.arange(NUM_JOINT).reshape(2, 9)
    parts = decode(joint)
    assert list(parts) == list(ATTRIBUTES) == ["mask", "gender", "age"]
    np.testing.assert_array_equal(encode(**parts), joint)


@pytest.mark.parametrize(
    ("triple", "message"),
    [
        ((3, 0, 0), "mask classes go from 0 to 2, got 3"),
        ((0, -1, 0), "gender classes go from 0 to 1, got -1"),
        ((0, 2, 0), "gender classes go from 0 to 1, got 2"),
        ((0, 0, [0, 3]), "age classes go from 0 to 2, got 0 to 3"),
    ],
)
def test_encode_refuses_a_class_outside_its_attribute(triple, message):
    with pytest.raises(ValueError, match=message):
        encode(*triple)


@pytest.mark.parametrize("joint", [-1, 18, [0, 18]])
def test_decode_refuses_a_class_outside_0_to_17(joint):
    with pytest.raises(ValueError, match="joint classes go from 0 to 17"):
        decode(joint)


@pytest.mark.parametrize(
    ("age", "band"), [(0, 0), (18, 0), (29, 0), (30, 1), (59, 1), (60, 2), (100, 2)]
)
def test_age_bands_begin_at_30_and_60(age, band):
    assert age_band(age) == band


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 120), min_size=1))
def test_age_band_works_elementwise_and_never_falls_with_age(ages):
    bands = age_band(sorted(ages))
    assert (np.diff(bands) >= 0).all()
    assert [int(age_band(age)) for age in sorted(ages)] == bands.tolist()


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_a_marginal_sums_the_joint_classes_of_each_value(attribute):
    joint_NK = np.random.default_rng(0).dirichlet(np.ones(NUM_JOINT), size=7)
    classes_K = decode(np.arange(NUM_JOINT))[attribute]
    expected = [joint_NK[:, classes_K == value].sum(axis=1) for value in ATTRIBUTES[attribute]]
    np.testing.assert_allclose(marginal(joint_NK, attribute), np.stack(expected, axis=1))


@pytest.mark.parametrize("joint", range(NUM_JOINT))
def test_the_marginals_of_a_certain_joint_class_are_its_parts(joint):
    certain_1K = np.eye(NUM_JOINT)[[joint]]
    for attribute, value in decode(joint).items():
        assert marginal(certain_1K, attribute).argmax() == value


def test_class_names_are_unique_and_match_the_heads():
    for heads in HEADS.values():
        for head, num_classes in heads.items():
            assert len(set(class_names(head))) == num_classes
    assert class_names("joint")[0] == "worn/male/under_30"
    assert class_names("joint")[17] == "not_worn/female/from_60"


def test_every_task_has_heads():
    assert set(HEADS) == set(Task)
    assert HEADS[Task.MULTI] == {"mask": 3, "gender": 2, "age": 3}
