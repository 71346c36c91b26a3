"""Which labels of a finished run are likely wrong, and a page to decide on them.

python -m maskcls.label_errors RUN

Goes by the run's out-of-fold probabilities: what models that never saw a person say against the
label that the person came with. Mask is judged by photo; gender and age by person, since seven
photos share the label.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from maskcls import files, finished_run, label_errors_page, results
from maskcls.config import Config, digest
from maskcls.labels import ATTRIBUTES, FloatArray, IntArray, class_names
from maskcls.manifest import LabelFixes, load_fixes
from maskcls.storage import on_this_machine

BY_PERSON: Final = ("gender", "age")
"""Attributes that the photos of a person share."""


@dataclass(frozen=True)
class Suspects:
    """Every label of a run with what speaks against it.

    ``table`` has a row for each label, the likeliest error of a task first: ``task`` (an
    attribute), ``rank`` (from 1), ``person``, ``photo`` (its key; empty for a person's label),
    ``given`` and ``likely`` (names of classes), ``score`` (mean out-of-fold probability of the
    given class), ``likely_probability``, ``flagged`` (see ``confident_classes``) and ``fix`` (label
    fixes that the given label came from). ``photos`` is the run's manifest and ``fixes`` what it
    was made with.
    """

    name: str
    identity: str
    table: pd.DataFrame
    photos: pd.DataFrame
    fixes: LabelFixes


def find(run: Path, *, data: Path | None = None, fixes: Path | None = None) -> Suspects:
    """Rank the labels of the run in folder ``run``.

    ``data`` is where the photos lie now, ``fixes`` the label fixes of the run, for a run that was
    moved. Raises FileNotFoundError where one of them is not there.
    """
    finished = finished_run.read(run)
    photos = finished.photos.reset_index()
    if data is not None:
        photos["path"] = [str(data / key) for key in photos["key"]]
    if not any(Path(path).is_file() for path in photos["path"]):
        raise FileNotFoundError(
            f"{photos['path'][0]}: no photo is there; name their root by --data"
        )
    tables = [ranked(finished.out_of_fold, attribute) for attribute in ATTRIBUTES]
    table = pd.concat([table for table in tables if len(table)], ignore_index=True)
    return Suspects(
        name=finished.name,
        identity=digest(finished.name, table.to_csv(index=False)),
        table=_with_fix(table, photos),
        photos=photos,
        fixes=_fixes_of(run, fixes),
    )


def ranked(out_of_fold: pd.DataFrame, attribute: str) -> pd.DataFrame:
    """The labels of one attribute, the likeliest error first (``Suspects.table`` without ``fix``).

    Labels are ranked by the probability of the given class, the self-confidence of Northcutt et al.
    (see ``confident_classes``). No rows where no model tells the attribute.
    """
    told = results.attribute_probabilities(out_of_fold, attribute)
    if told is None:
        return pd.DataFrame()
    probabilities_NK, given_N, photos = told
    if attribute in BY_PERSON:
        people, first_N, person_N = np.unique(
            photos["person"], return_index=True, return_inverse=True
        )
        sums_NK = np.zeros((len(people), probabilities_NK.shape[1]))
        np.add.at(sums_NK, person_N, probabilities_NK)
        probabilities_NK = sums_NK / np.bincount(person_N)[:, None]
        given_N, photos = given_N[first_N], pd.DataFrame({"photo": "", "person": people})
    confident_N = confident_classes(probabilities_NK, given_N)
    flagged_N = confident_N != given_N
    likely_N = np.where(flagged_N, confident_N, _likeliest_other(probabilities_NK, given_N))
    rows, names = np.arange(len(given_N)), np.array(class_names(attribute))
    table = pd.DataFrame(
        {
            "task": attribute,
            "person": photos["person"],
            "photo": photos["photo"],
            "given": names[given_N],
            "likely": names[likely_N],
            "score": probabilities_NK[rows, given_N],
            "likely_probability": probabilities_NK[rows, likely_N],
            "flagged": flagged_N,
        }
    ).sort_values(["score", "person", "photo"], ignore_index=True)
    table.insert(1, "rank", np.arange(1, len(table) + 1))
    return table


def confident_classes(probabilities_NK: FloatArray, given_N: npt.ArrayLike) -> IntArray:
    """The class that a model is confident of, [N]; the given class where there is none.

    A model is confident of a class where its probability reaches its own mean over all that were
    given that class, so it may be shy of a rare class as a whole; among several the likeliest
    counts. What is confidently of another class than given, and most likely not of the given one,
    is off the diagonal of the confident joint: Northcutt, Jiang and Chuang, "Confident Learning:
    Estimating Uncertainty in Dataset Labels", JAIR 70, 2021, section 3.1.
    """
    given = np.asarray(given_N, np.int64)
    counts_K = np.bincount(given, minlength=probabilities_NK.shape[1])
    sums_K = (probabilities_NK * (given[:, None] == np.arange(len(counts_K)))).sum(axis=0)
    threshold_K = np.divide(
        sums_K, counts_K, out=np.full(len(counts_K), np.inf), where=counts_K > 0
    )
    reached_NK = probabilities_NK >= threshold_K - 1e-6  # a mean of equals may round above them
    confident_N = np.where(reached_NK, probabilities_NK, -1).argmax(axis=1)
    doubted_N = reached_NK.any(axis=1) & (probabilities_NK.argmax(axis=1) != given)
    return np.where(doubted_N, confident_N, given)


def _likeliest_other(probabilities_NK: FloatArray, given_N: IntArray) -> IntArray:
    given_NK = given_N[:, None] == np.arange(probabilities_NK.shape[1])
    return np.where(given_NK, -1, probabilities_NK).argmax(axis=1)


def _with_fix(table: pd.DataFrame, photos: pd.DataFrame) -> pd.DataFrame:
    by_photo = photos.set_index("key")["fix"]
    # What was done to a person was done to all photos: the shortest list has only that.
    by_person = photos.groupby("person")["fix"].agg(lambda fixes: min(fixes, key=len))
    return table.assign(fix=table["photo"].map(by_photo).fillna(table["person"].map(by_person)))


def _fixes_of(run: Path, fixes: Path | None) -> LabelFixes:
    if fixes is None:
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        fixes = Config.model_validate(config).data.label_fixes
    if fixes is None:
        return LabelFixes()
    try:
        return load_fixes(fixes)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{fixes}: the label fixes of the run are not there; name the file by --fixes"
        ) from None


def write(folder: Path, suspects: Suspects, *, top: int) -> tuple[Path, Path]:
    """Write ``label_errors.csv`` with all labels and ``label_errors.html`` with the first ``top``
    of each task to ``folder``; return their paths.

    Raises OSError naming the file that cannot be written.
    """
    table, page = folder / "label_errors.csv", folder / "label_errors.html"
    with files.replacing(table) as temporary:
        suspects.table.to_csv(temporary, index=False, lineterminator="\n", float_format="%.5f")
    files.write_text(page, label_errors_page.render(suspects, top))
    return table, page


def main(argv: Sequence[str] | None = None) -> None:
    """Find likely label errors from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m maskcls.label_errors",
        description="Which labels of a finished run are likely wrong: label_errors.csv, and "
        "label_errors.html to decide on them and export label fixes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "run", type=on_this_machine, metavar="RUN", help="run.dir of a finished sweep"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="to write to, instead of RUN")
    parser.add_argument("--top", type=int, default=100, help="labels of each task on the page")
    parser.add_argument(
        "--data", type=on_this_machine, metavar="DATA_ROOT", help="where the photos are now"
    )
    parser.add_argument("--fixes", type=Path, metavar="YAML", help="where the run's fixes are now")
    arguments = parser.parse_args(argv)
    try:
        suspects = find(arguments.run, data=arguments.data, fixes=arguments.fixes)
        table, page = write(arguments.out or arguments.run, suspects, top=arguments.top)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    for task, rows in suspects.table.groupby("task", sort=False):
        flagged = rows["flagged"].sum()
        print(f"{task}: models are confident of another class for {flagged:,} of {len(rows):,}")
    print(f"all labels: {table}\nto decide:  {page}")


if __name__ == "__main__":
    main()
