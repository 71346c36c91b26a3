"""An S3-speaking server on loopback, and a line to it that can be broken."""

from __future__ import annotations

import logging
import re
import socket
import struct
import threading
import time
from collections import Counter

import boto3
from moto.server import ThreadedMotoServer

KEYS = {"AWS_ACCESS_KEY_ID": "AKIATESTONLY", "AWS_SECRET_ACCESS_KEY": "a-secret-for-tests-only"}


class ObjectStore(logging.Handler):
    """A server with one bucket, ``bucket``. ``requests`` counts by method and key."""

    def __init__(self):
        super().__init__()
        self.requests = Counter()
        self.server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.server.start()
        self.port = self.server.get_host_and_port()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        # The server's own log of requests, kept from the terminal.
        logger = logging.getLogger("werkzeug")
        logger.setLevel(logging.INFO)
        logger.handlers, logger.propagate = [self], False
        self.client = boto3.client(
            "s3", endpoint_url=self.address, region_name="us-east-1",
            aws_access_key_id="a", aws_secret_access_key="b",
        )  # fmt: skip
        self.client.create_bucket(Bucket="bucket")

    def emit(self, record):
        if found := re.search(r'"(?:\x1b\[\d+m)*(\w+) /bucket/([^ ?]*)', record.getMessage()):
            self.requests[found.groups()] += 1

    def environment(self, address=None):
        return {**KEYS, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": address or self.address,
                "NO_PROXY": "127.0.0.1"}  # fmt: skip

    def names(self, prefix=""):
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket="bucket", Prefix=prefix
        )
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return [key for key in keys if not key.endswith("/")]  # marks of empty folders

    def get(self, key):
        return self.client.get_object(Bucket="bucket", Key=key)["Body"].read()

    def put(self, key, content):
        self.client.put_object(Bucket="bucket", Key=key, Body=content)


class Line:
    """A line to a server that breaks its next ``times`` connections once ``after`` bytes came back
    (``answer``) or went there: it cuts them off, or with ``silent`` only falls silent."""

    def __init__(self, port):
        self._port = port
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.times, self.after, self.answer, self.silent = 0, 0, True, False
        threading.Thread(target=self._accept, daemon=True).start()

    def breaks(self, times, after=0, answer=True, silent=False):
        self.times, self.after, self.answer, self.silent = times, after, answer, silent

    def _accept(self):
        while True:
            client, _ = self._socket.accept()
            server = socket.create_connection(("127.0.0.1", self._port))
            for pair in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source, target, answer):
        carried = 0
        try:
            while data := source.recv(65536):
                carried += len(data)
                if self.times > 0 and answer == self.answer and carried > self.after:
                    self.times -= 1
                    target.sendall(data[: max(0, self.after - carried)])
                    if self.silent:
                        time.sleep(3600)
                    for end in (target, source):
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        end.shutdown(socket.SHUT_RDWR)
                        end.close()
                    return
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return
