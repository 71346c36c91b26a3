"""The service on Ray Serve: replicas that hold the models, and their front on a cluster."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import cv2
from fastapi import FastAPI
from ray import serve

from maskcls.config.serve import Serve
from maskcls.data.status import OK
from maskcls.inference import loading, occlusion, table
from maskcls.inference.inputs import GivenPhoto
from maskcls.inference.prepared_photo import PreparedPhoto, prepare
from ray_jobs.serving import web
from ray_jobs.serving.front import Front
from ray_jobs.serving.web import Photo

TOKEN: Final = "MASKCLS_TOKEN"
LEAST_TOKEN: Final = 16
"""Characters of a token, at least."""


class Answers:
    """A replica: the models."""

    def __init__(self, path: str, settings: Serve) -> None:
        cv2.setNumThreads(1)
        device = "cuda" if settings.gpus_per_replica else "cpu"
        self._model = loading.load(path, device=device, threads=settings.threads_per_replica)
        self._max_pixels = settings.max_pixels
        self._decoders = ThreadPoolExecutor(settings.threads_per_replica)
        self._compute([("warm-up", b"")])

    async def answer(self, photos: list[Photo]) -> list[dict[str, Any]]:
        """Rows of photos; see ``table.records``."""
        return await asyncio.to_thread(self._compute, photos)

    async def explain(self, photo: Photo) -> dict[str, Any]:
        """A photo's row, and what spoke for it; see ``occlusion.support``."""
        return await asyncio.to_thread(self._explain, photo)

    def _compute(self, photos: Sequence[Photo]) -> list[dict[str, Any]]:
        prepared = list(self._decoders.map(self._prepare, photos))
        return table.records(prepared, self._model.answer(prepared), self._model.age_limits)

    def _prepare(self, photo: Photo, boxes: bool = False) -> PreparedPhoto:
        source = GivenPhoto(*photo, max_pixels=self._max_pixels)
        return prepare(source, self._model.recipes, boxes=boxes)

    def _explain(self, photo: Photo) -> dict[str, Any]:
        prepared = self._prepare(photo, boxes=True)
        (row,) = table.records([prepared], self._model.answer([prepared]), self._model.age_limits)
        if prepared.status != OK:
            return row
        seen = cv2.cvtColor(prepared.images[0], cv2.COLOR_RGB2BGR)
        jpeg = base64.b64encode(cv2.imencode(".jpg", seen)[1].tobytes()).decode()
        support = occlusion.support(self._model, prepared)
        return row | {
            "picture": f"data:image/jpeg;base64,{jpeg}",
            "support": {attribute: parts.round(4).tolist() for attribute, parts in support.items()},
        }


@serve.ingress()
class Ingress(Front):
    """The front as a deployment, behind the proxies of a cluster."""

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self.app()


def answers(path: str, settings: Serve) -> serve.Application:
    """Replicas for the run, job or bundle at ``path``, which every node must see."""
    return serve.deployment(Answers).options(
        name="answers",
        num_replicas=settings.replicas,
        max_ongoing_requests=1,  # a batch, or a photo to explain
        max_queued_requests=settings.max_waiting,
        health_check_period_s=2,
        ray_actor_options={
            "num_cpus": settings.threads_per_replica,
            "num_gpus": settings.gpus_per_replica,
        },
    ).bind(path, settings)  # fmt: skip


def application(path: str, settings: Serve, token: str | None) -> serve.Application:
    """Replicas and a front of their own; ``token`` None means that nobody is asked for one."""
    front = serve.deployment(Ingress).options(
        name="front",
        max_ongoing_requests=settings.max_waiting,
        max_queued_requests=settings.max_waiting,
        ray_actor_options={"num_cpus": 0},
        logging_config={"enable_access_log": False},
    )
    return front.bind(answers(path, settings), settings, web.digest(token) if token else None)


def build(arguments: dict[str, Any]) -> serve.Application:
    """For `serve deploy`: ``model`` (a path that every node sees), keys of the section ``serve``,
    and ``require_token`` (true unless set), for which MASKCLS_TOKEN must be set on the head.

    Raises ValueError for anything else.
    """
    given = dict(arguments)
    path, required = given.pop("model", None), given.pop("require_token", True)
    if not isinstance(path, str) or not isinstance(required, bool):
        raise ValueError("args: model, the path of a run or bundle, is expected")
    return application(path, Serve.model_validate(given), token() if required else None)


def token() -> str:
    """The token that users must bring. Raises ValueError where there is none, or a short one."""
    found = os.environ.get(TOKEN, "")
    if len(found) < LEAST_TOKEN:
        raise ValueError(
            f"this address can be reached from other machines, so users need a token: set {TOKEN} "
            f"to {LEAST_TOKEN} characters or more, for instance by "
            f"export {TOKEN}=$(python -c 'import secrets; print(secrets.token_urlsafe())')"
        )
    return found


def check(path: str) -> None:
    """Load the models once here, so that what is wrong with them is said before Ray starts.

    Raises what ``loading.load`` raises.
    """
    loading.load(path, device="cpu", threads=1)
