"""Drawn faces in the layout of the competition, so that everything can be tried without its photos.

python -m examples.drawn_faces OUT --people 120 --height 192 --width 144

Gender, age and mask show in many small cues, each of which misleads at times: no single one gives a
class away, and a small network learns them in a few epochs, though never completely.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from maskcls.data.label_fixes import STEMS
from maskcls.labels import AgeBand, Gender, Mask, age_band, encode
from maskcls.storage import files

Image = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]
Colour = npt.NDArray[np.float64]

STAMP: Final = "demo_faces.json"
DRAWING: Final = 1
"""Changes when the same parameters would give other photos."""

PEOPLE_OF_COMPETITION: Final = {
    (Gender.MALE, AgeBand.UNDER_30): 549,
    (Gender.MALE, AgeBand.FROM_30_TO_59): 410,
    (Gender.MALE, AgeBand.FROM_60): 83,
    (Gender.FEMALE, AgeBand.UNDER_30): 732,
    (Gender.FEMALE, AgeBand.FROM_30_TO_59): 817,
    (Gender.FEMALE, AgeBand.FROM_60): 109,
}

SKINS: Final = np.array([[240, 208, 184], [232, 192, 162], [218, 172, 136]])
HAIRS: Final = np.array([[24, 20, 20], [38, 28, 24], [58, 40, 30]])
DYES: Final = np.array([[176, 128, 70], [150, 62, 48], [206, 112, 140], [92, 96, 140]])
GREY: Final = np.array([206.0, 204, 204])
CLOTHS: Final = np.array(
    [[176, 208, 232], [240, 240, 242], [34, 34, 38], [246, 206, 214], [120, 132, 150],
     [60, 92, 140], [206, 220, 196], [226, 210, 180], [150, 40, 52], [88, 88, 92]]
)  # fmt: skip
"""Colours of masks, scarves and clothes, which therefore do not tell them apart."""


def draw(
    root: Path,
    *,
    people: int = 120,
    eval_people: int = 30,
    seed: int = 42,
    height: int = 512,
    width: int = 384,
    quality: int = 90,
) -> Path:
    """Draw seven photos a person, ``height`` x ``width`` pixels, into the folder ``root``.

    ``train/`` and ``eval/`` are laid out as in the competition; ``answers.csv`` holds the true
    classes of ``eval/``, for scoring only. The same arguments give the same bytes. A folder that is
    already complete stays as it is; one with photos missing is drawn anew. Returns ``root``.

    Raises ValueError where a number makes no sense and FileExistsError where ``root`` holds
    anything else, faces drawn with other arguments included.
    """
    for name, value in (("people", people), ("eval_people", eval_people)):
        if value < len(PEOPLE_OF_COMPETITION):
            raise ValueError(
                f"{name} must be at least {len(PEOPLE_OF_COMPETITION)}, one for each gender and "
                f"age band, got {value}"
            )
    if min(height, width) < 32 or not 1 <= quality <= 100:
        raise ValueError(
            "height and width must be at least 32 pixels and quality from 1 to 100, "
            f"got {height} x {width} and {quality}"
        )
    stamp = {
        "drawing": DRAWING,
        "people": people,
        "eval_people": eval_people,
        "seed": seed,
        "height": height,
        "width": width,
        "quality": quality,
    }
    if _is_complete(root, stamp):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        temporary.chmod(0o755)
        _draw_train(temporary, people, seed, (height, width), quality)
        _draw_eval(temporary, people, eval_people, seed, (height, width), quality)
        files.write_json(temporary / STAMP, stamp)
        if root.exists():
            shutil.rmtree(root)
        temporary.rename(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return root


def _is_complete(root: Path, stamp: dict[str, int]) -> bool:
    """Whether ``root`` holds exactly these faces; False where they may be drawn there."""
    found = {path.name for path in root.iterdir()} if root.exists() else set()
    if not found:
        return False
    drawn_as = files.read_json(root / STAMP) if STAMP in found else None
    photos = len(STEMS) * (stamp["people"] + stamp["eval_people"])
    lists = [root / "train/train.csv", root / "eval/info.csv", root / "answers.csv"]
    complete = sum(1 for _ in root.rglob("*.jpg")) >= photos and all(map(Path.exists, lists))
    foreign = found - {STAMP, "train", "eval", "answers.csv"}
    if drawn_as != stamp or (foreign and not complete):
        what = f"faces drawn as {drawn_as}" if drawn_as else "something else"
        raise FileExistsError(
            f"{root} must be new, empty or hold the faces of {stamp}, but holds {what}; "
            "choose another folder or delete it"
        )
    return complete


def _draw_train(root: Path, people: int, seed: int, size: tuple[int, int], quality: int) -> None:
    rows = []
    for number, (gender, age) in enumerate(_people(people, seed, part=1), start=1):
        name = f"{number:06d}_{gender.name.lower()}_Drawn_{age}"
        rows.append((*name.split("_"), name))
        folder = root / "train/images" / name
        folder.mkdir(parents=True)
        for stem, _, image_HWC in _photos(seed, number, gender, age, size):
            _write_jpeg(folder / f"{stem}.jpg", image_HWC, quality)
    _write_csv(root / "train/train.csv", ("id", "gender", "race", "age", "path"), rows)


def _draw_eval(
    root: Path, train_people: int, people: int, seed: int, size: tuple[int, int], quality: int
) -> None:
    """Draw people who are not among those to train on, under names that tell nothing."""
    answers = []
    folder = root / "eval/images"
    folder.mkdir(parents=True)
    for number, (gender, age) in enumerate(_people(people, seed, part=2), start=train_people + 1):
        for stem, mask, image_HWC in _photos(seed, number, gender, age, size):
            digest = hashlib.sha1(f"{seed}/{number}/{stem}".encode(), usedforsecurity=False)
            name = f"{digest.hexdigest()}.jpg"
            answers.append((name, int(encode(mask, gender, age_band(age)))))
            _write_jpeg(folder / name, image_HWC, quality)
    answers.sort()
    _write_csv(root / "eval/info.csv", ("ImageID", "ans"), [(name, 0) for name, _ in answers])
    _write_csv(root / "answers.csv", ("ImageID", "ans"), answers)


def _people(count: int, seed: int, part: int) -> list[tuple[Gender, int]]:
    """Gender and age in years of ``count`` people, in random order.

    Groups are as frequent as in the competition, but none is below one person in twenty.
    """
    rng = np.random.default_rng((seed, 0, part))  # (seed, person, photo) count from 1
    groups = list(PEOPLE_OF_COMPETITION)
    shares = np.array([PEOPLE_OF_COMPETITION[group] for group in groups])
    sizes = np.full(len(groups), -(-count // 20))
    while sizes.sum() < count:
        sizes[np.argmax(shares / sizes)] += 1
    people = [
        (gender, _age(band, rng))
        for (gender, band), size in zip(groups, sizes, strict=True)
        for _ in range(size)
    ]
    return [people[i] for i in rng.permutation(count)]


def _age(band: AgeBand, rng: np.random.Generator) -> int:
    match band:
        case AgeBand.UNDER_30:
            return int(rng.triangular(18, 21, 30))
        case AgeBand.FROM_30_TO_59:
            return int(rng.triangular(30, 44, 60))
        case _:
            return 60 + min(int(rng.exponential(5)), 20)


@dataclass(frozen=True)
class _Person:
    """What is the same in all photos of a person. Shares go from 0 to 1, lengths are in faces."""

    skin: Colour
    hair: Colour
    lips: Colour
    grey: float
    receding: float
    wrinkles: float
    sagging: float
    spots: Points  # [N, 2]
    creases: Points  # [8], the person's own depth of each wrinkle
    strands: Points  # [N, 3]: where it starts, where it ends, how grey it is
    hair_length: float
    volume: float
    parting: float
    fringe: float
    tied: bool
    neck: float
    jaw: float
    squareness: float
    brow: float
    brow_gap: float
    eye: float
    lashes: float
    fullness: float
    stubble: float
    moustache: bool
    blush: float
    earrings: bool
    collar: bool
    glasses: float  # how often they wear them
    lens: float
    eye_gap: float
    nose: float


def _person(gender: Gender, age: int, rng: np.random.Generator) -> _Person:
    """Draw the traits of a person from their gender and age, with everybody's own deviations."""
    sign = 1.0 if gender == Gender.FEMALE else -1.0
    seems = age + rng.normal(0, 2)  # some look older than they are, and all cues agree on it

    def feminine() -> float:
        """A cue from 0 to 1, above a half for most women and below for most men."""
        return float(np.clip(0.5 + 0.25 * sign + rng.normal(0, 0.15), 0, 1))

    def aged(start: float, span: float, spread: float = 2.5) -> float:
        """A cue from 0 to 1 that grows over ``span`` years from the age ``start``."""
        return float(np.clip((seems + rng.normal(0, spread) - start) / span, 0, 1))

    skin = _mix_palette(SKINS, rng) + rng.normal(0, 5, 3)
    bright = rng.random() < 0.55 - 0.53 * aged(24, 8)
    hair = _mix_palette(DYES if bright else HAIRS, rng)
    lips = _mix(_mix(skin, np.array([196.0, 92, 92]), 0.45), np.array([186.0, 26, 50]),
                1.3 * max(feminine() - 0.4, 0))  # fmt: skip
    return _Person(
        skin=_mix(skin, np.array([200.0, 160, 122]), 0.3 * aged(26, 8) + 0.2 * aged(47, 14)),
        hair=hair,
        lips=_mix(lips, skin, 0.4 * aged(45, 30)),
        grey=aged(49, 12) * (rng.random() > 0.08),
        receding=(1.0 if gender == Gender.MALE else 0.35) * aged(35, 35, 10),
        wrinkles=0.45 * aged(26, 8) + 0.55 * aged(47, 14),
        sagging=0.4 * aged(27, 10) + 0.6 * aged(47, 14),
        spots=rng.uniform((-0.6, -0.6), (0.6, 0.8), (int(14 * aged(40, 30, 6)), 2)),
        creases=rng.uniform(0.6, 1.3, 8),
        strands=rng.random((16, 3)),
        hair_length=feminine(),
        volume=float(rng.uniform(0, 1)),
        parting=float(rng.uniform(-0.4, 0.4)),
        fringe=float(np.clip(rng.normal(0.75 - 0.65 * aged(25, 8), 0.25), 0, 1)),
        tied=bool(rng.random() < 0.08),
        neck=0.32 + 0.16 * (1 - feminine()),
        jaw=0.66 + 0.16 * (1 - feminine()),
        squareness=1.7 + 1.1 * (1 - feminine()),
        brow=0.025 + 0.085 * (1 - feminine()),
        brow_gap=0.2 + 0.07 * feminine(),
        eye=0.085 + 0.025 * feminine() - 0.035 * aged(25, 8) - 0.015 * aged(47, 14),
        lashes=max(feminine() - 0.35, 0) * 1.5,
        fullness=0.055 + 0.05 * feminine(),
        stubble=max(0.55 - feminine(), 0) * 1.6 * float(rng.random() < 0.85),
        moustache=bool(feminine() < 0.3 and rng.random() < 0.25),
        blush=(1 - aged(25, 8)) * float(rng.uniform(0.4, 1.4)),
        earrings=bool(feminine() > 0.6 and rng.random() < 0.5),
        collar=bool(rng.random() < 0.07 + 0.83 * aged(25, 8)),
        glasses=float(rng.random() < 0.25 + 0.2 * aged(40, 20)) * 0.6,
        lens=float(rng.uniform(0.15, 0.21)),
        eye_gap=float(rng.normal(0.34, 0.015)),
        nose=0.11 + 0.05 * (1 - feminine()) + 0.02 * aged(40, 30),
    )


