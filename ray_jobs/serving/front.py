"""The front of the service: photos of different requests go to the models together, in batches.

Each replica has one batch under way, and what arrives meanwhile is the next. A replica that dies
loses no request: another one is asked, since an answer changes nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from fastapi import FastAPI, HTTPException
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError

from maskcls.config.serve import Serve
from ray_jobs.serving import web
from ray_jobs.serving.web import Photo

ATTEMPTS: Final = 6
"""Replicas that a request may lose before it fails."""
TOO_MANY: Final = "too many requests wait; try again later"

Row = dict[str, Any]


class Batches:
    """Calls ``compute`` with what waits, at most ``size`` photos, in one of ``slots``.

    What comes while no slot is free goes together, so batches grow with the load. Raises
    HTTPException 503 where ``limit`` photos wait already.
    """

    # Not Ray Serve's own `serve.batch`: it works inside replicas only, and waits for each batch.

    def __init__(
        self,
        compute: Callable[[list[Photo]], Awaitable[list[Row]]],
        slots: asyncio.Semaphore,
        *,
        size: int,
        limit: int,
    ) -> None:
        self._compute, self._slots, self._size, self._limit = compute, slots, size, limit
        self._waiting: deque[tuple[Photo, asyncio.Future[Row]]] = deque()
        self._next: asyncio.Task[None] | None = None
        self._under_way: set[asyncio.Task[None]] = set()

    async def __call__(self, photo: Photo) -> Row:
        """The row of a photo. Raises what the call raises that it was part of."""
        if len(self._waiting) >= self._limit:
            raise HTTPException(503, TOO_MANY)
        answer: asyncio.Future[Row] = asyncio.get_running_loop().create_future()
        self._waiting.append((photo, answer))
        self._prepare_call()
        return await answer

    def _prepare_call(self) -> None:
        if self._waiting and self._next is None:
            self._next = asyncio.create_task(self._call())
            self._under_way.add(self._next)  # the loop itself keeps tasks by weak references
            self._next.add_done_callback(self._under_way.discard)

    async def _call(self) -> None:
        async with self._slots:
            count = min(self._size, len(self._waiting))
            batch = [self._waiting.popleft() for _ in range(count)]
            self._next = None
            self._prepare_call()
            try:
                rows = await self._compute([photo for photo, _ in batch])
            except Exception as error:
                for _, answer in batch:
                    if not answer.done():  # its client may have left
                        answer.set_exception(error)
            else:
                for (_, answer), row in zip(batch, rows, strict=True):
                    if not answer.done():
                        answer.set_result(row)


class Front:
    """What is asked over HTTP, put to the replicas behind ``answers``, a handle of Ray Serve."""

    def __init__(self, answers: Any, settings: Serve, token_digest: str | None) -> None:
        self._answers, self._settings, self._token_digest = answers, settings, token_digest
        # With a call for each replica under way the router always finds one that is free.
        self._slots = asyncio.Semaphore(settings.replicas)
        self._batches = Batches(
            self._answer, self._slots, size=settings.batch_size, limit=settings.max_waiting
        )

    def app(self) -> FastAPI:
        """The web application."""
        return web.make_app(self._ask, self._explain, self._settings, self._token_digest)

    async def _ask(self, photos: Sequence[Photo]) -> list[Row]:
        return list(await asyncio.gather(*map(self._batches, photos)))

    async def _answer(self, photos: list[Photo]) -> list[Row]:
        rows: list[Row] = await self._retry("answer", photos)
        return rows

    async def _explain(self, photo: Photo) -> Row:
        async with self._slots:
            row: Row = await self._retry("explain", photo)
        return row

    async def _retry(self, method: str, given: Any) -> Any:
        for attempt in range(ATTEMPTS):
            try:
                return await getattr(self._answers, method).remote(given)
            except BackPressureError:
                raise HTTPException(503, TOO_MANY) from None
            except RayTaskError:  # the replica's own error: another one would say the same
                raise
            except RayActorError:
                await asyncio.sleep(0.1 * 2**attempt)
        raise HTTPException(503, "the models are starting again; try again later")
