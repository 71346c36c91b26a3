import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchvision.transforms import v2

from maskcls.augment import augmentations, operations, policies, preview
from maskcls.commands import preview as command

SPACES = {
    "standard": (policies.standard_ranges, v2.AutoAugment._AUGMENTATION_SPACE, 10),
    "randaugment": (policies.standard_ranges, v2.RandAugment._AUGMENTATION_SPACE, 31),
    "wide": (policies.wide_ranges, v2.TrivialAugmentWide._AUGMENTATION_SPACE, 31),
    "augmix": (policies.augmix_ranges, v2.AugMix._AUGMENTATION_SPACE, 10),
}
EXACT = ["Identity", "Brightness", "Posterize", "Solarize", "AutoContrast", "Equalize", "Invert"]
WITHIN_ONE = ["Color", "Contrast", "Sharpness"]
GEOMETRY = ["ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"]
AGE_RECIPE = {"name": "autoaugment", "flip": 0.5, "jitter": (0.4, 0.4, 0.4, 0.1)}
# Those of Albumentations have a file of their own.
NAMES = [name for name in augmentations.AUGMENTATIONS if name != "albumentations"]
RECIPES = [*({"name": name} for name in NAMES), AGE_RECIPE, {"name": "base", "erase": 0.7}]

small_images = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)).map(
    lambda grey: np.ascontiguousarray(np.stack([grey, grey.T.reshape(grey.shape), ~grey], axis=-1))
)


