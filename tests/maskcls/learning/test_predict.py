"""Photos become the input of a model as the formula says."""

import numpy as np
import pytest
import torch

from maskcls.learning.predict import Normalize

MEAN, STD = (0.1, 0.5, 0.9), (0.25, 0.5, 1.0)


@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (1, 1, 1, 3), (0, 5, 7, 3)])
def test_photos_are_normalised_by_channel_and_keep_their_layout(shape):
    images_BHWC = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    inputs_BCHW = Normalize(MEAN, STD, torch.device("cpu"))(images_BHWC)
    expected = (images_BHWC / 255 - MEAN) / STD
    assert inputs_BCHW.shape == (shape[0], 3, *shape[1:3])
    assert inputs_BCHW.is_contiguous(memory_format=torch.channels_last)
    assert inputs_BCHW.permute(0, 2, 3, 1).numpy() == pytest.approx(expected, abs=1e-6)
