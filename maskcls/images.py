"""Photos decoded and resized once, and shared by every process through the page cache.

A prepared folder belongs to the content of the photos and to a recipe: ``images.npy`` [N, H, W, 3]
uint8 RGB to be memory-mapped, and ``index.parquet``, one row a photo in the same order.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError

from maskcls import files
from maskcls.manifest import OK

ImageArray = npt.NDArray[np.uint8]
Result = TypeVar("Result")
Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""

MAX_PIXELS: Final = 64_000_000
"""A photo with more is refused: decoded, it takes 200 MB."""

_FORMAT: Final = 1  # Raise it whenever the same photo and recipe would give other pixels.
_FORMATS: Final = ("BMP", "JPEG", "PNG", "PPM", "WEBP")
_CASCADES: Final = ("haarcascade_frontalface_alt2.xml", "haarcascade_frontalface_default.xml")
_DETECTION_SIDE: Final = 192
_SEGMENT_SIZE: Final = (128, 96)

_local = threading.local()


class PhotoError(ValueError):
    """A photo that cannot be used; the message says why."""


@dataclass(frozen=True)
class Preprocessing:
    """What happens to a photo before it is stored, in training and in prediction alike.

    ``crop="face"`` cuts out the largest face (see ``find_face``) with ``crop_margin`` times its
    size around it; a photo without one stays whole. ``background="grabcut"`` blackens what is not
    the person (see ``cut_out``). ``height`` and ``width`` in pixels.
    """

    height: int
    width: int
    crop: Literal["none", "face"] = "none"
    crop_margin: float = 0.3
    background: Literal["keep", "grabcut"] = "keep"

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1 or self.crop_margin < 0:
            raise ValueError(f"sizes must be at least 1 and the margin at least 0, got {self}")
        if self.crop not in ("none", "face") or self.background not in ("keep", "grabcut"):
            raise ValueError(f"crop is none or face, background keep or grabcut, got {self}")

    @property
    def name(self) -> str:
        """Part of file names: the same for all recipes that give the same pixels."""
        crop = f"-face{self.crop_margin:g}" if self.crop == "face" else ""
        background = f"-{self.background}" if self.background != "keep" else ""
        return f"{self.height}x{self.width}{crop}{background}"


@dataclass(frozen=True)
class Prepared:
    """A prepared folder. Cheap to pickle: processes on one machine share its pages."""

    folder: Path

    def open(self) -> np.memmap:
        """All images, [N, H, W, 3] uint8 RGB, read-only; zeros where a photo cannot be used.

        Opened once a process. Raises FileNotFoundError where there is no such folder and
        ValueError where it is incomplete.
        """
        return _open(self.folder)

    @property
    def index(self) -> pd.DataFrame:
        """One row a photo: ``key``, ``status``, ``height`` and ``width`` of the original (0 where
        it could not be decoded) and ``face`` (found; always False without a face crop)."""
        return pd.read_parquet(self.folder / "index.parquet")

    def check(self, max_bad_share: float) -> None:
        """Raise ValueError, naming photos and reasons, where too many cannot be used."""
        index = self.index
        bad = index[index["status"] != OK]
        if len(bad) > max_bad_share * len(index):
            reasons = [
                f"  {key}: {why}" for key, why in zip(bad["key"], bad["status"], strict=True)
            ]
            more = [f"  and {len(bad) - 10} more, see {self.folder / 'index.parquet'}"]
            raise ValueError(
                f"{len(bad)} of {len(index)} photos cannot be used, the limit is "
                f"{max_bad_share:.1%}; replace them or raise the limit:\n"
                + "\n".join(reasons[:10] + (more if len(bad) > 10 else []))
            )


def decode(data: bytes) -> ImageArray:
    """The bytes of a photo -> [height, width, 3] uint8 RGB, turned upright as its EXIF says.

    Greyscale, CMYK and palette become RGB, 16 bits become 8, and transparent parts become black,
    as cut-out photos saved without transparency have them. Raises PhotoError. What cannot be
    noticed: bytes lost in the middle of a JPEG whose end is there.
    """
    return _decode(data, shortest=None)[0]


def decode_reduced(data: bytes, shortest: int) -> tuple[ImageArray, tuple[int, int]]:
    """The same photo, maybe smaller, and the (height, width) that ``decode`` gives it.

    A plain JPEG comes at the smallest of 1/8, 1/4, 1/2 and 1 of its size at which both sides have
    at least ``shortest`` pixels: its decoder skips what such a picture does not need. Anything else
    comes whole. Raises PhotoError where ``decode`` does.
    """
    return _decode(data, shortest)


def _decode(data: bytes, shortest: int | None) -> tuple[ImageArray, tuple[int, int]]:
    if not data:
        raise PhotoError("empty file")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise PhotoError(f"too large to decode: {image.width} x {image.height} pixels")
            # OpenCV is faster, but some versions fill truncated photos up with grey and say
            # nothing: it gets the plain ones that have their end-of-image marker.
            plain = image.format == "JPEG" and image.mode in ("L", "RGB")
            if plain and data.endswith(b"\xff\xd9"):
                flag = cv2.IMREAD_COLOR if shortest is None else _flag(min(image.size), shortest)
                decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
                if decoded is not None:
                    # Turned by its EXIF, which OpenCV reads; Pillow's reader stops at more of it.
                    height, width = decoded.shape[:2]
                    turned = (height < width) != (image.height < image.width)
                    size = image.size if turned else image.size[::-1]
                    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8), size
            image_HWC = _decode_strictly(image)
            return image_HWC, image_HWC.shape[:2]
    except (PhotoError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise PhotoError("not an image, or cut off in its header") from None
    except Exception as error:  # Decoders raise anything from SyntaxError to struct.error.
        raise PhotoError(f"cannot be decoded: {error}") from error


def _flag(side: int, shortest: int) -> int:
    reduced = {
        8: cv2.IMREAD_REDUCED_COLOR_8,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        2: cv2.IMREAD_REDUCED_COLOR_2,
    }
    return next((f for by, f in reduced.items() if side >= by * shortest), cv2.IMREAD_COLOR)


def _decode_strictly(image: Image.Image) -> ImageArray:
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits; convert() would clip them to 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, "black")
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def ahead(
    pool: ThreadPoolExecutor, function: Callable[[str], Result], paths: Iterable[str], window: int
) -> Iterator[Future[Result]]:
    """``function`` of each path, in order; never more than ``window`` begun and not yet taken."""
    waiting: deque[Future[Result]] = deque()
    for path in paths:
        waiting.append(pool.submit(function, path))
        if len(waiting) == window:
            yield waiting.popleft()
    yield from waiting


def apply(
    image_HWC: ImageArray, recipes: Sequence[Preprocessing]
) -> tuple[list[ImageArray], Box | None]:
    """One decoded photo -> its image under each recipe, and the face if a recipe looked for it."""
    face = find_face(image_HWC) if any(recipe.crop == "face" for recipe in recipes) else None
    person = image_HWC
    if any(recipe.background == "grabcut" for recipe in recipes):
        person = cut_out(image_HWC)
    images = []
    for recipe in recipes:
        picture = person if recipe.background == "grabcut" else image_HWC
        if recipe.crop == "face" and face is not None:
            picture = _cropped(picture, face, recipe)
        shrinks = picture.shape[0] >= recipe.height and picture.shape[1] >= recipe.width
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        resized = cv2.resize(picture, (recipe.width, recipe.height), interpolation=method)
        images.append(np.asarray(resized, np.uint8))
    return images, face


def find_face(image_HWC: ImageArray) -> Box | None:
    """The largest face that OpenCV's frontal Haar cascades find, in pixels of the image.

    They look for eyes, nose and mouth, so a mask hides some faces from them. Raises RuntimeError
    where OpenCV comes without cascades.
    """
    scale = min(1.0, _DETECTION_SIDE / min(image_HWC.shape[:2]))
    grey_HW = cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey_HW, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    small = cv2.equalizeHist(small)
    smallest = max(1, min(small.shape) // 4)
    # The first cascade is the more exact, the second, at finer steps, sees more masked faces.
    for cascade, step in zip(_cascades(), (1.1, 1.05), strict=True):
        faces = cascade.detectMultiScale(small, step, 1, minSize=(smallest, smallest))
        if len(faces):
            x, y, width, height = max(faces, key=lambda face: face[2] * face[3]) / scale
            return round(x), round(y), round(width), round(height)
    return None


def _cascades() -> list[Any]:
    # A cascade keeps state while it searches: each thread needs its own.
    if not hasattr(_local, "cascades"):
        if not hasattr(cv2, "CascadeClassifier"):
            raise RuntimeError(
                f"image.crop=face needs the Haar cascades of OpenCV 4, this is {cv2.__version__}: "
                "pip install 'opencv-python-headless<5', or set image.crop=none"
            )
        folder = cv2.data.haarcascades  # type: ignore[attr-defined]
        _local.cascades = [cv2.CascadeClassifier(folder + name) for name in _CASCADES]
    return _local.cascades


def _cropped(image_HWC: ImageArray, face: Box, recipe: Preprocessing) -> ImageArray:
    """The face and its margin, widened to the recipe's shape and moved to lie in the picture."""
    x, y, face_width, face_height = face
    picture_height, picture_width = image_HWC.shape[:2]
    aspect = recipe.height / recipe.width
    height = max(face_height, face_width * aspect) * (1 + 2 * recipe.crop_margin)
    height = min(height, picture_height, picture_width * aspect)
    width = height / aspect
    top = np.clip(y + face_height / 2 - height / 2, 0, picture_height - height)
    left = np.clip(x + face_width / 2 - width / 2, 0, picture_width - width)
    rows = slice(int(top), int(top) + max(1, round(height)))
    columns = slice(int(left), int(left) + max(1, round(width)))
    return np.ascontiguousarray(image_HWC[rows, columns])


