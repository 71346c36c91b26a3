import json
import threading
from importlib import metadata

import pytest
import torch

from maskcls.config.recipe import Recipe
from maskcls.labels import Task
from maskcls.learning import checkpoint
from maskcls.learning.checkpoint import Info


def make_info(**change):
    values = {
        "identity": "0123456789abcdef",
        "task": Task.AGE,
        "fold": 2,
        "recipe": Recipe.model_validate(
            {"image": {"size": [64, 48]}, "people": {"blend": [{"ages": [60, 100]}]}}
        ),
        "classes": checkpoint.labels_of(Task.AGE),
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.2, 0.2),
        "seed": 42,
        "epoch": 3,
        "scores": {"macro_f1": 0.75, "loss": 1 / 3},
        "versions": checkpoint.versions(),
    }
    return Info(**values | change)


def make_state():
    generator = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(4, 3, 3, 3, generator=generator).to(
            memory_format=torch.channels_last
        ),
        "norm.num_batches_tracked": torch.tensor(7),
        "head.bias": torch.randn(3, generator=generator, requires_grad=True),
        "half": torch.ones(2, dtype=torch.bfloat16),
    }


def assert_same_state(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


@pytest.fixture
def folder(tmp_path):
    checkpoint.save(tmp_path / "job", make_state(), make_info())
    return tmp_path / "job"


def change_json(folder, **change):
    path = folder / "checkpoint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def test_a_checkpoint_is_two_files_that_read_back(folder):
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoint.json", "model.safetensors",
    ]  # fmt: skip
    assert checkpoint.read_info(folder) == make_info()
    assert_same_state(checkpoint.load_weights(folder), make_state())


def test_a_better_epoch_replaces_the_checkpoint(folder):
    state = {"w": torch.zeros(1)}
    checkpoint.save(folder, state, make_info(epoch=4))
    assert checkpoint.read_info(folder).epoch == 4
    assert_same_state(checkpoint.load_weights(folder), state)


@pytest.mark.parametrize("task", Task)
def test_the_classes_of_a_task_are_named_in_order(task):
    classes = checkpoint.labels_of(task)
    assert {head: len(names) for head, names in classes.items()} == {
        "mask": {"mask": 3},
        "gender": {"gender": 2},
        "age": {"age": 3},
        "joint": {"joint": 18},
        "multi": {"mask": 3, "gender": 2, "age": 3},
    }[task]


def test_versions_name_what_a_result_depends_on():
    versions = checkpoint.versions()
    assert set(versions) <= set(checkpoint.PACKAGES)
    assert versions["torch"] == metadata.version("torch")


def test_a_folder_without_description_is_no_checkpoint(tmp_path):
    checkpoint.save_weights(tmp_path / "model.safetensors", make_state())
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}: no checkpoint.json"):
        checkpoint.read_info(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 0}, "schema 0, expected 1"),
        ({"schema_version": None}, "schema None, expected 1"),
        ({"classes": {"age": ["old", "middle", "young"]}}, "are not those of this version"),
        ({"recipe": {"model": {"nmae": "resnet50"}}}, "recipe.model.nmae"),
        ({"task": "hair"}, "task"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_checkpoint_of_another_version_is_refused_by_name(folder, change, message):
    change_json(folder, **change)
    with pytest.raises(ValueError, match=message) as caught:
        checkpoint.read_info(folder)
    assert str(folder / "checkpoint.json") in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "3"])
def test_a_damaged_description_is_refused_by_name(folder, content):
    (folder / "checkpoint.json").write_text(content)
    with pytest.raises(ValueError, match=str(folder / "checkpoint.json")):
        checkpoint.read_info(folder)


@pytest.mark.parametrize("damage", ["empty", "cut header", "cut", "garbage", "missing"])
def test_damaged_weights_are_refused_by_name(folder, damage):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "cut header": whole[:20], "cut": whole[:-1], "garbage": b"\xff" * 200}.get(
            damage, b""
        )
    )
    if damage == "missing":
        path.unlink()
    with pytest.raises(ValueError, match=f"{path}: cannot read the weights .*train it again"):
        checkpoint.load_weights(folder)


