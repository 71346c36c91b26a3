"""Ensembles: how several models' probabilities become one answer.

A target is what is voted on: the joint class or an attribute. A route is the models of one task
that answer it: the target's own task, the joint models by their marginal, the multi models by a
head. On training photos each route answers once, by the model that never saw the person;
on new photos by all its fold models. So an ensemble is fitted on [routes, N, K] and applied to
[models, N, K], with the route of each model beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from maskcls.labels import FloatArray, IntArray
from maskcls.scoring import offsets as decision_offsets
from maskcls.scoring.metrics import confusion, people_splits, scores
from maskcls.scoring.offsets import SMALLEST_PROBABILITY
from maskcls.scoring.selection import TIE, best_weights, greedy_weights

Parameters = dict[str, Any]


def hard_vote(probabilities_MNK: FloatArray, weights_M: npt.ArrayLike | None = None) -> IntArray:
    """Each model votes for its likeliest class: [models, N, K] -> classes [N].

    Ties go to the higher (weighted) mean probability, then to the lower class. Raises ValueError
    for probabilities that are not finite [M, N, K], or weights that are not one a model, none
    negative and some positive.
    """
    probabilities_MNK, shares_M = _checked(probabilities_MNK, weights_M)
    tied_NK = _leading(_vote_shares(probabilities_MNK, shares_M))
    mean_NK = _mean(probabilities_MNK, shares_M)
    return _leading(np.where(tied_NK, mean_NK, -np.inf)).argmax(axis=1)


def soft_vote(probabilities_MNK: FloatArray, weights_M: npt.ArrayLike | None = None) -> IntArray:
    """The class of the highest (weighted) mean probability: [models, N, K] -> classes [N].

    Ties go to the lower class. Raises what ``hard_vote`` raises.
    """
    return _leading(_mean(*_checked(probabilities_MNK, weights_M))).argmax(axis=1)


@dataclass(frozen=True)
class FittedVote:
    """An ensemble ready to vote: plain data, kept as ``dataclasses.asdict`` in a JSON file."""

    name: str
    """Its key in ``ENSEMBLES``."""
    routes: int
    """The number of routes it was fitted on."""
    num_classes: int
    parameters: Parameters
    """What it learned, as lists of numbers."""
    offsets: dict[str, Any] | None = None
    """``dataclasses.asdict`` of the ``offsets.FittedOffsets`` that were tried; None: none were."""

    @property
    def shift_K(self) -> FloatArray | None:
        """The decision offsets that the vote uses, [K]; None where it uses none."""
        used = self.offsets is not None and self.offsets["used"]
        return np.array(self.offsets["values"]) if self.offsets and used else None


def fit(
    name: str,
    probabilities_MNK: FloatArray,
    truth_N: npt.ArrayLike,
    people_N: npt.ArrayLike | None = None,
    *,
    offsets: bool = False,
) -> FittedVote:
    """Fit the ensemble ``name`` on out-of-fold probabilities [routes, N, K] and true classes [N].

    ``people_N``, the person of each photo, is needed by "greedy" and by ``offsets``, which tries
    decision offsets for macro F1 on top (see ``offsets``; not for "hard"). The same input gives
    the same vote. Raises ValueError for an unknown name and for arrays that do not fit together.
    """
    if name not in ENSEMBLES:
        raise ValueError(f"unknown ensemble {name!r}: expected one of {', '.join(ENSEMBLES)}")
    probabilities_MNK, _ = _checked(probabilities_MNK)
    routes, photos, num_classes = probabilities_MNK.shape
    truth = np.asarray(truth_N, np.int64)
    if truth.shape != (photos,) or not np.isin(truth, range(num_classes)).all():
        raise ValueError(
            f"expected a true class from 0 to {num_classes - 1} for each of {photos} photos, "
            f"got shape {truth.shape} with classes {np.unique(truth).tolist()}"
        )
    if people_N is None and (offsets or name == "greedy"):
        raise ValueError("expected the person of each photo: greedy selection and offsets need it")
    if offsets and name == "hard":
        raise ValueError("a hard vote has no probabilities that offsets could shift: vote softly")
    people = np.arange(photos) if people_N is None else np.asarray(people_N)
    if people.shape != truth.shape:
        raise ValueError(f"expected one person for each of {photos} photos, got {people.shape}")
    plain = FittedVote(
        name, routes, num_classes, ENSEMBLES[name].fit(probabilities_MNK, truth, people)
    )
    if not offsets:
        return plain
    _, voted_NK = apply(plain, probabilities_MNK)
    tried = decision_offsets.fit_if_clear(voted_NK, truth, people)
    return replace(plain, offsets=asdict(tried))


def apply(
    fitted: FittedVote, probabilities_MNK: FloatArray, route_M: npt.ArrayLike | None = None
) -> tuple[IntArray, FloatArray]:
    """Vote on new photos: [models, N, K] -> classes [N] and the ensemble's probabilities [N, K].

    ``route_M`` is the route (0, 1, ... as fitted) of each model; by default there is one model a
    route. The models of one route share its weight evenly. The probabilities of a hard vote are
    shares of the votes; where they tie, the classes are settled as in ``hard_vote``. Those of a
    vote with decision offsets are shifted by them.

    Raises ValueError where a route has no model, a model no known route or the number of classes is
    another than when fitted, and what ``hard_vote`` raises.
    """
    probabilities_MNK, _ = _checked(probabilities_MNK)
    models, _, num_classes = probabilities_MNK.shape
    if num_classes != fitted.num_classes:
        raise ValueError(
            f"the ensemble was fitted on {fitted.num_classes} classes, got {num_classes}"
        )
    routes = np.arange(models) if route_M is None else np.asarray(route_M, np.int64)
    if routes.shape != (models,) or set(routes.tolist()) != set(range(fitted.routes)):
        raise ValueError(
            f"the ensemble was fitted on routes 0 to {fitted.routes - 1}; expected the route of "
            f"each of {models} models, every route at least once, got {routes.tolist()}"
        )
    classes_N, voted_NK = ENSEMBLES[fitted.name].vote(fitted.parameters, probabilities_MNK, routes)
    if fitted.shift_K is None:
        return classes_N, voted_NK
    shifted_NK = decision_offsets.shifted(voted_NK, fitted.shift_K)
    return _leading(shifted_NK).argmax(axis=1), shifted_NK


def mean_probabilities(
    fitted: FittedVote, probabilities_MNK: FloatArray, route_M: npt.ArrayLike | None = None
) -> FloatArray:
    """How likely the ensemble takes each class to be, [models, N, K] -> [N, K].

    Those of ``apply``, but of a hard vote the mean probabilities of its models: shares of a few
    votes say little. The likeliest class may then be another than the voted one.
    """
    name = "soft" if fitted.name == "hard" else fitted.name
    return apply(replace(fitted, name=name), probabilities_MNK, route_M)[1]


def nested_score(
    name: str,
    probabilities_MNK: FloatArray,
    truth_N: npt.ArrayLike,
    people_N: npt.ArrayLike,
    *,
    seed: int,
    splits: int = 5,
    offsets: bool = False,
) -> tuple[dict[str, float], IntArray]:
    """The honest score of an ensemble that is itself fitted on out-of-fold probabilities.

    People are dealt into ``splits``; each split is voted on by an ensemble fitted on the others, so
    no one is scored by weights, members or offsets that their own photos chose. Takes [routes, N,
    K], true classes [N] and the person of each photo [N]; returns ``metrics.scores`` and the voted
    classes [N].

    Raises ValueError for arrays that do not fit together or fewer people than splits, and what
    ``fit`` raises.
    """
    probabilities_MNK, _ = _checked(probabilities_MNK)
    truth = np.asarray(truth_N, np.int64)
    people = np.asarray(people_N)
    if not probabilities_MNK.shape[1:2] == truth.shape == people.shape:
        raise ValueError(
            "expected one true class and one person for each photo, got shapes "
            f"{truth.shape} and {people.shape} for {probabilities_MNK.shape[1]} photos"
        )
    split_N = people_splits(people, splits, seed)
    predicted = np.empty_like(truth)
    for split in range(splits):
        held = split_N == split
        others = probabilities_MNK[:, ~held], truth[~held], people[~held]
        fitted = fit(name, *others, offsets=offsets)
        predicted[held], _ = apply(fitted, probabilities_MNK[:, held])
    return scores(confusion(truth, predicted, probabilities_MNK.shape[2])), predicted


def _checked(
    probabilities_MNK: FloatArray, weights_M: npt.ArrayLike | None = None
) -> tuple[FloatArray, FloatArray]:
    """Probabilities in float64, and weights scaled to a sum of 1 (equal ones by default)."""
    probabilities = np.asarray(probabilities_MNK, float)
    if probabilities.ndim != 3 or not len(probabilities) or not np.isfinite(probabilities).all():
        raise ValueError(
            "expected finite probabilities [models, photos, classes] of one or more models, "
            f"got shape {probabilities.shape}, {(~np.isfinite(probabilities)).sum()} not finite"
        )
    weights = np.ones(len(probabilities)) if weights_M is None else np.asarray(weights_M, float)
    if weights.shape != probabilities.shape[:1] or not (weights.min() >= 0 and weights.sum() > 0):
        raise ValueError(
            f"expected {len(probabilities)} weights, none negative and some positive, "
            f"got {weights.tolist()}"
        )
    return probabilities, weights / weights.sum()


def _mean(probabilities_MNK: FloatArray, weights_M: FloatArray) -> FloatArray:
    return np.einsum("m,mnk->nk", weights_M, probabilities_MNK)


def _vote_shares(probabilities_MNK: FloatArray, weights_M: FloatArray) -> FloatArray:
    num_classes = probabilities_MNK.shape[2]
    return _mean(np.eye(num_classes)[probabilities_MNK.argmax(axis=2)], weights_M)


def _leading(scores_NK: FloatArray) -> npt.NDArray[np.bool_]:
    """Where a class is the best of its photo or level with it."""
    return scores_NK >= scores_NK.max(axis=1, keepdims=True) - TIE


def _model_weights(parameters: Parameters, route_M: IntArray) -> FloatArray:
    return np.array(parameters["weights"])[route_M] / np.bincount(route_M)[route_M]


def _apply_hard(
    parameters: Parameters, probabilities_MNK: FloatArray, route_M: IntArray
) -> tuple[IntArray, FloatArray]:
    weights_M = _model_weights(parameters, route_M)
    return hard_vote(probabilities_MNK, weights_M), _vote_shares(probabilities_MNK, weights_M)


def _apply_soft(
    parameters: Parameters, probabilities_MNK: FloatArray, route_M: IntArray
) -> tuple[IntArray, FloatArray]:
    weights_M = _model_weights(parameters, route_M)
    return soft_vote(probabilities_MNK, weights_M), _mean(probabilities_MNK, weights_M)


def _apply_stacker(
    parameters: Parameters, probabilities_MNK: FloatArray, route_M: IntArray
) -> tuple[IntArray, FloatArray]:
    route_means_RNK = np.stack(
        [probabilities_MNK[route_M == route].mean(axis=0) for route in range(route_M.max() + 1)]
    )
    logits_NC = _log_features(route_means_RNK) @ np.array(parameters["coefficients"]).T
    logits_NC = logits_NC + np.array(parameters["intercepts"])
    # A softmax of NumPy's: a bundle is read without SciPy.
    odds_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True, initial=-np.inf))
    stacked_NK = np.zeros(probabilities_MNK.shape[1:])
    stacked_NK[:, parameters["classes"]] = odds_NC / odds_NC.sum(axis=1, keepdims=True)
    return _leading(stacked_NK).argmax(axis=1), stacked_NK


def _fit_equal_weights(
    probabilities_MNK: FloatArray, truth_N: IntArray, people_N: npt.NDArray
) -> Parameters:
    return {"weights": [1 / len(probabilities_MNK)] * len(probabilities_MNK)}


def _fit_weights(
    probabilities_MNK: FloatArray, truth_N: IntArray, people_N: npt.NDArray
) -> Parameters:
    return {"weights": best_weights(probabilities_MNK, truth_N).tolist()}


def _fit_greedy(
    probabilities_MNK: FloatArray, truth_N: IntArray, people_N: npt.NDArray
) -> Parameters:
    return {"weights": greedy_weights(probabilities_MNK, truth_N, people_N).tolist()}


def _fit_stacker(
    probabilities_MNK: FloatArray, truth_N: IntArray, people_N: npt.NDArray
) -> Parameters:
    """Multinomial logistic regression on the routes' log-probabilities, for the classes seen."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=1000)
    model.fit(_log_features(probabilities_MNK), truth_N)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn gives one logit then; the first class's is 0
        coefficients = np.vstack([np.zeros_like(coefficients), coefficients])
        intercepts = np.append(0.0, intercepts)
    return {
        "classes": model.classes_.tolist(),
        "coefficients": coefficients.tolist(),
        "intercepts": intercepts.tolist(),
    }


def _log_features(probabilities_MNK: FloatArray) -> FloatArray:
    """[M, N, K] -> log-probabilities side by side, [N, M * K]."""
    logs_MNK = np.log(np.maximum(probabilities_MNK, SMALLEST_PROBABILITY))
    return np.concatenate(list(logs_MNK), axis=1)


class Ensemble(NamedTuple):
    """How an ensemble learns from out-of-fold probabilities, and how it votes on new ones."""

    fit: Callable[[FloatArray, IntArray, npt.NDArray], Parameters]
    vote: Callable[[Parameters, FloatArray, IntArray], tuple[IntArray, FloatArray]]


ENSEMBLES: Final[dict[str, Ensemble]] = {
    "hard": Ensemble(_fit_equal_weights, _apply_hard),
    "soft": Ensemble(_fit_equal_weights, _apply_soft),
    "weighted": Ensemble(_fit_weights, _apply_soft),
    "greedy": Ensemble(_fit_greedy, _apply_soft),
    "stacking": Ensemble(_fit_stacker, _apply_stacker),
}
