"""A checkpoint explains itself: weights and everything that prediction needs, in one folder.

``model.safetensors`` holds the weights of the best epoch, ``checkpoint.json`` what they are. While
a job runs, ``resume.pt`` holds what the next epoch needs: weights, optimiser and counters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from maskcls.config.recipe import Recipe
from maskcls.labels import AGE_BAND_STARTS, HEADS, AgeLimits, Task, class_names
from maskcls.storage import files

if TYPE_CHECKING:
    import torch


SCHEMA = 1
"""Changes when a checkpoint can no longer be read the same way."""


PACKAGES = ("ray", "torch", "torchvision", "timm", "numpy", "opencv-python-headless")


def versions() -> dict[str, str]:
    """The versions of what a result depends on, as far as they are installed."""
    found = {}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


class Info(BaseModel):
    """What the weights of a checkpoint are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA
    identity: str
    task: Task
    fold: int
    recipe: Recipe
    classes: dict[str, list[str]]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    seed: int
    epoch: int
    scores: dict[str, float]
    versions: dict[str, str]


def labels_of(task: Task, age_limits: AgeLimits = AGE_BAND_STARTS) -> dict[str, list[str]]:
    """The label schema of a task: head name -> class names in order."""
    return {head: class_names(head, age_limits) for head in HEADS[task]}


def save(folder: Path, state: Mapping[str, torch.Tensor], info: Info) -> None:
    """Write weights, then their description: a folder without description is no checkpoint."""
    save_weights(folder / "model.safetensors", state)
    save_info(folder, info)


def save_info(folder: Path, info: Info) -> None:
    """Write the description alone."""
    files.write_text(folder / "checkpoint.json", info.model_dump_json(indent=2) + "\n")


def save_weights(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Write a state dict as safetensors, whole or not at all."""
    from safetensors.torch import save_file

    with files.replacing(path) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in state.items()},
                  temporary)  # fmt: skip


def read_info(folder: Path) -> Info:
    """The description of a checkpoint.

    Raises FileNotFoundError where there is none and ValueError where it was written by another
    version or has another label schema.
    """
    path = folder / "checkpoint.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no checkpoint.json; is this the folder of a job?")
    content = files.read_json(path)
    schema = content.get("schema_version") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"{path}: schema {schema}, expected {SCHEMA}")
    try:
        info = Info.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{path}: written by another version: {error}") from None
    if info.classes != labels_of(info.task, info.recipe.labels.age_limits):
        raise ValueError(f"{path}: its classes {info.classes} are not those of this version")
    return info


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of the best epoch. Raises ValueError where the file is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / "model.safetensors"
    try:
        return load_file(path)
    except (SafetensorError, FileNotFoundError) as error:
        raise ValueError(f"{path}: cannot read the weights ({error}); train it again") from None


def save_resume(folder: Path, state: Mapping[str, Any]) -> None:
    """Write what the next epoch needs, whole or not at all."""
    import torch

    with files.replacing(folder / "resume.pt") as temporary:
        torch.save(dict(state), temporary)


def load_resume(folder: Path, identity: str) -> dict[str, Any] | None:
    """What ``save_resume`` wrote, or None where there is nothing of this ``identity``.

    Raises ValueError where the file is damaged.
    """
    import torch

    path = folder / "resume.pt"
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state if state["identity"] == identity else None
    except Exception as error:  # torch's reader of damaged files raises anything there is
        raise ValueError(
            f"{path}: cannot go on from it ({error}); delete it to train from the start"
        ) from None


def copied(value: Any) -> Any:
    """A copy in main memory of a state, whose tensors training would change; strides are kept."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: copied(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copied(part) for part in value)
    return value


class Writer:
    """Writes in a thread of its own while training goes on, one thing at a time and in order.

    What a write raises comes out of the next ``submit`` or ``wait``, or where the ``with`` block
    ends, which waits for what is under way. A block that ends by an error of its own keeps that
    error, with a note about the write.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def submit(self, write: Callable[[], None]) -> None:
        """Start ``write`` once the one before has ended."""
        self.wait()
        self._pending = self._executor.submit(write)

    def wait(self) -> None:
        """Wait until everything is written."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._executor.shutdown(wait=True)
        if error is None:
            self.wait()
        elif self._pending is not None and (failure := self._pending.exception()) is not None:
            error.add_note(f"the last checkpoint could not be written either: {failure}")
