"""Training augmentations on uint8 RGB images, fast enough to run on the CPU beside any trainer.

Each operation does what ``torchvision.transforms.v2`` does to a uint8 tensor, written with OpenCV
and look-up tables. The tests hold them to these differences: look-up tables give the same pixels;
a sum of floats may be off by one grey level; of a sheared or rotated image, on average fewer than 1
in 200 pixels are their neighbour instead (OpenCV rounds coordinates to 1/1024; more where a whole
row falls between two); where AugMix interpolates (at 1/32 of a pixel), levels may be off by 8.

Images go in and come out as [H, W, 3] contiguous arrays of any size. Inputs are never changed, but
an augmentation that does nothing returns its very input.

    python -m maskcls.transforms --preview OUT.png PHOTO [PHOTO ...]
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from maskcls import files

ImageArray = npt.NDArray[Any]
"""RGB, uint8, [H, W, 3]. (OpenCV's own annotations leave the type of pixels open.)"""

Augmentation = Callable[[ImageArray, np.random.Generator], ImageArray]
Jitter = tuple[float, float, float, float]
"""Brightness, contrast, saturation and hue, as in ``torchvision.transforms.v2.ColorJitter``."""

_LEVELS: Final = np.arange(256, dtype=np.float32)

_ROUND_DOWN: Final = -0.499
"""Added before OpenCV rounds to the nearest level, to cut off the fraction as torch does. Not a
full half, so that a result a hair below a whole number still counts as that number."""


# Colour


def _look_up(image: ImageArray, levels: npt.NDArray[np.float32]) -> ImageArray:
    """Replace level ``v`` by ``levels[v]`` ([256], or [256, 3] by channel), cut to 0..255."""
    table = np.clip(levels, 0, 255).astype(np.uint8)
    return cv2.LUT(image, table.reshape(1, 256, -1))


def _grey(image: ImageArray) -> ImageArray:
    """Luma [H, W], rounded down, with torchvision's weights (which sum to 0.9999)."""
    # The luma of a grey pixel falls short of a whole number by no more than 0.0001 a level.
    return cv2.transform(image, np.array([[0.2989, 0.587, 0.114, -0.49995]]))


def _strips(image: ImageArray) -> Iterator[slice]:
    """Strips of rows, for steps that turn pixels into floats.

    Their floats fit the cache, and stay below the size from which malloc asks the system for fresh
    pages every time; without, ``hue`` took four times as long on photos of 256x192 and 384x288.
    """
    step = max(1, 2**13 // image.shape[1])
    return (slice(top, top + step) for top in range(0, image.shape[0], step))


def brightness(image: ImageArray, factor: float) -> ImageArray:
    """Multiply by ``factor`` (0 is black, 1 changes nothing)."""
    return _look_up(image, _LEVELS * np.float32(factor))


def contrast(image: ImageArray, factor: float) -> ImageArray:
    """Blend with the mean luma: 0 is flat grey, 1 changes nothing."""
    mean = np.float32(cv2.mean(_grey(image))[0])
    return _look_up(image, _LEVELS * np.float32(factor) + np.float32(1 - factor) * mean)


def saturation(image: ImageArray, factor: float) -> ImageArray:
    """Blend with the luma of each pixel: 0 is black and white, 1 changes nothing."""
    grey = cv2.cvtColor(_grey(image), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(image, factor, grey, 1 - factor, _ROUND_DOWN)


def sharpness(image: ImageArray, factor: float) -> ImageArray:
    """Blend with a smoothed image: below 1 blurs, above 1 sharpens; the outermost pixels stay."""
    if min(image.shape[:2]) <= 2:
        return image
    kernel = np.full((3, 3), 1 / 13, np.float32)
    kernel[1, 1] = 5 / 13
    smooth = cv2.filter2D(image, -1, kernel)
    blended = cv2.addWeighted(image, factor, smooth, 1 - factor, _ROUND_DOWN)
    blended[[0, -1]] = image[[0, -1]]
    blended[:, [0, -1]] = image[:, [0, -1]]
    return blended


def hue(image: ImageArray, turn: float) -> ImageArray:
    """Turn the hue by ``turn`` of the colour circle (-0.5 to 0.5), in floating point."""
    turned = np.empty_like(image)
    for rows in _strips(image):
        rgb = image[rows] * np.float32(1 / 255)
        hsv = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV), np.float32)
        hsv[..., 0] += 360 * (turn % 1)
        # 255.999 is torchvision's scale from floats: each level gets an equal share of [0, 1].
        turned[rows] = cv2.convertScaleAbs(
            cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), alpha=255.999, beta=_ROUND_DOWN
        )
    return turned