def make_photo(height=128, width=96, seed=0):
    """Smooth background, a face with sharp edges, a white mask, a black corner, film grain."""
    rng = np.random.default_rng(seed)
    photo = cv2.resize(rng.integers(40, 220, (3, 3, 3)).astype(np.uint8), (width, height))
    middle, size = (width // 2, height // 2), (width // 4, height // 3)
    cv2.ellipse(photo, middle, size, 10, 0, 360, (224, 172, 140), -1)
    cv2.rectangle(
        photo, (width // 3, height // 2), (2 * width // 3, 3 * height // 4), [250] * 3, -1
    )
    photo[: height // 8, : width // 8] = 0
    return np.clip(photo + rng.normal(0, 4, photo.shape), 0, 255).astype(np.uint8)


def make_tensor(image):
    return torch.from_numpy(image.copy()).permute(2, 0, 1)


def make_array(image_CHW):
    return image_CHW.permute(1, 2, 0).numpy()


def by_torchvision(image, name, magnitude, interpolation="nearest"):
    policy = v2.AutoAugment()
    return make_array(
        policy._apply_image_or_video_transform(
            make_tensor(image), name, magnitude, interpolation, policy._fill
        )
    )


def difference(ours, theirs):
    return np.abs(ours.astype(int) - theirs)


def magnitudes(name):
    """Every magnitude of an operation in any policy, with both signs where it is signed."""
    found = set()
    for _, space, bins in SPACES.values():
        function, signed = space.get(name, (lambda *_: None, False))
        values = function(bins, 128, 96)
        for value in [] if values is None else values.tolist():
            found |= {value, -value} if signed else {value}
    return sorted(found) or [0.0]


# One operation


@pytest.mark.parametrize("name", EXACT)
def test_look_up_tables_give_torchvisions_pixels(name):
    for magnitude in magnitudes(name):
        photo = make_photo()
        expected = by_torchvision(photo, name, magnitude)
        np.testing.assert_array_equal(operations.operate(photo, name, magnitude), expected)


@pytest.mark.parametrize("name", WITHIN_ONE)
def test_blends_are_within_one_level_of_torchvision(name):
    for magnitude in magnitudes(name):
        photo = make_photo()
        ours = operations.operate(photo, name, magnitude)
        off = difference(ours, by_torchvision(photo, name, magnitude))
        assert off.max() <= 1
        assert off.mean() < 0.15


@settings(max_examples=60, deadline=None)
@given(image=small_images, name=st.sampled_from(EXACT + WITHIN_ONE), level=st.integers(0, 30))
def test_any_image_gives_what_torchvision_gives(image, name, level):
    every = magnitudes(name)
    magnitude = every[level % len(every)]
    ours = operations.operate(image, name, magnitude)
    off = difference(ours, by_torchvision(image, name, magnitude))
    assert off.max() <= (name in WITHIN_ONE)


@pytest.mark.parametrize("level", [0, 7, 128, 255])
@pytest.mark.parametrize("name", ["AutoContrast", "Equalize"])
def test_a_channel_of_one_level_stays(name, level):
    flat = np.full((9, 8, 3), level, np.uint8)
    np.testing.assert_array_equal(operations.operate(flat, name), flat)


@pytest.mark.parametrize("size", [(128, 96), (97, 128), (64, 64)])
@pytest.mark.parametrize("name", GEOMETRY)
def test_geometry_takes_pixels_from_where_torchvision_does(name, size):
    height, width = size
    y, x = np.mgrid[1 : height + 1, 1 : width + 1]
    places = np.stack([x, y, np.full_like(x, 200)], axis=-1).astype(np.uint8)
    shares = []
    for magnitude in magnitudes(name):
        # A hair off, because chance decides for rows that fall exactly between two others.
        ours = operations.operate(places, name, magnitude * 0.9973)
        theirs = by_torchvision(places, name, magnitude * 0.9973)
        inside = (ours[..., 2] > 0) & (theirs[..., 2] > 0)
        assert difference(ours, theirs)[inside].max(initial=0) <= 1
        shares.append((ours != theirs).any(axis=-1).mean())
    assert np.mean(shares) < 0.005


@pytest.mark.parametrize("name", GEOMETRY)
def test_bilinear_geometry_is_within_eight_levels_of_torchvision(name):
    photo = make_photo()
    for magnitude in magnitudes(name)[::5]:
        ours = operations.operate(photo, name, magnitude, cv2.INTER_LINEAR)
        off = difference(ours, by_torchvision(photo, name, magnitude, "bilinear"))
        assert off.max() <= 8
        assert off.mean() < 0.2


@pytest.mark.parametrize("size", [(128, 96), (200, 300), (3, 5)])
@pytest.mark.parametrize("turn", [-0.5, -0.1, -0.03, 0.0, 0.07, 0.1, 0.5])
def test_hue_is_within_one_level_of_torchvision(turn, size):
    photo = make_photo(*size)
    theirs = make_array(v2.functional.adjust_hue(make_tensor(photo), turn))
    off = difference(operations.hue(photo, turn), theirs)
    assert off.max() <= 1
    assert off.mean() < 0.01


def test_solarize_and_posterize_at_their_bounds():
    photo = make_photo()
    np.testing.assert_array_equal(operations.solarize(photo, 0), ~photo)
    np.testing.assert_array_equal(operations.posterize(photo, 8), photo)
    assert not operations.posterize(photo, 0).any()


# The policies


def test_the_cifar10_policy_is_torchvisions():
    theirs = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)._policies
    assert list(policies.CIFAR10_POLICY) == [
        tuple((name, probability, level or 0) for name, probability, level in pair)
        for pair in theirs
    ]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("size", [(128, 96), (256, 192), (101, 333)])
def test_magnitudes_are_torchvisions(space, size):
    ranges_of, theirs, bins = SPACES[space]
    ranges = ranges_of(*size)
    for name, (function, signed) in theirs.items():
        expected = function(bins, *size)
        for level in range(bins):
            rng = np.random.default_rng(0)
            drawn = [
                policies.magnitude_at(name, level / (bins - 1), ranges, rng) for _ in range(20)
            ]
            want = 0.0 if expected is None else float(expected[level])
            atol = 0.5 if name == "Posterize" else 1e-4
            assert np.abs(drawn) == pytest.approx(abs(want), abs=atol)
            assert {math.copysign(1, value) for value in drawn} == ({1, -1} if signed else {1})


def test_the_choice_of_operations_is_torchvisions():
    ours = policies.RANDAUGMENT_OPERATIONS
    assert set(ours) == set(v2.RandAugment._AUGMENTATION_SPACE)
    assert set(ours) == set(v2.TrivialAugmentWide._AUGMENTATION_SPACE)
    assert set(ours[1:]) == set(v2.AugMix._AUGMENTATION_SPACE)


@pytest.fixture
def drawn(monkeypatch):
    """Records (name, magnitude) of every operation instead of running it; keeps the image."""
    calls = []

    def record(image, name, magnitude=0.0, interpolation=cv2.INTER_NEAREST):
        calls.append((name, magnitude))
        return image

    monkeypatch.setattr(augmentations, "operate", record)
    return calls


def run(times, **recipe):
    augment, rng = augmentations.build(**recipe), np.random.default_rng(0)
    photo = np.full((30, 60, 3), 200, np.uint8)
    return [augment(photo, rng) for _ in range(times)]


def assert_counts(counts, expected):
    """Each count within five standard deviations of its expectation, and nothing else counted."""
    assert set(counts) <= set(expected)
    for value, mean in expected.items():
        assert abs(counts[value] - mean) <= 5 * math.sqrt(mean), value


def test_autoaugment_draws_operations_as_often_as_the_policy_says(drawn):
    run(5000, name="autoaugment")
    expected = Counter()
    for pair in policies.CIFAR10_POLICY:
        for name, probability, _ in pair:
            expected[name] += 5000 * probability / 25
    assert_counts(Counter(name for name, _ in drawn), expected)


def test_randaugment_draws_evenly_at_its_magnitude(drawn):
    run(1000, name="randaugment", ops=4, magnitude=20)
    assert len(drawn) == 4000
    every = policies.RANDAUGMENT_OPERATIONS
    assert_counts(Counter(name for name, _ in drawn), dict.fromkeys(every, 4000 / len(every)))
    turns = [magnitude for name, magnitude in drawn if name == "Rotate"]
    assert set(turns) == {20.0, -20.0}
    shifts = sorted({magnitude for name, magnitude in drawn if name == "TranslateX"})
    assert shifts == pytest.approx([sign * 150 / 331 * 60 * 20 / 30 for sign in (-1, 1)])


def test_trivialaugment_draws_one_operation_and_any_of_31_levels(drawn):
    run(6000, name="trivialaugment")
    assert len(drawn) == 6000
    every = policies.RANDAUGMENT_OPERATIONS
    assert_counts(Counter(name for name, _ in drawn), dict.fromkeys(every, 6000 / len(every)))
    levels = [round(abs(value) / 135 * 30) for name, value in drawn if name == "Rotate"]
    assert_counts(Counter(levels), dict.fromkeys(range(31), len(levels) / 31))


def test_augmix_draws_chains_of_its_depth_and_severity(drawn):
    run(500, name="augmix", width=2, depth=3, severity=3)
    assert len(drawn) == 500 * 2 * 3
    every = policies.RANDAUGMENT_OPERATIONS[1:]
    assert_counts(Counter(name for name, _ in drawn), dict.fromkeys(every, 3000 / len(every)))
    levels = Counter(round(abs(value) / 30 * 9) for name, value in drawn if name == "Rotate")
    assert_counts(levels, dict.fromkeys(range(3), levels.total() / 3))


def test_augmix_of_random_depth_draws_one_to_three(drawn):
    lengths = Counter()
    augment, rng = augmentations.build("augmix", width=1), np.random.default_rng(0)
    for _ in range(900):
        drawn.clear()
        augment(np.zeros((4, 4, 3), np.uint8), rng)
        lengths[len(drawn)] += 1
    assert_counts(lengths, dict.fromkeys((1, 2, 3), 300))


def test_augmix_weighs_the_photo_evenly_between_none_and_all(monkeypatch):
    monkeypatch.setattr(augmentations, "operate", lambda image, *_: np.zeros_like(image))
    shares = np.array([image[0, 0, 0] for image in run(2000, name="augmix")]) / 200
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert np.quantile(shares, [0.1, 0.9]) == pytest.approx([0.1, 0.9], abs=0.04)


# Flip, jitter, custom


def test_a_sure_flip_mirrors():
    photo = make_photo(7, 5)
    flipped = augmentations.build("base", flip=1.0)(photo, np.random.default_rng(0))
    np.testing.assert_array_equal(flipped, photo[:, ::-1])


@pytest.mark.parametrize(
    ("recipe", "share"), [({"name": "flip"}, 0.5), ({"name": "base", "flip": 0.2}, 0.2)]
)
def test_flips_happen_as_often_as_asked(recipe, share):
    photo = make_photo(4, 5)
    augment, rng = augmentations.build(**recipe), np.random.default_rng(0)
    flips = sum(not np.array_equal(augment(photo, rng), photo) for _ in range(2000))
    assert flips / 2000 == pytest.approx(share, abs=0.04)


def test_a_box_of_noise_is_erased_as_often_as_asked():
    photo = np.full((60, 80, 3), 7, np.uint8)
    augment, rng = augmentations.build("base", erase=0.3), np.random.default_rng(0)
    shares, ratios, corners = [], [], []
    for _ in range(2000):
        changed = (augment(photo, rng) != 7).any(axis=2)  # noise is 7 in all colours once in 2^24
        if changed.any():
            rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
            height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
            assert changed.sum() == height * width, "not a box"
            shares.append(changed.mean())
            ratios.append(height / width)
            corners.append((rows[0] / (61 - height), columns[0] / (81 - width)))
    assert len(shares) / 2000 == pytest.approx(0.3, abs=0.04)
    assert 0.015 < min(shares) < 0.03 and 0.29 < max(shares) < 0.35
    assert np.mean(shares) == pytest.approx((0.02 + 1 / 3) / 2, abs=0.02)
    assert np.median(ratios) == pytest.approx(1, abs=0.15) and min(ratios) < 0.4 < 2.5 < max(ratios)
    assert np.mean(corners, axis=0) == pytest.approx([0.5, 0.5], abs=0.06)  # anywhere


def test_all_colours_are_erased_with():
    erased = augmentations.build("base", erase=1.0)(
        np.zeros((200, 200, 3), np.uint8), np.random.default_rng(3)
    )
    noise = erased[erased.any(axis=2)]
    assert noise.mean() == pytest.approx(127.5, abs=3) and set(np.unique(noise)) == set(range(256))


@pytest.mark.parametrize(
    ("place", "name", "low", "high"),
    [
        (0, "brightness", 0.6, 1.4),
        (1, "contrast", 0.6, 1.4),
        (2, "saturation", 0.6, 1.4),
        (3, "hue", -0.4, 0.4),
    ],
)
def test_jitter_draws_factors_evenly_from_its_range(place, name, low, high, monkeypatch):
    factors = []
    monkeypatch.setattr(augmentations, name, lambda image, factor: factors.append(factor) or image)
    jitter = tuple(0.4 * (other == place) for other in range(4))
    run(2000, name="base", jitter=jitter)
    assert len(factors) == 2000
    assert (min(factors), max(factors)) == pytest.approx((low, high), abs=0.01)
    assert np.mean(factors) == pytest.approx((low + high) / 2, abs=0.03)


def test_jitter_stops_at_black(monkeypatch):
    factors = []
    monkeypatch.setattr(
        augmentations, "brightness", lambda image, factor: factors.append(factor) or image
    )
    run(500, name="base", jitter=(2.0, 0, 0, 0))
    assert 0 <= min(factors) < 0.1
    assert 2.9 < max(factors) <= 3


def test_jitter_takes_every_order(monkeypatch):
    calls = []
    for name in ("brightness", "contrast", "saturation", "hue"):
        monkeypatch.setattr(
            augmentations, name, lambda image, _, name=name: calls.append(name) or image
        )
    run(2400, name="flip_jitter")
    orders = Counter(tuple(calls[start : start + 4]) for start in range(0, len(calls), 4))
    assert len(orders) == math.factorial(4)
    assert_counts(orders, dict.fromkeys(orders, 100))


def test_custom_leaves_the_frame_as_it_is():
    # A crop in training alone would show models another scale than prediction does.
    photo = np.zeros((120, 100, 3), np.uint8)
    photo[:12] = photo[-12:] = photo[:, :10] = photo[:, -10:] = 128
    shown = augmentations.build("custom", noise=0)(photo, np.random.default_rng(0))
    assert np.array_equal(shown.max(axis=2) > 60, photo[..., 0] > 60)


def test_custom_noise_has_the_standard_deviation_asked_for():
    photo = np.full((120, 100, 3), 128, np.uint8)
    augment = augmentations.build("custom", noise=8)
    noisy = augment(photo, np.random.default_rng(0)).astype(float)
    assert noisy.std(axis=(0, 1)) == pytest.approx(8, rel=0.05)
    channels = noisy.reshape(-1, 3).T
    assert np.abs(np.corrcoef(channels) - np.eye(3)).max() < 0.05


# What all of them promise


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_the_same_generator_state_gives_the_same_pixels(recipe):
    photo, augment = make_photo(), augmentations.build(**recipe)
    first, second, other = (
        [augment(photo, rng) for _ in range(10)] for rng in map(np.random.default_rng, (7, 7, 8))
    )
    np.testing.assert_array_equal(first, second)
    assert recipe["name"] == "base" or not np.array_equal(first, other)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_the_input_may_be_read_only_and_stays(recipe):
    photo, augment = make_photo(), augmentations.build(**recipe)
    before = photo.copy()
    photo.flags.writeable = False
    for seed in range(20):
        augment(photo, np.random.default_rng(seed))
    np.testing.assert_array_equal(photo, before)


@settings(max_examples=80, deadline=None)
@given(
    recipe=st.sampled_from(RECIPES),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=st.integers(0, 2**32),
)
def test_any_size_keeps_shape_and_type(recipe, height, width, seed):
    photo = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    out = augmentations.build(**recipe)(photo, np.random.default_rng(seed))
    assert out.shape == photo.shape
    assert out.dtype == np.uint8
    assert out.flags.c_contiguous


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"name": "autoaugmnt"}, "unknown augmentation 'autoaugmnt'; did you mean 'autoaugment'"),
        ({"name": "zzz"}, "known: base, flip"),
        ({"name": "randaugment", "magnitud": 3}, "no option 'magnitud'; did you mean 'magnitude'"),
        ({"name": "augmix", "ops": 3}, "augmix takes no option 'ops'; known: severity, width"),
        ({"name": "flip", "noise": 3.0}, "flip takes no option 'noise'; it has none"),
        ({"name": "base", "flip": 1.5}, "flip is a probability from 0 to 1, got 1.5"),
        ({"name": "base", "erase": -0.1}, "erase is a probability from 0 to 1, got -0.1"),
        ({"name": "base", "jitter": (0.1, 0.1, 0.1)}, "four numbers"),
        ({"name": "base", "jitter": (0.1, 0.1, 0.1, 0.6)}, "at most 0.5"),
        ({"name": "base", "jitter": (0.1, -0.1, 0.1, 0.1)}, "four numbers from 0"),
        ({"name": "randaugment", "magnitude": 31}, "0 to 30, got 31"),
        ({"name": "randaugment", "ops": 0}, "at least 1, got 0"),
        ({"name": "augmix", "severity": 11}, "1 to 10, got 11"),
        ({"name": "augmix", "width": 0}, "at least 1, got 0"),
        ({"name": "augmix", "depth": 0}, "or -1 to draw it, got 0"),
        ({"name": "augmix", "alpha": 0.0}, "above 0, got 0"),
        ({"name": "custom", "noise": -1.0}, ">= 0, got -1"),
    ],
)
def test_what_cannot_be_built_says_why(recipe, message):
    with pytest.raises(ValueError, match=message):
        augmentations.build(**recipe)


