"""One step of a model in training: what is mixed, clipped, computed in which type, and shared."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from maskcls.config.recipe import Recipe
from maskcls.labels import HEADS, LABEL_COLUMNS, Task, age_band
from maskcls.learning import losses, predict
from maskcls.learning.learner import Learner, _seed_of
from tests.maskcls.learning import workers

CPU = torch.device("cpu")
PRECISION = predict.precision_dtype
SIZE = (32, 32)
PHOTOS, BATCH = 24, 8
MIXES = ["mixup", "cutmix", "vertical_cutmix"]


def make_labels():
    rng = np.random.default_rng(0)
    labels = {
        "mask": rng.integers(0, 3, PHOTOS),
        "gender": rng.integers(0, 2, PHOTOS),
        "age": rng.integers(18, 66, PHOTOS),
    }
    labels["age_band"] = age_band(labels["age"])
    labels["joint"] = labels["mask"] * 6 + labels["gender"] * 3 + labels["age_band"]
    return labels


def make_photos():
    return np.random.default_rng(1).integers(0, 256, (PHOTOS, *SIZE, 3), dtype=np.uint8)


def make_learner(task=Task.AGE, *, world=1, **sections):
    # Without batch norm and dropout a step depends on nothing but what is tested.
    recipe = Recipe.model_validate(
        {"model": {"name": "test_vit"}, "image": {"size": SIZE}}
        | {"train": {"lr": 1e-2, "epochs": 3}, "optimizer": {"name": "sgd", "weight_decay": 0.0}}
        | sections
    )
    torch.manual_seed(3)
    return Learner(task, recipe, make_labels(), steps_per_epoch=3, device=CPU, seed=5, world=world)


def train(learner, first, last, *, rank=0, world=1, epochs_of=3):
    """Steps ``first`` to ``last`` - 1 of the job; returns their losses."""
    photos, told = make_photos(), []
    for number in range(first, last):
        if number == first or number % epochs_of == 0:
            learner.start_epoch(number // epochs_of + 1, rank)
        start = number % epochs_of * BATCH
        items = np.arange(start, start + BATCH)[rank::world]
        told.append(learner.step(photos[items], items, epoch=1, number=number))
    return torch.stack(told)


def weights_of(learner):
    return {name: value.clone() for name, value in learner.model.state_dict().items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


# Mixing


class Seen(torch.nn.Module):
    """Stands in for the model and the loss: logits that nothing learns, and what came in."""

    def __init__(self, heads):
        super().__init__()
        self.heads, self.inputs = heads, None
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, inputs_BCHW):
        self.inputs = inputs_BCHW.detach().clone()
        return {
            head: self.scale * torch.zeros(len(inputs_BCHW), k) for head, k in self.heads.items()
        }


def mixed_step(learner, heads):
    """Inputs, and the targets of each head, of one step on photos of one colour each: photo i has
    the level 10 i, so a mixed photo's mean tells what it is made of."""
    targets = {}
    model = Seen(heads)
    learner._replica = model
    for head in heads:

        def note(logits, wanted, head=head):
            targets[head] = wanted.clone()
            return logits.sum()

        learner._losses[head] = note
    items = np.arange(BATCH)
    photos = np.ones((BATCH, *SIZE, 3), np.uint8) * (10 * items[:, None, None, None]).astype(
        np.uint8
    )
    learner.step(photos, items, epoch=1, number=0)
    normalize = learner.normalize
    levels = (model.inputs * torch.tensor(normalize.std)[:, None, None]) + torch.tensor(
        normalize.mean
    )[:, None, None]
    return 255 * levels.mean(dim=(1, 2, 3)) / 10, targets


def share_of(learner):
    """What a photo keeps in the first step of the first epoch."""
    generator = torch.Generator().manual_seed(_seed_of(learner._seed, 1, 0))
    return learner._mix(torch.zeros(BATCH, 3, *SIZE), generator)[2]


def expected_partners(means, share):
    """The partner of each photo, from the mean of the mixed one: share i + (1 - share) partner."""
    partners = (means - share * torch.arange(BATCH)) / (1 - share)
    torch.testing.assert_close(partners, partners.round(), atol=0.05, rtol=0)
    return partners.round().long()


