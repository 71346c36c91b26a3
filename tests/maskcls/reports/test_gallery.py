from base64 import b64decode
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from maskcls.data.preprocess import Preprocessing, preprocess
from maskcls.labels import Task
from maskcls.learning import predict
from maskcls.learning.saliency import heat_maps
from maskcls.reports import analysis, finished_run, gallery
from tests import made_run

BLUE, YELLOW = 0.0, 1.0


def decoded(picture):
    data = b64decode(picture.src.partition("base64,")[2])
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def test_a_thumbnail_is_small_and_keeps_shape_and_colours():
    image = np.zeros((512, 384, 3), np.uint8)
    image[:256] = (200, 30, 90)
    small = decoded(gallery.thumbnail(image, 'a "photo"'))
    assert small.shape == (160, 120, 3)
    np.testing.assert_allclose(small[20, 60], (200, 30, 90), atol=6)
    assert small[140].max() < 8
    assert len(gallery.thumbnail(image, "").src) < 20_000


def test_what_spoke_is_yellow_and_the_rest_blue():
    heat = np.array([[BLUE, YELLOW]], np.float32)
    dark, bright = gallery.overlaid(np.full((1, 2, 3), 128, np.uint8), heat)[0].astype(int)
    assert bright[0] > dark[0]
    assert dark[2] > dark[0]
    assert bright[0] > bright[2]


def test_photos_that_cannot_be_shown_are_told(tmp_path):
    run = finished_run.read(made_run.make(tmp_path, people=12, folds=2, weights=False))
    gone, broken, fine = run.photos.index[:3]
    Path(run.photos.loc[gone, "path"]).unlink()
    Path(run.photos.loc[broken, "path"]).write_bytes(b"no photo")
    photos, problems = gallery.read_photos(run, [gone, broken, fine, fine])
    assert list(photos) == [fine]
    assert problems[0] == f"{gone}: No such file or directory"
    assert problems[1].startswith(f"{broken}: not an image")


@pytest.mark.parametrize(
    "tasks", [(Task.MASK, Task.GENDER, Task.AGE), (Task.JOINT,), (Task.MULTI,)]
)
def test_mistakes_are_explained_by_the_model_that_made_them(tmp_path, tasks):
    run = finished_run.read(made_run.make(tmp_path, people=12, tasks=tasks))
    chosen = analysis.worst(analysis.opinions(run), 2)
    photos, _ = gallery.read_photos(run, chosen["photo"].tolist())
    explained = gallery.explain(run, chosen, photos)
    assert explained.notes == []
    assert set(explained.pictures) == set(zip(chosen["photo"], chosen["attribute"], strict=True))
    first = chosen.iloc[0]
    task = Task(first["attribute"]) if len(tasks) == 3 else tasks[0]
    fold = run.photos.loc[first["photo"], "fold"]
    predictor, _ = predict.load(run.job(task, fold), torch.device("cpu"))
    head = "joint" if task is Task.JOINT else first["attribute"]
    rows = run.out_of_fold[(run.out_of_fold["photo"] == first["photo"])]
    answer = rows.loc[(rows["task"] == task) & (rows["head"] == head), "predicted"].item()
    seen = preprocess(photos[first["photo"]], Preprocessing(*made_run.SIZE))
    (heat,) = heat_maps(predictor, seen[None], head, [answer])
    np.testing.assert_array_equal(
        explained.pictures[first["photo"], first["attribute"]], gallery.overlaid(seen, heat)
    )


def test_cards_tell_truth_answer_and_every_model(tmp_path):
    folder = made_run.make(tmp_path, people=12, tasks=tuple(Task), weights=False, photos=False)
    run = finished_run.read(folder)
    chosen = analysis.worst(analysis.opinions(run), 1)
    (card, *_) = gallery.cards(run, chosen, {}, {})
    attribute, photo = chosen.loc[0, ["attribute", "photo"]]
    person = run.photos.loc[photo]
    names = finished_run.readable(attribute)
    answer, truth = names[chosen.loc[0, "predicted"]], names[chosen.loc[0, "truth"]]
    assert (card["attribute"], card["answer"], card["label"]) == (attribute, answer, truth)
    assert f"{person['age']} years" in card["labels"]
    said = [row[0] for row in card["models"].rows]
    assert set(said) == {f"{task} {person['fold']}" for task in (attribute, "joint", "multi")}


def test_of_several_models_the_one_that_was_wrong_is_explained(tmp_path):
    folder = made_run.make(
        tmp_path, people=12, tasks=(Task.GENDER, Task.JOINT), weights=False, photos=False
    )
    run = finished_run.read(folder)
    said = {
        task: analysis.probabilities_of(run, task, "gender").map(np.argmax) for task in run.tasks
    }
    photo = next(key for key in run.photos.index if len({said[t][key] for t in run.tasks}) > 1)
    for task in run.tasks:
        chosen = gallery._speaker(run, photo, "gender", int(said[task][photo]))
        assert chosen[:2] == (task, "joint" if task is Task.JOINT else "gender")
