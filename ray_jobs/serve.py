"""python -m ray_jobs.serve RUN: a finished run, a job of it or a bundle, answering over HTTP.

POST /predict takes photos; a page for people is at /, the interface is described at /docs. It
listens on this machine alone; with serve.host=0.0.0.0 users need the token MASKCLS_TOKEN.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import uvicorn
from ray import serve

from maskcls.config.load import from_command_line
from maskcls.config.serve import Serve
from ray_jobs.cluster import connect
from ray_jobs.run import arguments, console
from ray_jobs.run.folder import reading
from ray_jobs.serving import deployment, web
from ray_jobs.serving.front import Front

log = logging.getLogger(__name__)

END_S: Final = 10.0
"""Seconds that requests under way may still take when the service ends."""


def main() -> None:
    config = from_command_line(__doc__ or "", arguments.words())
    with console.report_errors("serve", config), reading(config) as run:
        token = None if is_loopback(config.serve.host) else deployment.token()
        with bound(config.serve.host, config.serve.port) as listening:
            deployment.check(str(run.path))
            connect.connect()
            with (
                running(config.serve, str(run.path), token, listening) as web_server,
                suppress(KeyboardInterrupt),
            ):
                web_server.join()
            log.info("the service has ended")


@contextmanager
def running(settings: Serve, path: str, token: str | None, listening: socket.socket
) -> Iterator[threading.Thread]:  # fmt: skip
    """The service at the socket ``listening``, on the cluster that this program is part of; the
    thread that answers there.

    The front is a thread of this program: behind Serve's own proxy, which is another process and
    hands each request on to a third, two replicas of a small model answered a third less
    (benchmarks/serve_load.py).
    """
    for chatty in ("ray.serve", "python_multipart"):  # the latter warns of each broken form
        logging.getLogger(chatty).setLevel(logging.ERROR)
    serve.start(proxy_location="Disabled")
    name = f"maskcls-{settings.port}"
    handle = serve.run(deployment.answers(path, settings), name=name, route_prefix=None)
    digest = web.digest(token) if token else None
    app = Front(handle, settings, digest).app()
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the web server ended as it began")
            time.sleep(0.05)
        who = "this machine alone" if token is None else "whoever has the token"
        log.info("%s answers at http://%s:%d for %s; Ctrl-C ends it",
                 path, settings.host, settings.port, who)  # fmt: skip
        yield thread
    finally:
        server.should_exit = True
        thread.join(timeout=END_S)
        serve.delete(name)
        if not serve.status().applications:  # a cluster may have others
            serve.shutdown()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens at ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens there. Raises ValueError where it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen()
        except OSError as error:
            raise ValueError(
                f"serve.host={host} serve.port={port}: cannot listen there ({error.strerror}); "
                "choose another port"
            ) from None
        yield listening


if __name__ == "__main__":
    main()
