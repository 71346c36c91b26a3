"""A run as a bundle: ONNX models, preprocessing, vote, label schema and model card in one place."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

import maskcls
from maskcls.data import detectors
from maskcls.data.detectors import DETECTORS
from maskcls.export import card, onnx
from maskcls.inference import bundle, loading
from maskcls.inference.bundle import DESCRIPTION, FORMAT
from maskcls.inference.model import Model
from maskcls.inference.torch_members import TorchMember
from maskcls.progress import OnProgress
from maskcls.scoring import ensemble
from maskcls.storage import files

LIMIT: Final = {False: 1e-4, True: 1e-2}
"""By how much a probability may differ from PyTorch's, with weights in float32 and in float16."""

_CHECKED: Final = 16
"""Photos that each exported model is compared on."""
_TIMED: Final = 15


@dataclasses.dataclass(frozen=True)
class Exported:
    """What an export gave: where, its size, how exact and how fast it is."""

    path: Path
    megabytes: float
    difference: float
    """The largest difference of a probability from PyTorch's, on random photos."""
    photo_ms: float
    """One photo of 512 x 384 from its bytes to the answer, on one CPU thread."""


def write(
    run: Path,
    out: Path,
    *,
    half: bool = False,
    single_file: bool = False,
    progress: OnProgress = lambda done, total: None,
) -> Exported:
    """Export a finished run, or one job of it, to the folder ``out``.

    With ``half`` weights are stored in float16; with ``single_file`` ``out`` is one ZIP file. It
    appears whole or not at all; a bundle that is there is replaced.

    Raises FileNotFoundError where there is nothing to export, FileExistsError where ``out`` is
    something else, and ValueError where an exported model answers otherwise than PyTorch's.
    """
    if out.exists() and not bundle.is_bundle(out):
        raise FileExistsError(f"{out}: exists and is no bundle; choose another name")
    model = loading.load(run, device="cpu")
    out.parent.mkdir(parents=True, exist_ok=True)
    own = {recipe.detector for recipe in model.recipes} - set(DETECTORS)
    if own and single_file:
        raise ValueError(
            f"image.detector={own.pop()}: OpenCV reads a detector of one's own from a folder; "
            "export without --single-file"
        )
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as name:
        folder = Path(name) / "bundle"
        folder.mkdir()
        difference = _write_models(model, folder, half, progress)
        files.write_text(folder / "MODEL_CARD.md", card.text(run, half=half))
        files.write_json(folder / DESCRIPTION, _description(model, folder))
        photo_ms = _photo_ms(folder)
        made = _zipped(folder) if single_file else folder
        size = sum(path.stat().st_size for path in ([made] if single_file else folder.iterdir()))
        if out.is_dir():
            shutil.rmtree(out)
        made.replace(out)
    return Exported(out, size / 1e6, difference, photo_ms)


def _write_models(model: Model, folder: Path, half: bool, progress: OnProgress) -> float:
    differences = []
    for number, member in enumerate(model.members):
        if not isinstance(member, TorchMember):
            raise ValueError(f"{model.source}: a bundle already; export the run it came from")
        recipe = member.preprocessing
        path = folder / _file(member)
        onnx.write(member.predictor, (recipe.height, recipe.width), path, half=half)
        differences.append(_difference(member, path))
        if differences[-1] > LIMIT[half]:
            raise ValueError(
                f"{path.name}: probabilities differ from PyTorch's by {differences[-1]:.1e}, the "
                f"limit is {LIMIT[half]:.0e}" + ("; export it without float16" if half else "")
            )
        progress(number + 1, len(model.members))
    return max(differences)


def _difference(member: TorchMember, path: Path) -> float:
    """The largest difference of a probability between the two, on noise of every coarseness."""
    height, width = member.preprocessing.height, member.preprocessing.width
    rng = np.random.default_rng(0)
    made = np.stack(
        [
            cv2.resize(rng.integers(0, 256, (2 + n, 2 + n, 3), np.uint8), (width, height))
            for n in range(_CHECKED)
        ]
    )
    images_NHWC = np.asarray(made, np.uint8)
    session = bundle.session(path.read_bytes(), "cpu", None)
    exported = bundle.OnnxMember(member.task, member.info.fold, member.preprocessing, session)
    answered, expected = exported(images_NHWC), member(images_NHWC)
    return max(float(np.abs(answered[head] - expected[head]).max()) for head in expected)


def _file(member: TorchMember) -> str:
    return f"{member.task}-fold{member.info.fold}.onnx"


def _description(model: Model, folder: Path) -> dict[str, Any]:
    members = [member for member in model.members if isinstance(member, TorchMember)]
    return {
        "format": FORMAT,
        "maskcls": maskcls.__version__,
        "models": [
            {
                "file": _file(member),
                "task": str(member.task),
                "fold": member.info.fold,
                "preprocessing": _settings(member, folder),
            }
            for member in members
        ],
        "vote": ensemble.to_json(model.fitted),
        "labels": bundle.label_schema(model.age_limits),
        "age_limits": list(model.age_limits),
        "digests": {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.glob("*.onnx"))
        },
    }


def _settings(member: TorchMember, folder: Path) -> dict[str, Any]:
    """The preprocessing of a model; the network of a detector of one's own goes along."""
    settings = dataclasses.asdict(member.preprocessing)
    if member.preprocessing.detector not in DETECTORS:
        file = detectors.file_of(member.preprocessing.detector)
        shutil.copy(file, folder / file.name)
        settings["detector"] = file.name
    return settings


def _photo_ms(folder: Path) -> float:
    """Milliseconds from the bytes of a photo to its answer on one thread: the median."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    photo = cv2.imencode(".jpg", cv2.resize(noise, (384, 512)))[1].tobytes()
    model = bundle.load(folder, device="cpu", threads=1)
    times: list[float] = []
    for _ in range(_TIMED):
        began = time.perf_counter()
        model.records(photo)
        times.append(time.perf_counter() - began)
    return float(np.median(times)) * 1000


def _zipped(folder: Path) -> Path:
    """The files in a ZIP, not packed: weights do not shrink. The same files give the same bytes."""
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.iterdir()):
            archive.writestr(zipfile.ZipInfo(file.name), file.read_bytes())
    return path
