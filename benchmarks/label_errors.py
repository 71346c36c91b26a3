"""Are wrong labels found, and is finding them worth it?

    python -m benchmarks.label_errors [DATA] --out FOLDER [--seeds N] [key.sub=value ...]

Without DATA, on drawn faces. For each seed, one person in twenty gets the other gender, another one
in twenty another age band, and one photo of another one in twenty another mask state; all through
label fixes. Models with three heads (unless tasks=... says otherwise) train on that at a small size
and their out-of-fold probabilities rank the labels (`maskcls labels`). Printed: which share of
the wrong labels stands in the first tenth of each list. Then whoever looks through that tenth mends
the wrong labels in it, models train again, and the scores on DATA/answers.csv are compared with
those before and those without any wrong label.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml

from examples.drawn_faces import draw
from maskcls.config.load import load
from maskcls.config.schema import Config
from maskcls.data.label_fixes import STEMS, LabelFixes
from maskcls.data.manifest import read_train
from maskcls.labels import ATTRIBUTES, Mask
from maskcls.learning import predict
from maskcls.quality.label_errors import BY_PERSON, ranked
from maskcls.scoring import ensemble, submission
from maskcls.scoring.ensemble import ModelVotes
from maskcls.storage import files
from ray_jobs.cluster import connect
from ray_jobs.data.photos import Dataset, image_settings, prepare
from ray_jobs.run import console
from ray_jobs.run.folder import RunFolder, make_jobs, read_out_of_fold
from ray_jobs.run.jobs import run_all
from ray_jobs.training.job import Job

CONFIG = Path(__file__).parents[1] / "configs" / "demo.yaml"
WRONG = 0.05
LOOKED_THROUGH = 0.1
YEARS = (22, 45, 62)
"""What a wrong age band is written as, in years."""


@dataclass(frozen=True)
class Run:
    """One configuration in its folder: what it trains on and its jobs."""

    config: Config
    folder: Path
    data: Dataset
    jobs: list[Job]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("words", nargs="*", default=[])
    arguments = parser.parse_intermixed_args()
    words = list(arguments.words)
    if arguments.data is not None and "=" in str(arguments.data):
        words.insert(0, str(arguments.data))
        arguments.data = None
    console.setup()
    connect.connect()
    data = arguments.data or draw.draw(
        arguments.out / "faces", people=120, eval_people=60, height=192, width=144
    )
    out, words = arguments.out, [f"data.root={data}", "tasks=[multi]", *words]
    photos = read_train(data).photos
    flips = {seed: flipped(photos, seed) for seed in range(arguments.seeds)}

    clean = make(words, out / "clean", LabelFixes())
    wrong = {seed: make(words, out / f"wrong-{seed}", fixes) for seed, fixes in flips.items()}
    train([clean, *wrong.values()])
    lists = {seed: rankings(run) for seed, run in wrong.items()}
    table = pd.DataFrame(
        [
            found(seed, flips[seed], lists[seed], photos, task)
            for seed in flips
            for task in ATTRIBUTES
        ]
    )
    report("found", table.sort_values("task", kind="stable"), out)

    mended = {
        seed: make(words, out / f"mended-{seed}", without_found(flips[seed], lists[seed]))
        for seed in flips
    }
    train(list(mended.values()))
    rows = [{"labels": "clean", "seed": "", **answer_scores(clean, data)}]
    for seed in flips:
        rows.append({"labels": "5 % wrong", "seed": seed, **answer_scores(wrong[seed], data)})
        rows.append({"labels": "looked through", "seed": seed, **answer_scores(mended[seed], data)})
    report("worth", pd.DataFrame(rows).sort_values("labels", kind="stable"), out)


def flipped(photos: pd.DataFrame, seed: int) -> LabelFixes:
    """Label fixes that make labels wrong: other people for each attribute."""
    rng = np.random.default_rng(seed)
    people = photos.drop_duplicates("person")
    count = math.ceil(WRONG * len(people))
    chosen = people.iloc[rng.permutation(len(people))[: 3 * count]]
    gender, age, mask = (chosen.iloc[k * count : (k + 1) * count] for k in range(3))
    names = [value.name.lower() for value in Mask]
    stems = {person: str(rng.choice(list(STEMS))) for person in mask["person"]}
    return LabelFixes(
        flip_gender=gender["person"].tolist(),
        set_age={
            person: YEARS[(band + rng.integers(1, 3)) % 3]
            for person, band in zip(age["person"], age["age_band"], strict=True)
        },
        set_mask={
            person: {stem: names[(STEMS[stem] + rng.integers(1, 3)) % 3]}
            for person, stem in stems.items()
        },
    )


def make(words: Sequence[str], folder: Path, fixes: LabelFixes) -> Run:
    path = folder / "fixes.yaml"
    files.write_text(path, yaml.safe_dump(fixes.model_dump()))
    config = load([CONFIG], [*words, f"data.label_fixes={path}", f"run.dir={folder}"]).config
    data = prepare(config, image_settings(config, config.tasks), folder)
    models = [(task, fold) for task in config.tasks for fold in config.fold_numbers()]
    return Run(
        config,
        folder,
        data,
        make_jobs(config, RunFolder(folder), data.without_evaluation(), models),
    )


def train(runs: Sequence[Run]) -> None:
    """All jobs that are not done, of all runs in the same lanes."""
    jobs = [replace(job, name=f"{run.folder.name}-{job.name}") for run in runs for job in run.jobs]
    run_all(runs[0].config, runs[0].folder, jobs)


def rankings(run: Run) -> dict[str, pd.DataFrame]:
    out_of_fold = read_out_of_fold(run.jobs)
    return {attribute: ranked(out_of_fold, attribute) for attribute in ATTRIBUTES}


def wrong_names(fixes: LabelFixes, photos: pd.DataFrame, task: str) -> set[str]:
    """What is wrong: people, or keys of photos."""
    if task == "mask":
        where = photos.set_index(["person", "stem"])["key"]
        return {str(where[p, stem]) for p, stems in fixes.set_mask.items() for stem in stems}
    return set(fixes.flip_gender if task == "gender" else fixes.set_age)


def looked_through(listed: pd.DataFrame, task: str) -> list[str]:
    first = listed.head(math.ceil(LOOKED_THROUGH * len(listed)))
    return first["person" if task in BY_PERSON else "photo"].tolist()


def found(
    seed: int, fixes: LabelFixes, lists: dict[str, pd.DataFrame], photos: pd.DataFrame, task: str
) -> dict[str, object]:
    listed, wrong = lists[task], wrong_names(fixes, photos, task)
    first = looked_through(listed, task)
    flagged = listed.loc[listed["flagged"], "person" if task in BY_PERSON else "photo"]
    row: dict[str, object] = {
        "task": task,
        "seed": seed,
        "wrong": len(wrong),
        "of": len(listed),
        "in the first tenth": f"{len(wrong & set(first)) / len(wrong):.0%}",
        "flagged": len(flagged),
        "of them wrong": len(wrong & set(flagged)),
        "models agree with": f"{(listed['score'] >= listed['likely_probability']).mean():.0%}",
    }
    if task == "mask":  # The same list by people: whose most doubtful photo comes first.
        people = listed.drop_duplicates("person")["person"]
        first_people = set(people.head(math.ceil(LOOKED_THROUGH * len(people))))
        share = len(first_people & fixes.set_mask.keys()) / len(fixes.set_mask)
        row["by people"] = f"{share:.0%}"
    return row


def without_found(fixes: LabelFixes, lists: dict[str, pd.DataFrame]) -> LabelFixes:
    """What stays wrong when the first tenth of each list was looked through."""
    seen = {task: set(looked_through(listed, task)) for task, listed in lists.items()}
    keys = {Path(key).stem + Path(key).parent.name.split("_")[0] for key in seen["mask"]}
    return LabelFixes(
        flip_gender=[person for person in fixes.flip_gender if person not in seen["gender"]],
        set_age={p: years for p, years in fixes.set_age.items() if p not in seen["age"]},
        set_mask={
            person: stems
            for person, stems in fixes.set_mask.items()
            if not keys & {stem + person for stem in stems}
        },
    )


def answer_scores(run: Run, data: Path) -> dict[str, float]:
    """Macro F1 of the vote on the photos to predict; joint and each attribute."""
    assert run.data.evaluation is not None
    votes = []
    for job in run.jobs:
        source = run.data.evaluation.images[job.recipe.image]
        photos = source.photos()
        predictor, _ = predict.load(job.folder, torch.device("cpu"))
        said = predictor(source.open(), np.arange(len(photos)))
        probabilities = {head: values.astype(float) for head, values in said.items()}
        votes.append(ModelVotes(job.task, job.fold, photos["image_id"].tolist(), probabilities))
    vote = run.config.ensemble
    fitted = ensemble.fit(vote.name, read_out_of_fold(run.jobs), offsets=vote.fits_offsets)
    answers = ensemble.vote(fitted, votes).set_index("image_id")["ans"]
    path = run.folder / "submission.csv"
    submission.write(votes[0].image_ids, answers, path)
    return {
        head: round(scores["macro_f1"], 3)
        for head, scores in submission.score(path, data / "answers.csv").items()
    }


def report(name: str, table: pd.DataFrame, out: Path) -> None:
    with files.replacing(out / f"{name}.csv") as temporary:
        table.to_csv(temporary, index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
