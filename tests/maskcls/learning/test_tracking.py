"""Whatever a job tells can be read back, and nothing about W&B can end a job."""

import json
import logging
import math
import shutil
import struct
import subprocess
import sys
import time
import types

import numpy as np
import pytest
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from maskcls import labels
from maskcls.learning import tracking

VALUES = {
    "epoch": 1.0,
    "epochs": 3.0,
    "train/loss": 0.4123,
    "train/lr": 1e-4,
    "val/loss": 0.5012,
    "val/accuracy": 0.7008,
    "val/macro_f1": 0.6119,
    "val/macro_precision": 0.63,
    "val/macro_recall": 0.6,
    "seconds": 12.34,
}
SCORES = {"macro_f1": 0.8125, "accuracy": 0.75}
PHOTO = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)


def tracker(folder, **options):
    return tracking.Tracker(
        folder=folder,
        run_name="age-fold0",
        group="sweep",
        job_type="age",
        config={"train": {"lr": 1e-4}},
        **options,
    )


def tell(tracker, *epochs, loss=0.4123):
    for epoch in epochs:
        tracker.epoch(VALUES | {"epoch": float(epoch), "train/loss": loss})


def tell_all(tracker):
    tell(tracker, 1, 2, 3)
    tracker.confusion({"age": np.diag([5, 4, 3])})
    tracker.mistakes([PHOTO, 255 - PHOTO], ["a, taken for b (98%)"] * 2)
    tracker.finish(SCORES)


def test_what_was_told_is_read_back_exactly(tmp_path):
    tell(tracker(tmp_path), 1, 2, 3, loss=1 / 3)
    table = tracking.read_metrics(tmp_path)
    assert set(tracking.COLUMNS) < set(table)
    assert table.to_dict("records") == [
        VALUES | {"epoch": epoch, "train/loss": 1 / 3} for epoch in (1, 2, 3)
    ]


@pytest.mark.parametrize("again", [1, 2, 3, 4])
def test_a_resumed_job_replaces_what_it_tells_again(tmp_path, again):
    tell(tracker(tmp_path), 1, 2, 3, loss=1.0)
    tell(tracker(tmp_path), again, loss=2.0)
    table = tracking.read_metrics(tmp_path)
    assert table["epoch"].tolist() == list(range(1, again + 1))
    assert table["train/loss"].tolist() == [1.0] * (again - 1) + [2.0]


@pytest.mark.parametrize("loss", [math.nan, math.inf, np.float32(0.5)])
def test_every_line_is_json(tmp_path, loss):
    tell(tracker(tmp_path), 1, 2, loss=loss)

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    told = tracking.read_metrics(tmp_path)["train/loss"]
    assert told.isna().all() if not math.isfinite(loss) else told.tolist() == [0.5, 0.5]


