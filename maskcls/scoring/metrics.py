"""Classification scores, derived once, at the end, from confusion matrices that add up.

A confusion matrix is a sum over photos: those of batches, workers and folds merge by ``+``. An F1
does not: the mean of the F1 of batches is not the F1 of the whole.

The tests hold every score to scikit-learn's. Its ``metrics`` is not used here: importing it takes
1.5 s of CPU and 58 MB in every driver and worker, for the four lines of ``per_class``, which the
bootstrap needs for stacks of matrices anyway (.2 s for 1,000 draws; one call of scikit-learn each
takes 3.7 s).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from maskcls.labels import FloatArray, IntArray


def confusion(truth_N: npt.ArrayLike, predicted_N: npt.ArrayLike, num_classes: int) -> IntArray:
    """True and predicted classes [N] -> photos counted in [K, K], rows truth, columns predicted.

    Raises ValueError for arrays of different shapes or classes outside 0 to ``num_classes - 1``.
    """
    truth, predicted = _classes(truth_N, predicted_N, num_classes)
    cells = np.bincount(truth * num_classes + predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def accuracy(cm_KK: IntArray) -> float:
    """The share of photos on the diagonal. Raises ValueError for a matrix without photos."""
    _require_photos(cm_KK)
    return float(np.trace(cm_KK) / cm_KK.sum())


def per_class(cm_KK: npt.NDArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Precision, recall and F1 of each class, [K] each; [..., K] for a stack [..., K, K].

    0 where nothing of the class was predicted (precision), nothing was there (recall) or both (F1).
    """
    hits = np.diagonal(cm_KK, axis1=-2, axis2=-1)
    there, predicted = cm_KK.sum(axis=-1), cm_KK.sum(axis=-2)
    return _ratio(hits, predicted), _ratio(hits, there), _ratio(2 * hits, there + predicted)


def macro_f1(cm_KK: IntArray) -> float:
    """The mean F1 of the classes that occur in the truth or among the predictions.

    The same as scikit-learn's ``f1_score(truth, predicted, average="macro")``: a class that nobody
    has and nobody predicts counts neither as 0 nor as 1. Raises ValueError for a matrix without
    photos.
    """
    _require_photos(cm_KK)
    return float(macro_f1s(cm_KK))


def macro_f1s(cm_DKK: npt.NDArray) -> FloatArray:
    """``macro_f1`` of each matrix in a stack [..., K, K]; none may be without photos."""
    return _macro(per_class(cm_DKK)[2], cm_DKK)


def scores(cm_KK: IntArray) -> dict[str, float]:
    """``macro_f1``, ``accuracy``, ``macro_precision`` and ``macro_recall`` of a confusion matrix.

    Macro means are over the classes that occur, as in ``macro_f1``. Raises ValueError for a matrix
    without photos.
    """
    precision_K, recall_K, _ = per_class(cm_KK)
    return {
        "macro_f1": macro_f1(cm_KK),
        "accuracy": accuracy(cm_KK),
        "macro_precision": float(_macro(precision_K, cm_KK)),
        "macro_recall": float(_macro(recall_K, cm_KK)),
    }


def people_splits(people_N: npt.ArrayLike, splits: int, seed: int) -> IntArray:
    """The split [N], 0 to ``splits - 1``, of each photo: people are dealt out, not photos.

    Raises ValueError for fewer than two splits, and where there are fewer people than splits.
    """
    people, person_N = np.unique(np.asarray(people_N), return_inverse=True)
    if not 2 <= splits <= len(people):
        raise ValueError(f"expected 2 to {len(people)} splits (one person each), got {splits}")
    split_N: IntArray = (np.random.default_rng(seed).permutation(len(people)) % splits)[person_N]
    return split_N


def nested_selection_score(
    predicted_CN: IntArray,
    truth_N: IntArray,
    people_N: npt.ArrayLike,
    num_classes: int,
    *,
    seed: int,
    splits: int,
) -> float:
    """Macro F1 of the selected candidate on people who had no part in the selection.

    The best of many candidates owes its score partly to luck. So people are dealt into ``splits``;
    for each split, the candidate that is best on all others predicts it (nested cross-validation),
    and all these predictions are scored at once. Takes the classes that each candidate predicts
    [C, N], true classes [N] and the person of each photo [N]. Raises what ``people_splits`` raises.
    """
    split_N = people_splits(people_N, splits, seed)
    answers_N = np.empty_like(truth_N)
    for split in range(splits):
        held = split_N == split
        reached_C = [
            macro_f1(confusion(truth_N[~held], predicted_N[~held], num_classes))
            for predicted_N in predicted_CN
        ]
        answers_N[held] = predicted_CN[int(np.argmax(reached_C)), held]
    return macro_f1(confusion(truth_N, answers_N, num_classes))


