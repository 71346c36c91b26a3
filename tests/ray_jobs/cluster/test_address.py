"""What is said of an address where no cluster is, within seconds; nothing here starts Ray."""

import http.server
import logging
import socket
import threading
from concurrent import futures

import grpc
import pytest

from ray_jobs.cluster import address, connect
from ray_jobs.cluster.nodes import Node


@pytest.fixture(autouse=True)
def temp(monkeypatch, tmp_path):
    for name in ("RAY_ADDRESS", "RAY_USE_TLS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    return tmp_path / "ray"


@pytest.fixture
def web_server():
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def silent_server():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def grpc_server():
    server = grpc.server(futures.ThreadPoolExecutor(2))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("http://127.0.0.1:8265", "address of a dashboard"),
        ("ray://127.0.0.1:10001", "Ray Client"),
        ("nonsense", "HOST:PORT"),
        ("127.0.0.1:{free}", "nothing answers there"),
    ],
)
def test_what_is_no_address_of_a_head(named, said, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", named.format(free=free_port()))
    with pytest.raises(ConnectionError, match=said) as raised:
        address.check(address.find())
    assert "unset RAY_ADDRESS" in str(raised.value)


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ("web_server", "an HTTP server answers there"),
        ("silent_server", "another service answers there"),
        ("grpc_server", "a gRPC server answers there"),
    ],
)
def test_another_service_is_named_within_ten_seconds(server, said, request):
    assert said in address.fault_at(request.getfixturevalue(server))
    assert address.CONNECT_S + address.GCS_S < 10


def test_the_file_that_a_dead_head_left_is_named(temp):
    temp.mkdir()
    file = temp / "ray_current_cluster"
    file.write_text(f"127.0.0.1:{free_port()}")
    with pytest.raises(ConnectionError, match=f"delete {file}"):
        address.check(address.find())


def test_without_an_address_a_cluster_is_started_here(monkeypatch):
    assert address.find() is None
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(ConnectionError, match="no cluster was started"):
        address.find()


def test_what_was_joined_is_said_by_its_name(temp):
    live = [Node("a", 2, 0)]
    assert "cluster of its own on this machine" in connect.summary(None, live)
    joined = address.Address("10.0.0.1:6379", temp / "ray_current_cluster")
    assert "cluster at 10.0.0.1:6379, 2 CPUs" in connect.summary(joined, live)
    assert "cluster at RAY_ADDRESS" in connect.summary(address.Address("10.0.0.1:6379"), live)


SLOW = Exception("The current node timed out during startup. This could happen because ...")


@pytest.mark.parametrize("failures", [1, 2])
def test_a_slow_start_is_tried_once_more_and_then_said(failures, monkeypatch, caplog):
    tries = []

    def init(**options):
        tries.append(options)
        if len(tries) <= failures:
            logging.getLogger("ray._private.services").error("Failed to start the dashboard")
            raise SLOW
        return "context"

    monkeypatch.setattr(connect.ray, "init", init)
    if failures == 1:
        assert connect._start() == "context"
    else:
        with pytest.raises(ConnectionError, match=r"not up within 30 s.*Wait"):
            connect._start()
    assert len(tries) == 2
    assert "dashboard" not in caplog.text


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError("AF_UNIX path length cannot exceed 107 bytes: /a"), "RAY_TMPDIR.*shorter folder"),
        (OSError(28, "No space left on device"), "No space left on device.*RAY_TMPDIR"),
        (OSError(30, "Read-only file system"), "Read-only file system.*RAY_TMPDIR"),
    ],
)
def test_a_temporary_folder_that_ray_cannot_use(error, said, monkeypatch):
    def init(**options):
        raise error

    monkeypatch.setattr(connect.ray, "init", init)
    with pytest.raises(ConnectionError, match=said):
        connect._start()


def test_a_full_temporary_disk_is_found_before_ray_starts(temp, monkeypatch):
    temp.mkdir()
    temp.chmod(0o500)
    monkeypatch.setattr(connect.ray, "init", lambda **_: pytest.fail("Ray was started"))

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(connect.Path, "write_bytes", full)
    with pytest.raises(ConnectionError, match="No space left"):
        connect._start()


def test_too_little_address_space_is_named(monkeypatch):
    monkeypatch.setattr(connect.resource, "getrlimit", lambda which: (4 * 2**30, 4 * 2**30))
    monkeypatch.setattr(connect.ray, "init", lambda **_: pytest.fail("Ray was started"))
    with pytest.raises(ConnectionError, match=r"4.0 GB of virtual memory.*ulimit -v unlimited"):
        connect._start()


def test_ray_itself_refuses_a_long_temporary_folder(tmp_path, monkeypatch):
    # What Ray says is what `_os_fault` looks for.
    from ray._private.utils import validate_socket_filepath

    with pytest.raises(OSError, match="AF_UNIX") as raised:
        validate_socket_filepath("/" + "a" * 200)
    assert "RAY_TMPDIR" in connect._os_fault(raised.value, tmp_path)