def posterize(image: ImageArray, bits: int) -> ImageArray:
    """Keep the ``bits`` highest bits of each level."""
    return image & np.uint8(256 - (1 << (8 - bits)))


def solarize(image: ImageArray, threshold: float) -> ImageArray:
    """Invert levels from ``threshold`` (0 to 255) up."""
    return _look_up(image, np.where(threshold <= _LEVELS, 255 - _LEVELS, _LEVELS))


def autocontrast(image: ImageArray) -> ImageArray:
    """Stretch each channel to the full range."""
    tables = np.tile(_LEVELS[:, None], 3)
    for channel, plane in enumerate(cv2.split(image)):
        low, high = cv2.minMaxLoc(plane)[:2]
        if low < high:
            scale = np.float32(high - low) * np.float32(1 / 255)
            tables[:, channel] = (_LEVELS - np.float32(low)) / scale
    return _look_up(image, tables)


def equalize(image: ImageArray) -> ImageArray:
    """Spread the levels of each channel evenly, by Pillow's integer scheme."""
    tables = np.tile(_LEVELS[:, None], 3)
    for channel in range(3):
        counts = cv2.calcHist([image], [channel], None, [256], [0, 256])[:, 0].astype(np.int64)
        step = (counts.sum() - counts[counts.nonzero()[0][-1]]) // 255
        if step:
            tables[1:, channel] = (counts.cumsum()[:-1] + step // 2) // step
    return _look_up(image, tables)


# Operations with a magnitude, as the automatic policies use them. The names are torchvision's.

Matrix = npt.NDArray[np.float64]

_COLOUR: Final[dict[str, Callable[[ImageArray, float], ImageArray]]] = {
    "Identity": lambda image, _: image,
    "Brightness": lambda image, magnitude: brightness(image, 1 + magnitude),
    "Color": lambda image, magnitude: saturation(image, 1 + magnitude),
    "Contrast": lambda image, magnitude: contrast(image, 1 + magnitude),
    "Sharpness": lambda image, magnitude: sharpness(image, 1 + magnitude),
    "Posterize": lambda image, magnitude: posterize(image, round(magnitude)),
    "Solarize": lambda image, magnitude: solarize(image, 255 * magnitude),
    "AutoContrast": lambda image, _: autocontrast(image),
    "Equalize": lambda image, _: equalize(image),
    "Invert": lambda image, _: ~image,
}


def _rotation(degrees: float, height: int, width: int) -> Matrix:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = (width - 1) / 2, (height - 1) / 2
    return np.array([[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]])


_GEOMETRY: Final[dict[str, Callable[[float, int, int], Matrix]]] = {
    # Shears turn about the corner of the top left pixel, half a pixel from its centre.
    "ShearX": lambda shear, _h, _w: np.array([[1, shear, shear / 2], [0, 1, 0]]),
    "ShearY": lambda shear, _h, _w: np.array([[1, 0, 0], [shear, 1, shear / 2]]),
    "TranslateX": lambda pixels, _h, _w: np.array([[1.0, 0, -int(pixels)], [0, 1, 0]]),
    "TranslateY": lambda pixels, _h, _w: np.array([[1.0, 0, 0], [0, 1, -int(pixels)]]),
    "Rotate": _rotation,
}
"""Magnitude, height, width -> the matrix that takes a result's pixel (x, y, 1) to its source."""


def operate(
    image: ImageArray, name: str, magnitude: float = 0.0, interpolation: int = cv2.INTER_NEAREST
) -> ImageArray:
    """Apply one operation by torchvision's name; what lies outside the image comes in black.

    ``magnitude``: slope (shears), pixels (translations), degrees counter-clockwise (Rotate), change
    of the factor 1 (Brightness, Color, Contrast, Sharpness), bits (Posterize), share of 255
    (Solarize); the others have none. Raises KeyError for an unknown name.
    """
    if name not in _GEOMETRY:
        return _COLOUR[name](image, magnitude)
    height, width = image.shape[:2]
    matrix = _GEOMETRY[name](magnitude, height, width)
    flags = interpolation | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, (width, height), flags=flags)


# Automatic policies. Levels are shares of an operation's range of magnitudes, 0 to 1.

Ranges = dict[str, tuple[float, float]]

_SIGNED: Final = {*_GEOMETRY, "Brightness", "Color", "Contrast", "Sharpness"}
"""Operations whose magnitude is negated half of the time."""

RANDAUGMENT_OPERATIONS: Final = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)
"""The operations of RandAugment and TrivialAugment; AugMix has them but Identity."""

