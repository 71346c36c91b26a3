"""Photos to predict, however many, as parts: each small enough to hold, and read where it is used.

A folder with its sub-folders, one with eval/images, a folder on an object store, or a parquet file
with a column ``path`` or ``bytes`` and perhaps ``photo``, a name. A listing is all that the driver
holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from maskcls.config import layers
from maskcls.data import manifest
from maskcls.data.file_formats import EXTENSIONS
from maskcls.data.photos import read_bytes
from maskcls.data.source import Source
from maskcls.data.status import OK
from maskcls.inference.inputs import photos_under
from maskcls.storage import uri as uris
from maskcls.storage.remote import StorageError, Store, file_state

Photo = tuple[str, bytes, str]
"""Name, bytes and ``ok``, or no bytes and what is wrong."""
COLUMNS: Final = ("path", "bytes")


@dataclass(frozen=True)
class Part:
    """Some of the photos, in order; ``read`` gets their bytes, on whatever node."""

    number: int
    names: Sequence[str]
    read: Callable[[], Iterator[Photo]]


@dataclass(frozen=True)
class Listing:
    """All photos. ``digest`` changes when one is added, removed or replaced; ``image_ids`` are
    those of a submission, where there is one to write."""

    parts: list[Part]
    photos: int
    digest: str
    notes: list[str]
    image_ids: list[str] | None = None


@dataclass(frozen=True)
class _Files:
    """Photos by their paths."""

    names: Sequence[str]
    paths: Sequence[str]

    def __call__(self) -> Iterator[Photo]:
        for name, path in zip(self.names, self.paths, strict=True):
            yield name, *read_bytes(path)


@dataclass(frozen=True)
class _Objects:
    """Photos on an object store, by their names below ``uri``."""

    uri: str
    names: Sequence[str]

    def __call__(self) -> Iterator[Photo]:
        store = Store(self.uri)
        for name in self.names:
            try:
                data = store.read(name)
            except StorageError as error:
                yield name, b"", f"cannot be read: {error}"
                continue
            yield (name, b"", "missing file") if data is None else (name, data, OK)


@dataclass(frozen=True)
class _Rows:
    """Photos that stand in a parquet file: rows ``first`` to ``last`` of a row group."""

    path: Path
    group: int
    first: int
    last: int
    names: Sequence[str]

    def __call__(self) -> Iterator[Photo]:
        from pyarrow import parquet

        column = parquet.ParquetFile(self.path).read_row_group(self.group, ["bytes"])["bytes"]
        for name, data in zip(self.names, column[self.first : self.last], strict=True):
            content = data.as_py()
            yield (name, b"", "no bytes in this row") if content is None else (name, content, OK)


def find(root: Path | str, size: int) -> Listing:
    """The photos at ``root`` in parts of ``size``.

    Raises FileNotFoundError where there is none, ValueError for a parquet file without the columns,
    and what ``manifest.read_eval`` raises.
    """
    if isinstance(root, str):
        return _on_store(root, size)
    if root.is_file() and root.suffix == ".parquet":
        return _in_table(root, size)
    if (root / "eval").is_dir():
        return _to_submit(root, size)
    if not root.is_dir():
        raise FileNotFoundError(
            f"data.root={root}: a folder of photos, one with eval/images, a .parquet file or a URI "
            "is expected"
        )
    paths = list(photos_under(root))
    if not paths:
        raise FileNotFoundError(
            f"data.root={root}: no photo here to predict, nor a folder eval/images; photos end in "
            f"{', '.join(EXTENSIONS)}"
        )
    names = [path.relative_to(root).as_posix() for path in paths]
    return _of_files(names, list(map(str, paths)), size)


def _of_files(names: list[str], paths: list[str], size: int, **more: Any) -> Listing:
    states = [file_state(Path(path)) or (0, 0) for path in paths]
    parts = [
        Part(number, names[at], _Files(names[at], paths[at]))
        for number, at in enumerate(_slices(len(names), size))
    ]
    return Listing(parts, len(names), layers.digest([names, states]), more.pop("notes", []), **more)


def _to_submit(root: Path, size: int) -> Listing:
    found = manifest.read_eval(root)
    names = found.photos["image_id"].tolist()
    return _of_files(names, found.photos["path"].tolist(), size, notes=found.notes, image_ids=names)


def _on_store(root: str, size: int) -> Listing:
    there = Store(root).listing()
    names = [name for name in there if name.lower().endswith(EXTENSIONS)]
    if not names:
        raise FileNotFoundError(f"data.root={root}: no photo here; photos end in {EXTENSIONS}")
    parts = [
        Part(number, names[at], _Objects(root, names[at]))
        for number, at in enumerate(_slices(len(names), size))
    ]
    return Listing(parts, len(names), layers.digest([(n, *there[n]) for n in names]), [])


def _in_table(path: Path, size: int) -> Listing:
    from pyarrow import parquet

    file = parquet.ParquetFile(path)
    columns = file.schema_arrow.names
    if not set(COLUMNS) & set(columns):
        raise ValueError(
            f"data.root={path}: a column `path` or `bytes` is expected, found {columns}"
        )
    if "path" in columns:
        given = file.read(["path"])["path"].to_pylist()
        paths = ["" if one is None else str(one) for one in given]
        names = _names(file.read(["photo"])["photo"]) if "photo" in columns else paths
        if any(map(uris.is_uri, paths)):
            raise ValueError(f"data.root={path}: paths of this machine are expected, found a URI")
        # Relative ones are seen from the table.
        return _of_files(names, [str(path.parent / one) for one in paths], size)
    parts: list[Part] = []
    total = 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        names = [f"#{total + row}" for row in range(rows)]
        if "photo" in columns:
            names = _names(file.read_row_group(group, ["photo"])["photo"])
        for at in _slices(rows, size):
            read = _Rows(path, group, at.start, at.stop, names[at])
            parts.append(Part(len(parts), names[at], read))
        total += rows
    if not total:
        raise FileNotFoundError(f"data.root={path}: no rows")
    state = path.stat()
    return Listing(parts, total, layers.digest([str(path), state.st_size, state.st_mtime_ns]), [])


def of_table(source: Source, size: int) -> Listing:
    """The photos of ``Source.to_predict`` in parts of ``size``. Raises what that raises."""
    found = source.to_predict()
    return _of_files(
        found.photos["key"].tolist(), found.photos["path"].tolist(), size, notes=found.notes
    )


def _names(column: Any) -> list[str]:
    return ["" if one is None else str(one) for one in column.to_pylist()]


def _slices(count: int, size: int) -> list[slice]:
    return [slice(at, min(at + size, count)) for at in range(0, count, size)]
