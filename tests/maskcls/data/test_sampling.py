import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from maskcls.data import sampling
from maskcls.labels import MISSING

LABELS = np.array([0] * 50 + [1] * 7 + [2] * 3)


def make_epoch(
    labels_N=LABELS, name="none", batch_size=8, seed=0, number=1, shares=None, workers=1
):
    classes = int(labels_N.max()) + 1
    return sampling.epoch(
        labels_N,
        shares=sampling.class_shares(name, labels_N, classes, shares),
        batch_size=batch_size,
        seed=seed,
        number=number,
        workers=workers,
    )


@st.composite
def requests(draw):
    """Labels in which every class of 0 to K - 1 occurs, and a share for each class."""
    counts = draw(st.lists(st.integers(1, 30), min_size=1, max_size=6))
    shares = draw(
        st.lists(
            st.one_of(st.just(0.0), st.floats(0.01, 10)),
            min_size=len(counts),
            max_size=len(counts),
        ).filter(any)
    )
    assume(sum(counts) > 1)
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(draw(st.integers(0, 99))).permutation(labels), shares


def test_no_sampler_shows_every_item_once():
    epoch = make_epoch()
    assert sorted(epoch.items_N) == list(range(len(LABELS)))
    assert not epoch.draws_N.any()
    assert epoch.items_N.tolist() != sorted(epoch.items_N)


def test_every_class_comes_all_through_an_epoch():
    labels_N = np.repeat(np.arange(4), 300)
    shown = labels_N[make_epoch(labels_N, "class_balanced").items_N]
    for quarter in np.split(shown, 4):
        assert np.bincount(quarter, minlength=4).min() > 50  # 75 are expected


def test_of_many_equal_remainders_the_lower_classes_are_rounded_up():
    labels_N = np.repeat(np.arange(18), 5)[:-5].clip(max=17)
    labels_N = np.append(labels_N, [17] * 2)
    epoch = make_epoch(labels_N, "class_balanced")
    counts = np.bincount(labels_N[epoch.items_N], minlength=18)
    assert counts.tolist() == [5] * 15 + [4] * 3


def test_items_without_a_label_keep_the_share_that_they_have():
    labels_N = np.array([0] * 5 + [1] + [2] * 4 + [MISSING] * 6)
    balanced = sampling.class_shares("class_balanced", labels_N, 3)
    np.testing.assert_allclose(balanced, [10 / 48, 10 / 48, 10 / 48, 6 / 16])
    explicit = sampling.class_shares("explicit", labels_N, 3, [1, 0, 3])
    np.testing.assert_allclose(explicit, [10 / 64, 0, 30 / 64, 6 / 16])
    epoch = sampling.epoch(labels_N, shares=explicit, batch_size=4, seed=0, number=1)
    shown = labels_N[epoch.items_N]
    assert [(shown == label).sum() for label in (0, 1, 2, MISSING)] == [3, 0, 7, 6]
    with pytest.raises(ValueError, match="no training photo has the labels that it goes by"):
        sampling.class_shares("explicit", np.full(3, MISSING), 3, [1, 1, 1])


@given(requests())
def test_class_counts_are_exact_by_largest_remainder(request_):
    labels_N, shares = request_
    epoch = make_epoch(labels_N, "explicit", shares=shares)
    counts = np.bincount(labels_N[epoch.items_N], minlength=len(shares))
    exact = np.array(shares) / sum(shares) * len(labels_N)
    assert counts.sum() == len(labels_N)
    assert (np.abs(counts - exact) < 1).all()
    assert not counts[np.array(shares) == 0].any()
    # Who was rounded up has no smaller remainder than who was rounded down.
    remainder = exact - np.floor(exact)
    up, down = counts > exact, counts < exact
    if up.any() and down.any():
        assert remainder[up].min() >= remainder[down].max() - 1e-9


@pytest.mark.parametrize(
    ("labels", "shares", "expected"),
    [
        ([0, 0, 0, 0, 1, 2, 2, 2], [1, 1, 2], [2, 2, 4]),
        ([0, 0, 1, 1, 2, 2, 2], [1, 1, 1], [3, 2, 2]),  # equal remainders: the lower class
        ([0, 0, 1, 1, 2, 2], [0, 1, 1], [0, 3, 3]),
    ],
)
def test_shares_by_hand(labels, shares, expected):
    labels_N = np.array(labels)
    epoch = make_epoch(labels_N, "explicit", shares=shares)
    assert np.bincount(labels_N[epoch.items_N], minlength=3).tolist() == expected


