"""The two stages of a prediction of many photos, called as Ray Data calls them, without Ray."""

import shutil

import cloudpickle
import numpy as np
import pandas as pd
import pytest

import maskcls
from maskcls.inference.describe import recipes_of
from maskcls.labels import Task
from maskcls.storage.place import Place
from ray_jobs.batch import parts, pipeline
from tests import made_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_run.make(tmp_path_factory.mktemp("made"), people=12, votes=False, folds=2,
                         tasks=(Task.MULTI,))  # fmt: skip


@pytest.fixture
def photos(drawn, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(drawn / "eval" / "images", folder / "b")
    (folder / "a.jpg").write_bytes(b"no photo")
    return folder


def stages(run, photos, size, out):
    """The parts, and what each stage makes of one."""
    recipes, _ = recipes_of(run)
    work = pipeline.Work(Place(run), Place(out), "cpu", 1)
    decode, answer = pipeline._Decode(tuple(recipes)), pipeline.Answer(work)
    found = parts.find(photos, size).parts
    return found, lambda part: decode({"part": [cloudpickle.dumps(part)]}), answer


def test_parts_hold_the_answers_of_maskcls(run, photos, tmp_path):
    out = tmp_path / "out"
    found, decode, answer = stages(run, photos, 40, out)
    counts = [answer(decode(part)) for part in found]
    assert [int(count["photos"][0]) for count in counts] == [40, 3]
    assert [int(count["unreadable"][0]) for count in counts] == [1, 0]
    table = pd.concat(map(pd.read_parquet, sorted(out.iterdir())), ignore_index=True)
    expected = maskcls.load(run).predict(photos)
    assert [str(photos / name) for name in table["photo"]] == expected["photo"].tolist()
    assert table["status"].tolist() == expected["status"].tolist()
    pd.testing.assert_series_equal(table["ans"], expected["ans"])
    for name in expected.filter(like="p_"):
        assert np.allclose(table[name], expected[name], rtol=0, atol=1e-5, equal_nan=True)
    assert pipeline.unwritten(out, found) == []
    (out / pipeline.part_name(0)).unlink()
    assert pipeline.unwritten(out, found) == found[:1]


def test_a_part_that_comes_in_pieces_is_refused_and_nothing_is_written(run, photos, tmp_path):
    found, decode, answer = stages(run, photos, 40, tmp_path / "out")
    whole = decode(found[0])
    with pytest.raises(RuntimeError, match="part 0: came with 39 of 40 photos"):
        answer({name: values[:39] for name, values in whole.items()})
    assert not (tmp_path / "out").exists()


def test_other_models_have_another_identity(run, tmp_path):
    recipes, identity = recipes_of(run)
    assert recipes == maskcls.load(run).recipes
    assert recipes_of(run)[1] == identity
    other = made_run.make(tmp_path, people=12, votes=False, folds=1, tasks=(Task.MULTI,))
    assert recipes_of(other)[1] != identity
    with pytest.raises(FileNotFoundError, match="no finished run here"):
        recipes_of(tmp_path)