class _Canvas:
    """An image to paint on in units of a face: (0, 0) is its middle, (0, 1) its chin."""

    def __init__(self, background_HWC: Image, to_pixels: Points, scale: float) -> None:
        self.image = background_HWC
        self.shade = np.full(background_HWC.shape[:2], 128, np.uint8)
        self.offset = 0.0
        self._to_pixels, self._scale = to_pixels, scale

    def fill(self, points: Points, colour: npt.ArrayLike) -> None:
        cv2.fillPoly(self.image, [self._pixels(points)], _rgb(colour), cv2.LINE_AA, 4)

    def stroke(self, points: Points, colour: npt.ArrayLike, width: float) -> None:
        self._polyline(self.image, points, _rgb(colour), width, False)

    def outline(self, points: Points, colour: npt.ArrayLike, width: float) -> None:
        self._polyline(self.image, points, _rgb(colour), width, True)

    def darken(self, points: Points, share: float) -> None:
        """Shade an area; takes effect, softened, with ``settle``. A share below 0 lightens."""
        cv2.fillPoly(self.shade, [self._pixels(points)], 128 * (1 - share), cv2.LINE_AA, 4)

    def crease(self, points: Points, share: float, width: float = 0.035) -> None:
        """Shade along a line; takes effect, softened, with ``settle``."""
        if share > 0.02:
            self._polyline(self.shade, points, (128 * (1 - share),), width, False)

    def settle(self, softness: float) -> None:
        """Apply the shades so far."""
        # Twice a box: OpenCV's other soft blurs are slow, or round differently by thread count.
        reach = 2 * round(softness * self._scale) + 1
        shade = cv2.blur(cv2.blur(self.shade, (reach, reach)), (reach, reach))
        cv2.multiply(self.image, cv2.merge([shade] * 3), dst=self.image, scale=1 / 128)
        self.shade[:] = 128

    def within(self, points: Points) -> Image:
        """The area of a polygon as a mask [H, W] for ``cv2.copyTo``."""
        area = np.zeros(self.image.shape[:2], np.uint8)
        cv2.fillPoly(area, [self._pixels(points)], 255, cv2.LINE_8, 4)
        return area

    def _pixels(self, points: Points) -> npt.NDArray[np.int32]:
        shifted = points + np.array([self.offset, 0])
        pixels = shifted @ self._to_pixels[:, :2].T + self._to_pixels[:, 2]
        return np.rint(pixels * 16).astype(np.int32)

    def _polyline(
        self, target: Image, points: Points, colour: Sequence[float], width: float, closed: bool
    ) -> None:
        thickness = max(round(width * self._scale), 1)
        pixels = [self._pixels(points)]
        cv2.polylines(target, pixels, closed, colour, thickness, cv2.LINE_AA, 4)


