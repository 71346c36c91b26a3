"""The service on Ray Serve, as programs and people use it: a browser, a killed replica."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
import ray

import maskcls
from maskcls.config.serve import Serve
from maskcls.export import bundle
from maskcls.labels import Task
from ray_jobs import serve as verb
from ray_jobs.serving import deployment
from tests import made_run
from tests.conftest import ROOT, new_page


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    run = made_run.make(folder, people=12, votes=False, folds=1, tasks=(Task.MULTI,))
    return bundle.write(run, folder / "bundle").path


@pytest.fixture(scope="module")
def address(cluster, model):
    with verb.bound("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        with verb.running(Serve(port=port, max_megabytes=1), str(model), None, listening):
            yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def photos(drawn):
    return sorted((drawn / "eval" / "images").iterdir())


def test_on_a_cluster_the_front_is_a_deployment_behind_the_proxies(
    cluster, model, photos, monkeypatch
):
    """What `serve deploy configs/cluster/serve.yaml` runs."""
    from ray import serve

    with verb.bound("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv(deployment.TOKEN, "x" * 32)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(deployment.build({"model": str(model)}), name="maskcls", route_prefix="/")
    try:
        asked = {"content": photos[0].read_bytes(), "headers": {"content-type": "image/jpeg"}}
        assert httpx.post(f"http://127.0.0.1:{port}/predict", **asked).status_code == 401
        asked["headers"] |= {"authorization": f"Bearer {'x' * 32}"}
        answer = httpx.post(f"http://127.0.0.1:{port}/predict", **asked, timeout=60)
        (row,) = answer.json()["photos"]
        assert row["ans"] == maskcls.load(model).records(photos[0])[0]["ans"]
    finally:
        serve.shutdown()


def test_the_command_answers_until_it_is_interrupted(cluster, model, photos):
    with verb.bound("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "ray_jobs.serve", str(model), f"serve.port={port}"]
    # What a shell runs in the background ignores Ctrl-C, and so would this program.
    ctrl_c = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    program = subprocess.Popen(words, cwd=ROOT, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, preexec_fn=ctrl_c,
                               env={**os.environ, "RAY_ADDRESS": cluster})  # fmt: skip
    try:
        told = [program.stdout.readline() for _ in range(2)]
        assert told[0].startswith("Ray: cluster at RAY_ADDRESS"), told
        address = f"http://127.0.0.1:{port}"
        assert f"answers at {address} for this machine alone; Ctrl-C ends it" in told[1]
        asked = httpx.post(f"{address}/predict", files={"photos": photos[0].read_bytes()})
        assert asked.status_code == 200
        broken = {"content-type": "multipart/form-data; boundary=b"}
        assert httpx.post(f"{address}/predict", content=b"--x", headers=broken).status_code == 400
        program.send_signal(signal.SIGINT)
        assert program.communicate(timeout=100)[0] == "the service has ended\n"
        assert program.returncode == 0
    finally:
        program.kill()


def test_its_answers_are_those_of_maskcls(address, model, photos):
    expected = maskcls.load(model).records(photos)
    files = [("photos", (path.name, path.read_bytes())) for path in photos[:9]]
    answer = httpx.post(f"{address}/predict", files=files, timeout=60)
    rows = answer.json()["photos"]
    assert [row["photo"] for row in rows] == [path.name for path in photos[:9]]
    for row, one in zip(rows, expected[:9], strict=True):
        assert row["ans"] == one["ans"]
        names = [name for name in one if name.startswith("p_")]
        assert np.allclose([row[n] for n in names], [one[n] for n in names], rtol=0, atol=1e-4)


def test_bad_files_get_the_reason_and_the_service_lives(address, photos):
    good = photos[0].read_bytes()
    for data, status, words in (
        (b"", 422, "empty file"),
        (b"hello", 422, "not an image"),
        (good[: len(good) * 9 // 10], 422, "cannot be decoded"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), 422, "not an image"),
        (good + bytes(1_000_000), 413, "larger than 1 MB"),
    ):
        answer = httpx.post(f"{address}/predict", files={"photos": ("x.jpg", data)}, timeout=60)
        assert answer.status_code == status and words in answer.text, answer.text
    assert httpx.get(f"{address}/health").json() == {"status": "ok", "token": False}


def test_nothing_of_a_photo_is_kept_or_logged(address, photos):
    name, pixels = "name-of-a-person", b"\xfepixels of a person\xfe"  # a decoder reads no further
    began, good = time.time(), photos[0].read_bytes() + pixels
    for path, data, status in (("predict", good, 200), ("explain", good, 200),
                               ("predict", pixels, 422)):  # fmt: skip
        files = {"photos": (f"{name}.jpg", data)}
        assert httpx.post(f"{address}/{path}", files=files, timeout=60).status_code == status
    of_ray = Path(ray.get_runtime_context().get_temp_dir())
    written = [path for path in (*of_ray.rglob("*"), *Path(tempfile.gettempdir()).iterdir())
               if path.is_file() and path.stat().st_mtime >= began]  # fmt: skip
    assert any("log" in path.name for path in written)
    for path in written:
        content = path.read_bytes()
        assert name.encode() not in content and pixels not in content, path


def test_a_killed_replica_loses_no_request(address, photos):
    data = photos[0].read_bytes()

    async def go():
        async with httpx.AsyncClient(timeout=120) as client:

            async def one():
                return await client.post(f"{address}/predict", files={"photos": ("x", data)})

            first = [asyncio.create_task(one()) for _ in range(8)]
            await asyncio.sleep(0.02)
            kill_replicas()
            return await asyncio.gather(*first, *(one() for _ in range(8)))

    answers = asyncio.run(go())
    assert [answer.status_code for answer in answers] == [200] * 16


def kill_replicas():
    names = [one["name"] for one in ray.util.list_named_actors(all_namespaces=True)
             if "#answers#" in one["name"]]  # fmt: skip
    assert names
    for name in names:
        ray.kill(ray.get_actor(name, namespace="serve"), no_restart=True)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_answers_in_a_browser(address, photos, browser, width, tmp_path):
    page = new_page(browser, viewport={"width": width, "height": 900}, locale="en")
    faults = []
    page.on("console", lambda told: faults.append(told.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda asked: asked.url.startswith((address, "blob:", "data:"))
            or faults.append(asked.url))  # fmt: skip
    page.goto(address)
    page.set_input_files("#choose", photos[0])
    page.wait_for_selector("#maps figure", timeout=60_000)
    assert page.locator(".answer").count() == 3
    assert page.locator("#maps figure").count() == 3
    row = httpx.post(f"{address}/predict", files={"photos": photos[0].read_bytes()}).json()
    word = {"male": "male", "female": "female"}[row["photos"][0]["gender"]]
    assert f"Gender: {word}" in page.inner_text("#answers")
    page.screenshot(path=tmp_path / f"en-{width}.png", full_page=True)
    page.click("text=한국어")
    assert "성별: " in page.inner_text("#answers")
    page.screenshot(path=tmp_path / f"ko-{width}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    bad = {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": b"hello"}
    assert not faults
    page.set_input_files("#camera", bad)
    page.wait_for_selector("#message.wrong")
    assert "not an image" in page.inner_text("#message")
    assert page.locator("#result").is_hidden()
    page.close()
