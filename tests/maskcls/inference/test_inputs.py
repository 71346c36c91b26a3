"""What a user may give: one photo in every form, folders, and what is no photo."""

import io
import re

import cv2
import numpy as np
import pytest
from PIL import Image

from maskcls.data import photos
from maskcls.inference.inputs import sources


@pytest.fixture
def picture():
    rows, columns = np.mgrid[0:64, 0:48]
    return np.stack([rows * 3, columns * 5, rows + columns], axis=2).clip(0, 255).astype(np.uint8)


def encoded(picture, form, **options):
    out = io.BytesIO()
    Image.fromarray(picture).save(out, form, **options)
    return out.getvalue()


def test_one_photo_in_every_form_is_the_same_picture(picture, tmp_path):
    data = encoded(picture, "PNG")
    path = tmp_path / "photo é.png"
    path.write_bytes(data)
    for given in (path, str(path), data, bytearray(data), Image.open(path), picture, [path]):
        (source,) = sources(given)
        image, status = source.load()
        assert status == "ok"
        assert np.array_equal(image, picture)
    assert [source.name for source in sources([str(path), data])] == [str(path), "#1"]
    stacked = list(sources(np.stack([picture, picture])))
    assert [source.name for source in stacked] == ["#0", "#1"]
    assert np.array_equal(stacked[1].load()[0], picture)


def test_pillow_images_are_turned_upright_and_grey_ones_become_rgb(picture):
    turned = Image.open(io.BytesIO(encoded(picture, "PNG", exif=_orientation(6))))
    (source,) = sources(turned)
    assert np.array_equal(source.load()[0], np.rot90(picture, -1))
    for grey in (Image.fromarray(picture).convert("L"), picture[:, :, 0], picture[:, :, :1]):
        image, _ = next(sources(grey)).load()
        assert image.shape == (64, 48, 3)
        assert (image[:, :, 0] == image[:, :, 2]).all()


def _orientation(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def test_a_folder_gives_its_photos_and_those_of_its_sub_folders_by_name(picture, tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("c.JPG", "a.png", "b/z.jpeg", "notes.txt", ".hidden.jpg", "._c.JPG"):
        (tmp_path / name).write_bytes(encoded(picture, "PNG"))
    (tmp_path / "b" / "up").symlink_to(tmp_path, target_is_directory=True)
    found = [source.name for source in sources([tmp_path])]
    assert found == [str(tmp_path / name) for name in ("a.png", "b/z.jpeg", "c.JPG")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no photo here"):
        list(sources(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("nowhere.jpg", "missing file"),
        (b"", "empty file"),
        (b"hello", "not an image"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.broadcast_to(np.uint8(0), (9000, 9000, 3)), "too large"),
    ],
)
def test_what_cannot_be_read_has_a_reason(given, reason):
    image, status = next(sources([given])).load()
    assert image is None
    assert status != "ok"
    assert re.search(reason, status)


@pytest.mark.parametrize("given", [None, 3, [3.5], [None], {"a": 1}.values()])
def test_what_is_no_photo_by_its_type_is_refused(given):
    with pytest.raises(TypeError, match="is no photo"):
        list(sources(given))


def test_without_pillow_plain_jpegs_give_the_same_pixels_and_others_say_why(picture, monkeypatch):
    plain = encoded(picture, "JPEG", quality=90)
    turned = encoded(picture, "JPEG", quality=90, exif=_orientation(8))
    grey = cv2.imencode(".jpg", picture[:, :, 0])[1].tobytes()
    cmyk = io.BytesIO()
    Image.fromarray(picture).convert("CMYK").save(cmyk, "JPEG")
    usual = [photos.decode(data) for data in (plain, turned, grey)]
    monkeypatch.setattr(photos, "HAS_PILLOW", False)
    for data, expected in zip((plain, turned, grey), usual, strict=True):
        assert np.array_equal(photos.decode(data), expected)
    for data in (encoded(picture, "PNG"), plain[:-200], cmyk.getvalue(), b"\xff\xd8\xff"):
        with pytest.raises(photos.PhotoError, match="without Pillow"):
            photos.decode(data)