def test_no_file_is_no_epochs(tmp_path):
    table = tracking.read_metrics(tmp_path)
    assert table.empty
    assert list(table) == list(tracking.COLUMNS)


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1.0}\n{"epo')
    with pytest.raises(ValueError, match=r"metrics\.jsonl: not one JSON object a line"):
        tracking.read_metrics(tmp_path)


def test_the_line_on_the_console():
    assert tracking.console_line("age-fold0", VALUES | {"epoch": 2.0}) == (
        "age-fold0     epoch 2/3  loss 0.412  val loss 0.501"
        "  macro F1 0.612  accuracy 0.701  12.3 s"
    )


@pytest.mark.parametrize("heads", labels.HEADS.values(), ids=labels.HEADS)
def test_the_confusion_matrices_are_drawn(tmp_path, heads):
    matrices = {head: np.eye(size, dtype=np.int64) for head, size in heads.items()}
    tracker(tmp_path).confusion(matrices)
    drawn = imread(tmp_path / "confusion.png")
    assert min(drawn.shape[:2]) > 200
    tracker(tmp_path).confusion({head: 1 - matrix for head, matrix in matrices.items()})
    assert not np.array_equal(drawn, imread(tmp_path / "confusion.png"))


@pytest.mark.parametrize("count", [1, 5, 10, 12])
def test_up_to_ten_mistakes_are_drawn(tmp_path, count):
    red = np.full((64, 48, 3), (255, 0, 0), np.uint8)
    tracker(tmp_path).mistakes([red] * count, ["worn, taken for not_worn (98%)"] * count)
    image = imread(tmp_path / "mistakes.png")
    rows, columns = image.shape[0] // 390, image.shape[1] // 240
    assert (rows, columns) == (1 + (count > 5), min(count, 5))
    share = (image[..., :3] == (1, 0, 0)).all(axis=-1).mean()
    assert share > 0.6 * min(count, 10) / (rows * columns)


def test_long_captions_stay_clear_of_the_edge_and_of_the_photos(tmp_path):
    red = np.full((64, 48, 3), (255, 0, 0), np.uint8)
    long, *_ = sorted(labels.class_names("joint"), key=len, reverse=True)
    tracker(tmp_path).mistakes([red] * 6, [f"{long}, taken for {long} (98%)"] * 6)
    image = imread(tmp_path / "mistakes.png")[..., :3]
    ink = (image.max(axis=-1) < 0.5).any(axis=1)
    photo = (image == (1, 0, 0)).all(axis=-1).any(axis=1)
    assert ink.any()
    assert not ink[:4].any()
    assert not (ink & photo).any()


def test_no_mistakes_are_no_picture(tmp_path):
    tracker(tmp_path).mistakes([], [])
    assert not list(tmp_path.iterdir())


def test_tensorboard_reads_it_back(tmp_path):
    tell_all(tracker(tmp_path, tensorboard=True))
    events = EventAccumulator(str(tmp_path)).Reload()
    points = events.Scalars("val/macro_f1")
    assert [point.step for point in points] == [1, 2, 3]
    assert points[0].value == pytest.approx(VALUES["val/macro_f1"])
    assert events.Scalars("best/macro_f1")[0].value == SCORES["macro_f1"]
    assert set(events.Tags()["images"]) == {"confusion", "mistakes"}
    assert events.Images("confusion")[0].encoded_image_string.startswith(b"\x89PNG")


def test_tensorboard_shows_a_repeated_epoch_once(tmp_path):
    tell(tracker(tmp_path, tensorboard=True), 1, 2, 3, loss=1.0)
    tell(tracker(tmp_path, tensorboard=True), 2, 3, loss=2.0)
    points = EventAccumulator(str(tmp_path)).Reload().Scalars("train/loss")
    assert [(point.step, point.value) for point in points] == [(1, 1.0), (2, 2.0), (3, 2.0)]


def records(path):
    """The records of a .wandb file: LevelDB's log format (blocks of 32 KiB, records of a checksum,
    a length, a type and the bytes) behind a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = path.read_bytes(), 7, b""
    while at < len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(parts)
            parts = b""


def test_wandb_reads_it_back_and_a_resumed_job_goes_on_in_its_run(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "home"))
    folder = tmp_path / "job"
    for _ in range(2):
        tell_all(tracker(folder, wandb="offline", wandb_project="faces"))
        time.sleep(1)  # W&B names folders by the second
    # W&B's own debug lines come and go with its version and with git around the folder.
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    paths = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    ids = set()
    for path in paths:
        told = list(records(path))
        (run,) = [record.run for record in told if record.HasField("run")][:1]
        ids.add(run.run_id)
        assert (run.project, run.run_group, run.job_type) == ("faces", "sweep", "age")
        assert run.display_name == "age-fold0"
        rows = [
            {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            for record in told
            if record.HasField("history")
        ]
        epochs = [row for row in rows if "val/macro_f1" in row]
        assert [json.loads(row["epoch"]) for row in epochs] == [1, 2, 3]
        assert [json.loads(row["_step"]) for row in epochs] == [1, 2, 3]
        assert json.loads(epochs[0]["val/macro_f1"]) == VALUES["val/macro_f1"]
        assert {"confusion", "mistakes"} <= {name.split("/")[0] for row in rows for name in row}
        summary = {i.key or i.nested_key[0]: i.value_json for r in told for i in r.summary.update}
        assert json.loads(summary["best/macro_f1"]) == SCORES["macro_f1"]
        assert len(list(path.parent.glob("files/media/images/*.png"))) == 3
    assert (len(paths), len(ids)) == (2, 1)


def fake_wandb(failing):
    """A W&B of which one call fails."""

    def call(name):
        def do(*args, **options):
            if name == failing:
                raise RuntimeError(f"{name} is broken")
            return run if name == "init" else types.SimpleNamespace()

        return do

    run = types.SimpleNamespace(
        log=call("log"), finish=call("finish"), summary=types.SimpleNamespace(update=call("update"))
    )
    return types.SimpleNamespace(
        **{name: call(name) for name in ("Settings", "setup", "init", "Image")}
    )


@pytest.mark.parametrize("failing", ["Settings", "init", "log", "Image", "update", "finish"])
def test_wandb_failing_is_told_once_and_ends_nothing(tmp_path, monkeypatch, caplog, failing):
    monkeypatch.setitem(sys.modules, "wandb", fake_wandb(failing))
    with caplog.at_level(logging.WARNING):
        tell_all(tracker(tmp_path, wandb="online"))
    (record,) = caplog.records
    assert f"{failing} is broken" in record.getMessage()
    assert len(tracking.read_metrics(tmp_path)) == 3
    assert (tmp_path / "confusion.png").is_file()


def test_a_job_trained_anew_is_a_new_wandb_run(tmp_path, monkeypatch):
    fake, ids = fake_wandb(None), []
    fake.init = lambda **options: ids.append(options["id"])
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for _ in range(2):
        tracker(tmp_path / "job", wandb="online")
        tracker(tmp_path / "job", wandb="online")
        shutil.rmtree(tmp_path / "job")
    assert ids[0] == ids[1] != ids[2] == ids[3]


def test_wandb_missing_is_told_once_and_ends_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)
    tell_all(tracker(tmp_path, wandb="offline"))
    assert len(caplog.records) == 1
    assert len(tracking.read_metrics(tmp_path)) == 3


def in_a_fresh_interpreter(code, folder, **environment):
    """Run code where no account of the user's is known; what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        capture_output=True,
        text=True,
        timeout=100,
        stdin=subprocess.DEVNULL,
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)}
        | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


