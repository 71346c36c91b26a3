"""What a job's training, validation and prediction steps take on tensors in memory.

    python -m benchmarks.bare_steps LISTING [--threads 1]

Prints, as JSON, the seconds of one epoch with its validation, and those of the prediction: no
decoding, no augmentation, no files and no start. Random pixels do: steps cost the same on any.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import pandas as pd
import timm
import torch
from safetensors.torch import load_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("listing", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--size", type=int, nargs=2, required=True)
    parser.add_argument("--folds", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    folds = pd.read_parquet(arguments.listing)["fold"]
    asked, validated = int((folds == -1).sum()), int((folds >= 0).sum()) // arguments.folds
    trained = int((folds >= 0).sum()) - validated
    model = timm.create_model(arguments.model, num_classes=3)
    if arguments.weights:
        # Denormals of random weights would make some steps slower than those of a real model.
        model.load_state_dict(load_file(arguments.weights), strict=False)
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    images = torch.rand(2 * arguments.batch_size, 3, *arguments.size) * 2 - 1
    images = images.to(memory_format=torch.channels_last)
    labels = torch.arange(2 * arguments.batch_size) % 3

    def train(count: int) -> None:
        model.train()
        for start in range(0, count, arguments.batch_size):
            size = min(arguments.batch_size, count - start)
            loss = torch.nn.functional.cross_entropy(model(images[:size]), labels[:size])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def predict(count: int) -> None:
        model.eval()
        with torch.inference_mode():
            for start in range(0, count, 2 * arguments.batch_size):
                model(images[: min(2 * arguments.batch_size, count - start)]).softmax(dim=1)

    train(2 * arguments.batch_size)  # the first steps choose kernels
    predict(2 * arguments.batch_size)
    began = time.monotonic()
    train(trained)
    predict(validated)
    epoch = time.monotonic() - began
    predict(asked)
    print(json.dumps([epoch, time.monotonic() - began - epoch]))


if __name__ == "__main__":
    main()
