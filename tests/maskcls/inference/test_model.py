"""An ensemble from Python: the same answers as the parts give one by one, and good manners."""

import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import maskcls
from examples.drawn_faces import draw
from maskcls import labels
from maskcls.__main__ import main
from maskcls.data.photos import decode
from maskcls.data.preprocess import Preprocessing, preprocess
from maskcls.inference.table import BOX
from maskcls.labels import Task
from maskcls.learning import predict as inference
from maskcls.scoring import ensemble
from maskcls.storage import files
from tests import made_run
from tests.conftest import ROOT


def voted(run, photos):
    """The vote on a folder, put together from its parts without ``maskcls.inference``."""
    models, names = [], sorted(path.name for path in photos.iterdir())
    height, width = made_run.SIZE
    images = np.stack(
        [preprocess(decode((photos / n).read_bytes()), Preprocessing(height, width))
         for n in names])  # fmt: skip
    for folder in sorted((run / "jobs").iterdir()):
        predictor, info = inference.load(folder, torch.device("cpu"))
        said = predictor(images, np.arange(len(images)))
        models.append(ensemble.ModelVotes(info.task, info.fold, names, said))
    fitted = ensemble.from_json(files.read_json(run / "ensemble.json"))
    return ensemble.vote(fitted, models), models


def test_a_run_answers_as_its_models_and_its_vote_do(run, photos):
    expected, models = voted(run, photos)
    table = maskcls.load(run).predict(photos, batch_size=4)
    assert [name.rsplit("/", 1)[1] for name in table["photo"]] == expected["image_id"].tolist()
    assert table["ans"].tolist() == expected["ans"].tolist()
    assert (table["status"] == "ok").all()
    for attribute in labels.ATTRIBUTES:
        names = labels.class_names(attribute)
        assert table[attribute].tolist() == [names[k] for k in expected[attribute]]
        of_models = [m.probabilities[attribute] for m in models if m.task == attribute]
        said = table[[f"p_{attribute}_{name}" for name in names]].to_numpy()
        assert np.allclose(said, np.mean(of_models, axis=0), atol=1e-6)


def test_boxes_are_looked_for_where_they_are_asked_for(run, tmp_path):
    """A portrait 144 pixels wide, pasted into a grey photo."""
    draw.draw(tmp_path, people=6, eval_people=6, seed=1, height=192, width=144)
    portrait = decode(sorted(tmp_path.glob("train/images/*/normal.*"))[2].read_bytes())
    photo = np.full((300, 500, 3), 128, np.uint8)
    photo[60 : 60 + 192, 200 : 200 + 144] = portrait
    model = maskcls.load(run)
    asked, plain = model.predict(photo, boxes=True), model.predict(photo)
    assert plain[list(BOX)].isna().all(axis=None)
    left, top, width, height = asked[list(BOX)].iloc[0]
    assert 200 <= left < left + width <= 344 and 60 <= top < top + height <= 252
    pd.testing.assert_frame_equal(asked.drop(columns=list(BOX)), plain.drop(columns=list(BOX)))