CIFAR10_POLICY: Final = (
    (("Invert", 0.1, 0), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, 0), ("Equalize", 0.9, 0)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, 0), ("Equalize", 0.5, 0)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, 0), ("AutoContrast", 0.4, 0)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, 0)),
    (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.2, 0), ("Equalize", 0.6, 0)),
    (("Color", 0.9, 9), ("Equalize", 0.6, 0)),
    (("AutoContrast", 0.8, 0), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, 0)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, 0), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, 0), ("Invert", 0.1, 0)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 0)),
)
"""The 25 sub-policies of AutoAugment: operation, probability, level out of 9."""


def _ranges(
    shear: float, shift: tuple[float, float], rotate: float, colour: float, bits: tuple[int, int]
) -> Ranges:
    """Operation -> magnitude at the lowest and at the highest level; ``shift`` is (y, x)."""
    return {
        "ShearX": (0, shear),
        "ShearY": (0, shear),
        "TranslateX": (0, shift[1]),
        "TranslateY": (0, shift[0]),
        "Rotate": (0, rotate),
        "Brightness": (0, colour),
        "Color": (0, colour),
        "Contrast": (0, colour),
        "Sharpness": (0, colour),
        "Posterize": bits,
        "Solarize": (1, 0),
    }


def standard_ranges(height: int, width: int) -> Ranges:
    """The magnitudes of AutoAugment and RandAugment."""
    return _ranges(0.3, (150 / 331 * height, 150 / 331 * width), 30, 0.9, (8, 4))


def wide_ranges(height: int, width: int) -> Ranges:
    """The magnitudes of TrivialAugment Wide; translations are in pixels at any size."""
    return _ranges(0.99, (32, 32), 135, 0.99, (8, 2))


def augmix_ranges(height: int, width: int) -> Ranges:
    """The magnitudes of AugMix."""
    return _ranges(0.3, (height / 3, width / 3), 30, 0.9, (4, 0))


def magnitude_at(name: str, level: float, ranges: Ranges, rng: np.random.Generator) -> float:
    """The magnitude of an operation at ``level`` (0 to 1), its sign drawn; 0 where it has none."""
    low, high = ranges.get(name, (0, 0))
    magnitude = low + (high - low) * level
    return -magnitude if name in _SIGNED and rng.random() < 0.5 else magnitude


# The augmentations


def _chain(*steps: Augmentation) -> Augmentation:
    def augment(image: ImageArray, rng: np.random.Generator) -> ImageArray:
        for step in steps:
            image = step(image, rng)
        return image

    return augment


def _mirror(probability: float) -> Augmentation:
    return lambda image, rng: cv2.flip(image, 1) if rng.random() < probability else image


def _jitter(strengths: Jitter) -> Augmentation:
    b, c, s, h = strengths
    ranges: list[tuple[Callable[[ImageArray, float], ImageArray], float, float]] = [
        (brightness, max(0.0, 1 - b), 1 + b),
        (contrast, max(0.0, 1 - c), 1 + c),
        (saturation, max(0.0, 1 - s), 1 + s),
        (hue, -h, h),
    ]
    changes = [(change, low, high) for change, low, high in ranges if low < high]

    def augment(image: ImageArray, rng: np.random.Generator) -> ImageArray:
        for place in rng.permutation(len(changes)):
            change, low, high = changes[place]
            image = change(image, rng.uniform(low, high))
        return image

    return augment


def _centre(image: ImageArray, rng: np.random.Generator) -> ImageArray:
    height, width = image.shape[:2]
    top, left = round(height * (1 - 320 / 512) / 2), round(width * (1 - 256 / 384) / 2)
    centre = image[top : height - top, left : width - left]
    return cv2.resize(centre, (width, height), interpolation=cv2.INTER_LINEAR)


def _noise(std: float) -> Augmentation:
    def augment(image: ImageArray, rng: np.random.Generator) -> ImageArray:
        noisy = np.empty_like(image)
        for rows in _strips(image):
            noise = rng.standard_normal(image[rows].shape, dtype=np.float32) * np.float32(std)
            noisy[rows] = np.clip(np.rint(image[rows] + noise), 0, 255)
        return noisy

    return augment


def base() -> Augmentation:
    """Nothing."""
    return _chain()


def flip() -> Augmentation:
    """Mirror left and right half of the time."""
    return _mirror(0.5)


def flip_jitter() -> Augmentation:
    """``flip``, then brightness, contrast, saturation and hue jitter of .4, .4, .4 and .1."""
    return _chain(flip(), _jitter((0.4, 0.4, 0.4, 0.1)))


