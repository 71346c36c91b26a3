"""Files that somebody broke: read, or refused in our own words, by name."""

import traceback
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maskcls.config.load import load
from maskcls.config.schema import Config
from maskcls.data import label_fixes, manifest
from maskcls.learning import checkpoint
from maskcls.reports import finished_run
from maskcls.scoring import submission
from ray_jobs.run.folder import RunFolder
from tests import made_run
from tests.conftest import ROOT
from tests.maskcls.learning.test_checkpoint import make_info, make_state, make_training

# What breaks real files: cut off, a block of zeros, an editor's encoding, a merge, a typo.
WORDS = (
    b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n", b'"', b",", b";", b"{", b"}", b"[",
    b"]", b"null", b"NaN", b"-1", b"1e999", b"99999999999999999999", b"true", b"{}", b"[]",
    b"!!python", b"&a", b"*a", b": ", b"- ", b"\t", "é".encode(), "é".encode("cp1252"), b"../x",
)  # fmt: skip
edits = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from(WORDS)), min_size=1, max_size=4
)


def broken(content, edits):
    """``content`` with each edit's word in the place of so many bytes (12: of all that follow)."""
    for place, length, word in edits:
        start = int(place * len(content))
        rest = b"" if length == 12 else content[start + length :]
        content = content[:start] + word + rest
    return content


def answered(read, *names):
    """Whether ``read`` worked; fails where it ends in anything but our own words."""
    try:
        read()
    except (ValueError, OSError) as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        assert Path(frame.filename).is_relative_to(ROOT) and ".venv" not in frame.filename, (
            f"from inside a library: {error!r}"
        )
        assert any(name in str(error) for name in names), f"names no file: {error}"
        return False
    return True


def fuzz(test):
    quick = settings(
        max_examples=60,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    return quick(given(edits)(test))


INFO = b"ImageID,ans\na.jpg,0\nb.jpg,3\nc.jpg,17\n"


@fuzz
def test_info_csv(tmp_path, edits):
    (tmp_path / "eval" / "images").mkdir(parents=True, exist_ok=True)
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / "eval" / "images" / name).write_bytes(b"x")
    (tmp_path / "eval" / "info.csv").write_bytes(broken(INFO, edits))
    answered(lambda: manifest.read_eval(tmp_path), str(tmp_path / "eval"))


@fuzz
def test_submissions_and_answers(tmp_path, edits):
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_bytes(INFO)
    bad.write_bytes(broken(INFO, edits))
    answered(lambda: submission.score(bad, good), "bad.csv")
    answered(lambda: submission.score(good, bad), "bad.csv", "good.csv")
    answered(lambda: submission.vote_submissions([good, bad]), "bad.csv")


@fuzz
def test_label_fixes(tmp_path, edits):
    path = tmp_path / "fixes.yaml"
    path.write_bytes(broken((ROOT / "configs" / "label_fixes.yaml").read_bytes(), edits))
    answered(lambda: label_fixes.load_fixes(path), "fixes.yaml")


@pytest.mark.parametrize("name", ["demo.yaml", "tune.yaml", "tasks/age.yaml"])
@fuzz
def test_configurations(tmp_path, name, edits):
    path = tmp_path / "broken.yaml"
    path.write_bytes(broken((ROOT / "configs" / name).read_bytes(), edits))
    answered(lambda: load([path]), "broken.yaml")


@fuzz
def test_words_of_the_command_line(edits):
    content = b"tune.space={train.lr: {loguniform: [1e-5, 1e-3]}, loss.name: [focal, f1]}"
    word = broken(content, edits).decode("utf-8", "replace")
    answered(lambda: load(words=[word]), "command line", repr(word)[1:-1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A checkpoint, as bytes."""
    folder = tmp_path_factory.mktemp("checkpoint")
    checkpoint.save(folder, make_state(), make_info())
    checkpoint.save_resume(folder, make_training("a"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("checkpoint.json", checkpoint.read_info),
        ("model.safetensors", checkpoint.load_weights),
        ("resume.pt", lambda folder: checkpoint.load_resume(folder, "a")),
    ],
)
@fuzz
def test_checkpoints(tmp_path, whole, name, read, edits):
    (tmp_path / name).write_bytes(broken(whole[name], edits))
    answered(lambda: read(tmp_path), name)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = made_run.make(tmp_path_factory.mktemp("run"), photos=False, weights=False)
    (folder / "config.yaml").write_text(Config().yaml())
    return folder


@pytest.mark.parametrize(
    "name", ["scores.json", "manifest.parquet", "out_of_fold.parquet", "config.yaml"]
)
@fuzz
def test_finished_runs(run_folder, name, edits):
    path = run_folder / name
    before = path.read_bytes()
    path.write_bytes(broken(before, edits))
    try:
        read = RunFolder(run_folder).config if name == "config.yaml" else None
        answered(read or (lambda: finished_run.read(run_folder)), name)
    finally:
        path.write_bytes(before)
