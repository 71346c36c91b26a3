"""The web application without Ray: what it takes, what it refuses and in which words."""

import asyncio
import io

import httpx
import numpy as np
import pytest
from PIL import Image

from maskcls.config.serve import Serve
from maskcls.inference.inputs import GivenPhoto
from ray_jobs.serve import is_loopback
from ray_jobs.serving import deployment, web

TOKEN = "a token of some length"
SMALL = Serve(max_files=3, max_megabytes=0.02, max_pixels=10_000)


def photo(size=(40, 30), form="JPEG"):
    out = io.BytesIO()
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(out, form)
    return out.getvalue()


async def ask(photos):
    return [
        {"photo": name, "status": GivenPhoto(name, data, SMALL.max_pixels).load()[1]}
        for name, data in photos
    ]


async def explain(one):
    return (await ask([one]))[0] | {"support": {}}


def send(method, path, token_digest=None, settings=SMALL, **request):
    async def go():
        transport = httpx.ASGITransport(web.make_app(ask, explain, settings, token_digest))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.request(method, path, **request)

    return asyncio.run(go())


def files(*contents):
    return [("photos", (f"{n}.jpg", data, "image/jpeg")) for n, data in enumerate(contents)]


def test_photos_come_as_a_form_or_as_the_body():
    answer = send("POST", "/predict", files=files(photo(), photo(form="PNG")))
    assert answer.status_code == 200
    assert answer.json() == {"photos": [{"photo": f"{n}.jpg", "status": "ok"} for n in range(2)]}
    for kind in ("image/jpeg", "application/octet-stream", "IMAGE/PNG; q=1"):
        answer = send("POST", "/predict", content=photo(), headers={"content-type": kind})
        assert answer.json()["photos"][0]["status"] == "ok"
    assert send("POST", "/explain", files=files(photo())).json()["support"] == {}


MANY = "more than 3 photos in one request"


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ({"files": files(b"")}, 422, "empty file"),
        ({"files": files(photo(), b"hello")}, 422, "not an image"),
        ({"files": files(photo()[:300])}, 422, "cannot be decoded"),
        ({"files": files(b"GIF89a" + bytes(50))}, 422, "GIF, which is not read: convert it"),
        ({"files": files(photo((200, 100)))}, 422, "too large to decode: 100 x 200 pixels"),
        ({"files": files(*[photo()] * 4)}, 413, MANY),
        ({"files": files(*[photo()] * 9)}, 413, MANY),
        ({"files": files(photo() + bytes(20_000))}, 413, "0.jpg: larger than 0.02 MB"),
        ({"content": bytes(20_001), "headers": {"content-type": "image/jpeg"}}, 413, "larger than"),
        ({"files": files(bytes(200_000))}, 413, "the request is larger than"),
        ({"json": {"photo": "x"}}, 415, "multipart/form-data"),
        ({"content": b"x"}, 415, "multipart/form-data"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "broken"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400,
         "broken"),
        ({"content": b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\nb\r\n--b--\r\n",
          "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400, "no photo"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_answered_with_the_reason(request_, status, words):
    answer = send("POST", "/predict", **request_)
    assert answer.status_code == status, answer.text
    assert words in answer.text


def test_a_body_without_a_length_is_cut_off_at_the_limit():
    async def endless():
        while True:
            yield bytes(10_000)

    answer = send("POST", "/predict", content=endless(), headers={"content-type": "image/png"})
    assert answer.status_code == 413


def test_bad_files_are_named_and_no_answer_is_given_for_the_others():
    answer = send("POST", "/predict", files=files(photo(), b"", b"hello"))
    assert [one["photo"] for one in answer.json()["detail"]] == ["1.jpg", "2.jpg"]
    assert all(set(one) == {"photo", "reason"} for one in answer.json()["detail"])
    assert send("POST", "/explain", files=files(b"")).status_code == 422
    assert send("POST", "/explain", files=files(photo(), photo())).status_code == 413


def test_a_token_is_asked_for_where_there_is_one():
    kept = web.digest(TOKEN)
    for path in ("/predict", "/explain"):
        for headers in ({}, {"authorization": TOKEN}, {"authorization": f"Basic {TOKEN}"},
                        {"authorization": f"Bearer {TOKEN}x"}):  # fmt: skip
            answer = send("POST", path, kept, files=files(photo()), headers=headers)
            assert answer.status_code == 401
            assert TOKEN not in answer.text
        headers = {"authorization": f"Bearer {TOKEN}"}
        answer = send("POST", path, kept, files=files(photo()), headers=headers)
        assert answer.status_code == 200
    assert send("GET", "/health", kept).json() == {"status": "ok", "token": True}
    assert send("GET", "/health").json() == {"status": "ok", "token": False}


def test_other_machines_need_a_token(monkeypatch):
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "localhost", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.com", "")))
    for short in (None, "", "short"):
        monkeypatch.delenv(deployment.TOKEN, raising=False)
        if short is not None:
            monkeypatch.setenv(deployment.TOKEN, short)
        with pytest.raises(ValueError, match="set MASKCLS_TOKEN"):
            deployment.token()
        with pytest.raises(ValueError, match="set MASKCLS_TOKEN"):
            deployment.build({"model": "/x"})
    monkeypatch.setenv(deployment.TOKEN, TOKEN)
    assert deployment.token() == TOKEN


def test_the_page_needs_nothing_from_elsewhere_and_has_both_languages():
    page = send("GET", "/")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    script = send("GET", "/page.js").text
    for text in (page.text, script, send("GET", "/page.css").text):
        assert "http" not in text.replace("http-equiv", "")
    english, korean = script.split("  en: {")[1].split("  ko: {")
    keys = [
        {word.partition(":")[0].strip() for line in part.split("\n  },")[0].splitlines()
         for word in line.split(", ") if ": \"" in word}
        for part in (english, korean)
    ]  # fmt: skip
    assert keys[0] == keys[1] and len(keys[0]) > 20


def test_the_interface_describes_itself():
    paths = send("GET", "/openapi.json").json()["paths"]
    assert set(paths) == {"/health", "/predict", "/explain"}
    assert {"200", "401", "413", "415", "422", "503"} <= set(paths["/predict"]["post"]["responses"])
    assert "multipart/form-data" in paths["/predict"]["post"]["requestBody"]["content"]
    assert send("GET", "/docs").status_code == 200
    assert send("GET", "/predict").status_code == 405
    assert send("GET", "/../etc/passwd").status_code == 404
