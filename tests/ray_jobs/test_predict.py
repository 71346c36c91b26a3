"""Any number of photos: the answers of maskcls, in files, whatever ended in between."""

import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

import maskcls
from maskcls.__main__ import main
from maskcls.export import bundle
from maskcls.labels import Task
from tests import made_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_run.make(tmp_path_factory.mktemp("made"), people=12, votes=False, folds=1,
                         tasks=(Task.MULTI,))  # fmt: skip


@pytest.fixture
def photos(drawn, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(drawn / "eval" / "images", folder / "b")
    (folder / "a.jpg").write_bytes(b"no photo")
    return folder


def answers(folder):
    return pd.concat(map(pd.read_parquet, sorted(folder.glob("part-*.parquet"))), ignore_index=True)


def same(table, expected):
    assert table["status"].tolist() == expected["status"].tolist()
    pd.testing.assert_series_equal(table["ans"], expected["ans"])
    for name in expected.filter(like="p_"):
        assert np.allclose(table[name], expected[name], rtol=0, atol=1e-4, equal_nan=True)


def test_all_ways_give_the_same_answers_and_a_stopped_one_goes_on(verb, run, photos, tmp_path):
    expected = maskcls.load(run).predict(photos)
    words = ("predict", f"run.dir={run}", f"data.root={photos}", "answers.photos_per_part=7")
    told = verb(*words)
    (out,) = run.glob("predictions/*")
    assert "1 that cannot be read" in told and str(out) in told
    table = answers(out)
    assert [str(photos / name) for name in table["photo"]] == expected["photo"].tolist()
    same(table, expected)
    # As if killed while one part was written.
    written = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    (out / "part-000002.parquet").unlink()
    (out / ".tmp-part").write_bytes(b"half")
    told = verb(*words)
    assert f"{len(written) - 1} of {len(written)} files of answers are there already" in told
    pd.testing.assert_frame_equal(answers(out), table)
    again = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert [name for name in written if written[name] != again[name]] == ["part-000002.parquet"]
    assert set(again) == set(written)

    made = bundle.write(run, tmp_path / "bundle").path
    files = sorted(path for path in photos.rglob("*.*"))
    content = pa.table({"bytes": [path.read_bytes() for path in files]})
    parquet.write_table(content, tmp_path / "t.parquet")
    table = tmp_path / "t.parquet"
    told = verb("predict", f"run.dir={made}", f"data.root={table}", ok=False)
    assert "is a bundle: say where answers go" in told
    verb("predict", f"run.dir={made}", f"data.root={table}", f"answers.out={tmp_path / 'out'}")
    (out,) = (tmp_path / "out").iterdir()
    same(answers(out), expected)

    # The command line; the service has its own test.
    assert main(["predict", str(run), str(photos), "--out", str(tmp_path / "told.parquet")]) == 0
    same(pd.read_parquet(tmp_path / "told.parquet"), expected)


def test_no_finished_run_is_said(verb, tmp_path, photos):
    told = verb("predict", f"run.dir={tmp_path}", f"data.root={photos}", ok=False)
    assert "no finished run here" in told