def test_class_balanced_shows_each_class_that_occurs_equally_often():
    labels_N = np.array([0] * 40 + [2] * 5 + [5] * 3)
    shares = sampling.class_shares("class_balanced", labels_N, 18)
    assert np.flatnonzero(shares).tolist() == [0, 2, 5]
    epoch = make_epoch(labels_N, "class_balanced")
    assert np.bincount(labels_N[epoch.items_N]).tolist() == [16, 0, 16, 0, 0, 16]


def test_what_is_known_is_balanced_within_its_share():
    # Masks of 60 items, of which 6 are worn incorrectly; gender and age of 40 others.
    masks = [[0, MISSING, MISSING]] * 54 + [[1, MISSING, MISSING]] * 6
    people = [[MISSING, 0, 0]] * 30 + [[MISSING, 1, 0]] * 8 + [[MISSING, 1, 2]] * 2
    class_N, shares_C = sampling.balanced_combinations(np.array(masks + people))
    of_items = shares_C[class_N]
    assert of_items[:60] == pytest.approx(0.3)  # .6 over two combinations
    assert of_items[60:] == pytest.approx(0.4 / 3)
    assert len(shares_C) == 5
    assert shares_C.sum() == pytest.approx(1)


@given(requests())
def test_no_item_is_shown_again_before_all_of_its_class_were_shown(request_):
    labels_N, shares = request_
    epoch = make_epoch(labels_N, "explicit", shares=shares)
    for label in set(labels_N):
        members = np.flatnonzero(labels_N == label)
        shown = epoch.items_N[labels_N[epoch.items_N] == label]
        for start in range(0, len(shown), len(members)):
            pass_ = shown[start : start + len(members)]
            assert len(set(pass_)) == len(pass_)


@given(requests())
def test_draws_count_how_often_an_item_was_shown_before(request_):
    labels_N, shares = request_
    epoch = make_epoch(labels_N, "explicit", shares=shares)
    shown: dict[int, int] = {}
    for item, draw in zip(epoch.items_N, epoch.draws_N, strict=True):
        assert draw == shown.get(item, 0)
        shown[item] = draw + 1


@pytest.mark.parametrize("name", ["none", "class_balanced"])
def test_the_same_seed_and_epoch_give_the_same_order_and_others_another(name):
    def order(**change):
        return make_epoch(name=name, **change).items_N.tolist()

    assert order() == order()
    assert order() != order(seed=1)
    assert order() != order(number=2)
    assert order(seed=1, number=0) != order(seed=0, number=1)


def test_classes_are_mixed_along_the_epoch():
    epoch = make_epoch(np.repeat([0, 1], 200), "class_balanced")
    first_half = (epoch.items_N[:200] < 200).mean()
    assert 0.4 < first_half < 0.6


@given(st.integers(2, 300), st.integers(2, 40), st.integers(1, 5))
@example(items=5, batch_size=2, world=1)  # an odd rest
@example(items=7, batch_size=4, world=2)
@example(items=33, batch_size=16, world=3)  # a rest smaller than the workers
def test_every_worker_has_two_photos_or_more_in_every_step(items, batch_size, world):
    if min(items, batch_size) < 2 * world:
        with pytest.raises(ValueError, match="workers a job"):
            make_epoch(np.zeros(items, np.int64), batch_size=batch_size, workers=world)
        return
    epoch = make_epoch(np.zeros(items, np.int64), batch_size=batch_size, workers=world)
    sizes = np.diff(epoch.bounds_S)
    assert epoch.steps == len(sizes) == sampling.steps(items, batch_size, world)
    assert sizes.max() - sizes.min() <= 1
    assert sizes.max() < 2 * batch_size
    if sizes.max() > batch_size:  # only where one more step would leave a worker with one photo
        assert items < 2 * world * (epoch.steps + 1)
    positions = np.arange(items)
    seen = []
    for step in range(epoch.steps):
        parts = [positions[epoch.step(step, rank, world)] for rank in range(world)]
        assert min(map(len, parts)) >= 2
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert sum(map(len, parts)) == sizes[step]
        seen += [position for part in parts for position in part]
    assert sorted(seen) == list(range(items))
    assert positions[epoch.step(0)].tolist() == list(range(sizes[0]))