ONLINE = """
import sys, pathlib
from maskcls.learning import tracking
from tests.maskcls.learning.test_tracking import tell_all, tracker
tracking.WANDB_PATIENCE_S = 2.0
tell_all(tracker(pathlib.Path(sys.argv[1]), wandb="online"))
"""


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, "No API key configured"),
        ({"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}, "CommError"),
    ],
    ids=["no key", "no server"],
)
def test_a_job_that_cannot_reach_wandb_trains_on(tmp_path, environment, reason):
    _, told = in_a_fresh_interpreter(ONLINE, tmp_path, **environment)
    assert told.startswith("W&B could not start")
    assert reason in told
    assert told.count("W&B could not") == 1
    assert len(tracking.read_metrics(tmp_path)) == 3


QUIET = """
import sys, pathlib
from maskcls.learning import tracking
t = tracking.Tracker(folder=pathlib.Path(sys.argv[1]), run_name="n", group="g", job_type="t",
                     config={})
t.epoch({"epoch": 1.0, "train/loss": 0.5})
t.finish({"macro_f1": 0.5})
print(sorted({"wandb", "tensorboard", "torch", "matplotlib"} & set(sys.modules)))
"""


def test_what_is_off_is_not_imported(tmp_path):
    told, _ = in_a_fresh_interpreter(QUIET, tmp_path)
    assert told == "[]\n"
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
