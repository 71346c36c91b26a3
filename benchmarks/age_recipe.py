"""What each part of the age recipe is worth: out-of-fold scores with and without it.

    python -m benchmarks.age_recipe DATA --out FOLDER [key.sub=value ...]

All variants train on the same people and folds with the same seed, at a small size. Intervals
are over people (95 %); the last column is macro F1 minus that of the full recipe, paired.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd

from maskcls.config.load import load
from maskcls.config.schema import Config
from maskcls.labels import AgeBand, Task
from maskcls.reports.analysis import difference
from maskcls.scoring import metrics
from maskcls.storage import files
from ray_jobs.cluster import connect
from ray_jobs.data.photos import image_settings, prepare
from ray_jobs.run import console
from ray_jobs.run.folder import RunFolder, make_jobs, read_out_of_fold
from ray_jobs.run.jobs import run_all

CONFIG = Path(__file__).parents[1] / "configs" / "sweep.yaml"
SMALL = (
    "tasks=[age]", "folds.count=3", "image.size=[96,72]", "model.name=tf_efficientnet_lite0",
    "model.weights=package:efficientnet_lite0", "train.epochs=4", "train.lr=3e-4",
)  # fmt: skip
VARIANTS: dict[str, tuple[str, ...]] = {
    "full recipe": (),
    "without age drop": ("people.drop_ages=[]",),
    "without blends": ("people.blend=[]",),
    "without sampler": ("sampler.name=none",),
    "none of the three": ("people.drop_ages=[]", "people.blend=[]", "sampler.name=none"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("words", nargs="*")
    arguments = parser.parse_args()
    console.setup()
    connect.connect()
    words = [f"data.root={arguments.data}", *SMALL, *arguments.words]
    out_of_fold = {
        name: run(load([CONFIG], [*words, *extra]).config, arguments.out / name.replace(" ", "-"))
        for name, extra in VARIANTS.items()
    }
    table = pd.DataFrame(
        [row(name, rows, out_of_fold["full recipe"]) for name, rows in out_of_fold.items()]
    )
    with files.replacing(arguments.out / "age_recipe.csv") as temporary:
        table.to_csv(temporary, index=False)
    print(table.to_string(index=False))


def run(config: Config, folder: Path) -> pd.DataFrame:
    """The out-of-fold rows of one variant, trained where that is not done."""
    data = prepare(config, image_settings(config, [Task.AGE]), folder).without_evaluation()
    jobs = make_jobs(
        config, RunFolder(folder), data, [(Task.AGE, f) for f in config.fold_numbers()]
    )
    named = [replace(job, name=f"{folder.name}-{job.name}") for job in jobs]
    run_all(config, folder, named)
    return read_out_of_fold(jobs).sort_values("photo", ignore_index=True)


def row(name: str, rows: pd.DataFrame, full: pd.DataFrame) -> dict[str, object]:
    truth, predicted, people = (rows[c].to_numpy() for c in ("truth", "predicted", "person"))
    counts = metrics.confusion(truth, predicted, len(AgeBand))
    low, high = metrics.bootstrap_interval(truth, predicted, people, len(AgeBand), seed=0)
    recall = metrics.per_class(counts)[1]
    assert rows["photo"].equals(full["photo"])
    gain = difference(
        truth, full["predicted"].to_numpy(), predicted, people, classes=len(AgeBand), seed=0
    )
    return {
        "variant": name,
        "macro F1": round(metrics.macro_f1(counts), 3),
        "95 %": f"{low:.3f} to {high:.3f}",
        "accuracy": round(metrics.accuracy(counts), 3),
        **{f"recall {band.name.lower()}": round(float(recall[band]), 3) for band in AgeBand},
        "against the full recipe": str(gain),
    }


if __name__ == "__main__":
    main()
