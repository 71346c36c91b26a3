"""Photos become the input of a model as the formula says."""

import numpy as np
import pytest
import torch

from maskcls.learning.heads import Classes
from maskcls.learning.predict import Normalize, Predictor

MEAN, STD = (0.1, 0.5, 0.9), (0.25, 0.5, 1.0)


@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (1, 1, 1, 3), (0, 5, 7, 3)])
def test_photos_are_normalised_by_channel_and_keep_their_layout(shape):
    images_BHWC = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    inputs_BCHW = Normalize(MEAN, STD, torch.device("cpu"))(images_BHWC)
    expected = (images_BHWC / 255 - MEAN) / STD
    assert inputs_BCHW.shape == (shape[0], 3, *shape[1:3])
    assert inputs_BCHW.is_contiguous(memory_format=torch.channels_last)
    assert inputs_BCHW.permute(0, 2, 3, 1).numpy() == pytest.approx(expected, abs=1e-6)


class LeftHalf(torch.nn.Module):
    """Its logit of class 1 is the brightness of the left half of a photo."""

    def forward(self, inputs_BCHW):
        left_B = inputs_BCHW[..., : inputs_BCHW.shape[3] // 2].mean(dim=(1, 2, 3))
        return {"gender": torch.stack([torch.zeros_like(left_B), left_B], dim=1)}


def said(views, images_NHWC):
    normalize = Normalize((0.5,) * 3, (0.25,) * 3, torch.device("cpu"))
    heads = {"gender": Classes("gender", 2)}
    predictor = Predictor(
        LeftHalf(), normalize, torch.float32, batch_size=2, heads=heads, views=views
    )
    return predictor(images_NHWC, np.arange(len(images_NHWC)))["gender"]


def test_two_views_give_the_mean_of_their_probabilities():
    images_NHWC = np.random.default_rng(0).integers(0, 256, (5, 8, 6, 3), np.uint8)
    images_NHWC[:, :, :3] //= 2
    plain_NK, flip_NK = said(["plain"], images_NHWC), said(["flip"], images_NHWC)
    assert np.abs(plain_NK - flip_NK).max() > 0.1
    np.testing.assert_allclose(flip_NK, said(["plain"], images_NHWC[:, :, ::-1]), atol=1e-6)
    both_NK = said(["plain", "flip"], images_NHWC)
    np.testing.assert_allclose(both_NK, (plain_NK + flip_NK) / 2, atol=1e-6)
    assert both_NK.dtype == np.float32
