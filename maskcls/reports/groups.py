"""People and photos by what they are: where answers are right, and what each fold has."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from maskcls import labels
from maskcls.data import coverage
from maskcls.data.label_fixes import STEMS
from maskcls.data.status import OK
from maskcls.labels import HEADS, Task
from maskcls.reports import charts, finished_run, page
from maskcls.reports.finished_run import FinishedRun, readable
from maskcls.reports.page import Table
from maskcls.scoring import metrics


def by_year(run: FinishedRun) -> pd.DataFrame:
    """For each age in years that occurs: ``people``, ``photos``, the share of age answers that are
    ``right`` and the share that named each band (columns 0, 1, 2)."""
    table = run.labelled("age")
    table = table.assign(age=run.photos.loc[table["photo"], "age"].to_numpy())
    table = table[table["age"] != labels.MISSING]  # of some only the band is known
    right = table["age_truth"] == table["age_predicted"]
    groups = table.assign(right=right).groupby("age")
    named = pd.crosstab(table["age"], table["age_predicted"], normalize="index")
    return pd.DataFrame(
        {"people": groups["person"].nunique(), "photos": groups.size()}
        | {"right": groups["right"].mean()}
    ).join(named.reindex(columns=range(3), fill_value=0.0))


def by_group(run: FinishedRun, groups_N: npt.ArrayLike) -> pd.DataFrame:
    """For each group of photos (one value a row of ``run.answers``): ``photos``, ``people``, and
    the share of right answers in each target among those with that label, with ``low`` and
    ``high`` of the first target. Groups in which it has no label are left out."""
    rows = {}
    groups = np.asarray(groups_N)
    first = run.targets[0]
    for group in dict.fromkeys(groups):
        part = run.answers[groups == group]
        right = {
            target: (part[f"{target}_truth"] == part[f"{target}_predicted"])[
                part[f"{target}_truth"] != labels.MISSING
            ]
            for target in run.targets
        }
        if right[first].empty:
            continue
        people = part.loc[right[first].index, "person"]
        low, high = metrics.share_interval(right[first], people, seed=run.seed)
        rows[group] = {
            "photos": len(part),
            "people": part["person"].nunique(),
            **{target: float(values.mean()) for target, values in right.items()},
            "low": low,
            "high": high,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def fold_balance(
    photos: pd.DataFrame, age_limits: labels.AgeLimits = labels.AGE_BAND_STARTS
) -> pd.DataFrame:
    """People in each fold (columns) by gender and age band (rows), and in all; those of whom one
    of the two is not known are the last row, where there are any."""
    people = photos.drop_duplicates("person")
    names = [
        f"{gender}, {band}"
        for gender in finished_run.readable("gender")
        for band in finished_run.readable("age", age_limits)
    ]
    unknown = people[["gender", "age_band"]].min(axis=1) == labels.MISSING
    group = (people["gender"] * 3 + people["age_band"]).mask(unknown, len(names))
    if unknown.any():
        names.append("gender or age not known")
    return (
        pd.crosstab(group, people["fold"])
        .reindex(range(len(names)), fill_value=0)
        .set_axis(names)
        .pipe(lambda table: table.assign(all=table.sum(axis=1)))
    )


def section(run: FinishedRun) -> dict[str, Any]:
    """Right answers by gender, kind of photo and age, as plots and tables."""
    photos = run.photos.loc[run.answers["photo"]]
    gender = [finished_run.named("gender", g) for g in photos["gender"]]
    kind = photos["stem"].map(_kind_of_photo).to_numpy()
    table = pd.concat([by_group(run, groups).sort_index() for groups in (gender, kind)])
    plots, tables = [], []
    if "age" in run.targets and len(years := by_year(run)):
        names = ("share of correct age answers by age", "answered age bands by age")
        bands = readable("age", run.age_limits)
        plots += list(map(page.plot, charts.years(years, run.age_limits), names))
        rows = [
            [f"{age} years", f"{row['people']:.0f}", f"{row['right']:.0%}"]
            + [f"{row[band]:.0%}" for band in range(3)]
            for age, (_, row) in zip(years.index.tolist(), years.iterrows(), strict=True)
            if any(abs(age - limit) <= 2 for limit in run.age_limits)
        ]
        if rows:
            head = ["age", "people", "correct", *(f"answered {name}" for name in bands)]
            tables.append(Table("Answers for ages near the limits", head, rows))
    alt = "share of correct answers by gender and kind of photo; see the table"
    plots.append(page.plot(charts.groups(table, run.targets[0]), alt))
    rows = [
        [str(name), f"{row['people']:,.0f}", f"{row['photos']:,.0f}"]
        + ["" if np.isnan(row[target]) else f"{row[target]:.1%}" for target in run.targets]
        for name, row in table.iterrows()
    ]
    head = ["", "people", "photos", *(f"{target} correct" for target in run.targets)]
    tables.append(Table("Correct answers by gender and kind of photo", head, rows))
    return {"plots": plots, "tables": tables}


def _kind_of_photo(stem: str) -> str:
    """What the photo of a person shows: files of the competition by their name, others by what is
    known of the mask, without their number."""
    return page.plain(stem if stem in STEMS else stem.rstrip("0123456789"))


def data(run: FinishedRun) -> dict[str, Any]:
    """What the run trained on: its folds and its labels."""
    photos = run.photos
    balance = fold_balance(photos, run.age_limits)
    folds = [f"fold {fold}" if fold != "all" else "all" for fold in balance.columns]
    shares = balance.drop(columns="all")
    gap = (shares.max(axis=1) - shares.min(axis=1)).max()
    usable = int((photos["status"] == OK).sum())
    return {
        "folds": Table(
            f"People in each fold: the folds differ by at most {gap} in any group",
            ["", *folds],
            [[name, *(f"{n:,}" for n in row)] for name, row in balance.iterrows()],
        ),
        "counts": {
            "people": f"{photos['person'].nunique():,}",
            "photos": f"{len(photos):,}",
            "photos that cannot be used": f"{len(photos) - usable:,}",
            **{
                f"photos with a label: {head}": f"{count:,}"
                for head, count in coverage.counts(photos, HEADS[Task.MULTI]).items()
                if count < usable
            },
            "people whose labels were fixed": (
                f"{photos.loc[photos['fix'] != '', 'person'].nunique():,}"
            ),
            **{
                f"photos, mask {name}": f"{(photos['mask'] == k).sum():,}"
                for k, name in enumerate(readable("mask"))
            },
        },
    }