def bootstrap_interval(
    truth_N: npt.ArrayLike,
    predicted_N: npt.ArrayLike,
    people_N: npt.ArrayLike,
    num_classes: int,
    *,
    seed: int,
    draws: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """The percentile interval of macro F1 over resampled people: (low, high).

    People are drawn, not photos: the photos of one person succeed and fail together, so an interval
    over photos would be too narrow (the cluster bootstrap, Davison and Hinkley 1997, section 3.8).

    Raises what ``confusion`` raises, and ValueError for no photos or another number of people
    entries than photos.
    """
    f1_D = _resampled(truth_N, predicted_N, people_N, num_classes, seed=seed, draws=draws)
    return _interval(f1_D, level)


def bootstrap_difference(
    truth_N: npt.ArrayLike,
    predicted_N: npt.ArrayLike,
    other_N: npt.ArrayLike,
    people_N: npt.ArrayLike,
    num_classes: int,
    *,
    seed: int,
    draws: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """The percentile interval of the macro F1 of ``other_N`` minus that of ``predicted_N``.

    Paired: both answered the same photos, and each draw of people scores both. What makes all
    answers of a draw good or bad cancels out, so the interval is narrower than those of the two
    scores would suggest. Raises what ``bootstrap_interval`` raises.
    """
    first_D, second_D = (
        _resampled(truth_N, answers, people_N, num_classes, seed=seed, draws=draws)
        for answers in (predicted_N, other_N)
    )
    return _interval(second_D - first_D, level)


def share_interval(
    right_N: npt.ArrayLike,
    people_N: npt.ArrayLike,
    *,
    seed: int,
    draws: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """The percentile interval of the share of right answers [N] over resampled people."""
    people, person_N = np.unique(np.asarray(people_N), return_inverse=True)
    right_P = np.bincount(person_N, np.asarray(right_N, float), minlength=len(people))
    drawn_DP = _draw(len(people), draws, seed)
    share_D = (drawn_DP @ right_P) / (drawn_DP @ np.bincount(person_N).astype(float))
    return _interval(share_D, level)


def _resampled(
    truth_N: npt.ArrayLike,
    predicted_N: npt.ArrayLike,
    people_N: npt.ArrayLike,
    num_classes: int,
    *,
    seed: int,
    draws: int,
) -> FloatArray:
    """Macro F1 in each of ``draws`` samples of people; the same people for the same seed."""
    truth, predicted = _classes(truth_N, predicted_N, num_classes)
    people, person_N = np.unique(np.asarray(people_N), return_inverse=True)
    if person_N.shape != truth.shape or not len(truth):
        raise ValueError(
            "expected one or more photos with one person each, "
            f"got {len(truth)} photos and {len(person_N)} people entries"
        )
    cells = num_classes**2
    cell_N = (person_N * num_classes + truth) * num_classes + predicted
    counts_PC = np.bincount(cell_N, minlength=len(people) * cells).reshape(len(people), cells)
    # Matrices of people add up, so a product makes every draw.
    cm_DKK = (_draw(len(people), draws, seed) @ counts_PC.astype(float)).reshape(
        draws, num_classes, num_classes
    )
    return macro_f1s(cm_DKK)


def _draw(people: int, draws: int, seed: int) -> FloatArray:
    """How often each person is drawn, [draws, people].

    In floats, which BLAS multiplies; counts stay exact far beyond any data set.
    """
    shares = np.full(people, 1 / people)
    return np.random.default_rng(seed).multinomial(people, shares, size=draws).astype(float)


def _interval(values_D: FloatArray, level: float) -> tuple[float, float]:
    low, high = np.quantile(values_D, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _classes(
    truth_N: npt.ArrayLike, predicted_N: npt.ArrayLike, num_classes: int
) -> tuple[IntArray, IntArray]:
    truth, predicted = np.asarray(truth_N, np.int64), np.asarray(predicted_N, np.int64)
    if truth.ndim != 1 or truth.shape != predicted.shape:
        raise ValueError(
            "expected true and predicted classes as two rows of the same length, "
            f"got shapes {truth.shape} and {predicted.shape}"
        )
    for name, values in (("true", truth), ("predicted", predicted)):
        if values.size and (values.min() < 0 or values.max() >= num_classes):
            raise ValueError(
                f"{name} classes go from 0 to {num_classes - 1}, "
                f"got {values.min()} to {values.max()}"
            )
    return truth, predicted


def _macro(values_K: FloatArray, cm_KK: npt.NDArray) -> FloatArray:
    """The mean over the classes that occur; values of the others must be 0."""
    occurs = (cm_KK.sum(axis=-1) + cm_KK.sum(axis=-2)) > 0
    return values_K.sum(axis=-1) / occurs.sum(axis=-1)


def _ratio(part: npt.NDArray, whole: npt.NDArray) -> FloatArray:
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=whole > 0)


def _require_photos(cm_KK: IntArray) -> None:
    if not cm_KK.sum():
        raise ValueError("no photos to score: the confusion matrix is all zeros")
