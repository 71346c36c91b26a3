"""Training losses by name, each the mean over a batch of logits [B, K] and targets.

A batch without photos, as where none has a label, has the loss 0 and no gradient.
With several workers (where torch's process group is up) the batch is that of all workers together.
Every worker gets the same value; its gradient is that of the worker's own photos, so gradients add
up over the workers. All workers must call a loss together.

Targets are classes (integers [B]) or probabilities (float [B, K], rows that sum to 1, as batch
mixing and smoothing make them). One-hot probabilities give the same loss as classes. Everything is
computed in float32, whatever the precision of the logits. ``age_regression`` is the exception: one
output [B, 1], ages in years [B].
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import log_softmax, one_hot, pad

from maskcls.labels import AGE_BAND_STARTS, FloatArray

Loss = Callable[[Tensor, Tensor], Tensor]
T = TypeVar("T")

AGE_CENTRE_YEARS: Final = 40.0
AGE_SCALE_YEARS: Final = 20.0
"""A regression head puts out (age - centre) / scale: ages from 20 to 60 become -1 to 1."""

MAX_SIGMA_YEARS: Final = 6.0
"""Beyond it the middle band is too narrow to be the likeliest for every age within it."""


def build(
    name: str, *, num_classes: int, class_counts: Sequence[int] | None = None, **options: Any
) -> Loss:
    """The loss ``name`` of ``LOSSES``, called as ``loss(logits_BK, targets)``: a scalar mean.

    ``class_counts`` are the photos of each class in the training fold, read by
    ``class_balanced_focal`` and ``logit_adjusted`` only. ``options`` are the loss's own; None takes
    its default.

    Raises ValueError for an unknown name, an option that the loss does not take, missing counts,
    and weights or counts that are not one a class.
    """
    return builder("loss", LOSSES, name, options)(num_classes, class_counts)


def builder(
    kind: str, table: Mapping[str, Callable[..., T]], name: str, options: Mapping[str, Any]
) -> Callable[..., T]:
    """The builder ``name`` of ``table`` with the options that are not None filled in.

    Raises ValueError, with the nearest name, for a name that is not in the table, and for options
    that are not keyword arguments of the builder.
    """
    if name not in table:
        close = difflib.get_close_matches(name, table, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(table)}"
        raise ValueError(f"unknown {kind} {name!r}: {hint}")
    parameters = inspect.signature(table[name]).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    given = {option: value for option, value in options.items() if value is not None}
    if unused := [option for option in given if option not in known]:
        raise ValueError(
            f"{kind} {name!r} takes {', '.join(known) or 'no options'}, "
            f"got {', '.join(unused)}: leave that unset or choose another {kind}"
        )
    return partial(table[name], **given)


def focal_loss(
    logits_BK: Tensor,
    targets: Tensor,
    *,
    weights_K: Tensor | None = None,
    gamma: float = 2.0,
    smoothing: float = 0.0,
) -> Tensor:
    """Focal loss ``-sum_k w_k q_k (1 - p_k)^gamma log p_k`` (Lin et al. 2017, eq. 5).

    q is the target smoothed to ``(1 - smoothing) q + smoothing / K`` (Szegedy et al. 2016, section
    7); gamma 0 makes it cross entropy. With weights the mean is a weighted one: the sum over the
    batch divided by the sum of the weights of its unsmoothed targets, which for classes is what
    ``torch.nn.functional.cross_entropy`` does.

    Raises ValueError for targets that are neither classes [B] nor probabilities [B, K].
    """
    target_BK = _probabilities(logits_BK, targets)
    logp_BK = log_softmax(logits_BK.float(), dim=1)
    # Where p is 1, the slope of (1 - p)^gamma is infinite for gamma below 1; a floor makes it 0.
    miss_BK = (-torch.expm1(logp_BK)).clamp_min(torch.finfo(torch.float32).tiny)
    weights = 1.0 if weights_K is None else weights_K.to(logits_BK.device)
    smooth_BK = (1 - smoothing) * target_BK + smoothing / logits_BK.shape[1]
    losses_BK = -weights * smooth_BK * miss_BK**gamma * logp_BK
    total, mass = sums_over_workers(losses_BK.sum(), (weights * target_BK).sum())
    return _mean(total, mass)


def soft_f1_loss(logits_BK: Tensor, targets: Tensor) -> Tensor:
    """One minus the macro F1 of expected counts, ``2 tp / (predicted + there)`` a class.

    Counts are sums of probabilities over the batch, so the score has a gradient (Pastor-Pellicer et
    al. 2013). The mean is over the classes that the batch holds: the F1 of any other is 0 and
    without gradient, and its false positives already cost the classes that they come from.

    Raises what ``focal_loss`` raises.
    """
    target_BK = _probabilities(logits_BK, targets)
    probabilities_BK = logits_BK.float().softmax(dim=1)
    right_K, predicted_K, there_K = sums_over_workers(
        (probabilities_BK * target_BK).sum(dim=0), probabilities_BK.sum(dim=0), target_BK.sum(dim=0)
    )
    # The floor only keeps 0 / 0 from absent classes; any present one has far more mass.
    whole_K = (predicted_K + there_K).clamp_min(torch.finfo(torch.float32).tiny)
    f1_K = 2 * right_K / whole_K
    present = (there_K > 0).sum()
    return (1 - f1_K.sum() / present.clamp_min(1)) * (present > 0)


def age_regression_loss(output_B1: Tensor, ages_B: Tensor) -> Tensor:
    """Mean squared error of age in units of ``AGE_SCALE_YEARS``: below 1 before training.

    In years it would start in the hundreds, and its gradients with it. Raises ValueError unless
    outputs are [B, 1] and ages [B].
    """
    if output_B1.shape != (*ages_B.shape, 1) or ages_B.ndim != 1:
        raise ValueError(
            "age_regression expects outputs [B, 1] and ages in years [B], "
            f"got {tuple(output_B1.shape)} and {tuple(ages_B.shape)}"
        )
    wanted_B = (ages_B.float() - AGE_CENTRE_YEARS) / AGE_SCALE_YEARS
    squares_B = (output_B1.squeeze(1).float() - wanted_B).square()
    total, photos = sums_over_workers(squares_B.sum(), squares_B.new_tensor(len(squares_B)))
    return _mean(total, photos)


def age_from_output(output_B1: Tensor) -> Tensor:
    """Outputs [B, 1] of a head trained with ``age_regression`` -> ages in years, float32 [B]."""
    return output_B1.squeeze(1).float() * AGE_SCALE_YEARS + AGE_CENTRE_YEARS


def age_band_probabilities(years_B: Tensor, sigma_years: float = 5.0) -> Tensor:
    """Ages in years [B] -> probabilities of the three age bands, float32 [B, 3].

    The mass of a Gaussian of ``sigma_years`` around each age that lies in each band. A millionth
    goes to the band of the age itself, so that the likeliest band is always that one, also at 30
    and 60, where two bands would be level. In float32: onnxruntime has no error function of
    float64. Raises ValueError for a sigma outside 0 to 6 years.
    """
    if not 0 < sigma_years <= MAX_SIGMA_YEARS:
        raise ValueError(f"sigma_years: expected above 0 to {MAX_SIGMA_YEARS}, got {sigma_years}")
    years_B = years_B.float()
    starts_2 = torch.tensor(AGE_BAND_STARTS, device=years_B.device)
    below_B2 = torch.special.ndtr((starts_2 - years_B[:, None]) / sigma_years)
    edges_B4 = pad(pad(below_B2, (1, 0), value=0.0), (0, 1), value=1.0)
    own_B3 = one_hot(torch.bucketize(years_B, starts_2, right=True), len(starts_2) + 1)
    return torch.lerp(edges_B4.diff(dim=1), own_B3.float(), 1e-6)


def class_balanced_weights(class_counts: Sequence[int], beta: float = 0.999) -> FloatArray:
    """Photos of each class -> weights ``(1 - beta) / (1 - beta^n)`` scaled to a mean of 1, [K].

    The inverse of the effective number of samples (Cui et al. 2019, eq. 4). A class without photos
    weighs as one with a single photo. Raises ValueError for negative counts and a beta outside
    [0, 1).
    """
    counts_K = np.asarray(class_counts, float)
    if not 0 <= beta < 1:
        raise ValueError(f"beta: expected 0 to below 1, got {beta}")
    if counts_K.ndim != 1 or not (counts_K >= 0).all():
        raise ValueError(f"class_counts: expected one count of 0 or more a class, got {counts_K}")
    weights_K = (1 - beta) / (1 - beta ** np.maximum(counts_K, 1))
    return weights_K / weights_K.mean()


def logit_adjustment(class_counts: Sequence[int], tau: float = 1.0) -> Tensor:
    """Photos of each class -> ``tau log prior``, float32 [K] (Menon et al. 2021, eq. 10).

    Added to logits in training only, it makes a model expect each class as often as it comes, so
    that without it all classes are treated alike. A class without photos counts as one with a
    single photo. Raises ValueError for negative counts and a negative ``tau``.
    """
    counts_K = np.asarray(class_counts, float)
    if tau < 0 or counts_K.ndim != 1 or not (counts_K >= 0).all():
        raise ValueError(
            f"expected counts of 0 or more and tau of 0 or more, got {counts_K}, {tau}"
        )
    shown_K = np.maximum(counts_K, 1)
    return torch.tensor(tau * np.log(shown_K / shown_K.sum()), dtype=torch.float32)


def _cross_entropy(
    num_classes: int, _counts: object, *, class_weights: Sequence[float] | None = None
) -> Loss:
    return partial(focal_loss, weights_K=_weights(class_weights, num_classes), gamma=0.0)


def _label_smoothing(
    num_classes: int,
    _counts: object,
    *,
    smoothing: float = 0.1,
    class_weights: Sequence[float] | None = None,
) -> Loss:
    return _focal_smoothing(
        num_classes, _counts, gamma=0.0, smoothing=smoothing, class_weights=class_weights
    )


def _focal(
    num_classes: int,
    _counts: object,
    *,
    gamma: float = 2.0,
    class_weights: Sequence[float] | None = None,
) -> Loss:
    return partial(focal_loss, weights_K=_weights(class_weights, num_classes), gamma=gamma)


def _focal_smoothing(
    num_classes: int,
    _counts: object,
    *,
    gamma: float = 2.0,
    smoothing: float = 0.1,
    class_weights: Sequence[float] | None = None,
) -> Loss:
    weights_K = _weights(class_weights, num_classes)
    return partial(focal_loss, weights_K=weights_K, gamma=gamma, smoothing=smoothing)


def _class_balanced_focal(
    num_classes: int,
    class_counts: Sequence[int] | None,
    *,
    gamma: float = 2.0,
    beta: float = 0.999,
) -> Loss:
    counts = _needed("class_balanced_focal", num_classes, class_counts)
    weights_K = _weights(class_balanced_weights(counts, beta).tolist(), num_classes)
    return partial(focal_loss, weights_K=weights_K, gamma=gamma)


def _logit_adjusted(
    num_classes: int, class_counts: Sequence[int] | None, *, tau: float = 1.0
) -> Loss:
    shift_K = logit_adjustment(_needed("logit_adjusted", num_classes, class_counts), tau)

    def loss(logits_BK: Tensor, targets: Tensor) -> Tensor:
        return focal_loss(logits_BK.float() + shift_K.to(logits_BK.device), targets, gamma=0.0)

    return loss


def _needed(loss: str, num_classes: int, class_counts: Sequence[int] | None) -> Sequence[int]:
    if class_counts is None or len(class_counts) != num_classes:
        raise ValueError(
            f"loss {loss!r} needs class_counts, the photos of each of the {num_classes} classes "
            f"in the training fold, got {class_counts}"
        )
    return class_counts


LOSSES: Final[dict[str, Callable[..., Loss]]] = {
    "cross_entropy": _cross_entropy,
    "label_smoothing": _label_smoothing,
    "focal": _focal,
    "focal_smoothing": _focal_smoothing,
    "soft_f1": lambda _num_classes, _counts: soft_f1_loss,
    "class_balanced_focal": _class_balanced_focal,
    "logit_adjusted": _logit_adjusted,
    "age_regression": lambda _num_classes, _counts: age_regression_loss,
}
"""Name -> builder that takes the number of classes, their counts and the loss's own options."""


