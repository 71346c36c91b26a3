"""Are faces found on masked people too, and does the crop alone tell who wears a mask?

python -m benchmarks.faces DATA [--people 240] [--detectors centerface blazeface] [--surroundings]

DATA has train/ in the competition's layout. For each detector: photos in which no face was found,
and in which another thing was (intersection over union with the box on the same person's photo
without a mask below .3), by mask state, gender and age band; milliseconds a photo; and the leak:
how much better than chance a classifier tells the mask state from the box alone (macro F1 on other
people; chance: the same with the mask states of each person shuffled).

``--surroundings`` does the same on people who are pasted small before blurred patches of other
photos, and ``--write FOLDER`` keeps these photos as a data set to train on.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.metrics import f1_score

from maskcls.config.recipe import DETECTORS
from maskcls.data import face_table
from maskcls.data.face_table import BOX
from maskcls.data.faces import Box
from maskcls.data.manifest import read_train
from maskcls.data.photos import decode
from maskcls.labels import UInt8Array, class_names
from maskcls.progress import Progress

SHARES = (0.3, 0.6)
"""Least and most of the width of a photo with surroundings that the pasted portrait fills."""

PATCHES = 6
ROUNDS = 5
FOLDS = 5
BoolArray = npt.NDArray[np.bool_]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--people", type=int, default=10**9)
    parser.add_argument("--detectors", nargs="+", default=list(DETECTORS))
    parser.add_argument("--surroundings", action="store_true")
    parser.add_argument("--write", type=Path, help="keep the photos with surroundings here")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as aside:
        root, places = arguments.data, {}
        if arguments.surroundings:
            root = arguments.write or Path(aside, "data")
            places = paste_all(arguments.data, root, arguments.people, arguments.threads)
        photos = read_train(root).photos
        people = sorted(photos["person"].unique())[: arguments.people]
        photos = photos[photos["person"].isin(people)].reset_index(drop=True)
        for detector in arguments.detectors:
            began = time.perf_counter()
            located = face_table.locate(
                photos,
                detector,
                Path(aside, "cache"),
                threads=arguments.threads,
                progress=Progress(f"{detector}: photos"),
            )
            pace = (time.perf_counter() - began) / len(photos) * 1e3
            print(
                f"\n{detector}: {len(photos):,} photos of {len(people)} people, {pace:.0f} ms a "
                f"photo with {arguments.threads} thread(s), decoding included\n"
            )
            print(table(located, places))
            leak, chance = leaks(located)
            print(
                f"\nmask state told by the box alone: macro F1 {leak:.3f}, by chance {chance:.3f}: "
                f"leak {leak - chance:+.3f} (must: at most +.030)"
            )


def table(located: pd.DataFrame, places: Mapping[str, Box]) -> str:
    """A Markdown table: photos without a face and with a wrong box, by group."""
    missing, wrong = located["face_left"].isna(), wrong_boxes(located, places)
    rows = ["| | photos | no face | wrong box | found and right |", "|---|---|---|---|---|"]
    groups = {
        f"{attribute} {name}": located["age_band" if attribute == "age" else attribute] == value
        for attribute in ("mask", "gender", "age")
        for value, name in enumerate(class_names(attribute))
    }
    for name, chosen in {"all": located["mask"] >= 0, **groups}.items():
        count, none, bad = chosen.sum(), missing[chosen].sum(), wrong[chosen.to_numpy()].sum()
        if count:
            right = 1 - (none + bad) / count
            rows.append(f"| {name} | {count:,} | {none} | {bad} | {right:.2%} |")
    return "\n".join(rows)


def wrong_boxes(located: pd.DataFrame, places: Mapping[str, Box]) -> BoolArray:
    """Which boxes hardly overlap the one on the same person's photo without a mask.

    ``places``: by key, where in its photo a portrait was pasted; boxes are compared within it.
    """
    places_N4 = np.array([places.get(key, (0.0, 0.0, 1.0, 1.0)) for key in located["key"]])
    boxes_N4 = located[BOX].to_numpy()
    within_N4 = np.concatenate([boxes_N4[:, :2] - places_N4[:, :2], boxes_N4[:, 2:]], axis=1)
    within_N4 /= places_N4[:, [2, 3, 2, 3]]
    bare = (located["stem"] == "normal").to_numpy()
    of_bare = pd.DataFrame(within_N4[bare], index=located["person"][bare])
    theirs_N4 = of_bare.reindex(located["person"]).to_numpy()
    return np.asarray(overlap(within_N4, theirs_N4) < 0.3)


def overlap(
    a_N4: npt.NDArray[np.float64], b_N4: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Intersection over union of each pair of boxes; NaN where one is missing."""
    start = np.maximum(a_N4[:, :2], b_N4[:, :2])
    end = np.minimum(a_N4[:, :2] + a_N4[:, 2:], b_N4[:, :2] + b_N4[:, 2:])
    common = np.clip(end - start, 0, None).prod(axis=1)
    return np.asarray(common / (a_N4[:, 2:].prod(axis=1) + b_N4[:, 2:].prod(axis=1) - common))


