"""A bundle: an exported ensemble, read with onnxruntime, NumPy and OpenCV alone.

A folder, or the same as one ZIP file: ``bundle.json`` (models, their preprocessing, the vote, the
label schema, digests of the other files) and an ONNX file a model. ``maskcls.export`` writes it.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from maskcls import labels
from maskcls.data.detectors import DETECTORS
from maskcls.data.preprocess import Preprocessing
from maskcls.inference.model import Model
from maskcls.labels import HEADS, AgeLimits, Float32Array, Task, UInt8Array
from maskcls.scoring import ensemble

FORMAT: Final = 1
"""Changes when a bundle can no longer be read the same way."""

DESCRIPTION: Final = "bundle.json"
PREFERRED: Final = ("CUDAExecutionProvider", "CPUExecutionProvider")
"""What computes, the best first; onnxruntime has the first in its GPU build alone."""


@dataclass(frozen=True)
class OnnxMember:
    """A model in a session of onnxruntime."""

    task: Task
    fold: int | None
    """None for a model whose weights are the mean of several folds."""
    preprocessing: Preprocessing
    session: Any

    def __call__(self, images_NHWC: UInt8Array) -> dict[str, Float32Array]:
        heads = [output.name for output in self.session.get_outputs()]
        if not len(images_NHWC):
            return {head: np.empty((0, HEADS[self.task][head]), np.float32) for head in heads}
        return dict(zip(heads, self.session.run(heads, {"photos": images_NHWC}), strict=True))


def is_bundle(path: Path) -> bool:
    """Whether ``path`` is a bundle by its looks: a folder with bundle.json, or a ZIP file."""
    return (path / DESCRIPTION).is_file() or (path.is_file() and zipfile.is_zipfile(path))


def read_description(path: Path) -> dict[str, Any]:
    """bundle.json. Raises ValueError where it is damaged or of another version."""
    return _checked(path, _reader(path))


def load(path: Path, *, device: str = "auto", threads: int | None = None) -> Model:
    """The ensemble of a bundle.

    Raises ValueError, naming the file, for what is damaged, of another version or of another label
    schema, and for a device that is not there; ModuleNotFoundError without onnxruntime.
    """
    read = _reader(path)
    description = _checked(path, read)
    members = []
    try:
        for entry in description["models"]:
            data = read(entry["file"])
            if hashlib.sha256(data).hexdigest() != description["digests"][entry["file"]]:
                raise ValueError(f"{entry['file']} is not the file that was exported")
            preprocessing = preprocessing_of(path, entry)
            members.append(
                OnnxMember(
                    Task(entry["task"]),
                    entry["fold"],
                    preprocessing,
                    session(data, device, threads),
                )
            )
        fitted = ensemble.from_json(description["vote"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: {DESCRIPTION} is damaged ({error!r}); export it again") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return Model(
        str(path), members, fitted, lambda there: load(path, device=there), _limits(description)
    )


def preprocessing_of(path: Path, entry: Mapping[str, Any]) -> Preprocessing:
    """How photos are prepared for a model that bundle.json lists.

    A detector that is none of those of maskcls lies in the bundle's folder.
    """
    settings = dict(entry["preprocessing"])
    if settings["detector"] not in DETECTORS:
        settings["detector"] = str(path / Path(settings["detector"]).name)
    return Preprocessing(**settings)


def _reader(path: Path) -> Callable[[str], bytes]:
    """Reads a file of the bundle by its name; only names, never paths that lead out of it."""

    def of_folder(name: str) -> bytes:
        if Path(name).name != name:
            raise ValueError(f"{name!r} is no file of a bundle")
        return (path / name).read_bytes()

    def of_zip(name: str) -> bytes:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)

    read = of_zip if path.is_file() else of_folder

    def checked(name: str) -> bytes:
        try:
            return read(name)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(f"{name} cannot be read ({error}); export the bundle again") from None

    return checked


def _checked(path: Path, read: Callable[[str], bytes]) -> dict[str, Any]:
    try:
        description = json.loads(read(DESCRIPTION))
    except ValueError as error:
        raise ValueError(f"{path}: {DESCRIPTION} is damaged: {error}") from None
    found = description.get("format") if isinstance(description, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path}: a bundle of format {found}, expected {FORMAT}; export it again")
    if "age_limits" not in description or (
        description.get("labels") != label_schema(_limits(description))
    ):
        raise ValueError(f"{path}: its label schema is not that of this version of maskcls")
    assert isinstance(description, dict)
    return description


def _limits(description: Mapping[str, Any]) -> AgeLimits:
    first, second = description["age_limits"]
    return first, second


def label_schema(age_limits: AgeLimits) -> dict[str, Sequence[str]]:
    """The class names of each target, in order: what a bundle must agree with."""
    return {
        target: labels.class_names(target, age_limits) for target in ("joint", *labels.ATTRIBUTES)
    }


def session(data: bytes, device: str, threads: int | None) -> Any:
    """onnxruntime's session of a model. Raises what ``load`` raises."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "a bundle needs onnxruntime: pip install onnxruntime (or onnxruntime-gpu)"
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(
            data, options, providers=_providers(device, onnxruntime.get_available_providers())
        )
    except ValueError:
        raise
    except Exception as error:  # onnxruntime raises errors of many classes, all its own
        raise ValueError(f"onnxruntime cannot read a model: {error}") from None


def _providers(device: str, available: Sequence[str]) -> list[Any]:
    name, _, number = device.partition(":")
    if name == "cpu" or (name == "auto" and PREFERRED[0] not in available):
        return [PREFERRED[1]]
    if name not in ("auto", "cuda") or (number and not number.isdigit()):
        raise ValueError(f"device={device}: auto, cpu, cuda or cuda:1 is expected")
    if PREFERRED[0] not in available:
        raise ValueError(
            f"device={device}: this onnxruntime has no CUDA: pip install onnxruntime-gpu, or use "
            "device=cpu"
        )
    return [(PREFERRED[0], {"device_id": int(number or 0)}), PREFERRED[1]]
