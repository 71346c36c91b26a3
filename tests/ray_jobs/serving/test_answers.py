"""A replica's work without Ray: answers, and what spoke for one."""

import asyncio
import base64

import cv2
import numpy as np
import pytest

import maskcls
from maskcls.config.serve import Serve
from maskcls.labels import Task, class_names
from ray_jobs.serving.deployment import Answers
from tests import made_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_run.make(tmp_path_factory.mktemp("made"), people=12, votes=False, folds=1,
                         tasks=(Task.MULTI,))  # fmt: skip


@pytest.fixture(scope="module")
def replica(run):
    return Answers(str(run), Serve(batch_size=4, max_pixels=10_000))


@pytest.fixture(scope="module")
def photos(drawn):
    return [path.read_bytes() for path in sorted((drawn / "eval" / "images").iterdir())[:6]]


def test_a_replica_answers_as_maskcls_does(run, replica, photos):
    rows = replica._compute([(str(n), photo) for n, photo in enumerate(photos)])
    expected = maskcls.load(run).records(photos)
    assert [row["photo"] for row in rows] == list("012345")
    assert [row["ans"] for row in rows] == [row["ans"] for row in expected]


def test_a_photo_that_cannot_be_read_harms_no_other_of_its_batch(replica, photos):
    large = cv2.imencode(".jpg", np.zeros((200, 100, 3), np.uint8))[1].tobytes()
    rows = replica._compute([("a", photos[0]), ("b", b"x"), ("c", large), ("d", photos[1])])
    assert [row["status"] == "ok" for row in rows] == [True, False, False, True]
    assert rows[2]["status"] == "too large to decode: 100 x 200 pixels"


def test_an_explanation_has_the_picture_and_a_grid_for_each_attribute(replica, photos):
    answer = asyncio.run(replica.explain(("x", photos[0])))
    picture = base64.b64decode(answer["picture"].removeprefix("data:image/jpeg;base64,"))
    seen = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    assert seen.shape == (*made_run.SIZE, 3)
    for attribute in ("mask", "gender", "age"):
        assert np.shape(answer["support"][attribute]) == (8, 6)
        assert answer[attribute] in class_names(attribute)
    assert "box_left" in answer
    assert asyncio.run(replica.explain(("x", b"hello")))["status"] != "ok"