def leaks(located: pd.DataFrame) -> tuple[float, float]:
    """Macro F1 of the mask state, told on other people from whether a face was found, where and how
    large, and the same by chance; means over rounds."""
    features = located[BOX].assign(found=located["face_left"].notna()).fillna(-1.0).to_numpy(float)
    person = pd.factorize(located["person"])[0]
    mask = located["mask"].to_numpy()
    told, chance = [], []
    for seed in range(ROUNDS):
        rng = np.random.default_rng(seed)
        fold = rng.permutation(person.max() + 1)[person] % FOLDS
        told.append(_told(features, mask, fold, seed))
        shuffled = mask[np.lexsort((rng.random(len(mask)), person))]
        order = np.lexsort((np.arange(len(mask)), person))
        mixed = np.empty_like(mask)
        mixed[order] = shuffled
        chance.append(_told(features, mixed, fold, seed))
    return float(np.mean(told)), float(np.mean(chance))


def _told(
    features: npt.NDArray[np.float64],
    mask: npt.NDArray[Any],
    fold: npt.NDArray[np.int64],
    seed: int,
) -> float:
    answers = np.empty_like(mask)
    for number in range(FOLDS):
        held = fold == number
        trees = ExtraTreesClassifier(
            60, min_samples_leaf=4, class_weight="balanced", random_state=seed
        )
        answers[held] = trees.fit(features[~held], mask[~held]).predict(features[held])
    return float(f1_score(mask, answers, average="macro"))


def paste_all(data: Path, root: Path, people: int, threads: int) -> dict[str, Box]:
    """The data set with surroundings: every photo of train and eval, pasted; lists are copied.

    By key, where each portrait is in its photo.
    """
    folders = sorted((data / "train" / "images").iterdir())
    every = [path for folder in folders[:people] for path in sorted(folder.iterdir())]
    every += sorted((data / "eval" / "images").glob("*"))
    behind = [folder / "normal.jpg" for folder in folders]
    progress = Progress("photos pasted")
    places = {}
    with ThreadPoolExecutor(threads) as pool:
        jobs = pool.map(lambda path: _paste_file(path, data, root, behind), every)
        for path, place in zip(every, jobs, strict=True):
            places[str(path.relative_to(data))] = place
            progress(len(places), len(every))
    for name in ("eval/info.csv", "answers.csv"):
        if (data / name).is_file():
            shutil.copy(data / name, root / name)
    return places


def _paste_file(path: Path, data: Path, root: Path, behind: Sequence[Path]) -> Box:
    key = path.relative_to(data)
    # Another place, size and background for each photo, told by its name alone.
    seed = int.from_bytes(hashlib.blake2b(str(key).encode(), digest_size=8).digest(), "big")
    rng = np.random.default_rng(seed)
    background = behind[int(rng.integers(len(behind)))]
    image, place = paste(decode(path.read_bytes()), decode(background.read_bytes()), rng)
    out = root / key
    out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(out), image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    return place


def paste(
    portrait: UInt8Array, behind: UInt8Array, rng: np.random.Generator
) -> tuple[UInt8Array, Box]:
    """A portrait, small and with soft edges, somewhere in the middle of a blurred background, for
    which another photo is cut up and shuffled: nobody stands in it. And where the portrait is."""
    height, width = portrait.shape[:2]
    tall, wide = height // PATCHES, width // PATCHES
    whole = cv2.resize(behind, (wide * PATCHES, tall * PATCHES))
    patches = whole.reshape(PATCHES, tall, PATCHES, wide, 3).transpose(0, 2, 1, 3, 4)
    patches = rng.permutation(patches.reshape(-1, tall, wide, 3))
    rows_of = patches.reshape(PATCHES, PATCHES, tall, wide, 3).transpose(0, 2, 1, 3, 4)
    mosaic = np.ascontiguousarray(rows_of.reshape(tall * PATCHES, wide * PATCHES, 3))
    canvas = cv2.GaussianBlur(cv2.resize(mosaic, (width, height)), (0, 0), width / 40)
    share = rng.uniform(*SHARES)
    rows, columns = round(height * share), round(width * share)
    top = round((height - rows) * rng.uniform(0.15, 0.7))
    left = round((width - columns) * rng.uniform(0.2, 0.8))
    small = cv2.resize(portrait, (columns, rows), interpolation=cv2.INTER_AREA)
    soft = np.zeros((rows, columns, 1), np.float32)
    cv2.ellipse(soft, (columns // 2, rows // 2), (columns * 12 // 25, rows * 12 // 25), 0, 0, 360,
                1.0, -1)  # fmt: skip
    soft = cv2.GaussianBlur(soft, (0, 0), columns / 40)[:, :, None]
    place = np.s_[top : top + rows, left : left + columns]
    canvas[place] = (small * soft + canvas[place] * (1 - soft)).astype(np.uint8)
    box = (left / width, top / height, columns / width, rows / height)
    return np.asarray(canvas, np.uint8), box


if __name__ == "__main__":
    main()
