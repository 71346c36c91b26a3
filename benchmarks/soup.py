"""Whether the mean of several models' weights does the work of their vote (a soup, 2203.05482).

    python -m benchmarks.soup DATA --out FOLDER [--config best-cpu] [--seeds 1 2 3] [--folds 0]
                                   [--threads 2] [KEY=VALUE ...]

Trains each fold once a seed (of order, augmentation and heads; the folds and the pretrained
weights stay) and scores on the people that none of these models saw: each model alone, their vote,
and one model with the mean of their weights, as it is and with batch-norm statistics taken anew
from the training photos. Every model is that of its last epoch.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from benchmarks.ablation import Overlays, compared, table
from benchmarks.gpu_ablation import Trained, epochs, jobs_of
from maskcls.labels import Float32Array, Task
from maskcls.learning.predict import Predictor
from maskcls.scoring import ensemble
from ray_jobs.training import evaluate

VOTE = "their vote"


def mean_of(models: Sequence[nn.Module]) -> nn.Module:
    """A model whose weights and statistics are the means of these."""
    soup, states = copy.deepcopy(models[0]), [model.state_dict() for model in models]
    soup.load_state_dict({
        name: torch.stack([state[name].double() for state in states]).mean(0).to(value.dtype)
        for name, value in states[0].items()
    })  # fmt: skip
    return soup


def statistics_anew(predictor: Predictor, one: Trained) -> Predictor:
    """The same model with batch-norm statistics of the training photos."""
    model, photos = copy.deepcopy(predictor.model), one.source.open()
    rows = one.training["row"].to_numpy()
    batches = np.array_split(rows, max(1, len(rows) // predictor.batch_size))
    update_bn((predictor.normalize(photos[rows_B]) for rows_B in batches), model)
    return replace(predictor, model=model)


def answers_of_fold(trained: Sequence[Trained]) -> Iterator[tuple[str, dict[str, Float32Array]]]:
    """Probabilities of each way to use the models of a fold, on its validation people."""
    photos, rows_M = trained[0].source.open(), trained[0].validation["row"].to_numpy()
    views = trained[0].learner.recipe.predict.views
    predictors = [one.learner.predictor(views) for one in trained]
    alone = [predictor(photos, rows_M) for predictor in predictors]
    for number, one in enumerate(alone, 1):
        yield f"model {number} alone", one
    yield VOTE, {head: sum(one[head] for one in alone[1:]) + alone[0][head] for head in alone[0]}
    soup = replace(predictors[0], model=mean_of([predictor.model for predictor in predictors]))
    yield "mean of their weights", soup(photos, rows_M)
    yield "the same, statistics anew", statistics_anew(soup, trained[0])(photos, rows_M)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", default="best-cpu")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--folds", nargs="+", type=int, default=[0])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_intermixed_args()
    overlays = Overlays(arguments.config, {"soup": arguments.words})
    jobs = jobs_of(overlays, arguments.data.absolute(), arguments.out.absolute(), [42], "cpu")
    parts: dict[str, list[pd.DataFrame]] = {}
    for job in [replace(job, threads=arguments.threads) for job in jobs]:
        if job.fold not in arguments.folds:
            continue
        trained = []
        for seed in arguments.seeds:
            *_, last = epochs(job, seed)
            trained.append(last)
            print(f"fold {job.fold}: seed {seed} is trained", flush=True)
        for name, probabilities in answers_of_fold(trained):
            rows = evaluate.out_of_fold_rows(
                Task.MULTI, job.fold, probabilities, trained[0].validation
            )
            answers = ensemble.out_of_fold_answers("soft", rows, seed=0).assign(seed=0)
            parts.setdefault(name, []).append(answers)
    of = {name: pd.concat(each).sort_values("photo", ignore_index=True)
          for name, each in parts.items()}  # fmt: skip
    print(table([{"what answers": name, **compared(one, of[VOTE], name == VOTE)}
                 for name, one in of.items()]))  # fmt: skip


if __name__ == "__main__":
    main()
