"""Known label errors: a YAML file that a user can edit."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from maskcls.labels import Mask
from maskcls.storage import yaml_files

STEMS: Final[dict[str, Mask]] = {
    **{f"mask{number}": Mask.WORN for number in range(1, 6)},
    "incorrect_mask": Mask.INCORRECT,
    "normal": Mask.NOT_WORN,
}
"""The photos of a person, and what each shows."""


def _quoted(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError('write ids in quotes, as in "000020", or YAML makes numbers of them')
    return unicodedata.normalize("NFC", value)  # as the manifest has ids


Id = Annotated[str, BeforeValidator(_quoted)]
Ids = list[Id]
Stem = Literal["mask1", "mask2", "mask3", "mask4", "mask5", "incorrect_mask", "normal"]
MaskName = Literal["worn", "incorrect", "not_worn"]


class LabelFixes(BaseModel):
    """Known label errors by person id. See configs/label_fixes.yaml.

    Where two speak of one label, ``set_mask`` wins.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    swap_incorrect_and_normal: Ids = []
    incorrect_is_worn: Ids = []
    set_mask: dict[Id, dict[Stem, MaskName]] = {}
    flip_gender: Ids = []
    set_age: dict[Id, Annotated[int, Field(ge=0, le=119, strict=True)]] = {}
    leave_out: Ids = []


def load_fixes(path: Path) -> LabelFixes:
    """Read label fixes from YAML.

    Raises FileNotFoundError where there is no such file, and ValueError that lists everything
    wrong with it: unknown keys, ids that are not quoted.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; correct data.label_fixes or set it to null")
    try:
        return LabelFixes.model_validate(yaml_files.read(path) or {})
    except ValidationError as error:
        problems = [
            f"{path}: {'.'.join(map(str, e['loc'])) or 'file'}: "
            f"{e['msg'].removeprefix('Value error, ')}, got {e['input']!r}"
            for e in error.errors()
        ]
        known = f"known keys: {', '.join(LabelFixes.model_fields)}"
        raise ValueError("\n".join([*problems, known])) from None
