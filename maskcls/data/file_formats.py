"""What a file is by its first bytes, and a photo's file without what is no part of its picture."""

from __future__ import annotations

import zlib
from typing import Final

EXTENSIONS: Final = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".webp")
"""What the name of a photo ends in, in either case."""

CONVERT: Final = "convert it to JPEG or PNG, for instance by `magick FILE photo.png`"

_STARTS: Final[list[tuple[bytes, str]]] = [
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF, or a camera's raw format"),
    (b"MM\0*", "TIFF, or a camera's raw format"),
    (b"II+\0", "BigTIFF"),
    (b"MM\0+", "BigTIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"II\xbc", "JPEG XR"),
    (b"8BPS", "a Photoshop file"),
    (b"FUJIFILMCCD-RAW", "a camera's raw format"),
    (b"\0\0\1\0", "an icon"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"qoif", "QOI"),
    (b"DDS ", "DDS"),
    (b"v/1\1", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
]
_BRANDS: Final = {
    b"avif": "AVIF", b"avis": "AVIF",
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"), "HEIC"),
    b"crx ": "a camera's raw format",
}  # fmt: skip
"""By the brand of an ISO media file; any other is a video."""

_NO_PICTURE: Final[list[tuple[bytes, str]]] = [
    (b"version https://git-lfs", "a pointer of Git LFS, not the file: run `git lfs pull`"),
    (b"\x00\x05\x16\x07", "macOS's notes on a file (AppleDouble), not the file: delete it"),
    (b"PK\x03\x04", "a ZIP archive: unpack it"),
    (b"\x1f\x8b", "compressed by gzip: unpack it"),
    (b"Rar!", "a RAR archive: unpack it"),
    (b"7z\xbc\xaf", "a 7-Zip archive: unpack it"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x93NUMPY", "a NumPy array"),
]

_CHUNKS: Final = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"}
"""The chunks of a PNG that make its picture, and its orientation."""


def what_it_is(data: bytes) -> str:
    """A file that none of the decoders takes, in words: its kind, and what to do with it."""
    for start, name in _STARTS:
        if data.startswith(start):
            return f"{name}, which is not read: {CONVERT}"
    for start, words in _NO_PICTURE:
        if data.startswith(start):
            return words
    if data[4:8] == b"ftyp":
        name = _BRANDS.get(data[8:12], "a video (MP4 or QuickTime)")
        return f"{name}, which is not read: {CONVERT}"
    if data[128:132] == b"DICM":
        return f"DICOM, which is not read: {CONVERT}"
    text = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "not an image but a web page: download the photo again"
    if text.startswith(b"<svg") or (text.startswith(b"<?xml") and b"<svg" in text):
        return f"SVG, which is not read: {CONVERT}"
    if not data.strip(b"\0"):
        return "not an image: all bytes are zero, as an unfinished copy leaves it; copy it again"
    return "not an image, or cut off in its header"


def without_metadata(data: bytes) -> bytes | None:
    """A JPEG or PNG without texts, colour profiles and the like; None where that changes nothing.

    What makes the picture stays, and so do EXIF and XMP, which may say that it must be turned.
    """
    if data.startswith(b"\xff\xd8"):
        bare = _bare_jpeg(data)
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        bare = _bare_png(data)
    else:
        return None
    return bare if bare != data else None


def _bare_jpeg(data: bytes) -> bytes:
    parts, position = [data[:2]], 2
    while data[position : position + 1] == b"\xff" and position + 4 <= len(data):
        marker = data[position + 1]
        if marker == 0xFF:  # padding
            position += 1
            continue
        if marker == 0xDA:  # start of scan: pixels from here on
            break
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        # Applications' segments and comments, but for JFIF, EXIF and XMP, and Adobe's colours.
        if not (0xE2 <= marker <= 0xEF and marker != 0xEE) and marker != 0xFE:
            parts.append(data[position:end])
        position = end
    return b"".join([*parts, data[position:]])


def _bare_png(data: bytes) -> bytes:
    parts, position = [data[:8]], 8
    while position + 12 <= len(data):
        kind = data[position + 4 : position + 8]
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        chunk = data[position:end]
        # A damaged EXIF stops the decoder; damaged pixels must.
        sound = chunk[-4:] == zlib.crc32(chunk[4:-4]).to_bytes(4, "big")
        if kind in _CHUNKS and (sound or kind != b"eXIf"):
            parts.append(chunk)
        position = end
        if kind == b"IEND":
            break
    return b"".join(parts)


def jpeg_shape(data: bytes) -> tuple[int, int, int] | None:
    """Height, width and number of channels of a JPEG, from its header; None where it is none."""
    if not data.startswith(b"\xff\xd8"):
        return None
    position = 2
    while data[position : position + 1] == b"\xff" and position + 10 <= len(data):
        marker = data[position + 1]
        if marker == 0xFF:  # padding
            position += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            height, width = (
                int.from_bytes(data[position + at : position + at + 2], "big") for at in (5, 7)
            )
            return height, width, data[position + 9]
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None