def _photos(
    seed: int, number: int, gender: Gender, age: int, size: tuple[int, int]
) -> Iterable[tuple[str, Mask, Image]]:
    """Stem, class and image of each photo of one person; ``number`` counts all people from 1."""
    person = _person(gender, age, np.random.default_rng((seed, number, 0)))
    for photo, (stem, mask) in enumerate(STEMS.items(), start=1):
        yield stem, mask, _photo(person, mask, np.random.default_rng((seed, number, photo)), size)


def _photo(person: _Person, mask: Mask, rng: np.random.Generator, size: tuple[int, int]) -> Image:
    """One photo [H, W, 3] in RGB."""
    canvas = _canvas(rng, size)
    outline = _face_outline(person)
    turned = rng.normal(0, 0.035)
    _paint_behind_face(canvas, person, rng)
    _paint_skin(canvas, person, outline, turned, rng)
    canvas.offset = turned
    _paint_eyes(canvas, person)
    _paint_mouth(canvas, person, rng)
    canvas.offset = 0.0
    _paint_hair(canvas, person)
    canvas.offset = turned / 2
    match mask:
        case Mask.WORN:
            _paint_mask(canvas, outline, rng.uniform(-0.02, 0.1), rng.normal(1.08, 0.03), rng)
        case Mask.INCORRECT if rng.random() < 0.6:
            _paint_mask(canvas, outline, rng.uniform(0.4, 0.48), rng.normal(1.1, 0.03), rng)
        case Mask.INCORRECT:
            _paint_mask(canvas, outline, rng.uniform(0.72, 0.86), rng.normal(1.26, 0.03), rng)
        case Mask.NOT_WORN if rng.random() < 0.2:
            _paint_scarf(canvas, rng.uniform(0.95, 1.15), rng)
    canvas.offset = turned
    if rng.random() < person.glasses:
        _paint_glasses(canvas, person)
    return _through_camera(canvas.image, rng)


