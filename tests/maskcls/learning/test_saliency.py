import numpy as np
import pytest
import torch
from torch import nn

from maskcls.learning import backbones, saliency
from maskcls.learning.heads import Classes, Distribution, Ordinal, Regression, WithYears
from maskcls.learning.predict import Normalize, Predictor

CPU = torch.device("cpu")


class Tiny(nn.Module):
    """One convolution, a ReLU in place, the mean and a linear head: Grad-CAM by hand is easy."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.linear = nn.Linear(4, 3)

    def forward(self, images_BCHW):
        return {"age": self.linear(self.act(self.conv(images_BCHW)).mean(dim=(2, 3)))}


AGES = {"age": Classes("age_band", 3)}


def predictor_of(model, heads=AGES):
    return Predictor(model, Normalize((0.5,) * 3, (0.25,) * 3, CPU), torch.float32, 8, heads)


def photos(count=2, height=16, width=12):
    return np.random.default_rng(0).integers(255, size=(count, height, width, 3), dtype=np.uint8)


def hooks_of(model):
    return [hook for module in model.modules() for hook in module._forward_hooks]


def test_it_is_the_formula():
    # The head is linear on the mean of each channel, so its gradient is the weight over the cells.
    torch.manual_seed(0)
    model, images = Tiny(), photos()
    predictor = predictor_of(model)
    heat = saliency.heat_maps(predictor, images, "age", [0, 2])
    with torch.no_grad():
        features = model.act(model.conv(predictor.normalize(images)))
    for place, index in enumerate((0, 2)):
        weights = model.linear.weight[index].detach() / features[0, 0].numel()
        expected = (weights[:, None, None] * features[place]).sum(dim=0).relu()
        expected = nn.functional.interpolate(expected[None, None], (16, 12), mode="bilinear")[0, 0]
        np.testing.assert_allclose(heat[place], expected / expected.max(), atol=1e-5)


def test_maps_have_the_size_of_the_image_and_end_at_one():
    torch.manual_seed(1)
    heat = saliency.heat_maps(predictor_of(Tiny()), photos(), "age", [1, 1])
    assert heat.shape == (2, 16, 12)
    assert heat.dtype == np.float32
    assert heat.min() >= 0
    assert heat.max() == pytest.approx(1)


def test_where_nothing_speaks_for_a_class_the_map_is_zero():
    model = Tiny()
    nn.init.constant_(model.linear.weight, -1.0)
    assert not saliency.heat_maps(predictor_of(model), photos(), "age", [0, 0]).any()


def test_a_head_may_work_in_place_on_the_feature_map():
    class InPlace(Tiny):
        def forward(self, images_BCHW):
            return {"age": self.linear(self.conv(images_BCHW).relu_().mean(dim=(2, 3)))}

    torch.manual_seed(0)
    model = InPlace()
    with torch.no_grad():
        model.linear.weight.abs_()
    heat = saliency.heat_maps(predictor_of(model), photos(1), "age", [0])
    assert heat.max() == pytest.approx(1)


def test_it_finds_what_decides():
    # Channel 0 is the red of the photo, and class 0 wants it: the red corner must light up.
    model = Tiny()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.conv.weight[0, 0, 1, 1] = model.linear.weight[0, 0] = 1
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[0, :8, :8, 0] = 255
    (heat,) = saliency.heat_maps(predictor_of(model), image, "age", [0])
    assert heat[:6, :6].min() > 0.9
    assert heat[12:, 12:].max() == 0


@pytest.mark.parametrize(
    "name", ["test_efficientnet", "mobilenetv2_100", "shufflenet_v2_x1_0", "squeezenet1_1"]
)
def test_backbones_are_explained_and_left_as_they_were(name):
    torch.manual_seed(0)
    model = backbones.build(name, {"age": 3}, weights=None, image_size=(64, 48)).eval()
    predictor, images = predictor_of(model), photos(1, 64, 48)
    before = predictor(images, np.arange(1))["age"]
    heat = saliency.heat_maps(predictor, images, "age", [int(before.argmax())])
    assert heat.shape == (1, 64, 48)
    assert not hooks_of(model)
    assert all(parameter.grad is None for parameter in model.parameters())
    np.testing.assert_array_equal(predictor(images, np.arange(1))["age"], before)


def test_hooks_go_where_the_model_fails():
    model = Tiny()
    with pytest.raises(RuntimeError):
        saliency.heat_maps(predictor_of(model), photos()[..., :2], "age", [0, 0])
    with pytest.raises(KeyError):
        saliency.heat_maps(predictor_of(model), photos(), "mask", [0, 0])
    assert not hooks_of(model)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_vit"])
def test_a_transformer_shows_the_patches_that_its_last_block_reads(name):
    torch.manual_seed(0)
    model = backbones.build(name, {"age": 3}, weights=None, image_size=(64, 48)).eval()
    predictor, images = predictor_of(model), photos(1, 64, 48)
    (heat,) = saliency.heat_maps(predictor, images, "age", [1])
    tokens = []
    norm = model.backbone.blocks[-1].norm1
    handle = norm.register_forward_hook(lambda module, inputs, output: tokens.append(output))
    logit = model(predictor.normalize(images))["age"][0, 1]
    handle.remove()
    (gradient,) = torch.autograd.grad(logit, tokens[0])
    weights = gradient[0, 1:].mean(dim=0)
    expected = (tokens[0][0, 1:].detach() @ weights).relu().view(1, 1, *(64 // 16, 48 // 16))
    expected = nn.functional.interpolate(expected, (64, 48), mode="bilinear")[0, 0]
    np.testing.assert_allclose(heat, expected / expected.max(), atol=1e-5)
    assert not hooks_of(model)


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224"])
def test_channels_last_are_not_mistaken_for_rows(name):
    torch.manual_seed(0)
    model = backbones.build(name, {"age": 3}, weights=None, image_size=(128, 96)).eval()
    predictor, images = predictor_of(model), photos(1, 128, 96)
    (heat,) = saliency.heat_maps(predictor, images, "age", [1])
    with torch.no_grad():
        features_hwC = model.backbone.forward_features(predictor.normalize(images))[0]
    # The head is linear on the mean over the cells.
    expected = (features_hwC @ model.heads["age"].weight[1].detach()).relu()[None, None]
    assert expected.shape[2:] == (4, 3)
    expected = nn.functional.interpolate(expected, (128, 96), mode="bilinear")[0, 0]
    np.testing.assert_allclose(heat, expected / expected.max(), atol=1e-4)


def test_a_network_of_one_cell_has_nothing_to_show():
    class OneCell(Tiny):
        def forward(self, images_BCHW):
            return {"age": self.linear(images_BCHW.mean(dim=(2, 3)) @ torch.ones(3, 4))}

    with pytest.raises(ValueError, match="more than one cell"):
        saliency.heat_maps(predictor_of(OneCell()), photos(), "age", [0, 0])


@pytest.mark.parametrize(
    "head", [Regression(), Ordinal(), Distribution(sigma_years=3.0), WithYears(AGES["age"], 0.1)]
)
def test_every_way_to_tell_age_is_explained_by_its_bands(head):
    class Other(Tiny):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, head.outputs)

    torch.manual_seed(1)
    predictor, images = predictor_of(Other(), {"age": head}), photos(1)
    maps = [saliency.heat_maps(predictor, images, "age", [band]) for band in range(3)]
    # What raises one band lowers another, and what is shown is what raises it.
    assert any(heat.max() == 1 for heat in maps)
    assert not np.array_equal(maps[0], maps[2])
