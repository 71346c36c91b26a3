"""One model the usual way: a Dataset, a DataLoader with workers, a loop. The baseline of speed.

    python -m benchmarks.conventional LISTING --task age --fold 0 --out FOLDER

Nothing of this package is in it. ``LISTING`` is a parquet with one row a photo: ``path``, ``fold``
(-1: a photo to predict) and the class columns of ``--task``. A photo is decoded by Pillow, resized
(before the augmentation, which is the cheaper order), augmented and made a float tensor by
torchvision's v2 transforms, in worker processes that live for the whole script.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.metrics import f1_score
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

CLASSES = {"mask": 3, "gender": 2, "age_band": 3}


class Photos(Dataset[tuple[torch.Tensor, int]]):
    """Photos of a listing, transformed, with their class."""

    def __init__(self, table: pd.DataFrame, column: str, transform: Any) -> None:
        self._paths = table["path"].tolist()
        self._labels = table[column].tolist()
        self._transform = transform

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = Image.open(self._paths[index]).convert("RGB")
        return self._transform(image), self._labels[index]


def transform(size: Sequence[int], *, augment: bool) -> Any:
    """Photo -> normalised float tensor [3, H, W]."""
    steps = [v2.Resize(list(size), antialias=True)]
    if augment:
        steps += [v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)]
    steps += [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.5] * 3, [0.5] * 3),
    ]
    return v2.Compose(steps)


def loader(photos: Photos, *, train: bool, batch_size: int, workers: int) -> DataLoader[Any]:
    return DataLoader(
        photos,
        batch_size=batch_size if train else 2 * batch_size,
        shuffle=train,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def predict(model: torch.nn.Module, batches: DataLoader[Any]) -> npt.NDArray[np.float32]:
    """Probabilities [N, K]."""
    model.eval()
    with torch.inference_mode():
        parts = [model(images).softmax(dim=1) for images, _ in batches]
    values: npt.NDArray[np.float32] = torch.cat(parts).numpy()
    return values


def write_listing(train: Path, asked: Path, path: Path) -> None:
    """The listing of two tables of ours: photos to train on with their folds, photos to predict."""
    columns = ["path", "fold", *CLASSES]
    to_predict = pd.read_parquet(asked, columns=["path"])
    to_predict = to_predict.assign(fold=-1, **dict.fromkeys(CLASSES, 0))
    photos = pd.read_parquet(train, columns=columns)
    pd.concat([photos, to_predict[columns]], ignore_index=True).to_parquet(path)


def main() -> None:
    """Train, keep the best epoch, predict; writes out_of_fold.npy, answers.npy and times.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("listing", type=Path)
    parser.add_argument("--task", choices=list(CLASSES), required=True)
    parser.add_argument("--fold", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--weights", type=Path, help="safetensors of the backbone")
    parser.add_argument("--size", type=int, nargs=2, default=(128, 96), metavar=("H", "W"))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    photos = pd.read_parquet(arguments.listing)
    options = {"batch_size": arguments.batch_size, "workers": arguments.workers}
    plain = transform(arguments.size, augment=False)

    def batches(chosen: pd.Series[bool], *, train: bool = False) -> DataLoader[Any]:
        changed = transform(arguments.size, augment=True) if train else plain
        table = photos[chosen]
        return loader(Photos(table, arguments.task, changed), train=train, **options)

    validated = photos["fold"] == arguments.fold
    training = batches((photos["fold"] >= 0) & ~validated, train=True)
    validation, asked = batches(validated), batches(photos["fold"] == -1)
    truth = photos.loc[validated, arguments.task].to_numpy()

    model = timm.create_model(arguments.model, num_classes=CLASSES[arguments.task])
    if arguments.weights:
        model.load_state_dict(load_file(arguments.weights), strict=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, arguments.epochs * len(training)
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    best, epochs = -1.0, []
    for _ in range(arguments.epochs):
        began = time.monotonic()
        model.train()
        for images, targets in training:
            loss = torch.nn.functional.cross_entropy(model(images), targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        epochs.append(time.monotonic() - began)
        probabilities = predict(model, validation)
        score = f1_score(truth, probabilities.argmax(axis=1), average="macro")
        if score > best:
            best = score
            save_file(model.state_dict(), arguments.out / "best.safetensors")
            np.save(arguments.out / "out_of_fold.npy", probabilities)
    model.load_state_dict(load_file(arguments.out / "best.safetensors"))
    np.save(arguments.out / "answers.npy", predict(model, asked))
    (arguments.out / "times.json").write_text(json.dumps({"macro_f1": best, "epochs": epochs}))


if __name__ == "__main__":
    main()
