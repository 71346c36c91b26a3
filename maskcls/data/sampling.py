"""Which training items an epoch shows, in which order, in which steps.

Decided from labels alone and from ``(seed, epoch)``, so that every process of a job can work out
the same epoch for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskcls.config.checks import PHOTOS_A_WORKER
from maskcls.labels import MISSING, IntArray


@dataclass(frozen=True)
class Epoch:
    """One epoch: ``items_N`` (indices into the training table), ``draws_N`` (how often the item
    was shown before in this epoch, so that its repeats are augmented differently) and
    ``bounds_S`` (where each step begins, and the end)."""

    items_N: IntArray
    draws_N: IntArray
    bounds_S: IntArray

    @property
    def steps(self) -> int:
        return len(self.bounds_S) - 1

    def step(self, number: int, rank: int = 0, world: int = 1) -> slice:
        """Positions of one step that process ``rank`` of ``world`` takes."""
        return slice(self.bounds_S[number] + rank, self.bounds_S[number + 1], world)


def class_shares(
    name: str, labels_N: IntArray, num_classes: int, shares: Sequence[float] | None = None
) -> npt.NDArray[np.float64] | None:
    """The share of an epoch that each class gets, [num_classes], or None for "as they come".

    ``none``, ``class_balanced`` (equal shares for the classes that occur) or ``explicit``
    (``shares``, normalised). Items whose class is ``MISSING`` keep the share they have, as one more
    class at the end. Raises ValueError when a class is asked for that has no item.
    """
    if name == "none":
        return None
    unknown_N = labels_N == MISSING
    if unknown_N.all():
        raise ValueError(
            f"sampler.name={name}: no training photo has the labels that it goes by; set it to none"
        )
    counts = np.bincount(labels_N[~unknown_N], minlength=num_classes)
    wanted = (counts > 0).astype(float) if name == "class_balanced" else np.asarray(shares, float)
    if len(wanted) != num_classes:
        raise ValueError(f"sampler.shares: expected {num_classes} values, got {len(wanted)}")
    empty = np.flatnonzero((wanted > 0) & (counts == 0))
    if empty.size:
        raise ValueError(f"sampler.shares: no training photo of class {empty.tolist()}")
    wanted = wanted / wanted.sum()
    if not unknown_N.any():
        return wanted
    return np.append(wanted * (1 - unknown_N.mean()), unknown_N.mean())


def balanced_combinations(labels_NA: IntArray) -> tuple[IntArray, npt.NDArray[np.float64]]:
    """Classes and shares where some labels are ``MISSING``: what is known of an item, [N, labels],
    is its class. Items of which the same labels are known keep the share of an epoch that they have
    together; of that, each combination of labels that occurs gets as much as the others.

    Returns the class of each item, [N], and the share of each class.
    """
    combinations_CA, class_N = np.unique(labels_NA, axis=0, return_inverse=True)
    _, known_C = np.unique(combinations_CA != MISSING, axis=0, return_inverse=True)
    items_K = np.bincount(known_C[class_N])
    shares_C = (items_K / len(labels_NA) / np.bincount(known_C))[known_C]
    return class_N, shares_C


def steps(items: int, batch_size: int, workers: int = 1) -> int:
    """Steps of an epoch: as few as ``batch_size`` allows, or fewer where a worker would get less
    than two photos; such steps are larger than ``batch_size``, but less than twice as large.

    Raises ValueError where the batch size or the number of items is below two a worker.
    """
    least = PHOTOS_A_WORKER * workers
    if batch_size < least:
        raise ValueError(
            f"train.batch_size={batch_size} for {workers} workers a job: batch norm needs at least "
            f"two photos a worker and step; set it to {least} or more"
        )
    if items < least:
        raise ValueError(
            f"{items} training photos for {workers} workers a job: each needs at least two; "
            "add people, or lower resources.workers_per_job"
        )
    return min(-(-items // batch_size), items // least)


def epoch(
    labels_N: IntArray,
    *,
    shares: npt.NDArray[np.float64] | None,
    batch_size: int,
    seed: int,
    number: int,
    workers: int = 1,
    weights_N: npt.NDArray[np.float64] | None = None,
) -> Epoch:
    """Epoch ``number`` over N items, as many draws as items, in ``steps`` of equal size.

    Steps differ by at most one item, and no item is dropped. With ``shares`` the class counts are
    exact (largest remainder), and inside a class no item is shown a second time before every other
    was shown once. A class ``MISSING`` is the last of the shares. With ``weights_N`` items are
    shown in proportion to their weights, inside a class where there are shares.
    Raises what ``steps`` raises.
    """
    n = len(labels_N)
    rng = np.random.default_rng((seed, number))
    if shares is None:
        items, draws = _take(np.arange(n), n, rng, weights_N) if weights_N is not None else (
            np.arange(n), np.zeros(n, np.int64))  # fmt: skip
        order = rng.permutation(n)
    else:
        counts = _apportion(shares, n)
        place_N = np.where(labels_N == MISSING, len(shares) - 1, labels_N)
        taken = [
            _take(np.flatnonzero(place_N == label), count, rng, weights_N)
            for label, count in enumerate(counts)
        ]
        items = np.concatenate([members for members, _ in taken])
        draws = np.concatenate([repeats for _, repeats in taken])
        # Each class fills its random places in its own order, so no repeat comes too early.
        places = np.split(rng.permutation(n), np.cumsum(counts)[:-1])
        order = np.argsort(np.concatenate([np.sort(of_class) for of_class in places]))
    count = steps(n, batch_size, workers)
    bounds = np.arange(count + 1) * n // count
    return Epoch(items[order].astype(np.int64), draws[order], bounds)


def _apportion(shares: npt.NDArray[np.float64], total: int) -> IntArray:
    """Whole counts that add up to ``total``, by largest remainder."""
    exact = shares * total
    counts = np.floor(exact).astype(np.int64)
    largest = np.argsort(-(exact - counts), kind="stable")[: total - counts.sum()]
    counts[largest] += 1
    return counts


def _take(
    members: IntArray,
    count: int,
    rng: np.random.Generator,
    weights_N: npt.NDArray[np.float64] | None,
) -> tuple[IntArray, IntArray]:
    """``count`` of the members, and how often each was taken before."""
    if count == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    if weights_N is not None and weights_N[members].any():
        return _weighted(members, weights_N[members], count, rng)
    rounds = -(-count // len(members))
    taken = np.concatenate([rng.permutation(members) for _ in range(rounds)])[:count]
    return taken, np.repeat(np.arange(rounds), len(members))[:count]


def _weighted(
    members_M: IntArray,
    weights_M: npt.NDArray[np.float64],
    count: int,
    rng: np.random.Generator,
) -> tuple[IntArray, IntArray]:
    """As ``_take``, each member as often as its weight says, rounded down or up at random
    (systematic sampling, Madow 1949)."""
    order_M = rng.permutation(len(members_M))
    edges_M = np.cumsum(weights_M[order_M])
    points = (rng.random() + np.arange(count)) * (edges_M[-1] / count)
    # Rounding may put the last point on the last edge.
    chosen = np.searchsorted(edges_M, points, side="right").clip(
        max=np.flatnonzero(weights_M[order_M])[-1]
    )
    first = np.concatenate([[True], chosen[1:] != chosen[:-1]])
    draws = np.arange(count) - np.flatnonzero(first)[np.cumsum(first) - 1]
    shuffled = rng.permutation(count)
    return members_M[order_M[chosen]][shuffled], draws[shuffled]