def _canvas(rng: np.random.Generator, size: tuple[int, int]) -> _Canvas:
    """The background, with the face placed as the photographer happened to hold the camera."""
    height, width = size
    unit = min(height, width * 4 / 3)
    scale = 0.3 * unit * rng.uniform(0.93, 1.07)
    angle = rng.normal(0, 0.05)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([width / 2, height * 0.47]) + unit * rng.normal(0, 0.015, 2)
    wall = rng.uniform(60, 235) + rng.normal(0, 20, (*rng.integers(2, 7, 2), 1))
    wall = np.clip(wall + rng.normal(0, 12, 3), 0, 255).astype(np.uint8)
    image = cv2.resize(wall, (width, height), interpolation=cv2.INTER_CUBIC)
    return _Canvas(np.asarray(image, np.uint8), np.column_stack([turn, middle]), float(scale))


def _face_outline(person: _Person) -> Points:
    """A superellipse, squarer below, with what hangs from the cheeks of older people."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    power = np.where(np.sin(angle) > 0, 2 / person.squareness, 0.9)
    x = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
    y = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power
    half_width = 0.72 + (person.jaw - 0.72) * np.clip(2 * y, 0, 1)
    half_width += 0.09 * person.sagging * np.exp(-(((y - 0.66) / 0.17) ** 2))
    return np.column_stack([x * half_width, y])


def _paint_behind_face(canvas: _Canvas, person: _Person, rng: np.random.Generator) -> None:
    if person.hair_length > 0.45 and not person.tied:
        end = 0.3 + 1.3 * person.hair_length
        side = 0.84 + 0.12 * person.volume
        right = [(side, -0.2), (side + 0.05, 0.7 * end), (side - 0.1, end), (0.4, end + 0.08)]
        canvas.fill(_mirrored(right), _mix(person.hair, GREY, person.grey) * 0.8)
    skin, wide = _mix(person.skin, np.zeros(3), 0.16), person.neck
    canvas.fill(_mirrored([(wide, 0.6), (wide + 0.02, 1.25), (0.62, 1.5), (0.3, 1.8)]), skin)
    cloth = _cloth(rng)
    shoulders = [(0.3, 1.42), (0.15 + wide, 1.36), (3 * wide, 1.56), (4 * wide, 2.0), (1.7, 3.5)]
    canvas.fill(_mirrored(shoulders), cloth)
    canvas.fill(_mirrored([(0.0, 1.66), (0.3, 1.40), (0.0, 1.3)]), skin)
    if person.collar:
        flap = np.array([(0.02, 1.62), (0.36, 1.24), (0.56, 1.42), (0.26, 1.9)])
        for side in (-1, 1):
            canvas.fill(flap * (side, 1), _mix(cloth, np.full(3, 250.0), 0.7))
            canvas.outline(flap * (side, 1), cloth * 0.6, 0.02)
    for side in (-1, 1):
        canvas.fill(_oval(side * 0.73, 0.02, 0.1, 0.19), person.skin * 0.93)
        if person.earrings:
            canvas.fill(_oval(side * 0.76, 0.27, 0.045, 0.06), (236, 214, 130))


def _paint_skin(
    canvas: _Canvas, person: _Person, outline: Points, turned: float, rng: np.random.Generator
) -> None:
    """The bare face: what the years, a razor and the light leave on it."""
    canvas.fill(outline, person.skin)
    canvas.offset = turned
    cheek = _mix(person.skin, np.array([226.0, 100, 100]), 0.3 * person.blush)
    for side in (-1, 1):
        canvas.fill(_oval(side * 0.42, 0.3, 0.17, 0.12), cheek)
        canvas.darken(_oval(side * 0.53, 0.25, 0.1, 0.32), 0.1 + 0.12 * person.sagging)
    if person.stubble:
        beard = [(0.3, 0.42), (0.62, 0.3), (0.58, 0.62), (0.36, 0.9), (0.0, 1.0)]
        canvas.darken(_mirrored([*beard, (0.0, 0.42)]), 0.32 * person.stubble)
        canvas.darken(_oval(0, 0.58, 0.2, 0.06), 0.0)
    canvas.settle(0.05)
    _paint_wrinkles(canvas, person, rng.uniform(0.8, 1.15))
    nose = person.nose
    canvas.crease(np.array([(0.07, -0.1), (0.06, 0.1), (nose, 0.24)]), 0.14, 0.05)
    canvas.crease(_arc(-nose, nose, 0.27, 0.07), 0.3)
    canvas.darken(_oval(-0.01, 0.08, 0.03, 0.16), -0.09)
    canvas.settle(0.022)
    for side in (-1, 1):
        canvas.fill(_oval(side * nose * 0.5, 0.285, 0.03, 0.018), person.skin * 0.45)
    canvas.offset = 0.0


def _paint_wrinkles(canvas: _Canvas, person: _Person, light: float) -> None:
    """Lines of the forehead, the eyes and the mouth, bags and spots; ``light`` brings them out."""
    deep, sag = 0.54 * light * person.wrinkles, 0.5 * light * person.sagging
    own = person.creases
    for line, y in enumerate((-0.62, -0.52, -0.43)):
        canvas.crease(_arc(-0.36, 0.36, y, -0.05), deep * own[line])
    canvas.crease(np.array([(-0.04, -0.34), (-0.03, -0.2)]), 0.5 * deep * own[3])
    canvas.crease(np.array([(0.05, -0.34), (0.03, -0.2)]), 0.5 * deep * own[3])
    for side in (-1, 1):
        eye = side * person.eye_gap
        corner = eye + side * 0.2
        for rise in (-0.09, 0.0, 0.08):
            tip = (corner + side * 0.13, -0.08 + 1.6 * rise)
            canvas.crease(np.array([(corner, -0.08 + rise / 2), tip]), deep * own[4])
        canvas.crease(_arc(eye - 0.15, eye + 0.15, 0.02, 0.08), sag * own[5], 0.045)
        canvas.crease(_arc(eye - 0.13, eye + 0.13, 0.09, 0.08), 0.7 * deep * own[5])
        fold = [(side * 0.15, 0.24), (side * 0.27, 0.38), (side * 0.34, 0.6), (side * 0.32, 0.72)]
        canvas.crease(np.array(fold), sag * own[6] + 0.06, 0.045)
        canvas.crease(np.array([(side * 0.27, 0.64), (side * 0.3, 0.86)]), deep * own[7])
        canvas.crease(_arc(side * 0.36, side * 0.52, 0.48, 0.14), 0.6 * deep * own[7])
    for y in (1.12, 1.24):
        canvas.crease(_arc(-0.3, 0.3, y, 0.06), 0.8 * sag)
    for x, y in person.spots:
        canvas.darken(_oval(x, y, 0.025, 0.02), 0.22 * light)


def _paint_eyes(canvas: _Canvas, person: _Person) -> None:
    brow_colour = _mix(person.hair * 0.8, GREY, 0.7 * person.grey)
    lid = _mix(person.skin * 0.45, np.array([20.0, 14, 14]), person.lashes)
    for side in (-1, 1):
        x, y, tall = side * person.eye_gap, -0.08, person.eye
        droop = 0.05 * person.sagging
        outer, inner = (x + side * 0.16, y + droop), (x - side * 0.14, y + 0.02)
        upper = np.array([inner, (x - side * 0.05, y - tall), (x + side * 0.08, y - tall), outer])
        lower = np.array([(x + side * 0.06, y + 0.8 * tall), (x - side * 0.06, y + 0.8 * tall)])
        canvas.fill(np.vstack([upper, lower]), (244, 240, 236))
        canvas.fill(_oval(x, y - 0.005, 0.062, min(0.062, tall)), (58, 38, 28))
        canvas.fill(_oval(x + 0.02, y - 0.025, 0.016, 0.016), (250, 250, 250))
        canvas.stroke(upper, lid, 0.022 + 0.035 * person.lashes)
        if person.lashes > 0.4:
            wing = np.array([outer, (x + side * 0.22, y - 0.06 + droop)])
            canvas.stroke(wing, lid, 0.03)
        brow_y = y - person.brow_gap
        arch = 0.05 * (1 - person.sagging)
        points = [(x - side * 0.17, brow_y + 0.03), (x + side * 0.05, brow_y - arch),
                  (x + side * 0.21, brow_y + 0.04)]  # fmt: skip
        canvas.stroke(np.array(points), brow_colour, person.brow)


def _paint_mouth(canvas: _Canvas, person: _Person, rng: np.random.Generator) -> None:
    y, smile, half = 0.58 + 0.02 * person.sagging, rng.normal(0.02, 0.03), rng.uniform(0.22, 0.28)
    corner = y - smile + 0.03 * person.sagging
    thin = person.fullness * (1 - 0.35 * person.sagging)
    upper = [(-half, corner), (-0.08, y - thin), (0, y - 0.7 * thin), (0.08, y - thin)]
    lower = [(half, corner), (0.12, y + 1.1 * thin), (-0.12, y + 1.1 * thin)]
    canvas.fill(np.array([*upper, *lower]), person.lips)
    canvas.stroke(np.array([(-half, corner), (0, y), (half, corner)]), person.lips * 0.55, 0.022)
    if person.moustache:
        hair = _mix(person.hair, GREY, person.grey)
        canvas.fill(_mirrored([(0.0, 0.39), (0.22, 0.46), (0.26, 0.56), (0.0, 0.48)]), hair)


def _paint_hair(canvas: _Canvas, person: _Person) -> None:
    colour = _mix(person.hair, GREY, person.grey)
    long = person.hair_length > 0.45 and not person.tied
    side, top = 0.79 + 0.1 * person.volume, -1.1 - 0.12 * person.volume
    ends = 0.3 + 1.2 * person.hair_length if long else -0.22 + 0.25 * person.hair_length
    back, peak = 0.32 * person.receding, 0.16 * person.receding
    line = -0.68 + 0.34 * person.fringe * (1 - person.receding)
    angle = np.linspace(0, np.pi, 17)
    # From the right end over the head to the left one, and back along the hairline.
    dome = np.column_stack([side * np.cos(angle), (top + 0.2) * np.sin(angle) - 0.2])
    locks = 0.58 if long else 0.66
    hairline = [(-locks, -0.36 - back), (-0.44, line - 0.02 - back), (person.parting, line - peak),
                (0.44, line - 0.02 - back), (locks, -0.36 - back)]  # fmt: skip
    tip = [(side, 0.75 * ends), (0.6 * side + 0.4 * locks, ends), (locks + 0.03, 0.8 * ends)]
    left, right = np.array(tip) * (-1, 1), np.array(tip[::-1])
    canvas.fill(np.vstack([dome, left, hairline, right]), colour)
    edge_x, edge_y = np.array([(-side, -0.1), *hairline, (side, -0.1)]).T
    for start, end, lightness in person.strands:
        x = person.parting + 0.3 * (start - 0.5)
        to_x = side * (1.8 * end - 0.9)
        to_y = np.interp(to_x, edge_x, edge_y)
        points = np.array(
            [(x, top + 0.1), ((x + 2 * to_x) / 3, 0.6 * top + 0.4 * to_y), (to_x, to_y)]
        )
        grey = _mix(person.hair, GREY, float(np.clip(1.6 * person.grey * lightness, 0, 1)))
        canvas.stroke(points, _mix(grey, colour, 0.3), 0.03)


def _paint_glasses(canvas: _Canvas, person: _Person) -> None:
    frame = (44, 40, 44)
    for side in (-1, 1):
        x = side * person.eye_gap
        canvas.outline(_oval(x, -0.06, person.lens + 0.05, person.lens), frame, 0.03)
        canvas.stroke(np.array([(x + side * 0.22, -0.1), (side * 0.72, -0.12)]), frame, 0.03)
    canvas.stroke(_arc(-0.13, 0.13, -0.08, -0.04), frame, 0.03)


def _paint_mask(
    canvas: _Canvas, outline: Points, top: float, bottom: float, rng: np.random.Generator
) -> None:
    """A mask from the height ``top`` to the height ``bottom``, measured in its middle."""
    side = outline[outline[:, 0] > 0]
    side = side[np.argsort(side[:, 1])]

    def half_width(y: float) -> float:
        """Of the face; below the jaw the mask keeps the width it has there."""
        return float(np.interp(min(y, 0.82), side[:, 1], side[:, 0]))

    colour = _cloth(rng)
    upper = np.array([half_width(top + 0.12) + 0.01, top + 0.12])
    lower = np.array([half_width(bottom - 0.3) + 0.01, bottom - 0.3])
    for ear, corner in (((0.77, -0.08), upper), ((0.77, 0.12), lower)):
        for sign in (-1, 1):
            strap = np.array([ear, corner]) * (sign, 1)
            canvas.stroke(strap, _mix(colour, GREY, 0.5), 0.025)
    area = _mirrored(
        [(0.1, top - 0.03), (0.26, top + 0.06), tuple(upper), tuple(lower), (0.24, bottom - 0.02)]
    )
    canvas.fill(area, colour)
    contrast = _mix(colour, np.full(3, 255.0 if colour.mean() < 110 else 60.0), 0.3)
    match rng.choice(["pleats", "fold", "stripes", "dots"], p=[0.4, 0.3, 0.15, 0.15]):
        case "pleats":
            for y in top + np.array([0.3, 0.48, 0.66]) * (bottom - top):
                wide = half_width(y) - 0.06
                canvas.stroke(_arc(-wide, wide, y, 0.04), contrast, 0.02)
        case "fold":
            y = 0.55 * top + 0.45 * bottom
            wide = half_width(y) - 0.02
            canvas.stroke(_arc(-wide, wide, y, -0.08), contrast, 0.025)
            canvas.darken(_mirrored([(0, bottom), (0.3, bottom - 0.03), (wide, y)]), 0.1)
        case "stripes":
            x_S = np.arange(-0.9, 0.9, 0.16)
            stripes = [np.array([(x, top - 0.2), (x + 0.2, bottom + 0.1)]) for x in x_S]
            _paint_pattern(canvas, area, contrast, stripes)
        case _:
            rows, columns = np.arange(top, bottom, 0.14), np.arange(-0.7, 0.75, 0.2)
            dots = [np.array([(x, y), (x + 0.02, y)]) for y in rows for x in columns]
            _paint_pattern(canvas, area, contrast, dots)
    for sign in (-1, 1):
        canvas.darken(_oval(sign * 0.5, (top + bottom) / 2, 0.12, 0.4), 0.13)
    canvas.crease(_arc(-0.3, 0.3, bottom + 0.03, 0.02), 0.2)
    canvas.settle(0.05)


def _paint_pattern(canvas: _Canvas, area: Points, colour: Colour, lines: list[Points]) -> None:
    """Lines that end at the border of an area."""
    plain = canvas.image.copy()
    for line in lines:
        canvas.stroke(line, colour, 0.05)
    cv2.copyTo(plain, cv2.bitwise_not(canvas.within(area)), canvas.image)


def _paint_scarf(canvas: _Canvas, top: float, rng: np.random.Generator) -> None:
    colour = _cloth(rng)
    canvas.fill(
        _mirrored([(0.0, top), (0.5, top - 0.12), (0.66, 1.4), (0.4, 1.62), (0, 1.7)]), colour
    )
    for y in (0.2, 0.38):
        canvas.crease(_arc(-0.5, 0.5, top + y, 0.1), 0.2)
    canvas.settle(0.03)


def _through_camera(image: Image, rng: np.random.Generator) -> Image:
    """Light from one side, its colour, a lens that is a little off, and the sensor's noise."""
    height, width = image.shape[:2]
    corners = rng.uniform(0.78, 1.06) + rng.normal(0, 0.06, (2, 2, 1)) + rng.normal(0, 0.02, 3)
    light = cv2.resize(corners.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    unit = min(height, width * 4 / 3)
    blurred = cv2.GaussianBlur(image, (0, 0), unit * rng.uniform(0.0015, 0.005))
    grain = rng.standard_normal((height, width, 1), dtype=np.float32) * rng.uniform(2, 7)
    return np.clip(blurred * light + grain, 0, 255).astype(np.uint8)


_TURN = np.linspace(0, 2 * np.pi, 20, endpoint=False)
_CIRCLE: Final = np.column_stack([np.cos(_TURN), np.sin(_TURN)])


def _oval(x: float, y: float, half_width: float, half_height: float) -> Points:
    return np.asarray(_CIRCLE * (half_width, half_height) + (x, y))


def _arc(left: float, right: float, y: float, bend: float) -> Points:
    """A bow from one end to the other whose middle lies ``bend`` lower than its ends."""
    share = np.linspace(0, 1, 8)
    return np.column_stack([left + (right - left) * share, y + 4 * bend * share * (1 - share)])


def _mirrored(right: Sequence[tuple[float, float]]) -> Points:
    """A symmetric polygon from its right half, listed from top to bottom or the reverse."""
    half = np.array(right)
    return np.vstack([half, half[::-1] * (-1, 1)])


def _mix(first: Colour, second: Colour, share: float) -> Colour:
    return np.asarray(first + (second - first) * share)


def _mix_palette(palette: Colour, rng: np.random.Generator) -> Colour:
    """A colour somewhere between two neighbours of a palette."""
    at = rng.uniform(0, len(palette) - 1)
    return _mix(palette[int(at)], palette[int(at) + 1], at % 1)


def _cloth(rng: np.random.Generator) -> Colour:
    return np.asarray(CLOTHS[rng.integers(len(CLOTHS))] * rng.uniform(0.8, 1.05))


def _rgb(colour: npt.ArrayLike) -> tuple[float, ...]:
    return tuple(np.clip(colour, 0, 255).tolist())


def _write_jpeg(path: Path, image: Image, quality: int) -> None:
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    path.write_bytes(encoded.tobytes())


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Draw faces from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.drawn_faces",
        description="Draw faces in the layout of the competition.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("root", type=Path, metavar="OUT", help="folder to draw into")
    parser.add_argument("--people", type=int, default=120, help="people to train on")
    parser.add_argument("--eval-people", type=int, default=30, help="people to predict")
    parser.add_argument("--seed", type=int, default=42, help="other faces for another number")
    parser.add_argument("--height", type=int, default=512, help="pixels")
    parser.add_argument("--width", type=int, default=384, help="pixels")
    parser.add_argument("--quality", type=int, default=90, help="of the JPEG files")
    arguments = parser.parse_args(argv)
    try:
        root = draw(**vars(arguments))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"faces in {root}")


if __name__ == "__main__":
    main()
