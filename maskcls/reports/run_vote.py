"""A vote over several finished runs: their models answer together, and what that is worth.

Runs may differ in recipe, input size, preprocessing, tasks and folds. They must have been trained
on the same people with the same labels: each photo is answered, out of fold, by one model of each
route of each run, none of which saw its person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from maskcls.labels import class_names
from maskcls.reports import analysis, finished_run
from maskcls.reports.analysis import Difference
from maskcls.reports.finished_run import FinishedRun
from maskcls.scoring import ensemble, submission
from maskcls.scoring.voting import FittedVote
from maskcls.storage import files


@dataclass(frozen=True)
class RunVote:
    """What a vote over runs found.

    ``scores`` are those of ``ensemble.scores`` on people who had no part in fitting the vote;
    ``alone`` the same of each run by its name; ``gain`` the macro F1 of the vote minus that of the
    best run, paired, by target.
    """

    fitted: dict[str, FittedVote]
    routes: dict[str, list[str]]
    scores: dict[str, dict[str, Any]]
    alone: dict[str, dict[str, dict[str, Any]]]
    gain: dict[str, Difference]
    disagreement: dict[str, pd.DataFrame]
    photos: int


def names(runs: Sequence[FinishedRun]) -> list[str]:
    """A name for each run that no other one has: that of its folder, with its parents' if needed.

    Raises ValueError where one run is given twice.
    """
    parts = [run.folder.resolve().parts for run in runs]
    if len(set(parts)) < len(parts):
        raise ValueError("one run is given twice: name each run once")
    for depth in range(1, max(map(len, parts)) + 1):
        found = ["/".join(part[-depth:]) for part in parts]
        if len(set(found)) == len(found):
            return found
    raise AssertionError("different folders have different paths")


def combined(runs: Sequence[FinishedRun]) -> pd.DataFrame:
    """The out-of-fold rows of all runs, with the column ``run``."""
    return pd.concat(
        [run.out_of_fold.assign(run=name) for name, run in zip(names(runs), runs, strict=True)],
        ignore_index=True,
    )


def fit(runs: Sequence[FinishedRun], name: str, *, offsets: bool) -> RunVote:
    """Fit the ensemble ``name`` over all routes of all runs, and score it on other people.

    Raises ValueError where the runs do not fit together, naming what differs.
    """
    rows, seed, limits = combined(runs), runs[0].seed, runs[0].age_limits
    if any(run.age_limits != limits for run in runs):
        listed = ", ".join(
            f"{one} {run.age_limits}" for one, run in zip(names(runs), runs, strict=True)
        )
        raise ValueError(f"the runs have different bands of age (labels.age_limits): {listed}")
    answers = ensemble.out_of_fold_answers(name, rows, seed=seed, offsets=offsets)
    scores = ensemble.scores(answers, seed=seed, age_limits=limits)
    keys = answers["photo"].tolist()
    alone = {
        one: run.answers.set_index("photo").reindex(keys).reset_index()
        for one, run in zip(names(runs), runs, strict=True)
    }
    alone_scores = {
        one: ensemble.scores(table.dropna(), seed=seed, age_limits=limits)
        for one, table in alone.items()
    }
    gain = {}
    for target in scores:
        known = {one: found for one, found in alone_scores.items() if target in found}
        if known:
            best = max(known, key=lambda one: known[one][target]["macro_f1"])
            gain[target] = analysis.difference(
                answers[f"{target}_truth"].to_numpy(),
                alone[best][f"{target}_predicted"].to_numpy("int64"),
                answers[f"{target}_predicted"].to_numpy(),
                answers["person"].to_numpy(),
                classes=len(class_names(target)),
                seed=seed,
            )
    routes = ensemble.voters(ensemble.routes_of(rows))
    return RunVote(
        fitted=ensemble.fit(name, rows, offsets=offsets),
        routes={target: ensemble.names_of(found) for target, found in routes.items()},
        scores=scores,
        alone=alone_scores,
        gain=gain,
        disagreement={target: ensemble.disagreement(rows, target) for target in routes},
        photos=len(answers),
    )


def write(runs: Sequence[FinishedRun], vote: RunVote, name: str, out: Path) -> bool:
    """Write ``out/vote.json`` and, where all runs predicted the same photos, the answers there.

    Returns whether there are answers: predictions.parquet, and submission.csv where the models tell
    all three attributes.
    """
    out.mkdir(parents=True, exist_ok=True)
    by_name = dict(zip(names(runs), runs, strict=True))
    content = {
        "runs": {one: str(run.folder.resolve()) for one, run in by_name.items()},
        "ensemble": name,
        "routes": vote.routes,
        "fitted": ensemble.to_json(vote.fitted),
        "out_of_fold": vote.scores,
        "alone": vote.alone,
        "gain_over_best_run": {
            target: [one.value, one.low, one.high] for target, one in vote.gain.items()
        },
        "disagreement": {t: table.to_dict() for t, table in vote.disagreement.items()},
    }
    files.write_json(out / "vote.json", content)
    models = [replace(vote, run=one) for one, run in by_name.items() for vote in run.votes]
    if not all(run.votes for run in runs):
        return False
    answers = ensemble.vote(vote.fitted, models)
    photos = files.read_parquet(runs[0].folder / "predictions.parquet")
    table = photos[["image_id", "status", "fallback"]].merge(answers, on="image_id", how="left")
    if "ans" in table:
        table["ans"] = table["ans"].where(~photos["fallback"], photos["ans"]).astype("int64")
        by_id = table.set_index("image_id")["ans"]
        submission.write(photos["image_id"].tolist(), by_id, out / "submission.csv")
    files.write_table(out / "predictions.parquet", table)
    return True


def lines(vote: RunVote) -> list[str]:
    """The vote for a reader: scores, gains, weights, offsets and disagreement."""
    lines = [f"out of fold, {vote.photos:,} photos, by votes fitted on other people"]
    rows = {one: {t: f"{s['macro_f1']:.3f}" for t, s in found.items()}
            for one, found in vote.alone.items()}  # fmt: skip
    rows["all together"] = {
        t: "{:.3f} ({:.3f} to {:.3f})".format(s["macro_f1"], *s["macro_f1_interval"])
        for t, s in vote.scores.items()
    }
    rows["minus the best run"] = {target: str(gain) for target, gain in vote.gain.items()}
    lines += pd.DataFrame(rows).T.fillna("").to_string().splitlines()
    for target, fitted in vote.fitted.items():
        lines += ["", *_fitted_lines(target, fitted, vote.routes[target])]
        if len(vote.routes[target]) > 1:
            table = vote.disagreement[target]
            lines += [f"{target}: share of photos that two routes answer differently",
                     *table.to_string(float_format="{:.2f}".format).splitlines()]  # fmt: skip
    return lines


def _fitted_lines(target: str, fitted: FittedVote, routes: Sequence[str]) -> list[str]:
    lines = []
    if weights := fitted.parameters.get("weights"):
        shares = [f"{one} {weight:.2f}" for one, weight in zip(routes, weights, strict=True)]
        lines.append(f"{target}: weights {', '.join(shares)}")
    if tried := fitted.offsets:
        gain = Difference(tried["gain"], tried["low"], tried["high"])
        values = ", ".join(f"{value:+.2f}" for value in tried["values"])
        verdict = "used" if tried["used"] else "not used: it may be luck"
        lines.append(f"{target}: offsets {values} gain {gain}, {verdict}")
    return lines


def read(folders: Sequence[Path]) -> list[FinishedRun]:
    """The runs in these folders. Raises what ``finished_run.read`` raises."""
    return [finished_run.read(folder) for folder in folders]
