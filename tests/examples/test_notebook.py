"""The notebooks in examples/ run from top to bottom, and say what they say."""

import json

import pytest

from tests import made_run
from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def test_there_is_a_notebook():
    assert [path.name for path in NOTEBOOKS] == ["use_an_ensemble.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs_in_order(path, drawn, tmp_path, monkeypatch):
    run = made_run.make(tmp_path / "made", people=12, photos=False, votes=False)
    (tmp_path / "runs").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(run)
    (tmp_path / "data" / "demo").symlink_to(drawn)
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(path.read_text(encoding="utf-8"))
    names: dict = {}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            code = compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec")
            exec(code, names)
    assert len(names["table"]) == len(list((drawn / "eval" / "images").iterdir()))
    assert names["same"]["ans"].nunique() == 1
    assert names["mixed"]["status"].tolist()[0] == "ok"
    assert names["mixed"]["ans"].isna().tolist() == [False, True, True]
