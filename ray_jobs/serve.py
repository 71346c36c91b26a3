"""python -m ray_jobs.serve RUN: a finished run, a job of it or a bundle, answering over HTTP.

POST /predict takes photos; a page for people is at /, the interface is described at /docs. It
listens on this machine alone; with serve.host=0.0.0.0 users need the token MASKCLS_TOKEN.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import time

from ray import serve

from maskcls.config.load import from_command_line
from maskcls.config.schema import Config
from ray_jobs.cluster import connect
from ray_jobs.run import arguments, console
from ray_jobs.run.folder import reading
from ray_jobs.serving import deployment

log = logging.getLogger(__name__)


def main() -> None:
    config = from_command_line(__doc__ or "", arguments.words())
    with console.report_errors("serve", config), reading(config) as run:
        token = None if is_loopback(config.serve.host) else deployment.token()
        _check_free(config.serve.host, config.serve.port)
        deployment.check(str(run.path))
        connect.connect()
        start(config, str(run.path), token)
        try:
            while True:
                time.sleep(3600)
        finally:
            serve.shutdown()


def start(config: Config, path: str, token: str | None) -> None:
    """Start the service on the cluster and return when it answers."""
    options = {"host": config.serve.host, "port": config.serve.port}
    serve.start(proxy_location="HeadOnly", http_options=options)
    app = deployment.application(path, config.serve, token)
    serve.run(app, name=deployment.NAME, route_prefix="/")
    who = "this machine alone" if token is None else "whoever has the token"
    log.info("%s answers at http://%s:%d for %s; Ctrl-C ends it",
             path, config.serve.host, config.serve.port, who)  # fmt: skip


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens at ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_free(host: str, port: int) -> None:
    """Raises ValueError where the port is taken: Ray would go on without saying so."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(
                f"serve.host={host} serve.port={port}: cannot listen there ({error.strerror}); "
                "choose another port"
            ) from None


if __name__ == "__main__":
    main()
