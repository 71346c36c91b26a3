import cv2
import numpy as np
import pytest
from PIL import Image

from maskcls.data.manifest import read_train
from maskcls.data.photos import PhotoError
from maskcls.quality import appearance


@pytest.fixture(scope="module")
def fingerprints(drawn):
    photos = read_train(drawn).photos
    return photos, [appearance.fingerprint(path) for path in photos["path"]]


def save(path, image, quality=95):
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return appearance.fingerprint(str(path))


def bits(a, b):
    return int(np.bitwise_count(a.hash_W ^ b.hash_W).sum())


COPIES = {
    "encoded again": lambda image: image,
    "smaller": lambda image: cv2.resize(
        image, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA
    ),
    "brighter": lambda image: np.clip(image * 1.1, 0, 255).astype(np.uint8),
    "darker": lambda image: (image * 0.8).astype(np.uint8),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_stays_near_its_original(fingerprints, tmp_path, name):
    photos, known = fingerprints
    for row in range(0, len(photos), 40):
        copy = save(tmp_path / "copy.jpg", COPIES[name](cv2.imread(photos["path"][row])), 80)
        assert bits(known[row], copy) <= appearance.COPY_BITS


def test_the_hash_is_that_of_the_lowest_frequencies(fingerprints):
    photos, known = fingerprints
    grey = cv2.imread(photos["path"][0], cv2.IMREAD_GRAYSCALE)
    small = np.asarray(Image.fromarray(grey).resize((32, 32), Image.Resampling.LANCZOS))
    frequencies = cv2.dct(small.astype(np.float64))[:16, :16]
    # OpenCV's cosines are scaled to unit length, imagehash's are not: the first row and column.
    frequencies[0] *= np.sqrt(2)
    frequencies[:, 0] *= np.sqrt(2)
    found = np.unpackbits(appearance.perceptual_hash(grey).view(np.uint8)).astype(bool)
    np.testing.assert_array_equal(found, (frequencies > np.median(frequencies)).ravel())
    assert known[0].hash_W.shape == (4,)


def test_pairs_are_those_of_a_plain_double_loop():
    rng = np.random.default_rng(0)
    hashes = rng.integers(2**63, size=(600, 4)).astype(np.uint64)  # more than two blocks
    hashes[599] = hashes[3] ^ np.array([7, 0, 1, 0], np.uint64)
    hashes[300] = hashes[299]
    found = {
        (int(i), int(j)): int(distance)
        for first, second, bits in appearance.near_pairs(hashes, 10)
        for i, j, distance in zip(first, second, bits, strict=True)
    }
    assert found == {(3, 599): 4, (299, 300): 0}
    every = sum(len(first) for first, _, _ in appearance.near_pairs(hashes, 256))
    assert every == 600 * 599 // 2


def test_the_one_photo_of_another_place_is_the_strange_one():
    rng = np.random.default_rng(0)
    heads = rng.normal(0, 2, (5, 7, 108)) + rng.normal(0, 20, (5, 1, 1))
    heads[1, 4] += 60
    strange = appearance.outlier_scores(
        heads.reshape(35, 108).astype(np.float32), np.arange(35) // 7
    )
    assert strange.argmax() == 7 + 4
    assert strange[11] > appearance.OUTLIER
    assert (np.delete(strange, 11) < 1.6).all()


def test_few_photos_are_not_judged_and_like_ones_are_not_strange():
    heads = np.zeros((10, 108), np.float32)
    heads[0] = 50
    strange = appearance.outlier_scores(heads, ["a"] * 3 + ["b"] * 7)
    assert np.isnan(strange[:3]).all()
    assert (strange[3:] == 0).all()
    assert np.isnan(appearance.outlier_scores(heads[:3], ["a"] * 3)).all()


@pytest.mark.parametrize("content", [b"", b"no photo", None])
def test_what_cannot_be_read_says_so(tmp_path, content):
    path = tmp_path / "a.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PhotoError):
        appearance.fingerprint(str(path))


def test_a_look_has_the_size_of_the_whole_photo(tmp_path):
    seen = save(tmp_path / "a.jpg", np.full((1000, 801, 3), 80, np.uint8))
    assert seen.size == (1000, 801)
    assert seen.contrast < appearance.FLAT
