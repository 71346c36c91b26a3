"""What learns: a model with its loss, optimiser and schedule, one step at a time.

Knows nothing of files, epochs or Ray; a notebook can drive it as well as a Train worker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from maskcls.augment import mixing
from maskcls.config.recipe import Recipe
from maskcls.config.types import Section
from maskcls.labels import Task
from maskcls.learning import backbones, heads, optim, predict
from maskcls.learning.predict import Normalize, Predictor


class Learner:
    """One model in training.

    ``labels`` are the columns of the training table (class columns and ``age`` in years), [N]
    each; a head learns nothing from a photo whose label is ``MISSING``. With ``world`` above 1 the
    process group must be up: gradients are averaged over it.
    The caller seeds torch before, so that every process starts from the same weights.
    """

    def __init__(
        self,
        task: Task,
        recipe: Recipe,
        labels: Mapping[str, npt.NDArray[np.int64]],
        *,
        steps_per_epoch: int,
        device: torch.device,
        seed: int,
        world: int = 1,
    ) -> None:
        self.task, self.recipe, self.device = task, recipe, device
        self._seed, self._world = seed, world
        self._heads = heads.build(task, recipe)
        model = backbones.build(
            recipe.model.name,
            heads.sizes(task, recipe),
            head=recipe.model.head,
            weights=recipe.model.weights or ("hub" if recipe.model.pretrained else None),
            drop_rate=recipe.model.drop_rate,
            drop_path_rate=recipe.model.drop_path_rate,
            image_size=recipe.image.size,
        )
        mean, std = recipe.image.mean or model.mean, recipe.image.std or model.std
        model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if world > 1 and device.type == "cuda":
            model = backbones.with_synchronized_batch_norm(model)
        self.model = model
        self._replica = self._shared()
        self._ema = _ema(model, recipe.train.ema)
        self.normalize = Normalize(mean, std, device)
        self._compute_in(predict.precision_dtype(recipe.train.precision, device))
        self._optimizer = optim.build_optimizer(
            model=model, lr=recipe.train.lr, **options(recipe.optimizer)
        )
        self._factor = optim.build_schedule(
            epochs=recipe.train.epochs, steps_per_epoch=steps_per_epoch, **options(recipe.schedule)
        )
        self._known = {
            name: torch.from_numpy(heads.known(name, labels, recipe)) for name in self._heads
        }
        # Any class will do where none is known: it never reaches a loss.
        some = {name: classes_N.clip(0) for name, classes_N in labels.items()}
        self._targets = {name: head.targets(some) for name, head in self._heads.items()}
        self._losses = {
            name: head.loss(labels, options(recipe.loss)) for name, head in self._heads.items()
        }
        self._mix, self._partners_N = _mixing(recipe, labels)

    @property
    def lr(self) -> float:
        """The highest learning rate of the last step."""
        return max(float(group["lr"]) for group in self._optimizer.param_groups)

    def follow(self, factor: optim.Factor) -> None:
        """From here on the rate of a step is ``train.lr`` times this factor of its number."""
        self._factor = factor

    def start_epoch(self, epoch: int, rank: int = 0) -> None:
        """Seed what a step draws (dropout, stochastic depth), so that a resumed epoch repeats, and
        freeze what does not learn in this epoch. All processes of a job must call it."""
        torch.manual_seed(_seed_of(self._seed, epoch, rank))
        self._replica.train()
        of_train = self.recipe.train
        if self.model.freeze(None if epoch <= of_train.freeze_epochs else of_train.freeze_layers):
            self._replica = self._shared()  # it waits for the gradients of what learns

    def step(
        self,
        images_BHWC: npt.NDArray[np.uint8],
        items_B: npt.NDArray[np.int64],
        *,
        epoch: int,
        number: int,
    ) -> torch.Tensor:
        """One optimiser step; returns the loss of the batch over all workers, detached, on the
        device.

        ``number`` counts steps over the whole job from 0. Shares of the workers may differ in
        size: each photo weighs the same (see ``losses``).
        """
        optim.set_lr(self._optimizer, self.recipe.train.lr * self._factor(number))
        generator = torch.Generator().manual_seed(_seed_of(self._seed, epoch, number))
        partners_B = None if self._partners_N is None else self._partners_N[items_B]
        inputs_BCHW, partner_B, share = self._mix(
            self.normalize(images_BHWC), generator, partners_B
        )
        with predict.autocast(self.dtype, self.device):
            outputs = self._replica(inputs_BCHW)
        index_B = torch.from_numpy(items_B.copy())
        losses_of_heads = [
            self._loss(name, outputs[name], index_B, partner_B, share) for name in self._losses
        ]
        loss = torch.stack(losses_of_heads).sum()
        # Its gradients add up over the workers, DistributedDataParallel takes their mean.
        self._scaler.scale(loss * self._world).backward()
        self._clip()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        if self._ema is not None:
            self._ema.update(self.model, step=number + 1)
        return loss.detach()

    @property
    def averaged(self) -> torch.nn.Module:
        """The model to validate, keep and predict with: the moving average, where there is one."""
        return self.model if self._ema is None else self._ema.module

    def predictor(self, views: Sequence[str] = ("plain",)) -> Predictor:
        """``averaged`` as it stands, to validate with. All processes of a job must call it."""
        if self._world > 1:
            # Each process kept its own batch-norm statistics: validate on one and the same model.
            for model in dict.fromkeys((self.model, self.averaged)):
                for buffer in model.buffers():
                    dist.broadcast(buffer, src=0)
        return Predictor(
            self.averaged,
            self.normalize,
            self.dtype,
            self.recipe.train.eval_batch_size,
            self._heads,
            views,
        )

    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on."""
        averaged = {} if self._ema is None else {"averaged": self.averaged.state_dict()}
        return {
            "model": self.model.state_dict(),
            **averaged,
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a ``state``, also to its precision, whatever this device would choose."""
        self._compute_in(getattr(torch, state["dtype"]))
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state.get("averaged", state["model"]))
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])

    def _compute_in(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=dtype == torch.float16)

    def _shared(self) -> torch.nn.Module:
        """The model whose gradients are the mean over the workers."""
        if self._world == 1:
            return self.model
        return torch.nn.parallel.DistributedDataParallel(self.model)

    def _loss(
        self,
        head: str,
        outputs_BD: torch.Tensor,
        index_B: torch.Tensor,
        partner_B: torch.Tensor,
        share: float,
    ) -> torch.Tensor:
        """The loss of a head over the photos that have its label; a mixed one must have two.

        Which these are is known on the CPU, so that nothing waits for the device.
        """
        targets = self._mixed(self._targets[head][index_B], partner_B, share)
        known_B = self._known[head][index_B]
        if share != 1.0:
            known_B = known_B & known_B[partner_B]
        if not known_B.all():
            kept = known_B.nonzero().squeeze(1).to(self.device)
            outputs_BD, targets = outputs_BD.index_select(0, kept), targets.index_select(0, kept)
        return self._losses[head](outputs_BD, targets)

    def _mixed(self, targets: torch.Tensor, partner_B: torch.Tensor, share: float) -> torch.Tensor:
        """The targets of a batch, [B, ...], mixed as its photos are."""
        targets = targets.to(self.device, non_blocking=True)
        if share == 1.0:
            return targets
        return mixing.mix_targets(targets, partner_B.to(self.device), share)

    def _clip(self) -> None:
        if self.recipe.train.clip_grad_norm is not None:
            self._scaler.unscale_(self._optimizer)
            torch.nn.utils.clip_grad_norm_(
                self.model.parameters(), self.recipe.train.clip_grad_norm
            )


def options(section: Section) -> dict[str, Any]:
    """A section as keyword arguments: what is null is left to the builder's own default."""
    return {
        name: value
        for name, value in section
        if value is not None and not isinstance(value, Section)
    }


def _ema(model: torch.nn.Module, decay: float | None) -> Any:
    """timm's moving average of all weights and batch-norm statistics, or None.

    Step n keeps ``1 - n^(-2/3)`` of it, at most ``decay``: the first weights say little.
    """
    if decay is None:
        return None
    from timm.utils.model_ema import ModelEmaV3

    return ModelEmaV3(model, decay=decay, use_warmup=True)


def _mixing(
    recipe: Recipe, labels: heads.Labels
) -> tuple[mixing.Mixer, npt.NDArray[np.bool_] | None]:
    """What mixes a batch, and which photos of the training table may be partners."""
    chosen = options(recipe.augment.mix)
    groups = [group.model_dump() for group in chosen.pop("partners", [])]
    partners_N = mixing.may_be_partners(groups, labels["age"], labels["gender"])
    return mixing.build(**chosen), partners_N


def _seed_of(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
