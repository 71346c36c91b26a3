"""Likely label errors of a finished run, as a table and a page to decide on them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import yaml

from maskcls.config.layers import digest
from maskcls.config.schema import Config
from maskcls.data.label_fixes import LabelFixes, load_fixes
from maskcls.labels import ATTRIBUTES
from maskcls.quality.label_errors import Suspects, ranked, with_fix
from maskcls.reports import finished_run, label_errors_page
from maskcls.storage import files


def find(run: Path, *, data: Path | None = None, fixes: Path | None = None) -> Suspects:
    """Rank the labels of the run in folder ``run``.

    ``data`` is where the photos lie now, ``fixes`` the label fixes of the run, for a run that was
    moved. Raises FileNotFoundError where one of them is not there.
    """
    finished = finished_run.read(run)
    photos = finished.photos.reset_index()
    if data is not None:
        photos["path"] = [str(data / key) for key in photos["key"]]
    if not any(Path(path).is_file() for path in photos["path"]):
        raise FileNotFoundError(
            f"{photos['path'][0]}: no photo is there; name their root by --data"
        )
    tables = [ranked(finished.out_of_fold, attribute) for attribute in ATTRIBUTES]
    table = pd.concat([table for table in tables if len(table)], ignore_index=True)
    return Suspects(
        name=finished.name,
        identity=digest(finished.name, table.to_csv(index=False)),
        table=with_fix(table, photos),
        photos=photos,
        fixes=_fixes_of(run, fixes),
    )


def _fixes_of(run: Path, fixes: Path | None) -> LabelFixes:
    if fixes is None:
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        fixes = Config.model_validate(config).data.label_fixes
    if fixes is None:
        return LabelFixes()
    try:
        return load_fixes(fixes)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{fixes}: the label fixes of the run are not there; name the file by --fixes"
        ) from None


def write(folder: Path, suspects: Suspects, *, top: int) -> tuple[Path, Path]:
    """Write ``label_errors.csv`` with all labels and ``label_errors.html`` with the first ``top``
    of each task to ``folder``; return their paths.

    Raises OSError naming the file that cannot be written.
    """
    table, page = folder / "label_errors.csv", folder / "label_errors.html"
    with files.replacing(table) as temporary:
        suspects.table.to_csv(temporary, index=False, lineterminator="\n", float_format="%.5f")
    files.write_text(page, label_errors_page.render(suspects, top))
    return table, page