@pytest.mark.parametrize("task", [Task.MASK, Task.GENDER, Task.AGE, Task.JOINT, Task.MULTI])
@pytest.mark.parametrize("mix", MIXES)
def test_targets_are_mixed_as_the_photos_are(task, mix):
    learner = make_learner(task, augment={"mix": {"name": mix, "alpha": 2.0}})
    share = share_of(learner)
    means, targets = mixed_step(learner, HEADS[task])
    assert 0 < share < 1 and abs(share - 0.5) > 0.02  # else a swapped share would look the same
    partners = expected_partners(means, share)
    assert (partners != torch.arange(BATCH)).any()
    for head, classes in HEADS[task].items():
        labels = torch.from_numpy(make_labels()[LABEL_COLUMNS[head]][:BATCH])
        hard = one_hot(labels, classes).float()
        torch.testing.assert_close(targets[head], share * hard + (1 - share) * hard[partners])


@pytest.mark.parametrize("mix", MIXES)
def test_ages_are_mixed_as_the_photos_are(mix):
    learner = make_learner(
        loss={"name": "age_regression"}, augment={"mix": {"name": mix, "alpha": 2.0}}
    )
    share = share_of(learner)
    means, targets = mixed_step(learner, {"age": 1})
    assert abs(share - 0.5) > 0.02
    partners = expected_partners(means, share)
    ages = torch.from_numpy(make_labels()["age"][:BATCH]).float()
    torch.testing.assert_close(targets["age"], share * ages + (1 - share) * ages[partners])


def test_without_mixing_targets_stay_hard():
    _, targets = mixed_step(make_learner(Task.MASK), HEADS[Task.MASK])
    labels = torch.from_numpy(make_labels()["mask"][:BATCH])
    assert torch.equal(targets["mask"], one_hot(labels, 3).float())


# One step


def test_a_step_is_that_of_plain_torch():
    learner = make_learner(Task.MASK)
    model = copy.deepcopy(learner.model)
    items = np.arange(BATCH)
    learner.start_epoch(1)
    loss = learner.step(make_photos()[items], items, epoch=1, number=0)
    logits = model.train()(learner.normalize(make_photos()[items]))["mask"]
    expected = cross_entropy(logits, torch.from_numpy(make_labels()["mask"][:BATCH]))
    torch.testing.assert_close(loss, expected.detach())
    expected.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 1e-2 * parameter.grad
    for (name, found), wanted in zip(
        learner.model.named_parameters(), model.parameters(), strict=True
    ):
        torch.testing.assert_close(found, wanted, msg=lambda text, name=name: f"{name}: {text}")


def test_the_rate_follows_the_schedule():
    learner = make_learner(schedule={"name": "linear", "warmup_epochs": 1})
    rates = []
    for number in range(9):
        train(learner, number, number + 1)
        rates.append(learner.lr)
    warmup, linear = [0.0025, 0.005, 0.0075], [0.01 * (1 - step / 6) for step in range(6)]
    assert rates == pytest.approx(warmup + linear)


def moved(learner):
    before = weights_of(learner)
    train(learner, 0, 1)
    after = weights_of(learner)
    return torch.stack([(after[k] - before[k]).norm() for k in before]).norm().item()


def test_gradients_are_clipped_to_the_norm():
    free = moved(make_learner())
    norm = free / 1e-2  # of plain SGD's first step with momentum
    limit = norm / 4
    train_of = {"lr": 1e-2, "epochs": 3}
    clipped = moved(make_learner(train=train_of | {"clip_grad_norm": limit}))
    assert clipped == pytest.approx(1e-2 * limit, rel=1e-3)
    loose = moved(make_learner(train=train_of | {"clip_grad_norm": 10 * norm}))
    assert loose == pytest.approx(free, rel=1e-5)


def test_multi_trains_on_the_sum_of_its_heads():
    learner = make_learner(Task.MULTI, model={"name": "test_efficientnet"})
    alone = {}
    for head in HEADS[Task.MULTI]:
        other = make_learner(Task.MULTI, model={"name": "test_efficientnet"})
        other._losses = {head: other._losses[head]}
        alone[head] = train(other, 0, 1)[0]
    torch.testing.assert_close(train(learner, 0, 1)[0], torch.stack([*alone.values()]).sum())


