"""The web application: what is asked over HTTP, how it is checked, and what comes back.

It knows no Ray: ``ask`` answers for the bytes of photos. Nothing of a photo is logged or written.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from importlib import resources
from typing import Any, Final

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from maskcls.config.serve import Serve
from maskcls.data.status import OK

Photo = tuple[str, bytes]
"""Name and bytes."""
Ask = Callable[[Sequence[Photo]], Awaitable[list[dict[str, Any]]]]
"""Photos -> a row each, in order; see ``maskcls.inference.table.records``."""
Explain = Callable[[Photo], Awaitable[dict[str, Any]]]

_PAGE: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
_POLICY: Final = "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'"
_FORM_BYTES: Final = 64_000
"""What a form has beside its photos: boundaries and headers."""


def make_app(ask: Ask, explain: Explain, settings: Serve, token_digest: str | None) -> FastAPI:
    """The application. ``token_digest`` is ``digest`` of the token that requests must bring, or
    None where the address is this machine's own."""
    app = FastAPI(
        title="maskcls",
        description="Mask, gender and age band of a person in a photo. Photos are not kept.",
    )
    responses = {status: {"description": words} for status, words in _STATUSES.items()}
    body = {"requestBody": {"required": True, "content": _CONTENT}}

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether the service is up, and whether requests need a token."""
        return {"status": "ok", "token": token_digest is not None}

    @app.post("/predict", responses=responses, openapi_extra=body)
    async def predict(request: Request) -> JSONResponse:
        """Answers for one photo or several, in order: class, probabilities and box of each."""
        _check_token(request, token_digest)
        rows = await ask(await read_photos(request, settings))
        _refuse_unreadable(rows)
        return JSONResponse({"photos": rows})  # plain values, which FastAPI would look through

    @app.post("/explain", responses=responses, openapi_extra=body)
    async def why(request: Request) -> dict[str, Any]:
        """What in one photo spoke for the answers: for each attribute, parts of the picture that
        the models saw, and how much of the probability each carries."""
        _check_token(request, token_digest)
        photos = await read_photos(request, settings)
        if len(photos) > 1:
            raise HTTPException(413, "one photo at a time is explained")
        answer = await explain(photos[0])
        _refuse_unreadable([answer])
        return answer

    for path, (name, kind) in _PAGE.items():
        app.get(path, include_in_schema=False)(_static(name, kind))
    return app


def digest(token: str) -> str:
    """What the service keeps of a token: enough to know it again."""
    return hashlib.sha256(token.encode()).hexdigest()


async def read_photos(request: Request, settings: Serve) -> list[Photo]:
    """The photos of a request: fields of a form with files, or one photo as the body.

    Raises HTTPException: 400 for a broken form or no photo, 413 for too many or too large ones,
    415 for another type of content.
    """
    limit = int(settings.max_megabytes * 1e6)
    content = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content == "multipart/form-data":
        data = await _body(request, settings.max_files * limit + _FORM_BYTES)
        photos = await _of_form(request, data, settings.max_files)
    elif content.startswith("image/") or content == "application/octet-stream":
        photos = [("photo", await _body(request, limit))]
    else:
        raise HTTPException(
            415,
            "send photos as files of a form (multipart/form-data) or one as the body (image/*)",
        )
    for name, photo in photos:
        if len(photo) > limit:
            raise HTTPException(413, f"{name}: larger than {settings.max_megabytes:g} MB")
    return photos


async def _body(request: Request, limit: int) -> bytes:
    too_large = HTTPException(413, f"the request is larger than {limit / 1e6:.1f} MB")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise too_large
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            raise too_large
    return bytes(data)


async def _of_form(request: Request, data: bytes, max_files: int) -> list[Photo]:
    async def whole() -> AsyncGenerator[bytes, None]:
        yield data

    parser = MultiPartParser(request.headers, whole(), max_files=max_files + 1, max_fields=16)
    parser.spool_max_size = len(data) + 1  # never in a file
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        if "Too many files" in str(error):
            raise HTTPException(413, f"more than {max_files} photos in one request") from None
        raise HTTPException(400, f"the form is broken: {error}") from None
    files = [one for _, one in form.multi_items() if isinstance(one, UploadFile)]
    if not files:
        raise HTTPException(400, "no photo in the form: send files, as in a field `photos`")
    if len(files) > max_files:
        raise HTTPException(413, f"more than {max_files} photos in one request")
    return [(one.filename or f"#{number}", await one.read()) for number, one in enumerate(files)]


def _check_token(request: Request, token_digest: str | None) -> None:
    if token_digest is None:
        return
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    right = hmac.compare_digest(digest(token.strip()), token_digest)
    if kind.lower() != "bearer" or not right:
        raise HTTPException(
            401, "a token is needed: Authorization: Bearer TOKEN",
            headers={"WWW-Authenticate": "Bearer"},
        )  # fmt: skip


def _refuse_unreadable(rows: Sequence[dict[str, Any]]) -> None:
    bad = [{"photo": row["photo"], "reason": row["status"]} for row in rows if row["status"] != OK]
    if bad:
        raise HTTPException(422, bad)


def _static(name: str, kind: str) -> Callable[[], Awaitable[Response]]:
    content = resources.files("ray_jobs.serving").joinpath("page", name).read_bytes()
    headers = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"}

    async def answer() -> Response:
        return Response(content, media_type=kind, headers=headers)

    return answer


_STATUSES: Final[dict[int | str, str]] = {
    400: "no photo, or a broken form",
    401: "no token, or a wrong one",
    413: "too many photos, or too large ones",
    415: "another type of content",
    422: "a file that cannot be read as a photo, with the reason",
    503: "too many requests wait",
}
_CONTENT: Final[dict[str, Any]] = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {
                "photos": {"type": "array", "items": {"type": "string", "format": "binary"}}
            },
        }
    },
    "image/*": {"schema": {"type": "string", "format": "binary"}},
}
