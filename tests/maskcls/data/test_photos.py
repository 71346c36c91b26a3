"""Files that a folder of photos can hold, decoded: see odd_photos.py."""

import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from maskcls.data.photos import PhotoError, decode, decode_reduced
from tests.conftest import ROOT
from tests.maskcls.data import odd_photos
from tests.maskcls.data.odd_photos import chunk, encoded, png, scene

SOUND = odd_photos.sound()
TURNED = odd_photos.turned()


def difference(a, b):
    return np.abs(a.astype(int) - b.astype(int)).mean() if a.shape == b.shape else np.inf


@pytest.mark.parametrize("name", SOUND)
def test_sound_pixels_are_read_whatever_stands_around_them(name):
    assert difference(decode(SOUND[name]), scene()) < 1.5


@pytest.mark.parametrize("name", TURNED)
def test_the_orientation_is_found_wherever_it_stands(name):
    assert difference(decode(TURNED[name]), np.rot90(scene(), -1)) < 1.5


@pytest.mark.parametrize("name", [name for name in [*SOUND, *TURNED] if "JPEG" in name])
def test_both_decoders_give_the_same_picture(name, monkeypatch):
    data = {**SOUND, **TURNED}[name]
    usual = decode(data)
    monkeypatch.setattr("cv2.imdecode", lambda *_: None)
    assert difference(decode(data), usual) < 0.5
    assert decode_reduced(data, 8)[1] == usual.shape[:2]


def test_odd_metadata_print_nothing():
    """A line a photo would bury the lines of a run; the decoders write some past Python."""
    code = (
        "from tests.maskcls.data import odd_photos\n"
        "from maskcls.data.photos import decode\n"
        "for data in [*odd_photos.sound().values(), *odd_photos.turned().values()]: decode(data)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_damaged_pixels_are_refused_also_where_metadata_are_odd():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8))
    data = encoded(noise, "PNG")
    start = data.index(b"IDAT") + 100
    flipped = data[:start] + bytes([data[start] ^ 255]) + data[start + 1 :]
    odd = flipped[:33] + chunk(b"gAMA", b"\0") + flipped[33:]
    for damaged in (flipped, odd, odd[:2000]):
        with pytest.raises(PhotoError):
            decode(damaged)


FORMATS = {
    "GIF": encoded(Image.fromarray(scene()), "GIF"),
    "TIFF": encoded(Image.fromarray(scene()), "TIFF"),
    "AVIF": encoded(Image.fromarray(scene()), "AVIF"),
    "HEIC": struct.pack(">I", 24) + b"ftypheic" + bytes(400),
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(400),
    "JPEG XL": b"\xff\x0a" + bytes(400),
    "BigTIFF": b"II+\0" + bytes(400),
    "camera's raw": b"FUJIFILMCCD-RAW 0201" + bytes(400),
    "Photoshop": b"8BPS\0\1" + bytes(400),
    "icon": b"\0\0\1\0\1\0" + bytes(400),
    "PDF": b"%PDF-1.7\n",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "SVG": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "DICOM": bytes(128) + b"DICM" + bytes(400),
    "video": struct.pack(">I", 24) + b"ftypqt  " + bytes(400),
    "QOI": b"qoif" + bytes(400),
    "OpenEXR": b"v/1\1" + bytes(400),
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats_that_are_not_read_are_named_with_how_to_convert(name):
    with pytest.raises(PhotoError, match=rf"{name}.*not read: convert it.*magick"):
        decode(FORMATS[name])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X", "AppleDouble"),
        (b"PK\x03\x04" + bytes(100), "ZIP archive: unpack"),
        (b"\x1f\x8b\x08" + bytes(100), "gzip: unpack"),
        (b"\n<!DOCTYPE html><title>404</title>", "a web page: download"),
        (bytes(5000), "all bytes are zero.*copy it again"),
        (b"some text", "not an image"),
    ],
)
def test_what_is_no_picture_is_told_with_what_to_do(data, words):
    with pytest.raises(PhotoError, match=words):
        decode(data)


def bmp(bits, pixels, *, height=2, compression=0, masks=b""):
    """A BMP, 2 pixels wide."""
    header = struct.pack("<IiiHHIIiiII", 40, 2, height, 1, bits, compression, 0, 0, 0, 0, 0)
    offset = 14 + len(header) + len(masks)
    content = header + masks + pixels
    return b"BM" + struct.pack("<IHHI", 14 + len(content), 0, 0, offset) + content


RED, BLUE = [255, 0, 0], [0, 0, 255]


@pytest.mark.parametrize(
    ("data", "corner"),
    [
        # 32 bits with a fourth byte of zeros, as screenshots have it.
        (bmp(32, bytes([255, 0, 0, 0] * 2 + [0, 0, 255, 0] * 2)), RED),
        # Stored from the top down.
        (bmp(24, bytes([0, 0, 255] * 2 + [0] * 2 + [255, 0, 0] * 2 + [0] * 2), height=-2), RED),
        (bmp(16, struct.pack("<4H", 31, 31, 31 << 10, 31 << 10)), RED),
    ],
)
def test_kinds_of_bmp(data, corner):
    assert decode(data)[0, 0].tolist() == corner


@pytest.mark.parametrize(
    "data",
    [
        b"P3\n2 1\n255\n255 0 0  0 0 255\n",
        b"P6 2 1 65535\n" + struct.pack(">6H", 65535, 0, 0, 0, 0, 65535),
        b"P6 2 1 15\n" + bytes([15, 0, 0, 0, 0, 15]),
    ],
)
def test_kinds_of_ppm(data):
    assert decode(data).tolist() == [[RED, BLUE]]


def test_bits_grey_and_depths_of_png():
    assert decode(png(Image.new("1", (2, 2), 1)))[0, 0].tolist() == [255] * 3
    grey = Image.fromarray(scene()[..., 0])
    expected = np.repeat(scene()[..., :1], 3, axis=2)
    empty = grey.convert("LA")
    empty.putalpha(0)
    assert difference(decode(png(empty)), expected) == 0
    assert difference(decode(png(grey, transparency=300)), expected) == 0


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_an_animation_gives_its_first_picture(form):
    first, second = (Image.fromarray(picture) for picture in (scene(), 255 - scene()))
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(first, form, save_all=True, append_images=[second], **options)
    assert difference(decode(data), scene()) < 0.1


def test_a_jpeg_of_several_pictures_gives_the_first():
    first, second = (Image.fromarray(picture) for picture in (scene(), 255 - scene()))
    data = encoded(first, "MPO", save_all=True, append_images=[second], quality=95)
    assert difference(decode(data), scene()) < 3


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
def test_jpegs_of_other_colours(mode):
    picture = Image.fromarray(scene()).convert(mode)
    options = {"keep_rgb": True} if mode == "RGB" else {}
    data = encoded(picture, "JPEG", quality=95, subsampling=0, **options)
    assert difference(decode(data), np.asarray(picture.convert("RGB"))) < 2


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
def test_pictures_of_one_row_or_column(size):
    data = encoded(Image.new("RGB", size, "red"), "PNG")
    assert decode(data).shape == (size[1], size[0], 3)
    small = encoded(Image.new("RGB", size, "red"), "JPEG")
    assert decode_reduced(small, 96)[1] == size[::-1]


def test_a_float_picture_is_not_read_as_black():
    values = np.linspace(0, 1, 12, dtype="<f4")
    data = b"Pf\n4 3\n-1.0\n" + values.tobytes()
    with pytest.raises(PhotoError, match="floating"):
        decode(data)
