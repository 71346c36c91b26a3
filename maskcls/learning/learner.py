"""What learns: a model with its loss, optimiser and schedule, one step at a time.

Knows nothing of files, epochs or Ray; a notebook can drive it as well as a Train worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch.nn.functional import one_hot

from maskcls.augment import mixing
from maskcls.config.recipe import Recipe
from maskcls.config.types import Section
from maskcls.labels import HEADS, Task
from maskcls.learning import backbones, losses, optim, predict
from maskcls.learning.predict import Normalize, Predictor

LABEL_COLUMNS = {"mask": "mask", "gender": "gender", "age": "age_band", "joint": "joint"}
"""Head -> the column of a training table that holds its classes."""


class Learner:
    """One model in training.

    ``labels`` are the columns of the training table (class columns and ``age`` in years), [N]
    each. With ``world`` above 1 the process group must be up: gradients are averaged over it.
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
        self._regression = recipe.loss.name == "age_regression"
        model = backbones.build(
            recipe.model.name,
            predict.head_sizes(task, recipe.loss.name),
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
        self._replica = torch.nn.parallel.DistributedDataParallel(model) if world > 1 else model
        self.normalize = Normalize(mean, std, device)
        self._compute_in(predict.precision_dtype(recipe.train.precision, device))
        self._optimizer = optim.build_optimizer(
            model=model, lr=recipe.train.lr, **options(recipe.optimizer)
        )
        self._factor = optim.build_schedule(
            epochs=recipe.train.epochs, steps_per_epoch=steps_per_epoch, **options(recipe.schedule)
        )
        self._targets = self._all_targets(labels)
        self._losses = {
            head: losses.build(
                num_classes=classes,
                class_counts=np.bincount(labels[LABEL_COLUMNS[head]], minlength=classes).tolist(),
                **options(recipe.loss),
            )
            for head, classes in HEADS[task].items()
        }
        self._mix = mixing.build(**options(recipe.augment.mix))

    @property
    def lr(self) -> float:
        """The highest learning rate of the last step."""
        return max(float(group["lr"]) for group in self._optimizer.param_groups)

    def start_epoch(self, epoch: int, rank: int = 0) -> None:
        """Seed what a step draws (dropout, stochastic depth), so that a resumed epoch repeats."""
        torch.manual_seed(_seed_of(self._seed, epoch, rank))
        self._replica.train()

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
        inputs_BCHW, partner_B, share = self._mix(self.normalize(images_BHWC), generator)
        with predict.autocast(self.dtype, self.device):
            logits = self._replica(inputs_BCHW)
        index_B = torch.from_numpy(items_B.copy())
        losses_of_heads = [
            loss(logits[head], self._mixed(self._targets[head][index_B], partner_B, share, head))
            for head, loss in self._losses.items()
        ]
        loss = torch.stack(losses_of_heads).sum()
        # Its gradients add up over the workers, DistributedDataParallel takes their mean.
        self._scaler.scale(loss * self._world).backward()
        self._clip()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def predictor(self) -> Predictor:
        """The model as it stands, to validate with. All processes of a job must call it."""
        if self._world > 1:
            # Each process kept its own batch-norm statistics: validate on one and the same model.
            for buffer in self.model.buffers():
                dist.broadcast(buffer, src=0)
        return Predictor(
            self.model,
            self.normalize,
            self.dtype,
            self.recipe.train.eval_batch_size,
            self._regression,
            self.recipe.predict.views,
        )

    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a ``state``, also to its precision, whatever this device would choose."""
        self._compute_in(getattr(torch, state["dtype"]))
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])

    def _compute_in(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=dtype == torch.float16)

    def _all_targets(self, labels: Mapping[str, npt.NDArray[np.int64]]) -> dict[str, torch.Tensor]:
        if self._regression:
            return {"age": torch.from_numpy(labels["age"].astype(np.float32))}
        return {
            head: torch.from_numpy(labels[LABEL_COLUMNS[head]].astype(np.int64))
            for head in HEADS[self.task]
        }

    def _mixed(
        self, targets_B: torch.Tensor, partner_B: torch.Tensor, share: float, head: str
    ) -> torch.Tensor:
        """Hard targets of unmixed photos, soft ones (or blended ages) of mixed ones."""
        targets_B = targets_B.to(self.device, non_blocking=True)
        if share == 1.0:
            return targets_B
        if not self._regression:
            targets_B = one_hot(targets_B, HEADS[self.task][head]).float()
        return mixing.mix_targets(targets_B, partner_B.to(self.device), share)

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


def _seed_of(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
