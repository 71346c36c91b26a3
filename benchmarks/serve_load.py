"""The service under load, against the bare model in a loop on the same cores.

    python -m benchmarks.serve_load MODEL PHOTOS [--seconds 15] [--flat 20000]

MODEL is a bundle or a run. Prints, as Markdown: requests a second and their median and 95th
percentile for 1, 8 and 32 clients, each request with one photo, and the share of what a loop over
the same photos gets that decodes, preprocesses, computes and votes with all cores, one photo or a
batch at a time, whichever is faster. Then: requests lost when a replica is killed under load, bad
inputs, and the memory of the service over ``--flat`` requests.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import psutil
import ray
from PIL import Image

import maskcls
from benchmarks.rows import Row, add
from maskcls.inference.inputs import photos_under
from ray_jobs.cluster import connect

PORT = 8421
CLIENTS = (1, 8, 32)
KINDS = 20
START_S = 300.0
"""Seconds that the service may take to start."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--flat", type=int, default=20_000, help="requests to watch memory over")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--rows", type=Path, help="append the table's rows to this file")
    given = parser.parse_args()
    photos = [path.read_bytes() for path in list(photos_under(given.photos))[:200]]
    cores = psutil.cpu_count() or 1
    loop = max(bare(given.model, photos, given.seconds, cores, batch) for batch in (1, 32))
    print(f"bare loop: {loop:.1f} photos/s on {cores} cores", flush=True)
    words = [f"serve.port={PORT}", f"serve.replicas={given.replicas}",
             f"serve.threads_per_replica={max(1, cores // given.replicas)}"]  # fmt: skip
    with service(given.model.absolute(), words) as process:
        measure(given, photos, loop, process.pid)


def measure(given: argparse.Namespace, photos: Sequence[bytes], loop: float, front: int) -> None:
    """Everything but the bare loop; ``front`` is the number of the service's own process."""
    rows = []
    asyncio.run(under_load(photos, 8, 3.0))  # warm
    for clients in CLIENTS:
        times, failed = asyncio.run(under_load(photos, clients, given.seconds))
        rate = len(times) / given.seconds
        p50, p95 = 1000 * statistics.median(times), 1000 * float(np.percentile(times, 95))
        note = f"{rate:.1f} requests/s, p50 {p50:.0f} ms, p95 {p95:.0f} ms, {failed} failed"
        must = 0.7 if clients == 32 else None
        rows.append(Row(f"service, {clients} clients", "bare loop", [rate / loop], must, must,
                        note=note))  # fmt: skip
    add(given.rows, rows)
    times, failed = asyncio.run(under_load(photos, 32, given.seconds, kill_after=given.seconds / 3))
    print(f"a replica killed under load: {len(times)} answered, {failed} lost", flush=True)
    print(bad_inputs(photos), flush=True)
    print(asyncio.run(memory(photos, given.flat, front)), flush=True)


@contextmanager
def service(model: Path, words: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """The service as a program of its own, on a cluster that this one started and can look into."""
    connect.connect()
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-m", "ray_jobs.serve", str(model), *words]
    process = subprocess.Popen(command, env={**os.environ, "RAY_ADDRESS": address})
    try:
        deadline = time.monotonic() + START_S
        while not answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the service did not start")
            time.sleep(0.5)
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)


def answers() -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{PORT}/health").status_code == 200
    except httpx.HTTPError:
        return False


def bare(path: Path, photos: Sequence[bytes], seconds: float, threads: int, batch: int) -> float:
    """Photos a second of a loop over the same code, without a service."""
    model = maskcls.load(path, device="cpu", threads=threads)
    model.records(photos[0])
    done, began = 0, time.monotonic()
    while time.monotonic() - began < seconds:
        chosen = [photos[(done + k) % len(photos)] for k in range(batch)]
        model.records(chosen)
        done += batch
    return done / (time.monotonic() - began)


async def under_load(
    photos: Sequence[bytes], clients: int, seconds: float, kill_after: float | None = None
) -> tuple[list[float], int]:
    """Seconds of each answered request, and how many were not answered with 200."""
    times: list[float] = []
    failed = 0
    end = time.monotonic() + seconds

    async def client(number: int, http: httpx.AsyncClient) -> None:
        nonlocal failed
        turn = number
        while time.monotonic() < end:
            began = time.monotonic()
            try:
                answer = await ask(http, photos[turn % len(photos)])
                status = answer.status_code
            except httpx.HTTPError:
                status = 0
            if status == 200:
                times.append(time.monotonic() - began)
            else:
                failed += 1
            turn += clients

    async def kill() -> None:
        if kill_after is not None:
            await asyncio.sleep(kill_after)
            kill_a_replica()

    async with httpx.AsyncClient(timeout=120) as http:
        await asyncio.gather(kill(), *(client(number, http) for number in range(clients)))
    return times, failed


