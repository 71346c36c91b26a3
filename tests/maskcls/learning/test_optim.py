"""Optimisers are torch's, by way of timm, with the right settings; schedules agree with torch's."""

import inspect

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from maskcls.learning import backbones, optim

EPOCHS, STEPS = 6, 10
TOTAL = EPOCHS * STEPS


def parameters():
    return [torch.nn.Parameter(torch.ones(3))]


def build_optimizer(name, **options):
    return optim.build_optimizer(name, Three(), lr=0.1, weight_decay=0.01, **options)


class Three(torch.nn.Module):
    def __init__(self):
        super().__init__()
        (self.weight,) = parameters()


def build_schedule(name, **options):
    return optim.build_schedule(name, epochs=EPOCHS, steps_per_epoch=STEPS, **options)


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("adam", torch.optim.Adam, {"amsgrad": False}),
        ("adamw", torch.optim.AdamW, {"amsgrad": False}),
        ("rmsprop", torch.optim.RMSprop, {"alpha": 0.9, "momentum": 0.9}),
        ("sgd", torch.optim.SGD, {"momentum": 0.9, "nesterov": False}),
    ],
)
def test_optimizers_are_torchs_with_our_defaults(name, kind, settings):
    optimizer = build_optimizer(name)
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    expected = {"lr": 0.1, "weight_decay": 0.01, **settings}
    assert {key: group[key] for key in expected} == expected


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
@pytest.mark.parametrize(
    ("option", "value"), [("amsgrad", True), ("momentum", 0.5), ("alpha", 0.5)]
)
def test_an_optimizer_option_arrives_or_is_refused(name, option, value):
    if option in inspect.signature(optim.OPTIMIZERS[name]).parameters:
        assert build_optimizer(name, **{option: value}).param_groups[0][option] == value
    else:
        with pytest.raises(ValueError, match=f"'{name}'.*got {option}"):
            build_optimizer(name, **{option: value})


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_optimizers_step_downhill(name):
    model = Three()
    optimizer = optim.build_optimizer(name, model, lr=0.01, weight_decay=0.0)
    (model.weight**2).sum().backward()
    optimizer.step()
    assert (model.weight < 1).all()


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match="unknown optimizer 'adamww': did you mean 'adamw'"):
        build_optimizer("adamww")
    with pytest.raises(ValueError, match="unknown schedule 'cosin': did you mean 'cosine'"):
        build_schedule("cosin")


