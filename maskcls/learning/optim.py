"""Optimisers and learning-rate schedules by name.

Optimisers are timm's. Schedules are our own: a plain function from the number of a step to a factor
of the highest rate. It keeps no state, so a resumed run needs none: it goes on with
``set_lr(optimizer, lr * factor(step))``. timm 1.0.31 has the same rates for three of the six only
(cosine, step, and linear as its polynomial of power 1): its restarts come after a whole number of
steps, its warm-up starts at a rate of its own, and it has no exponential one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import torch
from torch import nn

from maskcls.learning.losses import builder

Factor = Callable[[int], float]


def build_optimizer(
    name: str,
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    no_decay_norms: bool = False,
    layer_decay: float | None = None,
    head_lr: float = 1.0,
    **options: Any,
) -> torch.optim.Optimizer:
    """The optimiser ``name`` of ``OPTIMIZERS`` over the parameters of ``model``.

    ``weight_decay`` is decoupled from the gradient in ``adamw`` (Loshchilov and Hutter 2019) and
    added to it in the others; ``no_decay_norms`` leaves out norms and biases. ``layer_decay``
    multiplies the rate once for each layer below the head (Bao et al. 2022, BEiT); the layers are
    timm's groups (``model.group_matcher``). ``head_lr`` multiplies that of ``model.heads``.
    ``options`` are the optimiser's own; None takes its default.

    Raises ValueError for an unknown name and for an option that the optimiser does not take.
    """
    import timm.optim as timm_optim

    timms_name, own = builder("optimizer", OPTIMIZERS, name, options)()
    # Parameters alone get weight decay without exception; of a model timm makes groups.
    grouped = no_decay_norms or layer_decay is not None or head_lr != 1
    heads_apart = partial(
        _heads_apart, weight_decay=weight_decay, weight_decay_exclude_1d=no_decay_norms,
        layer_decay=layer_decay, head_lr=head_lr,
    )  # fmt: skip
    optimizer: torch.optim.Optimizer = timm_optim.create_optimizer_v2(  # type: ignore[attr-defined]
        model if grouped else model.parameters(),
        timms_name,
        lr,
        weight_decay,
        filter_bias_and_bn=no_decay_norms,
        layer_decay=layer_decay,
        param_group_fn=heads_apart if head_lr != 1 else None,
        **own,
    )
    return optimizer


def _heads_apart(
    model: Any, *, layer_decay: float | None, head_lr: float, **decay: Any
) -> list[dict[str, Any]]:
    """timm's parameter groups, each split into heads and backbone."""
    # timm.optim offers them too, but not to mypy.
    from timm.optim._param_groups import param_groups_layer_decay, param_groups_weight_decay

    groups = (
        param_groups_weight_decay(model, **decay)
        if layer_decay is None
        else param_groups_layer_decay(model, layer_decay=layer_decay, **decay)
    )
    of_heads = set(map(id, model.heads.parameters()))
    split = []
    for group in groups:
        for own, factor in ((False, 1.0), (True, head_lr)):
            chosen = [p for p in group["params"] if (id(p) in of_heads) is own]
            scale = factor * group.get("lr_scale", 1.0)
            if chosen:
                split.append({**group, "params": chosen, "lr_scale": scale})
    return split


def build_schedule(
    name: str,
    *,
    epochs: int,
    steps_per_epoch: int,
    warmup_epochs: float = 0.0,
    **options: Any,
) -> Factor:
    """The schedule ``name`` of ``SCHEDULES``: the number of a step, from 0, -> factor.

    A warm-up of w steps rises linearly, step s to (s + 1) / (w + 1); the schedule proper takes the
    steps that are left. ``options`` are the schedule's own; None takes its default.

    Raises ValueError for an unknown name, an option that the schedule does not take and a warm-up
    that leaves no step.
    """
    total, warmup = epochs * steps_per_epoch, round(warmup_epochs * steps_per_epoch)
    if not 0 <= warmup < total:
        raise ValueError(
            f"warmup_epochs: expected 0 to below the {epochs} epochs of the run, "
            f"got {warmup_epochs}"
        )
    factor = builder("schedule", SCHEDULES, name, options)(total - warmup, steps_per_epoch)
    return lambda step: (step + 1) / (warmup + 1) if step < warmup else factor(step - warmup)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group the learning rate ``lr``, times its own scale if it has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


_Choice = tuple[str, dict[str, Any]]


def _adam(timms_name: str, *, amsgrad: bool = False) -> _Choice:
    return timms_name, {"amsgrad": amsgrad}


def _rmsprop(*, alpha: float = 0.9, momentum: float = 0.9) -> _Choice:
    return "rmsprop", {"alpha": alpha, "momentum": momentum}


def _sgd(*, momentum: float = 0.9) -> _Choice:
    return "momentum", {"momentum": momentum}  # timm's ``sgd`` is Nesterov's


OPTIMIZERS: Final[dict[str, Callable[..., _Choice]]] = {
    "adam": partial(_adam, "adam"),
    "adamw": partial(_adam, "adamw"),
    "rmsprop": _rmsprop,
    "sgd": _sgd,
}
"""Name -> timm's name and the options that it gets, from the optimiser's own options."""


def _constant(steps: int, steps_per_epoch: int) -> Factor:
    return lambda step: 1.0


def _cosine(steps: int, steps_per_epoch: int, *, min_factor: float = 0.0) -> Factor:
    """Half a cosine from 1 to ``min_factor`` (Loshchilov and Hutter 2017, eq. 5)."""
    return _cosine_restarts(steps, steps_per_epoch, cycles=1, min_factor=min_factor)


def _cosine_restarts(
    steps: int, steps_per_epoch: int, *, cycles: int = 3, min_factor: float = 0.0
) -> Factor:
    """``cycles`` equal half cosines, each from 1 again (Loshchilov and Hutter 2017, eq. 5)."""

    def factor(step: int) -> float:
        progress = step * cycles % steps / steps
        return min_factor + (1 - min_factor) * (1 + math.cos(math.pi * progress)) / 2

    return factor


def _step(
    steps: int,
    steps_per_epoch: int,
    *,
    step_epochs: float | None = None,
    gamma: float = 0.1,
    min_factor: float = 0.0,
) -> Factor:
    """A drop to ``gamma`` of the rate every ``step_epochs``; by default a third of the run."""
    every = math.ceil(steps / 3) if step_epochs is None else round(step_epochs * steps_per_epoch)
    return lambda step: max(min_factor, gamma ** (step // max(1, every)))


def _exponential(
    steps: int, steps_per_epoch: int, *, gamma: float = 0.9, min_factor: float = 0.0
) -> Factor:
    """``gamma`` of the rate after each epoch, in equal ratios from step to step."""
    return lambda step: max(min_factor, gamma ** (step / steps_per_epoch))


def _linear(steps: int, steps_per_epoch: int, *, min_factor: float = 0.0) -> Factor:
    """A straight line from 1 to ``min_factor``, which it would reach one step after the last."""
    return lambda step: 1 - (1 - min_factor) * step / steps


SCHEDULES: Final[dict[str, Callable[..., Factor]]] = {
    "constant": _constant,
    "cosine": _cosine,
    "cosine_restarts": _cosine_restarts,
    "step": _step,
    "exponential": _exponential,
    "linear": _linear,
}
"""Name -> builder that takes the steps after the warm-up, the steps of an epoch and options."""