def custom(noise: float = 10.0) -> Augmentation:
    """The centre (320x256 of 512x384), resized back; jitter of .1; Gaussian noise.

    ``noise``: standard deviation in grey levels, drawn for each pixel and channel. For scale: the
    photos themselves have one of about 62.
    """
    if noise < 0:
        raise ValueError(f"noise, a standard deviation in grey levels, must be >= 0, got {noise}")
    return _chain(_centre, _jitter((0.1, 0.1, 0.1, 0.1)), _noise(noise))


def autoaugment() -> Augmentation:
    """AutoAugment's CIFAR-10 policy (arXiv 1805.09501)."""

    def augment(image: ImageArray, rng: np.random.Generator) -> ImageArray:
        ranges = standard_ranges(*image.shape[:2])
        for name, probability, level in CIFAR10_POLICY[rng.integers(len(CIFAR10_POLICY))]:
            if rng.random() < probability:
                image = operate(image, name, magnitude_at(name, level / 9, ranges, rng))
        return image

    return augment


def randaugment(ops: int = 3, magnitude: int = 10) -> Augmentation:
    """RandAugment (arXiv 1909.13719): ``ops`` random operations at ``magnitude`` of 30."""
    if ops < 1:
        raise ValueError(f"ops, the operations a photo, must be at least 1, got {ops}")
    if not 0 <= magnitude <= 30:
        raise ValueError(f"magnitude goes from 0 to 30, got {magnitude}")

    def augment(image: ImageArray, rng: np.random.Generator) -> ImageArray:
        ranges = standard_ranges(*image.shape[:2])
        for _ in range(ops):
            name = RANDAUGMENT_OPERATIONS[rng.integers(len(RANDAUGMENT_OPERATIONS))]
            image = operate(image, name, magnitude_at(name, magnitude / 30, ranges, rng))
        return image

    return augment


def trivialaugment() -> Augmentation:
    """TrivialAugment Wide (arXiv 2103.10158): one random operation at a random level of 31."""

    def augment(image: ImageArray, rng: np.random.Generator) -> ImageArray:
        name = RANDAUGMENT_OPERATIONS[rng.integers(len(RANDAUGMENT_OPERATIONS))]
        ranges = wide_ranges(*image.shape[:2])
        return operate(image, name, magnitude_at(name, rng.integers(31) / 30, ranges, rng))

    return augment


def augmix(severity: int = 3, width: int = 3, depth: int = -1, alpha: float = 1.0) -> Augmentation:
    """AugMix (arXiv 1912.02781): the photo mixed with ``width`` chains of random operations.

    ``severity``: 1 to 10, levels are drawn below it. ``depth``: operations a chain; -1 draws 1 to
    3. ``alpha``: of the Dirichlet that weighs the chains and of the Beta that weighs the photo.
    As in torchvision, geometry is bilinear and the mean is rounded down.
    """
    if not 1 <= severity <= 10:
        raise ValueError(f"severity goes from 1 to 10, got {severity}")
    if width < 1:
        raise ValueError(f"width, the number of chains, must be at least 1, got {width}")
    if depth != -1 and depth < 1:
        raise ValueError(f"depth must be at least 1, or -1 to draw it, got {depth}")
    if alpha <= 0:
        raise ValueError(f"alpha must be above 0, got {alpha}")
    names = RANDAUGMENT_OPERATIONS[1:]

    def augment(image: ImageArray, rng: np.random.Generator) -> ImageArray:
        ranges = augmix_ranges(*image.shape[:2])
        share = rng.beta(alpha, alpha)
        weights = [share, *(1 - share) * rng.dirichlet([alpha] * width)]
        images = [image]
        for _ in range(width):
            link = image
            for _ in range(depth if depth > 0 else rng.integers(1, 4)):
                name = names[rng.integers(len(names))]
                magnitude = magnitude_at(name, rng.integers(severity) / 9, ranges, rng)
                link = operate(link, name, magnitude, cv2.INTER_LINEAR)
            images.append(link)
        return _mean(images, weights)

    return augment


def _mean(images: Sequence[ImageArray], weights: Sequence[float]) -> ImageArray:
    """The weighted mean, rounded down."""
    mixed = np.empty_like(images[0])
    for rows in _strips(mixed):
        parts = zip(images, weights, strict=True)
        mixed[rows] = sum(image[rows] * np.float32(weight) for image, weight in parts)
    return mixed


