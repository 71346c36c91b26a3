"""Facts of this machine, and of paths that are wrong; nothing here starts Ray."""

import socket

from ray_jobs.health import facts as node_facts
from ray_jobs.health.facts import Mark, Port, check_path

MARK = Mark(".doctor-mark", "what the driver wrote")


def test_a_path_that_is_shared_is_seen_with_what_the_driver_wrote(tmp_path):
    (tmp_path / MARK.file).write_text(MARK.text)
    facts = check_path(tmp_path, mark=MARK, write=True)
    assert facts.error is None
    assert 0 < facts.free < facts.total
    assert [entry.name for entry in tmp_path.iterdir()] == [MARK.file]


def test_another_folder_of_the_same_name_is_not_taken_for_the_driver_s(tmp_path):
    assert "without what the driver just wrote" in check_path(tmp_path, mark=MARK).error
    (tmp_path / MARK.file).write_text("of another driver")
    assert "without what the driver just wrote" in check_path(tmp_path, mark=MARK).error
    assert "No such file" in check_path(tmp_path / "none", mark=MARK).error


def test_what_is_no_folder_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    assert check_path(tmp_path / "file", write=True).error
    assert check_path(tmp_path / "file" / "below", write=True).error
    assert check_path(tmp_path / "file", listing=True).error
    assert check_path(tmp_path / "none", listing=True).error


def test_a_folder_that_a_run_would_make_is_tried_and_leaves_nothing(tmp_path):
    assert check_path(tmp_path / "a" / "b", write=True).error is None
    assert list(tmp_path.iterdir()) == []


def test_the_names_of_photos_count_and_their_order_does_not(tmp_path):
    (tmp_path / "train" / "images" / "000001_female_Asian_45").mkdir(parents=True)
    before = check_path(tmp_path, listing=True).listing
    assert check_path(tmp_path, listing=True).listing == before
    (tmp_path / "train" / "images" / "000002_female_Asian_45").mkdir()
    assert check_path(tmp_path, listing=True).listing != before


def test_ports_that_nobody_listens_on_are_told():
    with socket.socket() as open_, socket.socket() as closed:
        open_.bind(("127.0.0.1", 0))
        open_.listen()
        closed.bind(("127.0.0.1", 0))  # and does not listen
        ports = [Port(name, *place.getsockname()) for name, place in
                 {"here": open_, "nobody": closed}.items()]  # fmt: skip
        (told,) = node_facts._unreachable(ports)
    assert told.startswith("nobody at 127.0.0.1:")


def test_this_process_knows_what_it_runs_on():
    found = node_facts.environment()
    assert found.packages["ray"].startswith("2.")
    assert None not in found.packages.values()
    assert found.code == node_facts.code_digest()