@pytest.mark.parametrize(
    ("items", "batch_size", "workers", "message"),
    [
        (100, 1, 1, r"train\.batch_size=1 for 1 workers.* set it to 2"),
        (100, 3, 2, r"train\.batch_size=3 for 2 workers.* set it to 4"),
        (3, 8, 2, r"3 training photos for 2 workers"),
    ],
)
def test_a_step_that_batch_norm_cannot_bear_is_refused(items, batch_size, workers, message):
    with pytest.raises(ValueError, match=message):
        sampling.steps(items, batch_size, workers)


def test_no_sampler_has_no_shares():
    assert sampling.class_shares("none", LABELS, 3) is None


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ([1, 1], r"sampler\.shares: expected 3 values, got 2"),
        ([1, 1, 1, 1], r"sampler\.shares: expected 3 values, got 4"),
    ],
)
def test_explicit_shares_are_one_a_class(shares, message):
    with pytest.raises(ValueError, match=message):
        sampling.class_shares("explicit", LABELS, 3, shares)


def test_a_class_without_photos_cannot_have_a_share():
    with pytest.raises(ValueError, match=r"no training photo of class \[1, 3\]"):
        sampling.class_shares("explicit", np.array([0, 2]), 4, [1, 1, 1, 1])
    shares = sampling.class_shares("explicit", np.array([0, 2]), 4, [3, 0, 1, 0])
    assert shares.tolist() == [0.75, 0, 0.25, 0]


def weighted(labels_N, weights_N, shares=None, number=1, seed=0):
    return sampling.epoch(
        labels_N, shares=shares, batch_size=8, seed=seed, number=number, weights_N=weights_N
    )


WEIGHTS = st.lists(st.one_of(st.just(0.0), st.floats(0.05, 20)), min_size=2, max_size=40)


@given(WEIGHTS.filter(any), st.integers(0, 99))
def test_items_are_shown_as_often_as_their_weights_say(weights, seed):
    weights_N = np.array(weights)
    epoch = weighted(np.zeros(len(weights), int), weights_N, seed=seed)
    counts_N = np.bincount(epoch.items_N, minlength=len(weights))
    assert counts_N.sum() == len(weights)
    exact_N = weights_N / weights_N.sum() * len(weights)
    assert (np.abs(counts_N - exact_N) < 1 + 1e-9).all()
    assert not counts_N[weights_N == 0].any()
    for item, count in enumerate(counts_N):  # repeats are told apart
        assert sorted(epoch.draws_N[epoch.items_N == item]) == list(range(count))


def test_over_many_epochs_weights_are_kept_exactly():
    weights_N = np.array([0.2, 1.0, 2.5, 0.7])
    epochs = [weighted(np.zeros(4, int), weights_N, number=number) for number in range(2000)]
    shown_N = np.bincount(np.concatenate([epoch.items_N for epoch in epochs])) / 2000
    np.testing.assert_allclose(shown_N, weights_N / weights_N.sum() * 4, atol=0.04)
    assert len({tuple(epoch.items_N) for epoch in epochs}) > 20


def test_weights_count_inside_a_class_where_classes_have_shares():
    labels_N = np.repeat([0, 1, 2], 20)
    weights_N = np.concatenate([np.tile([1.0, 3.0], 20), np.zeros(20)])
    epoch = weighted(labels_N, weights_N, shares=np.array([0.2, 0.5, 0.3]))
    counts_N = np.bincount(epoch.items_N, minlength=60)
    assert [counts_N[labels_N == label].sum() for label in range(3)] == [12, 30, 18]
    assert [counts_N[20:40:2].sum(), counts_N[21:40:2].sum()] == pytest.approx([7.5, 22.5], abs=1)
    assert counts_N[40:].max() == 1  # a class without a weight takes its items in turn
