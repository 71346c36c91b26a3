"""Whether a Ray cluster answers at an address, asked in a few seconds; else what is wrong there.

Ray itself waits 100 to 680 s for an address where no cluster is, and hears no Ctrl-C meanwhile.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

import ray
import ray.exceptions

from ray_jobs.cluster.ray_internals import address_file, ask_gcs, use_token

log = logging.getLogger(__name__)

CONNECT_S = 3.0
"""How long a port may take to accept a connection, and again to say its first word."""

GCS_S = 5.0
"""How long a gRPC server may take to answer as a GCS."""

HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What a gRPC client says first: the preface of HTTP/2 and empty settings (RFC 9113, 3.4)."""

WANTED = "HOST:PORT of the cluster's head (port 6379 unless `ray start --port` was given)"


NO_GCS = "a gRPC server answers there, but not the head of a cluster (a port of another process?)"


@dataclass(frozen=True)
class Address:
    """Where a cluster should be, and who says so: RAY_ADDRESS, or the file of a ``ray start``."""

    text: str
    file: Path | None = None

    @property
    def source(self) -> str:
        return f"{self.file} (left by `ray start`)" if self.file else "RAY_ADDRESS"

    @property
    def cure(self) -> str:
        """What to do where no cluster is there."""
        if self.file:
            return f"if that cluster is gone, delete {self.file}; else set RAY_ADDRESS to {WANTED}"
        return f"set it to {WANTED}, or unset RAY_ADDRESS to run on this machine alone"


def find() -> Address | None:
    """The address of the cluster to join; None where one is to be started here.

    The order is Ray's own: RAY_ADDRESS, then what the last ``ray start`` on this machine wrote.
    """
    named = os.environ.get("RAY_ADDRESS", "")
    if named == "local":
        return None
    if named and named != "auto":
        return Address(named)
    file = address_file()
    try:
        return Address(file.read_text(encoding="utf-8").strip(), file)
    except FileNotFoundError:
        if named == "auto":
            raise ConnectionError(
                f"RAY_ADDRESS=auto: no cluster was started on this machine (no {file}); "
                "unset RAY_ADDRESS to start one"
            ) from None
        return None


def check(address: Address) -> None:
    """Raises ConnectionError, within some 10 s, where no cluster of Ray answers; says what does."""
    use_token()
    if fault := fault_at(address.text):
        raise ConnectionError(f"{address.source}={address.text}: {fault}; {address.cure}")


def fault_at(address: str) -> str | None:
    """Why no cluster can be joined at ``address``; None where a GCS answers."""
    if address.startswith(("http://", "https://")):
        return "this is the address of a dashboard, for RAY_API_SERVER_ADDRESS and `ray job submit`"
    if address.startswith("ray://"):
        return "Ray Client (ray://) cannot run this: use `ray job submit`, or start it on a node"
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return "not of the form HOST:PORT"
    host = host.strip("[]")
    if not os.environ.get("RAY_USE_TLS", "").strip("0"):  # TLS hides who answers
        try:
            answer = _first_words(host, int(port))
        except OSError as error:
            return f"nothing answers there ({error.strerror or error})"
        if answer.startswith((b"HTTP/", b"<")):  # some servers answer a bare page
            return "an HTTP server answers there, such as Ray's dashboard (8265), not its head"
        if answer[3:4] != b"\x04":  # the type of an HTTP/2 frame of settings
            return "another service answers there, not a Ray cluster"
    return _gcs_fault(address)


def _first_words(host: str, port: int) -> bytes:
    """What a server says to a gRPC client; nothing where it says nothing or hangs up."""
    with socket.create_connection((host, port), CONNECT_S) as connection:
        try:
            connection.sendall(HTTP2_HELLO)
            return connection.recv(64)
        except OSError:
            return b""


def _gcs_fault(address: str) -> str | None:
    """In a thread, since the question takes no time limit and would not hear Ctrl-C."""
    faults: list[str | None] = []

    def ask() -> None:
        try:
            ask_gcs(address)
            faults.append(None)
        except ray.exceptions.AuthenticationError:
            faults.append(
                "the cluster wants another token: bring ~/.ray/auth_token of its head to this "
                "machine, and export RAY_AUTH_MODE=token"
            )
        except Exception as error:
            log.debug("%s: %s", address, error)
            faults.append(NO_GCS)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(GCS_S)
    return faults[0] if faults else NO_GCS