# Going on


def make_training(identity):
    """The state of a real optimiser after a step, with the history of its epochs."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return {
        "identity": identity,
        "history": [{"epoch": 1.0, "val/macro_f1": 0.5}],
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }


def test_a_job_goes_on_from_what_it_saved(tmp_path):
    state = make_training("a")
    checkpoint.save_resume(tmp_path, state)
    found = checkpoint.load_resume(tmp_path, "a")
    assert found["history"] == state["history"]
    assert_same_state(found["model"], state["model"])
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.5)
    optimizer.load_state_dict(found["optimizer"])
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_only_the_same_job_goes_on(tmp_path):
    assert checkpoint.load_resume(tmp_path, "a") is None
    checkpoint.save_resume(tmp_path, make_training("a"))
    assert checkpoint.load_resume(tmp_path, "b") is None
    checkpoint.save_resume(tmp_path, make_training("b"))
    assert checkpoint.load_resume(tmp_path, "b")["identity"] == "b"
    assert [path.name for path in tmp_path.iterdir()] == ["resume.pt"]


@pytest.mark.parametrize("keep", [0, 10, -1])
def test_a_damaged_resume_file_is_refused_by_name(tmp_path, keep):
    path = tmp_path / "resume.pt"
    checkpoint.save_resume(tmp_path, make_training("a"))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=f"{path}: cannot go on .*delete it"):
        checkpoint.load_resume(tmp_path, "a")


def test_nothing_is_run_from_a_resume_file(tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "attacked"), "w"))

    torch.save({"identity": "a", "x": Attack()}, tmp_path / "resume.pt")
    with pytest.raises(ValueError, match="cannot go on"):
        checkpoint.load_resume(tmp_path, "a")
    assert not (tmp_path / "attacked").exists()


# In the background


def test_a_copy_does_not_change_with_what_was_copied():
    tensor = torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last)
    state = {"model": {"w": tensor}, "groups": [{"lr": 0.1, "step": torch.tensor(3.0)}]}
    copy = checkpoint.copied(state)
    tensor.zero_()
    state["groups"][0]["lr"] = 0.2
    assert torch.equal(copy["model"]["w"], torch.ones(2, 3, 4, 4))
    assert copy["model"]["w"].stride() == tensor.stride()
    assert copy["groups"] == [{"lr": 0.1, "step": torch.tensor(3.0)}]


def test_writes_run_beside_training_one_at_a_time_and_in_order():
    may_end, order = threading.Event(), []

    def slow():
        assert may_end.wait(60)
        order.append("first")

    with checkpoint.Writer() as writer:
        writer.submit(slow)
        order.append("training")  # a write in the foreground would wait for ever before this
        may_end.set()
        writer.submit(lambda: order.append("second"))
        assert order[:2] == ["training", "first"]
    assert order == ["training", "first", "second"]


def fail():
    raise OSError("disk full")


@pytest.mark.parametrize("then", ["submit", "wait", "end"])
def test_a_write_that_fails_is_told(then):
    with pytest.raises(OSError, match="disk full"), checkpoint.Writer() as writer:
        writer.submit(fail)
        if then == "submit":
            writer.submit(lambda: None)
        elif then == "wait":
            writer.wait()


def test_another_error_is_kept_with_a_note_about_the_write():
    with pytest.raises(ValueError, match="training") as caught, checkpoint.Writer() as writer:
        writer.submit(fail)
        raise ValueError("training")
    assert "disk full" in caught.value.__notes__[0]


def test_the_block_ends_when_everything_is_written():
    may_end, written = threading.Event(), []
    with checkpoint.Writer() as writer:
        writer.submit(lambda: (may_end.wait(60), written.append(1)))
        threading.Timer(0.05, may_end.set).start()
    assert written == [1]
