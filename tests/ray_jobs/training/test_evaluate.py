"""What validation makes of the shares of several workers."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from maskcls.learning import predict
from ray_jobs.training import evaluate


@pytest.mark.parametrize("photos", [1, 2, 3, 7])
def test_every_worker_has_the_answers_of_all_photos_also_where_they_are_few(photos, monkeypatch):
    world, rows_M = 3, np.arange(10, 10 + photos)
    images_NHWC = np.arange(20, dtype=np.uint8).repeat(12).reshape(20, 2, 2, 3)

    def model(inputs_BCHW):
        return {"mask": inputs_BCHW.mean(dim=(2, 3))}

    head = SimpleNamespace(scores=lambda values_BD: values_BD * torch.tensor([1.0, 2.0, 3.0]))
    model.eval = lambda: None
    normalize = predict.Normalize((0.5,) * 3, (0.5,) * 3, torch.device("cpu"))
    predictor = predict.Predictor(model, normalize, torch.float32, 2, {"mask": head})
    alone = predictor(images_NHWC, rows_M)["mask"]
    shares = [predictor(images_NHWC, rows_M[rank::world]) for rank in range(world)]
    monkeypatch.setattr(
        evaluate.dist, "all_gather_object", lambda into, mine: into.__setitem__(slice(None), shares)
    )
    for rank in range(world):
        session = SimpleNamespace(rank=rank, world=world, beat=lambda: None)
        learner = SimpleNamespace(predictor=lambda views: predictor)
        said = evaluate.validate(learner, images_NHWC, rows_M, session)
        np.testing.assert_array_equal(said["mask"], alone)