def test_set_lr_reaches_every_group():
    first, second = parameters(), parameters()
    optimizer = torch.optim.SGD([{"params": first}, {"params": second, "lr": 3.0}], lr=1.0)
    optim.set_lr(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


def groups_of(optimizer, model):
    """Parameter name -> the settings of its group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: group for group in optimizer.param_groups for p in group["params"]}


def make_classifier(name="test_efficientnet"):
    return backbones.build(name, {"age": 3}, weights=None, image_size=(32, 32))


def test_every_parameter_decays_unless_told_otherwise():
    model = make_classifier()
    plain, spared = (
        groups_of(
            optim.build_optimizer("adamw", model, lr=1, weight_decay=0.1, no_decay_norms=spare),
            model,
        )
        for spare in (False, True)
    )
    assert plain.keys() == spared.keys() == dict(model.named_parameters()).keys()
    assert {group["weight_decay"] for group in plain.values()} == {0.1}
    norms_and_biases = {
        f"{path}.{name}"
        for path, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
        if name == "bias" or isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
    }
    without = {name for name, group in spared.items() if group["weight_decay"] == 0}
    assert without == norms_and_biases
    assert all(spared[name]["weight_decay"] == 0.1 for name in spared.keys() - without)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit"])
def test_layer_decay_lowers_the_rate_layer_by_layer(name):
    model = make_classifier(name)
    optimizer = optim.build_optimizer("adamw", model, lr=1, weight_decay=0.1, layer_decay=0.5)
    optim.set_lr(optimizer, 0.1)
    groups = groups_of(optimizer, model)
    assert groups.keys() == dict(model.named_parameters()).keys()
    assert {group["weight_decay"] for group in groups.values()} == {0.1}
    assert groups["heads.age.weight"]["lr"] == groups["heads.age.bias"]["lr"] == 0.1
    first = groups[next(iter(groups))]
    stem = "backbone.conv_stem.weight" if "net" in name else "backbone.patch_embed.proj.weight"
    blocks = [groups[key]["lr"] for key in dict(model.named_parameters()) if ".blocks." in key]
    assert blocks == sorted(blocks)
    assert groups[stem]["lr"] == min(group["lr"] for group in groups.values()) < min(blocks)
    rates = sorted({group["lr"] for group in groups.values()}, reverse=True)
    assert rates == pytest.approx([0.1 * 0.5**layer for layer in range(len(rates))])
    assert len(rates) > 3 and first["lr"] < 0.1


@pytest.mark.parametrize("spare", [False, True])
@pytest.mark.parametrize("layer_decay", [None, 0.5])
def test_heads_get_a_rate_of_their_own(layer_decay, spare):
    model = make_classifier()
    options = {"lr": 1, "weight_decay": 0.1, "layer_decay": layer_decay, "no_decay_norms": spare}
    plain, apart = (
        optim.build_optimizer("adamw", model, **options, **own) for own in ({}, {"head_lr": 3.0})
    )
    for optimizer in (plain, apart):
        optim.set_lr(optimizer, 0.1)
    before, after = groups_of(plain, model), groups_of(apart, model)
    assert before.keys() == after.keys() == dict(model.named_parameters()).keys()
    for name, group in after.items():
        factor = 3 if name.startswith("heads.") else 1
        assert group["lr"] == pytest.approx(factor * before[name]["lr"]), name
        assert group["weight_decay"] == before[name]["weight_decay"], name


def test_layer_decay_is_refused_where_layers_are_not_known():
    with pytest.raises(ValueError, match=r"optimizer\.layer_decay .* timm's backbones"):
        optim.build_optimizer(
            "sgd", make_classifier("squeezenet1_1"), lr=1, weight_decay=0, layer_decay=0.5
        )


def cosine(optimizer, steps):
    return lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps, eta_min=0.1)


def restarts(optimizer, steps):
    return lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=steps // 4, eta_min=0.1)


def step(optimizer, steps):
    return lr_scheduler.StepLR(optimizer, step_size=15, gamma=0.3)


def exponential(optimizer, steps):
    return lr_scheduler.ExponentialLR(optimizer, gamma=0.5 ** (1 / STEPS))


def linear(optimizer, steps):
    return lr_scheduler.LinearLR(optimizer, 1.0, end_factor=0.1, total_iters=steps)


def constant(optimizer, steps):
    return lr_scheduler.ConstantLR(optimizer, factor=1.0)


EQUIVALENTS = [
    ("constant", {}, constant),
    ("cosine", {"min_factor": 0.1}, cosine),
    ("cosine_restarts", {"min_factor": 0.1, "cycles": 4}, restarts),
    ("step", {"step_epochs": 1.5, "gamma": 0.3}, step),
    ("exponential", {"gamma": 0.5}, exponential),
    ("linear", {"min_factor": 0.1}, linear),
]


@pytest.mark.parametrize("warmup_epochs", [0.0, 1.2])
@pytest.mark.parametrize(("name", "options", "torchs"), EQUIVALENTS)
def test_schedules_agree_with_torch(name, options, torchs, warmup_epochs):
    warmup = round(warmup_epochs * STEPS)
    optimizer = torch.optim.SGD(parameters(), lr=1.0)
    scheduler = torchs(optimizer, TOTAL - warmup)
    if warmup:
        rise = lr_scheduler.LinearLR(optimizer, 1 / (warmup + 1), total_iters=warmup)
        scheduler = lr_scheduler.SequentialLR(optimizer, [rise, scheduler], milestones=[warmup])
    factor = build_schedule(name, warmup_epochs=warmup_epochs, **options)
    for number in range(TOTAL):
        assert factor(number) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9), number
        optimizer.step()
        scheduler.step()


@given(
    name=st.sampled_from(sorted(optim.SCHEDULES)),
    epochs=st.integers(1, 40),
    steps_per_epoch=st.integers(1, 50),
    warmup=st.floats(0, 0.9),
)
def test_factors_are_shares_of_the_highest_rate_which_is_reached(
    name, epochs, steps_per_epoch, warmup
):
    total = epochs * steps_per_epoch
    factor = optim.build_schedule(
        name,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        warmup_epochs=int(warmup * total) / steps_per_epoch,
    )
    factors = [factor(number) for number in range(total)]
    assert all(0 < value <= 1 for value in factors)
    assert max(factors) == 1


@pytest.mark.parametrize("name", ["step", "exponential"])
def test_a_floor_holds(name):
    assert build_schedule(name, gamma=0.1, min_factor=0.05)(TOTAL - 1) == 0.05


def test_restarts_start_at_the_highest_rate_also_when_cycles_do_not_divide_the_steps():
    factor = optim.build_schedule("cosine_restarts", epochs=1, steps_per_epoch=100, cycles=3)
    jumps = [number for number in range(1, 100) if factor(number) > factor(number - 1)]
    assert jumps == [34, 67]
    assert all(factor(number) > 0.99 for number in jumps)


def test_step_drops_at_each_third_by_default():
    factor = build_schedule("step")
    drops = [number for number in range(1, TOTAL) if factor(number) < factor(number - 1)]
    assert drops == [20, 40]


OPTIONS = {"min_factor": 0.6, "cycles": 2, "step_epochs": 1.0, "gamma": 0.7}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", optim.SCHEDULES)
def test_a_schedule_option_is_used_or_refused(name, option):
    options = {option: OPTIONS[option]}
    if option in inspect.signature(optim.SCHEDULES[name]).parameters:
        plain, changed = build_schedule(name), build_schedule(name, **options)
        assert any(plain(number) != changed(number) for number in range(TOTAL))
    else:
        with pytest.raises(ValueError, match=f"'{name}'.*got {option}"):
            build_schedule(name, **options)


@pytest.mark.parametrize("warmup_epochs", [-1.0, EPOCHS, EPOCHS + 1.0])
def test_a_warmup_that_leaves_no_step_is_refused(warmup_epochs):
    with pytest.raises(ValueError, match="warmup_epochs"):
        build_schedule("cosine", warmup_epochs=warmup_epochs)