def cut_out(image_HWC: ImageArray) -> ImageArray:
    """The photo with everything black that GrabCut takes for background.

    Needs no weights, and knows nothing of people: it takes the middle of the photo for the person
    and goes on from there by colour. It keeps the face and the mask, and often loses hair and
    shoulders; a segmentation network (the ``_rembg`` copies) is better where one can be had.
    Rother et al., "GrabCut", SIGGRAPH 2004.
    """
    height, width = _SEGMENT_SIZE
    small = cv2.resize(image_HWC, (width, height), interpolation=cv2.INTER_AREA)
    centre = (width // 2, height // 2)
    guess = np.full(_SEGMENT_SIZE, cv2.GC_BGD, np.uint8)
    guess[height // 16 :, width // 16 : -width // 16] = cv2.GC_PR_BGD
    cv2.ellipse(guess, centre, (width * 3 // 8, height * 3 // 8), 0, 0, 360, cv2.GC_PR_FGD, -1)
    cv2.ellipse(guess, centre, (width // 4, height // 4), 0, 0, 360, cv2.GC_FGD, -1)
    cv2.setRNGSeed(0)  # GrabCut starts from k-means, which draws from OpenCV's own generator.
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(small, guess, (0, 0, 1, 1), *models, 2, cv2.GC_INIT_WITH_MASK)
    person = np.isin(guess, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
    mask_HW = cv2.resize(person, image_HWC.shape[1::-1]) > 0.5
    return image_HWC * mask_HW[:, :, None]


def prepare(
    photos: pd.DataFrame,
    recipes: Sequence[Preprocessing],
    cache: Path,
    *,
    threads: int,
    progress: Callable[[int, int], None] | None = None,
    wait_s: float = 3600.0,
) -> list[Prepared]:
    """Decode and resize ``photos`` (columns ``key`` and ``path``): one folder a recipe, in order.

    Folders that ``cache`` already holds for these keys and bytes are used as they are, unless a
    file of theirs is lost or cut short. Otherwise each photo is decoded once for all missing
    recipes, and ``progress`` is told ``(done, total)`` after each. Photos that cannot be used
    become zeros with a reason in the index. One process prepares at a time: another waits up to
    ``wait_s`` seconds and then finds the work done. A killed preparation leaves a ``.tmp`` folder
    that the next one removes.

    Raises OSError where ``cache`` cannot be written or is too full, TimeoutError after ``wait_s``
    and ValueError where there are no photos or one changes meanwhile.
    """
    if photos.empty:
        raise ValueError("no photos to prepare")
    keys, paths, cache = photos["key"].tolist(), photos["path"].tolist(), cache.absolute()
    with ThreadPoolExecutor(threads) as pool:
        digests = list(pool.map(lambda path: _digest(*_read(path)), paths))
    content = hashlib.blake2b(repr((_FORMAT, keys, digests)).encode(), digest_size=8).hexdigest()
    folders = [cache / f"{content}-{recipe.name}" for recipe in recipes]
    if not all(map(_intact, folders)):
        with _writable(cache), files.lock(cache / "prepare.lock", wait_s, "preparing images"):
            wanted = zip(folders, recipes, strict=True)
            missing = {folder: recipe for folder, recipe in wanted if not _intact(folder)}
            if missing:  # Whoever had the lock before may have built them.
                _build(missing, keys, paths, digests, cache, threads, progress)
    return [Prepared(folder) for folder in folders]


def _build(
    wanted: Mapping[Path, Preprocessing],
    keys: Sequence[str],
    paths: Sequence[str],
    digests: Sequence[bytes],
    cache: Path,
    threads: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Build the wanted folders aside, then rename them. Only for who holds the lock."""
    for stale in cache.glob(f"{'[0-9a-f]' * 16}-*.tmp"):
        shutil.rmtree(stale)
    recipes = list(wanted.values())
    needed = sum(len(keys) * recipe.height * recipe.width * 3 for recipe in recipes)
    free = shutil.disk_usage(cache).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free")
    with ExitStack() as stack:
        asides = {folder: folder.with_name(f"{folder.name}.tmp") for folder in wanted}
        stack.enter_context(_one_opencv_thread())
        arrays = []
        for folder, recipe in wanted.items():
            stack.callback(shutil.rmtree, asides[folder], ignore_errors=True)
            shape_NHWC = (len(keys), recipe.height, recipe.width, 3)
            arrays.append(stack.enter_context(_ImageFile(asides[folder], shape_NHWC)))

        def one(position: int) -> dict[str, Any]:
            row, images = _prepare_one(paths[position], digests[position], recipes)
            for array, image_HWC in zip(arrays, images, strict=False):  # none of a bad photo
                array.put(position, image_HWC)
            return {"key": keys[position], **row}

        pool = ThreadPoolExecutor(threads)
        # Threads must have ended before the files are closed, at once where something failed.
        stack.callback(pool.shutdown, cancel_futures=True)
        rows = []
        for row in pool.map(one, range(len(keys))):
            rows.append(row)
            if progress is not None:
                progress(len(rows), len(keys))
        index = pd.DataFrame(rows)
        for array, (folder, recipe) in zip(arrays, wanted.items(), strict=True):
            array.sync()
            found = index["face"] & (recipe.crop == "face")
            index.assign(face=found).to_parquet(asides[folder] / "index.parquet")
            shutil.rmtree(folder, ignore_errors=True)  # what is left of a damaged one
            asides[folder].rename(folder)


def _prepare_one(
    path: str, digest: bytes, recipes: Sequence[Preprocessing]
) -> tuple[dict[str, Any], list[ImageArray]]:
    """The index row of a photo without its key, and its image under each recipe."""
    data, status = _read(path)
    if _digest(data, status) != digest:
        raise ValueError(f"{path}: changed while it was prepared; start again")
    try:
        if status != OK:
            raise PhotoError(status)
        image_HWC = decode(data)
    except PhotoError as error:
        return {"status": str(error), "height": 0, "width": 0, "face": False}, []
    images, face = apply(image_HWC, recipes)
    height, width = image_HWC.shape[:2]
    return {"status": OK, "height": height, "width": width, "face": face is not None}, images


class _ImageFile:
    """An ``images.npy`` under construction; threads put images in any order.

    Written by pwrite, since a full disk kills a process that writes through a memory map.
    """

    def __init__(self, folder: Path, shape_NHWC: tuple[int, int, int, int]) -> None:
        folder.mkdir()
        self.file = (folder / "images.npy").open("wb")
        header = {"descr": "|u1", "fortran_order": False, "shape": shape_NHWC}
        np.lib.format.write_array_header_1_0(self.file, header)
        self.file.flush()
        self.start, self.stride = self.file.tell(), int(np.prod(shape_NHWC[1:]))
        self.file.truncate(self.start + shape_NHWC[0] * self.stride)

    def put(self, position: int, image_HWC: ImageArray) -> None:
        offset = self.start + position * self.stride
        if os.pwrite(self.file.fileno(), image_HWC.tobytes(), offset) != self.stride:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self) -> None:
        os.fsync(self.file.fileno())

    def __enter__(self) -> _ImageFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def _read(path: str) -> tuple[bytes, str]:
    """The bytes of a photo and ``ok``, or none and what is wrong."""
    try:
        return Path(path).read_bytes(), OK
    except FileNotFoundError:
        return b"", "missing file"
    except OSError as error:
        return b"", f"cannot be read: {error.strerror}"


def _digest(data: bytes, status: str) -> bytes:
    return hashlib.blake2b(status.encode() + b"\0" + data, digest_size=16).digest()


@contextmanager
def _writable(cache: Path) -> Iterator[None]:
    """Say of every failure to write that it is about the cache, and what to do."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        yield
    except TimeoutError:
        raise
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot prepare images in {cache}: {error.strerror}; "
            "free space there or set data.cache to another folder",
        ) from error


@contextmanager
def _one_opencv_thread() -> Iterator[None]:
    """Photos are spread over threads already; OpenCV's own would only compete with them."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _intact(folder: Path) -> bool:
    try:
        _open.cache_clear()  # an open map outlives its file
        _open(folder)
    except (FileNotFoundError, ValueError):
        return False
    return True


@lru_cache(maxsize=64)
def _open(folder: Path) -> np.memmap:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no prepared images here; run again, or prepare them on this machine"
        )
    try:
        images = np.load(folder / "images.npy", mmap_mode="r")
        count = len(pd.read_parquet(folder / "index.parquet", columns=["status"]))
        if len(images) != count:
            raise ValueError(f"{len(images)} images, {count} index rows")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder}: prepared images are incomplete ({error}); run again: they are then "
            "prepared anew"
        ) from error
    return images
