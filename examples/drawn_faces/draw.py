"""A data set of drawn faces in the layout of the competition, to try everything without its photos.

python -m examples.drawn_faces OUT --people 120 --height 192 --width 144
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import pandas as pd

from examples.drawn_faces import face
from maskcls.data.label_fixes import STEMS
from maskcls.labels import AgeBand, Gender, Mask, age_band, encode
from maskcls.storage import files

STAMP: Final = "drawn_faces.json"
"""Says what a finished folder was drawn with; written last."""

DRAWING: Final = 2
"""Changes when the same arguments would give other photos."""

PEOPLE_OF_COMPETITION: Final = {
    (Gender.MALE, AgeBand.UNDER_30): 549,
    (Gender.MALE, AgeBand.FROM_30_TO_59): 410,
    (Gender.MALE, AgeBand.FROM_60): 83,
    (Gender.FEMALE, AgeBand.UNDER_30): 732,
    (Gender.FEMALE, AgeBand.FROM_30_TO_59): 817,
    (Gender.FEMALE, AgeBand.FROM_60): 109,
}


def draw(
    root: Path, *, people: int = 120, eval_people: int = 30, seed: int = 42,
    height: int = 512, width: int = 384, quality: int = 90,
) -> Path:  # fmt: skip
    """Draw seven photos a person, ``height`` x ``width`` pixels, into the folder ``root``.

    ``train/`` and ``eval/`` are laid out as in the competition; ``answers.csv`` holds the true
    classes of ``eval/``, for scoring only. The same arguments give the same bytes, and a folder
    that was drawn with them stays as it is. Returns ``root``.

    Raises ValueError where a number makes no sense and FileExistsError where ``root`` holds
    anything else, faces drawn with other arguments included.
    """
    groups = len(PEOPLE_OF_COMPETITION)
    if min(people, eval_people) < groups:
        raise ValueError(
            f"people and eval_people must be at least {groups}, one for each gender and age band, "
            f"got {people} and {eval_people}"
        )
    if min(height, width) < 32 or not 1 <= quality <= 100:
        raise ValueError(
            "height and width must be at least 32 pixels and quality from 1 to 100, "
            f"got {height} x {width} and {quality}"
        )
    stamp = {
        "drawing": DRAWING, "people": people, "eval_people": eval_people, "seed": seed,
        "height": height, "width": width, "quality": quality,
    }  # fmt: skip
    if root.exists() and any(root.iterdir()):
        if (root / STAMP).is_file() and files.read_json(root / STAMP) == stamp:
            return root
        raise FileExistsError(f"{root} holds something else: choose another folder or delete it")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as name:
        temporary = Path(name) / "faces"
        _draw_train(temporary, people, seed, (height, width), quality)
        _draw_eval(temporary, people, eval_people, seed, (height, width), quality)
        files.write_json(temporary / STAMP, stamp)
        shutil.rmtree(root, ignore_errors=True)
        temporary.rename(root)
    return root


def _draw_train(root: Path, people: int, seed: int, size: tuple[int, int], quality: int) -> None:
    rows = []
    for number, (gender, age) in enumerate(_people(people, seed, part=1), start=1):
        name = f"{number:06d}_{gender.name.lower()}_Drawn_{age}"
        rows.append((*name.split("_"), name))
        for stem, _, image_HWC in _photos(seed, number, gender, age, size):
            _write_jpeg(root / "train/images" / name / f"{stem}.jpg", image_HWC, quality)
    table = pd.DataFrame(rows, columns=["id", "gender", "race", "age", "path"])
    table.to_csv(root / "train/train.csv", index=False)


def _draw_eval(
    root: Path, train_people: int, people: int, seed: int, size: tuple[int, int], quality: int
) -> None:
    """Draw people who are not among those to train on, under names that tell nothing."""
    answers = []
    for number, (gender, age) in enumerate(_people(people, seed, part=2), start=train_people + 1):
        for stem, mask, image_HWC in _photos(seed, number, gender, age, size):
            digest = hashlib.sha1(f"{seed}/{number}/{stem}".encode(), usedforsecurity=False)
            name = f"{digest.hexdigest()}.jpg"
            answers.append((name, int(encode(mask, gender, age_band(age)))))
            _write_jpeg(root / "eval/images" / name, image_HWC, quality)
    table = pd.DataFrame(sorted(answers), columns=["ImageID", "ans"])
    table.to_csv(root / "answers.csv", index=False)
    table.assign(ans=0).to_csv(root / "eval/info.csv", index=False)


def _people(count: int, seed: int, part: int) -> list[tuple[Gender, int]]:
    """Gender and age in years of ``count`` people, in random order.

    Groups are as frequent as in the competition, but none is below one person in twenty.
    """
    rng = np.random.default_rng((seed, 0, part))  # (seed, person, photo) count from 1
    shares = np.array(list(PEOPLE_OF_COMPETITION.values()))
    sizes = np.full(len(shares), -(-count // 20))
    while sizes.sum() < count:
        sizes[np.argmax(shares / sizes)] += 1
    ages = {
        AgeBand.UNDER_30: lambda: int(rng.triangular(18, 21, 30)),
        AgeBand.FROM_30_TO_59: lambda: int(rng.triangular(30, 44, 60)),
        AgeBand.FROM_60: lambda: 60 + min(int(rng.exponential(5)), 20),
    }
    people = [
        (gender, ages[band]())
        for (gender, band), size in zip(PEOPLE_OF_COMPETITION, sizes, strict=True)
        for _ in range(size)
    ]
    return [people[i] for i in rng.permutation(count)]


def _photos(
    seed: int, number: int, gender: Gender, age: int, size: tuple[int, int]
) -> Iterator[tuple[str, Mask, face.Image]]:
    """Stem, class and image of each photo of one person; ``number`` counts all people from 1."""
    who = face.person(gender, age, np.random.default_rng((seed, number, 0)))
    for count, (stem, mask) in enumerate(STEMS.items(), start=1):
        rng = np.random.default_rng((seed, number, count))
        yield stem, mask, face.photo(who, mask, rng, size)


def _write_jpeg(path: Path, image: face.Image, quality: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    path.write_bytes(encoded.tobytes())


def main(argv: Sequence[str] | None = None) -> None:
    """Draw faces from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.drawn_faces",
        description="Draw faces in the layout of the competition.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("root", type=Path, metavar="OUT", help="folder to draw into")
    for name, default, text in (
        ("people", 120, "people to train on"), ("eval-people", 30, "people to predict"),
        ("seed", 42, "other faces for another number"), ("height", 512, "pixels"),
        ("width", 384, "pixels"), ("quality", 90, "of the JPEG files"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default, help=text)
    arguments = parser.parse_args(argv)
    try:
        root = draw(**vars(arguments))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"faces in {root}")
