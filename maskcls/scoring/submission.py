"""Submission files: ``ImageID,ans``, always joined on ImageID, never on the position of a row.

python -m maskcls score SUBMISSION.csv ANSWERS.csv
"""

from __future__ import annotations

import csv
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from maskcls.labels import ATTRIBUTES, NUM_JOINT, decode
from maskcls.scoring import metrics
from maskcls.storage import files
from maskcls.storage.names import some


def read_info(path: Path) -> pd.DataFrame:
    """Read the ImageIDs of a CSV file, in the order of its rows: one column, ``ImageID``.

    A byte order mark and any line ends are accepted. Raises ValueError naming the file where the
    column is missing, a row has too few or too many fields, an id is empty or stands twice, or
    there are no rows; OSError where the file cannot be read.
    """
    return _read(path, ["ImageID"])


def read_answers(path: Path) -> pd.DataFrame:
    """Read a submission or an answer file: columns ``ImageID`` and ``ans`` (0 to 17), in order.

    Raises what ``read_info`` raises, and ValueError for an ``ans`` that is no class from 0 to 17.
    """
    frame = _read(path, ["ImageID", "ans"])
    classes = {str(joint): joint for joint in range(NUM_JOINT)}
    wrong = frame[~frame["ans"].isin(classes.keys())]
    if len(wrong):
        raise ValueError(
            f"{path}: ans must be a whole number from 0 to {NUM_JOINT - 1}, "
            f"got {wrong['ans'].iloc[0]!r} for {wrong['ImageID'].iloc[0]}"
            f" ({len(wrong)} such rows)"
        )
    return frame.assign(ans=frame["ans"].map(classes).astype("int64"))


def write(image_ids: Sequence[str], classes: Mapping[str, int] | pd.Series, out: Path) -> None:
    """Write the submission: a row for each of ``image_ids``, in order, ``ans`` from ``classes``.

    ``classes`` gives the joint class (0 to 17) of each ImageID: a mapping, or a Series indexed by
    ImageID. Raises ValueError where it names other photos than ``image_ids``, names one twice or
    holds anything but classes.
    """
    answers = classes if isinstance(classes, pd.Series) else pd.Series(dict(classes), dtype=object)
    _require_unique(answers.index, "the predictions")
    require_same_ids(image_ids, answers.index, "the photos to predict", "the predictions")
    wrong = answers[~answers.isin(range(NUM_JOINT))]
    if len(wrong):
        raise ValueError(
            f"predictions must be whole numbers from 0 to {NUM_JOINT - 1}, "
            f"got {wrong.iloc[0]!r} for {wrong.index[0]} ({len(wrong)} such photos)"
        )
    ids = list(image_ids)
    rows = pd.DataFrame({"ImageID": ids, "ans": answers.loc[ids].to_numpy(dtype="int64")})
    files.write_table(out, rows)


def score(submission_path: Path, answers_path: Path) -> dict[str, dict[str, float]]:
    """Score a finished submission: ``metrics.scores`` for ``joint``, ``mask``, ``gender``, ``age``.

    Raises ValueError where the two files name different photos; and what ``read_answers`` raises.
    """
    submission, answers = read_answers(submission_path), read_answers(answers_path)
    require_same_ids(
        answers["ImageID"], submission["ImageID"], str(answers_path), str(submission_path)
    )
    joined = answers.merge(submission, on="ImageID", suffixes=("_true", "_predicted"))
    truth, predicted = joined["ans_true"].to_numpy(), joined["ans_predicted"].to_numpy()
    true_parts, predicted_parts = decode(truth), decode(predicted)
    by_head = {"joint": metrics.scores(metrics.confusion(truth, predicted, NUM_JOINT))}
    for name, values in ATTRIBUTES.items():
        cm_KK = metrics.confusion(true_parts[name], predicted_parts[name], len(values))
        by_head[name] = metrics.scores(cm_KK)
    return by_head


def require_same_ids(
    expected: Iterable[str], found: Iterable[str], expected_name: str, found_name: str
) -> None:
    """Raise ValueError, naming some of the ids, unless both name the same photos."""
    expected_ids, found_ids = set(expected), set(found)
    if expected_ids != found_ids:
        columns = [
            {unicodedata.normalize("NFC", name) for name in ids}
            for ids in (expected_ids, found_ids)
        ]
        hint = "; they differ in the Unicode form of names alone: save both as NFC"
        raise ValueError(
            f"{found_name} must name the same photos as {expected_name}: "
            f"{some(sorted(expected_ids - found_ids))} missing, "
            f"{some(sorted(found_ids - expected_ids))} too many"
            + (hint if columns[0] == columns[1] else "")
        )


def _read(path: Path, columns: list[str]) -> pd.DataFrame:
    # The csv module, because pandas pads short rows.
    rows = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header = list(reader.fieldnames or [])
            if not set(columns) <= set(header):
                raise ValueError(
                    f"expected the columns {columns}, as in submission.csv of a run, found {header}"
                )
            for row in reader:
                if None in row or None in row.values():  # how the csv module marks a ragged row
                    raise ValueError(f"line {reader.line_num}: expected {len(header)} fields")
                rows.append([row[name] for name in columns])
    except UnicodeDecodeError:
        raise ValueError(
            f"{path}: not UTF-8, but in an encoding of Windows or Excel; save it as "
            '"CSV UTF-8", or convert it, for instance by `iconv -f cp949 -t utf-8 FILE`'
        ) from None
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from None
    frame = pd.DataFrame(rows, columns=columns, dtype=str)
    if frame.empty:
        raise ValueError(f"{path}: has a header but no rows")
    if (frame["ImageID"] == "").any():
        raise ValueError(f"{path}: {(frame['ImageID'] == '').sum()} rows have no ImageID")
    _require_unique(frame["ImageID"], str(path))
    return frame


def _require_unique(ids: Iterable[str], name: str) -> None:
    doubled = {image_id for image_id, count in Counter(ids).items() if count > 1}
    if doubled:
        named = some(sorted(doubled))
        raise ValueError(f"{name}: each ImageID must stand once, but {named} do not")


def vote_submissions(paths: Sequence[Path], *, out: Path | None = None) -> pd.DataFrame:
    """Hard vote over submission files, joined on ImageID: columns ``ImageID`` and ``ans``.

    Rows stand in the order of the first file. Files hold no probabilities, so a tie goes to the
    tied class of the earliest file: give the best one first. ``out``, if given, is written whole or
    not at all.

    Raises ValueError where there is no file, ``out`` is among the files, or a file names other
    photos than the first; and what ``read_answers`` raises.
    """
    if not paths:
        raise ValueError("expected one or more submission files to vote over, got none")
    if out is not None and out.resolve() in {path.resolve() for path in paths}:
        raise ValueError(f"{out} is one of the files voted over: write to another file")
    frames = [read_answers(path) for path in paths]
    image_ids = frames[0]["ImageID"]
    for path, frame in zip(paths, frames, strict=True):
        require_same_ids(image_ids, frame["ImageID"], str(paths[0]), str(path))
    answers_FN = np.stack([f.set_index("ImageID")["ans"].loc[image_ids] for f in frames])
    votes_KN = np.eye(NUM_JOINT, dtype=np.int64)[answers_FN].sum(axis=0).T
    # The first file whose own answer got the most votes.
    winner_N = np.take_along_axis(votes_KN, answers_FN, axis=0).argmax(axis=0)
    voted = frames[0].assign(ans=answers_FN[winner_N, np.arange(len(image_ids))])
    if out is not None:
        write(image_ids.tolist(), voted.set_index("ImageID")["ans"], out)
    return voted
