"""Pipelines of the library Albumentations, in the form that the library itself writes.

``albumentations.save(pipeline, "FILE.yaml", data_format="yaml")`` makes such a file;
configs/albumentations.yaml is one.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from maskcls.storage import yaml_files


def read(value: str) -> str:
    """The pipeline as JSON: of the file that ``value`` names, or ``value`` where it is JSON.

    Raises ValueError where there is no such file, and what ``compose`` raises.
    """
    if value.lstrip().startswith("{"):
        return value  # a run's own configuration holds the content, so the file may be gone
    path = Path(value).expanduser()
    if not path.is_file():
        raise ValueError(f"no such file: {path}")
    pipeline = yaml_files.read(path)
    compose(pipeline)
    return json.dumps(pipeline, sort_keys=True)


def compose(pipeline: Mapping[str, Any]) -> Any:
    """The pipeline as an ``albumentations.Compose``; importing the library takes seconds.

    Raises ValueError for a transform or an option that the library does not know.
    """
    # The library would ask its package index for a newer version of itself.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations
    from albumentations.core.serialization import SERIALIZABLE_REGISTRY

    for name in _names(pipeline):
        if name.rpartition(".")[2] not in SERIALIZABLE_REGISTRY:
            close = difflib.get_close_matches(name, SERIALIZABLE_REGISTRY, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"Albumentations {albumentations.__version__} has no {name}{hint}")
    try:
        made: Any = albumentations.from_dict(dict(pipeline))
    except Exception as error:  # each transform checks its options with errors of its own
        raise ValueError(f"Albumentations refuses the pipeline: {error}") from error
    return made if isinstance(made, albumentations.Compose) else albumentations.Compose([made])


def _names(pipeline: Mapping[str, Any]) -> Iterator[str]:
    """The classes that a serialized pipeline names."""
    waiting = [pipeline.get("transform")]
    if not isinstance(waiting[0], Mapping):
        raise ValueError("an Albumentations pipeline is expected: its top key is 'transform'")
    while waiting:
        transform = waiting.pop()
        if not isinstance(transform, Mapping) or "__class_fullname__" not in transform:
            raise ValueError(f"each transform needs '__class_fullname__', got {transform!r}")
        yield str(transform["__class_fullname__"])
        waiting += transform.get("transforms", [])
