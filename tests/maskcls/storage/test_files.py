import errno
import json
import os
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskcls.storage import files


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_and_in_folders_that_it_needs(tmp_path):
    path = tmp_path / "a" / "b" / "out.txt"
    with files.replacing(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == path.suffix
        temporary.write_text("half")
        assert not path.exists()
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert names_in(path.parent) == ["out.txt"]


def test_an_old_file_is_replaced_at_the_end(tmp_path):
    path = tmp_path / "out.txt"
    files.write_text(path, "old")
    with files.replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), OSError("bad")])
def test_a_failure_leaves_the_old_file_and_no_temporary(tmp_path, error):
    path = tmp_path / "out.txt"
    files.write_text(path, "old")
    with pytest.raises(type(error)), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["out.txt"]


def test_a_read_only_folder_is_named(tmp_path, monkeypatch):
    path = tmp_path / "out.txt"
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):  # root may write everywhere

        def refuse(**_):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path))

        monkeypatch.setattr(files.tempfile, "mkstemp", refuse)
    with pytest.raises(PermissionError, match=f"cannot write {path}: Permission denied; free"):
        files.write_text(path, "text")


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "out.txt"
    with pytest.raises(OSError, match=f"cannot write {path}: ") as caught:
        files.write_text(path, "text")
    assert caught.value.errno in (errno.EEXIST, errno.ENOTDIR)


def test_a_full_disk_is_told_with_the_file_and_what_to_do(tmp_path):
    path = tmp_path / "out.txt"
    with pytest.raises(OSError, match=rf"{path}: No space left.*free space") as caught:  # noqa: SIM117
        with files.replacing(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.errno == errno.ENOSPC


def test_an_error_without_a_number_keeps_its_words(tmp_path):
    # Writers such as pyarrow raise these.
    path = tmp_path / "out.parquet"
    with pytest.raises(OSError, match=f"cannot write {path}: disk quota"), files.replacing(path):
        raise OSError("disk quota exceeded")


def test_anyone_may_read_what_was_written(tmp_path):
    files.write_text(tmp_path / "out.txt", "text")
    assert (tmp_path / "out.txt").stat().st_mode & 0o777 == 0o644


def test_text_is_utf_8_with_plain_newlines(tmp_path):
    files.write_text(tmp_path / "out.txt", "é\n中\n")
    assert (tmp_path / "out.txt").read_bytes() == "é\n中\n".encode()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(json_values)
def test_json_is_read_back(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "value.json"
    files.write_json(path, value)
    assert files.read_json(path) == value


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "out.json", {"loss": float("nan")})
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    "content", [b"", b'{"a": ', b"\xff\xfe\x00", json.dumps([1]).encode()[:-1]]
)
def test_a_damaged_json_file_is_named(tmp_path, content):
    path = tmp_path / "job.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}: not valid JSON"):
        files.read_json(path)


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    path = tmp_path / "jobs" / "age" / "model.safetensors"
    with files.replacing(path) as temporary:
        temporary.write_text("whole")
    temporary.write_text("half")
    other = tmp_path / "other run"
    other.mkdir()
    (other / files.LEASE).touch()
    (other / temporary.name).write_text("being written")
    files.remove_cut_off(tmp_path)
    assert names_in(other) == [files.LEASE, temporary.name]
    shutil.rmtree(other)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["model.safetensors"]
