"""Files that a folder of photos can hold: sound pixels in an odd wrapping, and what is no photo."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

HEIGHT, WIDTH = 64, 48


def scene() -> np.ndarray:
    """A picture whose four corners differ: turned or mirrored, it is another one."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    picture = np.stack([rows * 3, columns * 5, (rows + columns) * 2], axis=2)
    return picture.clip(0, 255).astype(np.uint8)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def jpeg(**options: Any) -> bytes:
    return encoded(Image.fromarray(scene()), "JPEG", quality=95, subsampling=0, **options)


def png(image: Image.Image | None = None, **options: Any) -> bytes:
    return encoded(image or Image.fromarray(scene()), "PNG", **options)


def segment(marker: int, content: bytes) -> bytes:
    """A segment of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def with_segments(*segments: bytes) -> bytes:
    """A JPEG with segments after its JFIF header."""
    data = jpeg()
    return data[:20] + b"".join(segments) + data[20:]


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def with_chunks(*chunks: bytes) -> bytes:
    """A PNG with chunks after its header."""
    data = png()
    return data[:33] + b"".join(chunks) + data[33:]


def exif(orientation: int, form: str = "<") -> bytes:
    """EXIF with nothing but an orientation."""
    order = b"II" if form == "<" else b"MM"
    entry = struct.pack(form + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return order + struct.pack(form + "HIH", 42, 8, 1) + entry + struct.pack(form + "I", 0)


def xmp(orientation: int) -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description '
        f'tiff:Orientation="{orientation}"/></rdf:RDF></x:xmpmeta>'
    ).encode()


def _app1(content: bytes) -> bytes:
    return segment(0xE1, content)


XMP = b"http://ns.adobe.com/xap/1.0/\0"


def sound() -> dict[str, bytes]:
    """Name -> a file whose picture is ``scene()``, upright."""
    picture = Image.fromarray(scene())
    empty = picture.convert("RGBA")
    empty.putalpha(0)
    opaque = picture.convert("RGBA")
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 3_000_000, zip=True)
    many = PngImagePlugin.PngInfo()
    for number in range(70):
        many.add_text(f"Comment {number}", "x" * 1_000_000, zip=True)
    profile = zlib.compress(bytes(80_000_000))
    data = png()
    flipped = encoded(picture, "BMP")
    return {
        "JPEG": jpeg(),
        "JPEG, progressive": jpeg(progressive=True),
        "JPEG with a byte after its end": jpeg() + b"\0",
        "JPEG with 100 kB after its end": jpeg() + bytes(100_000),
        "JPEG with another JPEG after its end": jpeg() + jpeg(),
        "JPEG with a ZIP after its end": jpeg() + b"PK\x05\x06" + bytes(18),
        "JPEG with padding before a marker": jpeg()[:20] + b"\xff\xff\xff" + jpeg()[20:],
        "JPEG without JFIF header": jpeg()[:2] + jpeg()[20:],
        "JPEG with 2 MB of comments": with_segments(*[segment(0xFE, b"c" * 65_000)] * 32),
        "JPEG with a large colour profile": jpeg(icc_profile=bytes(3_000_000)),
        "JPEG with a profile that lacks parts": with_segments(
            segment(0xE2, b"ICC_PROFILE\0\x02\x05" + bytes(100))
        ),
        "JPEG with a profile segment that is too short": with_segments(
            segment(0xE2, b"ICC_PROFILE\0")
        ),
        "JPEG with a broken Photoshop block": with_segments(
            segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\xff\xff\xff\xff")
        ),
        "JPEG with a Photoshop block cut in its length": with_segments(
            segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x10\0")
        ),
        "JPEG with an index of further pictures that is broken": with_segments(
            segment(0xE2, b"MPF\0II*\0\x08\0\0\0\x01\0\x00\xb0\xff\xff\xff\xff\xff\xff")
        ),
        "JPEG with an empty EXIF": with_segments(_app1(b"Exif\0\0")),
        "JPEG with a broken EXIF": with_segments(_app1(b"Exif\0\0broken")),
        "JPEG with an EXIF whose directory loops": with_segments(
            _app1(b"Exif\0\0II*\0\x08\0\0\0\0\0\x08\0\0\0")
        ),
        "JPEG with orientation 0": with_segments(_app1(b"Exif\0\0" + exif(0))),
        "JPEG with orientation 9": with_segments(_app1(b"Exif\0\0" + exif(9))),
        "JPEG with a broken XMP": with_segments(_app1(XMP + b"<x:xmpmeta \xff\xfe")),
        "JPEG with a broken XMP and a byte after its end": with_segments(
            _app1(XMP + b"<x:xmpmeta \xff\xfe")
        )
        + b"\0",
        "JPEG of two density units": jpeg(dpi=(0, 0)),
        "PNG": data,
        "PNG with 3 MB of text, compressed": png(pnginfo=info),
        "PNG with 70 MB of text": png(pnginfo=many),
        "PNG with a text that is no text": with_chunks(chunk(b"zTXt", b"a\0\0broken")),
        "PNG with a text in an unknown compression": with_chunks(chunk(b"zTXt", b"a\0\x07x")),
        "PNG with a colour profile of 80 MB": with_chunks(chunk(b"iCCP", b"p\0\0" + profile)),
        "PNG with a broken colour profile": with_chunks(chunk(b"iCCP", b"p\0\0broken")),
        "PNG with an empty colour profile": with_chunks(chunk(b"iCCP", b"")),
        "PNG with a wrong checksum in a text": with_chunks(chunk(b"tEXt", b"a\0b")[:-1] + b"\0"),
        "PNG with a short gamma": with_chunks(chunk(b"gAMA", b"\0")),
        "PNG with a short density": with_chunks(chunk(b"pHYs", b"\0")),
        "PNG with a broken EXIF": with_chunks(chunk(b"eXIf", b"broken")),
        "PNG with an unknown chunk": with_chunks(chunk(b"prVt", bytes(70_000))),
        "PNG with bytes after its end": data + b"trailing bytes",
        "PNG without its end": data[:-12],
        "PNG whose alpha is all zero": png(empty),
        "PNG whose alpha is all one": png(opaque),
        "WebP whose alpha is all zero": encoded(empty, "WEBP", lossless=True, exact=True),
        "WebP with bytes after its end": encoded(picture, "WEBP", lossless=True) + b"trailing",
        "WebP with EXIF that is broken": encoded(picture, "WEBP", lossless=True, exif=b"broken"),
        "BMP": flipped,
        "BMP with bytes after its end": flipped + b"trailing bytes",
        "BMP with a wrong file size": flipped[:2] + bytes(4) + flipped[6:],
        "PPM with comments": b"P6\n# made by hand\n48 # wide\n64\n255\n" + scene().tobytes(),
        "PPM with bytes after its end": encoded(picture, "PPM") + b"trailing bytes",
    }


def turned() -> dict[str, bytes]:
    """Name -> a file that says it must be turned by 90 degrees clockwise (orientation 6)."""
    picture = Image.fromarray(scene())
    raw = b"\nexif\n" + f"{len(exif(6)) + 6:8}\n".encode() + (b"Exif\0\0" + exif(6)).hex().encode()
    return {
        "JPEG, EXIF": with_segments(_app1(b"Exif\0\0" + exif(6))),
        "JPEG, EXIF of Motorola order": with_segments(_app1(b"Exif\0\0" + exif(6, ">"))),
        "JPEG, EXIF twice": with_segments(*[_app1(b"Exif\0\0" + exif(6))] * 2),
        "JPEG, EXIF after XMP": with_segments(
            _app1(XMP + b"<x:xmpmeta/>"), _app1(b"Exif\0\0" + exif(6))
        ),
        "JPEG, EXIF after a broken profile": with_segments(
            segment(0xE2, b"ICC_PROFILE\0"), _app1(b"Exif\0\0" + exif(6))
        ),
        "JPEG, EXIF and a tag that is cut off": with_segments(
            _app1(
                b"Exif\0\0II*\0\x08\0\0\0\x02\0"
                + exif(6)[10:22]
                + struct.pack("<HHII", 0x010F, 2, 5000, 9000)
                + bytes(4)
            )
        ),
        "JPEG, XMP": with_segments(_app1(XMP + xmp(6))),
        "JPEG, XMP and a byte after its end": with_segments(_app1(XMP + xmp(6))) + b"\0",
        "JPEG, EXIF and a broken XMP": with_segments(
            _app1(b"Exif\0\0" + exif(6)), _app1(XMP + b"\xff\xfe")
        ),
        "JPEG, EXIF, a broken XMP and a byte after its end": with_segments(
            _app1(b"Exif\0\0" + exif(6)), _app1(XMP + b"\xff\xfe")
        )
        + b"\0",
        "PNG, EXIF": png(exif=exif(6)),
        "PNG, EXIF after the pixels": png()[:-12] + chunk(b"eXIf", exif(6)) + png()[-12:],
        "PNG, EXIF beside a huge text": with_chunks(
            chunk(b"eXIf", exif(6)), chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(3_000_000)))
        ),
        "PNG, XMP": png()[:33]
        + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(6))
        + png()[33:],
        "PNG, EXIF as ImageMagick writes it": with_chunks(
            chunk(b"tEXt", b"Raw profile type exif\0" + raw)
        ),
        "WebP, EXIF": encoded(picture, "WEBP", lossless=True, exif=exif(6)),
        "WebP, XMP": encoded(picture, "WEBP", lossless=True, xmp=xmp(6)),
    }