# Precision


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_computes_in_half_and_keeps_weights_in_float32(precision):
    learner = make_learner(train={"precision": precision, "lr": 1e-2, "epochs": 3})
    dtypes = []
    learner.model.backbone.blocks[0].attn.qkv.register_forward_hook(
        lambda module, inputs, output: dtypes.append(output.dtype)
    )
    half = train(learner, 0, 3)
    assert set(dtypes) == {getattr(torch, precision)}
    assert {p.dtype for p in learner.model.parameters()} == {torch.float32}
    full = train(make_learner(), 0, 3)
    # (The first steps of float16 are skipped until the scale of its gradients is found.)
    steps = 1 if precision == "float16" else 3
    torch.testing.assert_close(half[:steps], full[:steps], rtol=0.05, atol=0)


def fake_gpu(monkeypatch, capability):
    """``precision=auto`` chooses as on a GPU of this compute capability."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(
        predict, "precision_dtype", lambda precision, _: PRECISION(precision, torch.device("cuda"))
    )


@pytest.mark.parametrize(("first", "then"), [((8, 0), (7, 0)), ((7, 0), (8, 0))])
def test_a_job_goes_on_in_the_precision_that_it_began_with(monkeypatch, first, then):
    fake_gpu(monkeypatch, first)
    straight, begun = make_learner(), make_learner()
    assert begun.dtype == (torch.bfloat16 if first == (8, 0) else torch.float16)
    train(straight, 0, 6)
    train(begun, 0, 3)
    state = copy.deepcopy(begun.state())
    fake_gpu(monkeypatch, then)
    resumed = make_learner()
    assert resumed.dtype != begun.dtype
    resumed.restore(state)
    assert resumed.dtype == begun.dtype == resumed.predictor().dtype
    train(resumed, 3, 6)
    assert_same(weights_of(resumed), weights_of(straight))


def test_the_scale_of_the_gradients_goes_on():
    precision = {"train": {"precision": "float16", "lr": 1e-2, "epochs": 3}}
    learner, other = make_learner(**precision), make_learner(**precision)
    with torch.no_grad():
        learner.model.heads["age"].weight.fill_(1e6)  # overflows: the scale is halved
    before = learner.state()["scaler"]["scale"]
    train(learner, 0, 1)
    assert learner.state()["scaler"]["scale"] == before / 2
    other.restore(learner.state())
    assert other.state()["scaler"] == learner.state()["scaler"]


# Ages


def test_a_regression_learns_years_and_predicts_bands():
    learner = make_learner(
        loss={"name": "age_regression"}, optimizer={"name": "adam", "weight_decay": 0.0},
        train={"lr": 1e-3, "epochs": 20}, schedule={"name": "constant"},
    )  # fmt: skip
    told = train(learner, 0, 60)
    assert told[-3:].mean() < 0.2 * told[:3].mean()
    ages = torch.from_numpy(make_labels()["age"][:BATCH])
    photos = make_photos()
    with torch.inference_mode():
        years = losses.age_from_output(
            learner.model.eval()(learner.normalize(photos[:BATCH]))["age"]
        )
    assert (years - ages).abs().mean() < 8
    said = learner.predictor()(photos, np.arange(PHOTOS))["age"]
    assert said.shape == (PHOTOS, 3)
    assert (said.argmax(axis=1) == make_labels()["age_band"]).mean() > 0.7


# Going on


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"optimizer": {"name": "adamw", "amsgrad": True}},
        {"optimizer": {"name": "adamw", "no_decay_norms": True, "layer_decay": 0.8}},
        {"model": {"name": "test_efficientnet", "drop_rate": 0.3, "drop_path_rate": 0.2},
         "augment": {"mix": {"name": "cutmix"}}},
        {"train": {"precision": "bfloat16", "epochs": 3, "lr": 1e-2, "clip_grad_norm": 0.5}},
        {"train": {"epochs": 3, "lr": 1e-2, "ema": 0.9, "freeze_epochs": 2},
         "model": {"name": "test_efficientnet"}, "optimizer": {"name": "adam", "head_lr": 3.0}},
        {"age": {"name": "distribution"}, "augment": {"mix": {"name": "mixup"}},
         "train": {"epochs": 3, "lr": 1e-2, "ema": 0.9, "freeze_layers": 1}},
    ],
)  # fmt: skip
def test_going_on_from_a_state_is_as_if_nothing_had_happened(sections, tmp_path):
    straight, begun = make_learner(**sections), make_learner(**sections)
    train(straight, 0, 9)
    train(begun, 0, 3)
    torch.save(begun.state(), tmp_path / "state")
    torch.manual_seed(99)
    resumed = make_learner(**sections)
    train(resumed, 0, 2)  # whatever it did before
    resumed.restore(torch.load(tmp_path / "state", weights_only=True))
    train(resumed, 3, 9)
    assert_same(weights_of(resumed), weights_of(straight))
    assert_same(resumed.averaged.state_dict(), straight.averaged.state_dict())


# The moving average


def test_the_average_follows_its_formula_and_is_what_is_validated():
    settings = {"model": {"name": "test_efficientnet"}}
    learner = make_learner(train={"lr": 1e-2, "epochs": 3, "ema": 0.6}, **settings)
    plain = make_learner(train={"lr": 1e-2, "epochs": 3}, **settings)
    expected = None
    for number in range(6):
        train(learner, number, number + 1)
        train(plain, number, number + 1)
        assert_same(weights_of(learner), weights_of(plain))  # training itself is as without it
        keep = min(0.6, 1 - (1 + number) ** (-2 / 3))
        weights = {name: value.double() for name, value in weights_of(plain).items()}
        expected = {
            name: value if expected is None else keep * expected[name] + (1 - keep) * value
            for name, value in weights.items()
        }
    found = learner.averaged.state_dict()
    running = [name for name in found if name.endswith(("running_mean", "running_var"))]
    assert running, "a model with batch norm"
    for name, value in found.items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-4, atol=1e-6)
    assert learner.predictor().model is learner.averaged
    assert plain.predictor().model is plain.averaged is plain.model
    photos, rows = make_photos(), np.arange(PHOTOS)
    said = learner.predictor()(photos, rows)["age"]
    learner.model.load_state_dict(found)
    again = predict.Predictor(
        learner.model, learner.normalize, torch.float32, 64, learner.predictor().heads
    )
    np.testing.assert_array_equal(said, again(photos, rows)["age"])


# Freezing


def learned_by(learner, first, last):
    """The names of the weights and statistics that change in steps ``first`` to ``last`` - 1."""
    before = weights_of(learner)
    train(learner, first, last)
    after = weights_of(learner)
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit", "squeezenet1_1"])
def test_the_backbone_is_frozen_in_the_first_epochs(name):
    learner = make_learner(
        model={"name": name}, image={"size": (64, 64) if "squeeze" in name else SIZE},
        train={"lr": 1e-2, "epochs": 3, "freeze_epochs": 2},
        optimizer={"name": "adamw", "weight_decay": 0.1},
    )  # fmt: skip
    photos = np.random.default_rng(1).integers(
        0, 256, (PHOTOS, *learner.recipe.image.size, 3), dtype=np.uint8
    )

    def changed(epoch):
        before = weights_of(learner)
        learner.start_epoch(epoch)
        learner.step(photos[:BATCH], np.arange(BATCH), epoch=epoch, number=3 * epoch - 3)
        after = weights_of(learner)
        return {name for name in before if not torch.equal(before[name], after[name])}

    for epoch in (1, 2):
        assert {name.split(".")[0] for name in changed(epoch)} == {"heads"}
    # Biases before a batch norm may have no gradient but rounding; of most weights there is one.
    assert len([name for name in changed(3) if name.startswith("backbone.")]) > 5


def test_the_lowest_layers_stay_frozen():
    free = learned_by(make_learner(model={"name": "test_efficientnet"}), 0, 3)
    train_of = {"lr": 1e-2, "epochs": 3, "freeze_layers": 2}
    frozen = make_learner(model={"name": "test_efficientnet"}, train=train_of)
    layer_of = frozen.model.group_matcher()
    kept = {name for name in free if name.startswith("backbone.") and layer_of(name) < 2}
    assert any(name.endswith("running_mean") for name in free - kept)
    still = {name for name in free if name.startswith(("backbone.conv_stem", "backbone.bn1"))}
    changed = learned_by(frozen, 0, 3)
    assert still and not changed & (kept | still)
    assert any(name.startswith("backbone.blocks") for name in changed)


def test_more_frozen_layers_than_there_are_are_refused():
    learner = make_learner(train={"lr": 1e-2, "epochs": 3, "freeze_layers": 99})
    with pytest.raises(ValueError, match=r"freeze_layers: the backbone has \d+ layers, got 99"):
        learner.start_epoch(1)


# Partners


def test_partners_of_a_batch_are_of_the_chosen_groups():
    groups = [{"ages": [20, 29], "gender": "female"}, {"ages": [50, 99]}]
    learner = make_learner(augment={"mix": {"name": "mixup", "alpha": 2.0, "partners": groups}})
    labels = make_labels()
    young, old = (labels["age"] >= 20) & (labels["age"] <= 29), labels["age"] >= 50
    may = ((young & (labels["gender"] == 1)) | old)[:BATCH]
    assert 0 < may.sum() < BATCH
    generator = torch.Generator().manual_seed(_seed_of(learner._seed, 1, 0))
    share = learner._mix(torch.zeros(BATCH, 3, *SIZE), generator, may)[2]
    means, targets = mixed_step(learner, HEADS[Task.AGE])
    partners = expected_partners(means, share)
    assert may[partners.numpy()].all()
    hard = one_hot(torch.from_numpy(labels["age_band"][:BATCH]), 3).float()
    torch.testing.assert_close(targets["age"], share * hard + (1 - share) * hard[partners])


def test_partners_that_nobody_is_are_refused():
    with pytest.raises(ValueError, match=r"augment\.mix\.partners: nobody"):
        make_learner(augment={"mix": {"name": "cutmix", "partners": [{"ages": [90, 99]}]}})


# Several workers


SHARED = {
    "mean": {},
    "weighted": {"loss": {"name": "cross_entropy", "class_weights": [1.0, 2.0, 9.0]}},
    "clipped": {"train": {"lr": 1e-2, "epochs": 3, "clip_grad_norm": 0.3}},
    "averaged": {"train": {"lr": 1e-2, "epochs": 3, "ema": 0.9}},
    "adjusted": {"loss": {"name": "logit_adjusted"}},
    "distribution": {"age": {"name": "distribution"}},
    "ordinal": {"age": {"name": "ordinal"}},
    "years": {"age": {"years_weight": 0.5}},
    "frozen layer": {"train": {"lr": 1e-2, "epochs": 3, "freeze_layers": 2}},
    "frozen backbone": {"train": {"lr": 1e-2, "epochs": 3, "freeze_epochs": 1}},
}
UNEVEN = np.array([0, 2, 4, 5, 6, 7])
"""Photos of the second worker; the first has two."""


def uneven_step(rank, world):
    """Weights and loss after a step in which the workers have two photos and six."""
    photos, found = make_photos(), {}
    for name, sections in SHARED.items():
        learner = make_learner(world=world, **sections)
        learner.start_epoch(1, rank)
        items = np.arange(BATCH)
        if world > 1:
            items = UNEVEN if rank else np.setdiff1d(items, UNEVEN)
        loss = learner.step(photos[items], items, epoch=1, number=0)
        learner.predictor()  # every worker must be able to
        learner.start_epoch(2, rank)  # also to unfreeze
        found[name] = loss, weights_of(learner)
    return found


@pytest.fixture(scope="module")
def shared():
    return uneven_step(0, 1), *workers.run(uneven_step)


@pytest.mark.parametrize("name", SHARED)
def test_two_workers_take_the_step_of_one(shared, name):
    alone, *both = (found[name] for found in shared)
    before = weights_of(make_learner(**SHARED[name]))
    for loss, weights in both:
        torch.testing.assert_close(loss, alone[0])
        for key, value in weights.items():
            moved_by, wanted = value - before[key], alone[1][key] - before[key]
            torch.testing.assert_close(moved_by, wanted, rtol=1e-3, atol=1e-6)
    assert_same(both[0][1], both[1][1])