def test_importing_it_loads_nothing_heavy():
    code = "import json, sys; import maskcls.augment.augmentations"
    code += "; print(json.dumps(sorted(sys.modules)))"
    package = Path(augmentations.__file__).parents[1]
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=package.parent
    ).stdout
    heavy = {"torch", "torchvision", "albumentations", "PIL", "pandas", "matplotlib", "scipy"}
    assert not heavy & set(json.loads(printed))


# The preview


def test_the_preview_is_a_png_with_all_photos(tmp_path):
    path = tmp_path / "new" / "preview.png"
    preview.preview([make_photo(40, 30), make_photo(50, 50)], path, per_augmentation=2)
    sheet = cv2.imread(str(path))
    assert sheet.shape[0] == 164 * len(NAMES)
    assert sheet.shape[1] > 2 * (120 + 160)
    assert [file.name for file in path.parent.iterdir()] == ["preview.png"]


def test_the_same_seed_draws_the_same_preview(tmp_path):
    for name, seed in (("a.png", 1), ("b.png", 1), ("c.png", 2)):
        preview.preview([make_photo(40, 30)], tmp_path / name, seed=seed, per_augmentation=1)
    first, second, other = (cv2.imread(str(tmp_path / f"{name}.png")) for name in "abc")
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_a_preview_needs_photos(tmp_path):
    with pytest.raises(ValueError, match="at least one photo"):
        preview.preview([], tmp_path / "preview.png")


def test_the_command_writes_the_preview(tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "photo.png"), make_photo(40, 30))
    out = tmp_path / "preview.png"
    command.main([str(out), str(tmp_path / "photo.png")])
    assert out.is_file()
    assert capsys.readouterr().out.strip() == str(out)


@pytest.mark.parametrize("content", [None, b"", b"no photo"])
def test_the_command_names_the_photo_it_cannot_read(tmp_path, capsys, content):
    photo = tmp_path / "broken.jpg"
    if content is not None:
        photo.write_bytes(content)
    with pytest.raises(SystemExit):
        command.main([str(tmp_path / "preview.png"), str(photo)])
    assert "broken.jpg" in capsys.readouterr().err
    assert not (tmp_path / "preview.png").exists()