def test_bands_of_age_have_the_limits_that_the_models_were_trained_with(run, photos, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    names = labels.class_names("age", (20, 50))
    for path in tmp_path.glob("run/jobs/*/checkpoint.json"):
        said = files.read_json(path)
        said["recipe"]["labels"]["age_limits"] = [20, 50]
        if "age" in said["classes"]:
            said["classes"]["age"] = names
        files.write_json(path, said)
    model = maskcls.load(tmp_path / "run")
    table = model.predict(photos)
    assert table["age"].isin(names).all()
    assert {f"p_age_{name}" for name in names} <= set(table)
    assert model.records(photos)[0]["age"] == table["age"][0]
    (age,) = maskcls.load(tmp_path / "run" / "jobs" / "age-fold0").predict(photos)["age"][:1]
    assert age in names


def test_a_job_alone_answers_its_task_and_a_joint_one_all_of_it(run, photos, tmp_path):
    table = maskcls.load(run / "jobs" / "age-fold0").predict(photos)
    assert "ans" not in table and "mask" not in table
    assert table["age"].isin(labels.class_names("age")).all()
    joint = made_run.make(tmp_path, tasks=(Task.JOINT,), people=12, folds=2, votes=False)
    for folder in (joint, joint / "jobs" / "joint-fold1"):
        table = maskcls.load(folder).predict(photos)
        said = table[[f"p_joint_{k}" for k in range(18)]].to_numpy()
        assert np.allclose(said.sum(axis=1), 1)
        women = said.reshape(-1, 3, 2, 3)[:, :, 1].sum(axis=(1, 2))
        assert np.allclose(table["p_gender_female"], women)
        names = [labels.class_names("joint")[k] for k in table["ans"]]
        assert names == ["/".join(row) for row in table[["mask", "gender", "age"]].to_numpy()]


def test_forms_batches_and_threads_give_the_same_answers(run, photos):
    model = maskcls.load(run, threads=1)
    paths = sorted(photos.iterdir())
    table = model.predict(photos)
    data = [path.read_bytes() for path in paths]
    given = (paths, data, [Image.open(io.BytesIO(one)) for one in data], [*map(decode, data)])
    for photos_given in given:
        again = model.predict(photos_given, batch_size=5, threads=2)
        pd.testing.assert_frame_equal(again.drop(columns="photo"), table.drop(columns="photo"),
                                      atol=1e-6)  # fmt: skip
    on_cpu = model.predict(paths[0], device="cpu")
    assert on_cpu["ans"].tolist() == table["ans"].tolist()[:1]


def test_a_photo_that_cannot_be_read_is_a_row_with_the_reason(run, photos):
    good = sorted(photos.iterdir())[0]
    model = maskcls.load(run)
    table = model.predict([good, b"no photo", "nowhere.jpg", good])
    assert table["status"].tolist()[0] == table["status"].tolist()[3] == "ok"
    assert "not an image" in table["status"][1]
    assert table["status"][2] == "missing file"
    assert table.loc[[1, 2], "ans"].isna().all() and table.loc[[1, 2], "p_age_from_60"].isna().all()
    assert table["ans"][0] == table["ans"][3]
    alone = model.predict([b"", b""])
    assert list(alone.columns) == list(table.columns)
    assert alone.dtypes.equals(table.dtypes) and model.predict([]).dtypes.equals(table.dtypes)
    rows = model.records([good, b""])
    assert json.loads(json.dumps(rows)) == rows
    assert rows[0]["ans"] == table["ans"][0] and rows[1]["ans"] is None


def test_what_cannot_be_loaded_is_said_with_what_is_expected(run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing to load here.*a bundle"):
        maskcls.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        maskcls.load(tmp_path / "nowhere")
    unfinished = shutil.copytree(run, tmp_path / "unfinished")
    (unfinished / "ensemble.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"not finished .*alone: .*fold0") as refused:
        maskcls.load(unfinished)
    maskcls.load(str(refused.value).rpartition("alone: ")[2])
    with pytest.raises(FileNotFoundError, match="folders of this machine"):
        maskcls.load("s3://bucket/run")
    with pytest.raises(ValueError, match="device=tpu: auto, cpu, cuda"):
        maskcls.load(run, device="tpu")
    with pytest.raises(ValueError, match="batch_size"):
        maskcls.load(run).predict([], batch_size=0)


def test_a_program_that_predicts_imports_no_ray_and_nothing_before_it_loads(run, photos):
    code = f"""
import sys
sys.modules["ray"] = None
import maskcls
assert not {{"torch", "numpy", "pandas"}} & set(sys.modules)
print(len(maskcls.load({str(run)!r}).predict({str(photos)!r})))
assert "wandb" not in sys.modules  # half a second, and folders in /tmp
import wandb
wandb.init
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          timeout=300)  # fmt: skip
    assert done.stdout.strip() == str(len(list(photos.iterdir()))), done.stderr


def test_the_command_prints_or_writes_a_table(run, photos, tmp_path, capsys):
    bad = tmp_path / "bad é.jpg"
    bad.write_bytes(b"hello")
    assert main(["predict", str(run), str(photos)]) == 0
    printed = capsys.readouterr().out
    assert "gender" in printed and "more; --out" in printed
    for name in ("a.csv", "a.parquet"):
        out = tmp_path / "new" / name
        assert main(["predict", str(run), str(photos), str(bad), "--out", str(out)]) == 0
        told = capsys.readouterr()
        assert str(out) in told.out and "bad é.jpg: not an image" in told.err
        read = pd.read_csv(out) if name.endswith("csv") else pd.read_parquet(out)
        assert len(read) == len(list(photos.iterdir())) + 1
        assert read["ans"].isna().sum() == 1
    assert main(["predict", str(run), str(bad)]) == 1


def test_a_file_that_is_no_table_of_answers_is_not_replaced(run, photos, tmp_path, capsys):
    truth = tmp_path / "answers.csv"
    truth.write_text("ImageID,ans\na.jpg,3\n")
    with pytest.raises(SystemExit):
        main(["predict", str(run), str(photos), "--out", str(truth)])
    assert "another file of that name" in capsys.readouterr().err
    assert truth.read_text() == "ImageID,ans\na.jpg,3\n"
    for _ in range(2):  # its own table is
        assert main(["predict", str(run), str(photos), "--out", str(tmp_path / "mine.csv")]) == 0


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["nowhere", "photo.jpg"], "no such file or folder"),
        (["{run}", "."], None),
        (["{run}", "photo.jpg", "--out", "table.xlsx"], "ends in .csv or .parquet"),
        (["{run}", "photo.jpg", "--batch-size", "0"], "greater than 0"),
        (["s3://bucket/run", "photo.jpg"], "no folder of this machine"),
    ],
)
def test_a_bad_command_line_is_refused(run, words, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["predict", *(word.format(run=run) for word in words)])
    assert ended.value.code == 2
    assert (reason or "no photo here") in capsys.readouterr().err