async def ask(http: httpx.AsyncClient, photo: bytes) -> httpx.Response:
    kind = {"content-type": "image/jpeg"}
    return await http.post(f"http://127.0.0.1:{PORT}/predict", content=photo, headers=kind)


def kill_a_replica() -> None:
    names = [one["name"] for one in ray.util.list_named_actors(all_namespaces=True)
             if "#answers#" in one["name"]]  # fmt: skip
    ray.kill(ray.get_actor(names[0], namespace="serve"), no_restart=True)


def bad_inputs(photos: Sequence[bytes]) -> str:
    """Ten of each of twenty kinds; then a photo, which must be answered."""
    good, rng = photos[0], np.random.default_rng(0)
    kinds = bad_kinds(good)
    statuses: dict[int, int] = {}
    address = f"http://127.0.0.1:{PORT}/predict"
    with httpx.Client(timeout=60) as http:
        for request in kinds.values():
            for _ in range(10):
                changed = dict(request)
                if isinstance(changed.get("content"), bytes):
                    changed["content"] = changed["content"] + rng.bytes(3)
                status = http.post(address, **changed).status_code
                statuses[status] = statuses.get(status, 0) + 1
        alive = http.post(address, files={"photos": ("x.jpg", good)}).status_code
    told = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
    return f"bad inputs, {len(kinds)} kinds: {told}; then a photo: {alive}"


def bad_kinds(good: bytes) -> dict[str, dict[str, Any]]:
    """Name -> a request that must be refused."""
    black = io.BytesIO()
    Image.new("1", (9000, 9000)).save(black, "PNG")
    gif = io.BytesIO()
    Image.new("L", (9, 9)).save(gif, "GIF")
    png = cv2.imencode(".png", np.zeros((99, 99, 3), np.uint8))[1].tobytes()
    bodies = {
        "empty": b"", "text": b"hello", "web page": b"<!doctype html><p>no", "zeros": bytes(5000),
        "half a JPEG": good[: len(good) // 2], "head of a JPEG": good[:20], "GIF": gif.getvalue(),
        "half a PNG": png[: len(png) // 2], "bomb": black.getvalue(), "PDF": b"%PDF-1.7",
        "ZIP": b"PK\x03\x04" + bytes(99), "pickle": b"\x80\x02", "HEIC": bytes(4) + b"ftypheic",
        "LFS": b"version https://git-lfs.github.com", "too large": bytes(11_000_000),
    }  # fmt: skip
    form = {"content-type": "multipart/form-data; boundary=b"}
    found: dict[str, dict[str, Any]] = {
        name: {"files": {"photos": ("x.jpg", data)}} for name, data in bodies.items()
    }
    found["JSON"] = {"json": {"photo": "x"}}
    found["no type"] = {"content": b"x"}
    found["a broken form"] = {"content": b"--x", "headers": form}
    found["a form without a photo"] = {"data": {"photos": "x"}}
    found["too many"] = {"files": [("photos", ("x.jpg", b"x"))] * 40}
    assert len(found) == KINDS
    return found


async def memory(photos: Sequence[bytes], count: int, front: int) -> str:
    """Megabytes of the service's processes after a tenth of the requests, and at the end."""
    found: list[float] = []
    async with httpx.AsyncClient(timeout=120) as http:
        for tenth in range(10):
            for start in range(0, count // 10, 32):
                turn = tenth * count // 10 + start
                photos_ = [photos[(turn + k) % len(photos)] for k in range(32)]
                await asyncio.gather(*(ask(http, photo) for photo in photos_))
            found.append(resident(front))
    told = ", ".join(f"{value:.0f}" for value in found)
    return f"memory over {count:,} requests, MB after each tenth: {told}"


def resident(front: int) -> float:
    """Megabytes of all replicas and the front."""
    total = 0
    for process in psutil.process_iter(["cmdline", "memory_info"]):
        words = " ".join(process.info["cmdline"] or [])
        if process.pid == front or words.startswith("ray::ServeReplica"):
            total += process.info["memory_info"].rss
    return total / 1e6


if __name__ == "__main__":
    main()
