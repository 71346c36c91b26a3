"""What spoke for an answer, of a model whose reasons are known."""

import numpy as np

from maskcls.data.preprocess import Preprocessing
from maskcls.inference import occlusion
from maskcls.inference.model import Model
from maskcls.inference.prepared_photo import PreparedPhoto
from maskcls.labels import Task
from maskcls.scoring.voting import FittedVote

RECIPE = Preprocessing(80, 60)


class LooksAtOnePart:
    """Takes a person for older the brighter the part in row 2, column 4 is."""

    task, preprocessing = Task.AGE, RECIPE

    def __call__(self, images_NHWC):
        bright_N = images_NHWC[:, 20:30, 40:50].mean(axis=(1, 2, 3)) / 255
        return {"age": np.stack([(1 - bright_N) / 2, (1 - bright_N) / 2, bright_N], axis=1)}


def test_the_part_that_an_answer_hangs_on_is_found():
    image = np.zeros((80, 60, 3), np.uint8)
    image[20:30, 40:50] = 255
    vote = {"age": FittedVote("soft", 1, 3, {"weights": [1.0]})}
    model = Model("", [LooksAtOnePart()], vote, lambda device: None)
    photo = PreparedPhoto("x", "ok", [image], None, (80, 60))
    support = occlusion.support(model, photo)
    assert set(support) == {"age"}
    assert support["age"][2, 4] > 0.9
    support["age"][2, 4] = 0
    assert np.abs(support["age"]).max() < 1e-9
