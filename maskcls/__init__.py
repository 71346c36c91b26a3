"""Face-mask image classification: data, models, losses, votes. Never imports Ray.

import maskcls
model = maskcls.load("runs/full")   # or a job folder, or a bundle
table = model.predict(["photo.jpg", "folder/"])
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskcls.inference.model import Model

__version__ = "0.1.0"


def load(path: str | Path, *, device: str = "auto", threads: int | None = None) -> Model:
    """A finished run, one model of it or a bundle, ready to ``predict``; see ``inference.loading``.

    Imports what it needs when it is called: ``import maskcls`` costs nothing.
    """
    from maskcls.inference import loading

    return loading.load(path, device=device, threads=threads)