class _SumOverWorkers(torch.autograd.Function):
    """Adds up over the workers; the gradient is handed on as it is."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def sums_over_workers(*own: Tensor) -> Sequence[Tensor]:
    """Each sum, of one shape, over the workers of a job, in one exchange; as it is without.

    A gradient is that of the worker's own part.
    """
    if not dist.is_initialized():
        return own
    total: Tensor = _SumOverWorkers.apply(torch.stack(own))
    return total.unbind()


def _mean(total: Tensor, mass: Tensor) -> Tensor:
    """Their ratio; 0 where no photo of the batch has a label."""
    return total / mass.clamp_min(torch.finfo(torch.float32).tiny)


def _weights(class_weights: Sequence[float] | None, num_classes: int) -> Tensor | None:
    if class_weights is None:
        return None
    weights_K = torch.tensor(class_weights, dtype=torch.float32)
    if weights_K.shape != (num_classes,) or not (weights_K.isfinite() & (weights_K > 0)).all():
        raise ValueError(
            f"expected {num_classes} class weights above 0, one a class, got {list(class_weights)}"
        )
    return weights_K


def _probabilities(logits_BK: Tensor, targets: Tensor) -> Tensor:
    """Classes [B] or probabilities [B, K] -> probabilities, float32 [B, K]."""
    if targets.shape == logits_BK.shape[:1] and not targets.is_floating_point():
        return one_hot(targets.long(), logits_BK.shape[1]).float()
    if targets.shape == logits_BK.shape:
        return targets.float()
    raise ValueError(
        "expected logits [B, K] with integer classes [B] or probabilities [B, K], "
        f"got logits {tuple(logits_BK.shape)} and {targets.dtype} targets {tuple(targets.shape)}"
    )
