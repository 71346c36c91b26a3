from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import shutil
import signal
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maskcls.data import face_table
from maskcls.data import photos as images
from maskcls.data.faces import Face
from maskcls.data.photos import PhotoError, decode, decode_reduced
from maskcls.data.prepared import prepare
from maskcls.data.preprocess import Preprocessing, preprocess
from maskcls.storage import files

SMALL = Preprocessing(32, 24)
SPAWN = multiprocessing.get_context("spawn")


def scene(height: int = 64, width: int = 48) -> np.ndarray:
    """A smooth picture whose four corners differ, so that every turn shows."""
    y, x = np.mgrid[0:height, 0:width]
    picture = np.stack([x * 255 // width, y * 255 // height, (x + y) * 127 // (width + height)], 2)
    return picture.astype(np.uint8)


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def jpeg(picture: np.ndarray, **options: Any) -> bytes:
    return encoded(Image.fromarray(picture), "JPEG", quality=95, **options)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


# ---- decoding


def test_no_more_photos_are_begun_than_the_window_holds() -> None:
    class Pool:
        begun = 0

        def submit(self, function: Any, path: str) -> Future[str]:
            self.begun += 1
            future: Future[str] = Future()
            future.set_result(path)
            return future

    pool: Any = Pool()
    paths = [str(number) for number in range(20)]
    taken = []
    for photo in images.prefetch(pool, str, paths, window=3):
        taken.append(photo.result())
        assert pool.begun < len(taken) + 3
    assert taken == paths


@pytest.mark.parametrize(
    ("side", "reduced"), [(63, 63), (64, 32), (126, 63), (128, 32), (252, 63), (256, 32)]
)
def test_a_jpeg_is_decoded_no_larger_than_needed(side: int, reduced: int) -> None:
    image, size = decode_reduced(jpeg(scene(2 * side, side)), shortest=32)
    assert image.shape == (2 * reduced, reduced, 3)
    assert size == (2 * side, side)
    whole = cv2.resize(scene(2 * side, side), (reduced, 2 * reduced), interpolation=cv2.INTER_AREA)
    assert difference(image, whole) < 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_photo_stands_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(scene(256, 160), exif=exif)
    image, size = decode_reduced(data, shortest=64)
    whole = decode(data)
    assert size == whole.shape[:2]
    assert image.shape[:2] == (size[0] // 2, size[1] // 2)
    smaller = cv2.resize(whole, image.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert difference(image, smaller) < 6


def test_only_plain_jpegs_are_reduced() -> None:
    data = encoded(Image.fromarray(scene(256, 256)), "PNG")
    image, size = decode_reduced(data, shortest=8)
    assert image.shape == (256, 256, 3)
    assert size == (256, 256)
    with pytest.raises(PhotoError):
        decode_reduced(jpeg(scene(256, 256))[:900], shortest=8)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "PPM", "WEBP"])
def test_every_format_decodes_to_rgb(format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    decoded = decode(encoded(Image.fromarray(scene()), format, **options))
    assert decoded.dtype == np.uint8
    assert difference(decoded, scene()) < (2 if format == "JPEG" else 0.001)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_greyscale(format: str) -> None:
    grey = Image.fromarray(scene()).convert("L")
    expected = np.repeat(np.asarray(grey)[:, :, None], 3, axis=2)
    assert difference(decode(encoded(grey, format)), expected) < 2


def test_cmyk() -> None:
    assert (
        difference(decode(encoded(Image.fromarray(scene()).convert("CMYK"), "JPEG")), scene()) < 3
    )


def test_palette() -> None:
    palette = Image.fromarray(scene()).convert("P", palette=Image.Palette.ADAPTIVE)
    expected = np.asarray(palette.convert("RGB"))
    assert difference(decode(encoded(palette, "PNG")), expected) == 0


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_become_black(mode: str) -> None:
    picture = Image.new("RGB", (4, 2), "white").convert(mode)
    picture.putalpha(Image.fromarray(np.array([[0, 0, 255, 255]] * 2, np.uint8)))
    expected = np.array([[[0] * 3, [0] * 3, [255] * 3, [255] * 3]] * 2)
    assert difference(decode(encoded(picture, "PNG")), expected) == 0


def test_palette_with_transparency() -> None:
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((0, 0), 0)
    decoded = decode(encoded(palette, "PNG", transparency=0))
    assert decoded[0, 0].tolist() == [0, 0, 0]
    assert decoded[1, 1].tolist() == [0, 255, 0]


@pytest.mark.parametrize("format", ["PNG", "PPM"])
def test_sixteen_bits_keep_their_high_byte(format: str) -> None:
    deep = (np.arange(12, dtype=np.uint16) * 5000).reshape(3, 4)
    decoded = decode(encoded(Image.fromarray(deep), format))
    assert difference(decoded, np.repeat((deep >> 8)[:, :, None], 3, axis=2)) == 0


def test_a_jpeg_with_broken_exif_is_still_a_photo() -> None:
    data = encoded(Image.fromarray(scene()), "JPEG", dpi=(72, 72), exif=b"Exif\0\0broken")
    assert decode(data).shape == scene().shape


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured_by_both_decoders(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(scene(), exif=exif)
    fast = decode(data)
    assert fast.shape == ((64, 48, 3) if orientation < 5 else (48, 64, 3))
    slow = decode(data + b"trailing bytes")
    assert difference(fast, slow) < 1
    png = decode(encoded(Image.fromarray(scene()), "PNG", exif=exif))
    assert difference(fast, png) < 2


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9, 0.99, 1.0])
def test_truncated_jpegs_are_caught(
    share: float, progressive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What some versions of OpenCV do with them.
    monkeypatch.setattr(cv2, "imdecode", lambda *_: np.full((64, 48, 3), 128, np.uint8))
    noise = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    data = jpeg(noise, progressive=progressive)
    cut = min(int(len(data) * share), len(data) - 3)  # at most the end marker and a byte
    with pytest.raises(PhotoError, match=r"(?i)truncated|cut off"):
        decode(data[:cut])


@pytest.mark.parametrize("format", ["PNG", "BMP", "PPM", "WEBP"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_other_truncated_photos_are_caught(format: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    data = encoded(Image.fromarray(noise), format)
    with pytest.raises(PhotoError):
        decode(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<html>404</html>", "not an image but a web page"),
        (b"\xff\xd8\xff\xd9", "not an image"),
    ],
)
def test_what_is_no_photo(data: bytes, reason: str) -> None:
    with pytest.raises(PhotoError, match=reason):
        decode(data)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_photo_or_a_reason(data: bytes) -> None:
    for head in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"P6 2 2 255\n"):
        try:
            assert decode(head + data).ndim == 3
        except PhotoError as error:
            assert str(error)


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    bomb = encoded(Image.new("1", (9000, 9000)), "PNG")
    assert len(bomb) < 100_000
    with pytest.raises(PhotoError, match="too large to decode: 9000 x 9000"):
        decode(bomb)


# ---- preparing


def write_photos(root: Path, count: int = 6) -> pd.DataFrame:
    root.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (root / f"{number}.jpg").write_bytes(jpeg(np.roll(scene(), number, axis=0)))
    names = [f"{number}.jpg" for number in range(count)]
    return pd.DataFrame({"key": names, "path": [str(root / name) for name in names]})


def test_prepared_images_are_the_photos_in_order(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos")
    tall = Preprocessing(16, 8)
    prepared = prepare(photos, [SMALL, tall, SMALL], tmp_path / "cache", threads=2)
    assert prepared[0] == prepared[2]
    for recipe, each in zip([SMALL, tall], prepared, strict=False):
        array = each.open()
        assert isinstance(array, np.memmap)
        assert array.shape == (6, recipe.height, recipe.width, 3)
        assert not array.flags.writeable
        for path, image in zip(photos["path"], array, strict=True):
            assert np.array_equal(image, preprocess(decode(Path(path).read_bytes()), recipe))
        index = each.index
        assert index["key"].tolist() == photos["key"].tolist()
        assert index["status"].tolist() == ["ok"] * 6
        assert (index["height"] == 64).all()
        assert (index["width"] == 48).all()
        each.check(0.0)


def test_boxes_of_the_table_are_taken_and_nothing_is_looked_for(tmp_path: Path) -> None:
    photos, box = write_photos(tmp_path), (0.25, 0.25, 0.5, 0.5)
    values = dict(zip(face_table.COLUMNS, (*box, 0.9, "centerface"), strict=True))
    recipe = Preprocessing(32, 24, crop="face", crop_margin=0)
    (prepared,) = prepare(photos.assign(**values), [recipe], tmp_path / "cache", threads=1)
    assert not list((tmp_path / "cache").glob("*-faces-*"))
    middle = decode(Path(photos["path"][0]).read_bytes())[16:48, 12:36]
    assert np.array_equal(prepared.open()[0], middle)


def test_a_missed_face_is_cropped_where_the_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([None, *[Face((0.25, 0.25, 0.5, 0.5), 0.9)] * 5])
    monkeypatch.setattr(face_table, "find_face", lambda *_: next(answers))
    photos = write_photos(tmp_path)
    recipe = Preprocessing(32, 24, crop="face", crop_margin=0)
    (prepared,) = prepare(photos, [recipe], tmp_path / "cache", threads=1)
    for path, image in zip(photos["path"], prepared.open(), strict=True):
        assert np.array_equal(image, decode(Path(path).read_bytes())[16:48, 12:36])


def test_what_is_prepared_is_not_prepared_again(tmp_path: Path) -> None:
    photos, calls = write_photos(tmp_path / "photos"), []
    report = lambda done, total: calls.append((done, total))  # noqa: E731
    (first,) = prepare(photos, [SMALL], tmp_path / "cache", threads=2, progress=report)
    assert calls == [(done, 6) for done in range(1, 7)]
    before = (first.folder / "images.npy").stat().st_mtime_ns
    both = prepare(
        photos, [SMALL, Preprocessing(8, 8)], tmp_path / "cache", threads=2, progress=report
    )
    assert len(calls) == 12
    assert both[0] == first
    assert (first.folder / "images.npy").stat().st_mtime_ns == before
    prepare(photos, [Preprocessing(8, 8)], tmp_path / "cache", threads=2, progress=report)
    assert len(calls) == 12


def test_the_folder_belongs_to_the_content(tmp_path: Path) -> None:
    def folder_of(photos: pd.DataFrame) -> str:
        return prepare(photos, [SMALL], tmp_path / "cache", threads=2)[0].folder.name

    here = write_photos(tmp_path / "here")
    name = folder_of(here)
    assert folder_of(write_photos(tmp_path / "elsewhere")) == name
    assert folder_of(here.iloc[::-1]) != name
    assert folder_of(here.assign(key=[f"x{key}" for key in here["key"]])) != name
    (tmp_path / "here" / "3.jpg").write_bytes(jpeg(scene(32, 32)))
    assert folder_of(here) != name


def test_bad_photos_become_zeros_with_a_reason(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos")
    whole = (tmp_path / "photos" / "1.jpg").read_bytes()
    (tmp_path / "photos" / "1.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "photos" / "2.jpg").write_bytes(b"")
    (tmp_path / "photos" / "3.jpg").unlink()
    (tmp_path / "photos" / "4.jpg").write_text("<html>")
    (prepared,) = prepare(photos, [SMALL], tmp_path / "cache", threads=2)
    status = prepared.index["status"].tolist()
    assert status[0] == status[5] == "ok"
    assert "truncated" in status[1]
    assert status[2:4] == ["empty file", "missing file"]
    assert "not an image" in status[4]
    assert not prepared.open()[1:5].any()
    assert prepared.open()[0].any()
    prepared.check(4 / 6)
    with pytest.raises(ValueError, match=r"(?s)4 of 6 photos.*50\.0%.*1\.jpg: .*truncated.*4\.jpg"):
        prepared.check(0.5)


def test_long_lists_of_bad_photos_are_cut(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 12).assign(path="nowhere")
    (prepared,) = prepare(photos, [SMALL], tmp_path / "cache", threads=1)
    with pytest.raises(ValueError, match=r"and 2 more, see .*index\.parquet"):
        prepared.check(0.0)


def test_nothing_to_prepare(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no photos"):
        prepare(pd.DataFrame({"key": [], "path": []}), [SMALL], tmp_path, threads=1)


def test_prepared_is_picklable_and_opened_once(tmp_path: Path) -> None:
    (prepared,) = prepare(write_photos(tmp_path / "p"), [SMALL], tmp_path / "cache", threads=1)
    twin = pickle.loads(pickle.dumps(prepared))
    assert len(pickle.dumps(prepared)) < 1000
    assert twin.open() is prepared.open()


@pytest.mark.parametrize("damage", ["cut", "no index", "no images"])
def test_incomplete_folders_are_not_opened(tmp_path: Path, damage: str) -> None:
    (prepared,) = prepare(write_photos(tmp_path / "p"), [SMALL], tmp_path / "cache", threads=1)
    if damage == "cut":
        os.truncate(prepared.folder / "images.npy", 1000)
    else:
        name = "index.parquet" if damage == "no index" else "images.npy"
        (prepared.folder / name).unlink()
    with pytest.raises(ValueError, match=r"incomplete .* prepared anew"):
        prepared.open()
    shutil.rmtree(prepared.folder)
    with pytest.raises(FileNotFoundError, match="no prepared images"):
        prepared.open()


def test_a_full_disk_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"0\.00 GB free; free space there or set data\.cache"):
        prepare(write_photos(tmp_path / "p"), [SMALL], tmp_path / "cache", threads=1)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["prepare.lock"]


def test_a_disk_that_fills_up_meanwhile_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", lambda *_: 5)
    with pytest.raises(OSError, match=r"No space left.*data\.cache"):
        prepare(write_photos(tmp_path / "p"), [SMALL], tmp_path / "cache", threads=2)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["prepare.lock"]


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot prepare images in .*file.*data\.cache"):
        prepare(write_photos(tmp_path / "p"), [SMALL], tmp_path / "file" / "cache", threads=1)


def test_a_finished_cache_needs_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = write_photos(tmp_path / "p")
    (prepared,) = prepare(photos, [SMALL], tmp_path / "cache", threads=1)
    monkeypatch.delattr(files, "lock")  # as in a folder that is read-only
    assert prepare(photos, [SMALL], tmp_path / "cache", threads=1) == [prepared]


def test_a_photo_that_changes_meanwhile_stops_the_preparation(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "p", 40)

    def change_the_last(done: int, total: int) -> None:
        (tmp_path / "p" / "39.jpg").write_bytes(jpeg(scene(8, 8)))

    large, cache = Preprocessing(400, 400), tmp_path / "cache"
    with pytest.raises(ValueError, match=r"39\.jpg: changed while it was prepared"):
        prepare(photos, [large], cache, threads=1, progress=change_the_last)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["prepare.lock"]


def test_waiting_for_another_process_has_a_limit(tmp_path: Path) -> None:
    photos, busy = write_photos(tmp_path / "p"), r"prepare\.lock: another process"
    held = files.lock(tmp_path / "prepare.lock", 0, "busy")
    with held, pytest.raises(TimeoutError, match=busy):
        prepare(photos, [SMALL], tmp_path, threads=1, wait_s=0.2)


def test_opencv_keeps_its_threads(tmp_path: Path) -> None:
    before = cv2.getNumThreads()
    prepare(write_photos(tmp_path / "p"), [SMALL], tmp_path / "cache", threads=1)
    assert cv2.getNumThreads() == before


def prepare_slowly(root: Path, barrier: Any, results: Any) -> None:
    calls = []

    def report(done: int, total: int) -> None:
        calls.append(done)
        time.sleep(0.05)

    photos = write_photos(root / f"photos{os.getpid()}")
    barrier.wait(60)
    (prepared,) = prepare(photos, [SMALL], root / "cache", threads=1, progress=report)
    results.put((len(calls), prepared.folder.name, int(prepared.open().sum())))


def test_of_two_processes_at_once_one_prepares(tmp_path: Path) -> None:
    barrier, results = SPAWN.Barrier(2), SPAWN.Queue()
    processes = [
        SPAWN.Process(target=prepare_slowly, args=(tmp_path, barrier, results)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    (calls_a, *a), (calls_b, *b) = (results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(60)
    assert sorted([calls_a, calls_b]) == [0, 6]
    assert a == b
    assert not list((tmp_path / "cache").glob("*.tmp"))


def prepare_and_die(root: Path) -> None:
    def die(done: int, total: int) -> None:
        if done == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    prepare(write_photos(root / "p"), [SMALL], root / "cache", threads=1, progress=die)


@pytest.mark.parametrize("damage", ["cut", "no index", "no images", "no folder"])
def test_what_was_lost_is_prepared_anew(tmp_path: Path, damage: str) -> None:
    photos = write_photos(tmp_path / "p")
    (prepared,) = prepare(photos, [SMALL], tmp_path / "cache", threads=1)
    before = prepared.open().copy()
    if damage == "cut":
        os.truncate(prepared.folder / "images.npy", 1000)
    elif damage == "no folder":
        shutil.rmtree(prepared.folder)
    else:
        name = "index.parquet" if damage == "no index" else "images.npy"
        (prepared.folder / name).unlink()
    (again,) = prepare(photos, [SMALL], tmp_path / "cache", threads=1)
    assert again.folder == prepared.folder
    assert (again.open() == before).all()


def test_a_killed_preparation_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    process = SPAWN.Process(target=prepare_and_die, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    (left,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    assert left.suffix == ".tmp"
    (tmp_path / "cache" / "of somebody else.tmp").mkdir()
    (prepared,) = prepare(write_photos(tmp_path / "p"), [SMALL], tmp_path / "cache", threads=1)
    assert len(prepared.open()) == 6
    assert [path.name for path in (tmp_path / "cache").glob("*.tmp")] == ["of somebody else.tmp"]