AUGMENTATIONS: Final[dict[str, Callable[..., Augmentation]]] = {
    "base": base,
    "flip": flip,
    "flip_jitter": flip_jitter,
    "custom": custom,
    "randaugment": randaugment,
    "augmix": augmix,
    "autoaugment": autoaugment,
    "trivialaugment": trivialaugment,
}


def build(
    name: str, *, flip: float = 0.0, jitter: Jitter | None = None, **options: Any
) -> Augmentation:
    """The named augmentation, then a flip with probability ``flip``, then colour ``jitter``.

    ``options`` go to the augmentation (see its function). All randomness comes from the generator
    that an augmentation is called with: the same state gives the same pixels. Raises ValueError for
    an unknown name or option and for a value out of range.
    """
    if name not in AUGMENTATIONS:
        raise ValueError(f"unknown augmentation {name!r}{_hint(name, AUGMENTATIONS)}")
    known = inspect.signature(AUGMENTATIONS[name]).parameters
    for option in options:
        if option not in known:
            raise ValueError(f"{name} takes no option {option!r}{_hint(option, known)}")
    if not 0 <= flip <= 1:
        raise ValueError(f"flip is a probability from 0 to 1, got {flip}")
    steps = [AUGMENTATIONS[name](**options)]
    if flip:
        steps.append(_mirror(flip))
    if jitter is not None:
        if len(jitter) != 4 or min(jitter) < 0 or jitter[3] > 0.5:
            raise ValueError(
                "jitter is four numbers from 0: brightness, contrast, saturation and hue (at most "
                f"0.5), got {jitter}"
            )
        steps.append(_jitter(jitter))
    return _chain(*steps)


def _hint(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(known)}" if known else "; it has none"


# The preview

_TILE_HEIGHT: Final = 160
_MARGIN: Final = ((2, 2), (2, 2), (0, 0))
_GAP: Final = ((0, 0), (0, 12), (0, 0))


def preview(
    photos: Sequence[ImageArray], path: Path, *, seed: int = 0, per_augmentation: int = 4
) -> None:
    """Write a PNG with one row an augmentation: ``per_augmentation`` draws of each photo.

    ``photos`` may be of any sizes; they are scaled to one height before they are augmented. Raises
    ValueError without photos and OSError where ``path`` cannot be written.
    """
    from matplotlib.figure import Figure

    if not photos:
        raise ValueError("the preview needs at least one photo, got none")
    tiles = [_tile(photo) for photo in photos]
    rows = [
        _row(build(name), tiles, np.random.default_rng(seed), per_augmentation)
        for name in AUGMENTATIONS
    ]
    sheet = np.vstack(rows)
    height, width, label_width, dpi = *sheet.shape[:2], 170, 100
    figure = Figure(figsize=((label_width + width) / dpi, height / dpi), dpi=dpi)
    left = label_width / (label_width + width)
    axes = figure.add_axes((left, 0, 1 - left, 1))
    axes.imshow(sheet, interpolation="nearest", aspect="auto")
    centres = (np.arange(len(rows)) + 0.5) * height / len(rows)
    axes.set_yticks(centres, labels=list(AUGMENTATIONS), fontsize=15)
    axes.tick_params(length=0, pad=8)
    axes.set_xticks([])
    axes.set_frame_on(False)
    with files.replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _tile(photo: ImageArray) -> ImageArray:
    width = max(1, round(photo.shape[1] * _TILE_HEIGHT / photo.shape[0]))
    return cv2.resize(photo, (width, _TILE_HEIGHT), interpolation=cv2.INTER_AREA)


def _row(
    augment: Augmentation, tiles: Sequence[ImageArray], rng: np.random.Generator, draws: int
) -> ImageArray:
    blocks = []
    for tile in tiles:
        drawn = [np.pad(augment(tile, rng), _MARGIN, constant_values=255) for _ in range(draws)]
        blocks.append(np.pad(np.hstack(drawn), _GAP, constant_values=255))
    return np.hstack(blocks)


def main(argv: Sequence[str] | None = None) -> None:
    """Draw every augmentation on some photos."""
    parser = argparse.ArgumentParser(prog="python -m maskcls.transforms", description=main.__doc__)
    parser.add_argument("--preview", type=Path, required=True, metavar="OUT.png")
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTO")
    arguments = parser.parse_args(argv)
    try:
        preview([_read(path) for path in arguments.photos], arguments.preview)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(arguments.preview)


def _read(path: Path) -> ImageArray:
    from maskcls.images import PhotoError, decode

    try:
        return decode(path.read_bytes())
    except PhotoError as error:
        raise ValueError(f"{path}: {error}") from None


if __name__ == "__main__":
    main()
