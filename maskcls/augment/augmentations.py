"""Training augmentations on uint8 RGB images, fast enough to run on the CPU beside any trainer.

Each operation does what ``torchvision.transforms.v2`` does to a uint8 tensor, written with OpenCV
and look-up tables. The tests hold them to these differences: look-up tables give the same pixels;
a sum of floats may be off by one grey level; of a sheared or rotated image, on average fewer than 1
in 200 pixels are their neighbour instead (OpenCV rounds coordinates to 1/1024; more where a whole
row falls between two); where AugMix interpolates (at 1/32 of a pixel), levels may be off by 8.

Images go in and come out as [H, W, 3] contiguous arrays of any size. Inputs are never changed, but
an augmentation that does nothing returns its very input.

    python -m maskcls preview OUT.png PHOTO [PHOTO ...]
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import cv2
import numpy as np

from maskcls.augment import albumentations_file
from maskcls.augment.operations import (
    ImageArray,
    Jitter,
    brightness,
    contrast,
    hue,
    operate,
    saturation,
    strips,
)
from maskcls.augment.policies import (
    CIFAR10_POLICY,
    RANDAUGMENT_OPERATIONS,
    augmix_ranges,
    magnitude_at,
    standard_ranges,
    wide_ranges,
)

Augmentation = Callable[[ImageArray, np.random.Generator], ImageArray]


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


def _noise(std: float) -> Augmentation:
    def augment(image: ImageArray, rng: np.random.Generator) -> ImageArray:
        noisy = np.empty_like(image)
        for rows in strips(image):
            noise = rng.standard_normal(image[rows].shape, dtype=np.float32) * np.float32(std)
            noisy[rows] = np.clip(np.rint(image[rows] + noise), 0, 255)
        return noisy

    return augment


def _erase(probability: float) -> Augmentation:
    """Random erasing (arXiv 1708.04896): a box of 2 to 33 % of the area, its sides at most 1 to
    .3 and cut to the photo, becomes uniform noise."""

    def augment(image: ImageArray, rng: np.random.Generator) -> ImageArray:
        if rng.random() >= probability:
            return image
        height, width = image.shape[:2]
        area = rng.uniform(0.02, 1 / 3) * height * width
        ratio = np.exp(rng.uniform(np.log(0.3), -np.log(0.3)))
        box_height = int(np.clip(round((area * ratio) ** 0.5), 1, height))
        box_width = int(np.clip(round((area / ratio) ** 0.5), 1, width))
        top, left = rng.integers(height - box_height + 1), rng.integers(width - box_width + 1)
        noise = rng.integers(0, 256, (box_height, box_width, 3), dtype=np.uint8)
        erased = image.copy()
        erased[top : top + box_height, left : left + box_width] = noise
        return erased

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
    """Jitter of .1, then Gaussian noise. (The centre crop that the old scripts had beside them is
    ``image.zoom``: prediction has to see what training saw.)

    ``noise``: standard deviation in grey levels, drawn for each pixel and channel. For scale: the
    photos themselves have one of about 62.
    """
    if noise < 0:
        raise ValueError(f"noise, a standard deviation in grey levels, must be >= 0, got {noise}")
    return _chain(_jitter((0.1, 0.1, 0.1, 0.1)), _noise(noise))


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
    for rows in strips(mixed):
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
    "albumentations": albumentations_file.build,
}


def build(
    name: str,
    *,
    flip: float = 0.0,
    jitter: Jitter | None = None,
    erase: float = 0.0,
    **options: Any,
) -> Augmentation:
    """The named augmentation, then a flip with probability ``flip``, then colour ``jitter``, then a
    box of noise with probability ``erase``.

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
    for option, probability in (("flip", flip), ("erase", erase)):
        if not 0 <= probability <= 1:
            raise ValueError(f"{option} is a probability from 0 to 1, got {probability}")
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
    if erase:
        steps.append(_erase(erase))
    return _chain(*steps)


def _hint(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(known)}" if known else "; it has none"
