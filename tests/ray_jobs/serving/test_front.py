"""Photos of different requests share calls to the models; no Ray."""

import asyncio

import pytest
from fastapi import HTTPException
from ray.exceptions import RayActorError

from maskcls.config.serve import Serve
from ray_jobs import serve as verb
from ray_jobs.serving import front
from ray_jobs.serving.front import Batches, Front


def photo(number):
    return str(number), b""


class Calls:
    """Models that answer when told to; ``made`` are the photos of each call."""

    def __init__(self):
        self.made, self._gates = [], []

    async def __call__(self, photos):
        self.made.append([int(name) for name, _ in photos])
        gate = asyncio.get_running_loop().create_future()
        self._gates.append(gate)
        await gate
        return [{"photo": name} for name, _ in photos]

    async def end(self, number, error=None):
        gate = self._gates[number]
        gate.set_exception(error) if error else gate.set_result(None)
        await asyncio.sleep(0.01)


async def ask(batches, numbers):
    tasks = [asyncio.create_task(batches(photo(number))) for number in numbers]
    await asyncio.sleep(0.01)
    return tasks


def rows(tasks):
    return [int(task.result()["photo"]) for task in tasks]


def test_batches_grow_with_what_waits_and_every_photo_gets_its_own_row():
    async def go():
        calls = Calls()
        batches = Batches(calls, asyncio.Semaphore(2), size=3, limit=99)
        tasks = await ask(batches, [0]) + await ask(batches, [1]) + await ask(batches, range(2, 8))
        # The first two found a call free; what came meanwhile waits for one.
        assert calls.made == [[0], [1]]
        await calls.end(1)
        assert calls.made[2:] == [[2, 3, 4]]
        await calls.end(0)
        assert calls.made[3:] == [[5, 6, 7]]
        await calls.end(2)
        await calls.end(3)
        assert rows(tasks) == list(range(8))
        tasks = await ask(batches, range(8, 11))  # the photos of one request, as a call takes them
        assert calls.made[4:] == [[8, 9, 10]]
        await calls.end(4)
        assert rows(tasks) == [8, 9, 10]

    asyncio.run(go())


def test_an_error_is_that_of_its_batch_and_the_next_are_answered():
    async def go():
        calls = Calls()
        batches = Batches(calls, asyncio.Semaphore(1), size=2, limit=99)
        (first,) = await ask(batches, [0])
        others = await ask(batches, range(1, 4))
        others[0].cancel()  # its client has left
        await calls.end(0, RuntimeError("broken"))
        assert str(first.exception()) == "broken"
        await calls.end(1)
        await calls.end(2)
        assert calls.made == [[0], [1, 2], [3]]
        assert others[0].cancelled() and rows(others[1:]) == [2, 3]

    asyncio.run(go())


def test_more_than_may_wait_are_refused_at_once():
    async def go():
        calls = Calls()
        batches = Batches(calls, asyncio.Semaphore(1), size=2, limit=2)
        tasks = await ask(batches, [0]) + await ask(batches, range(1, 4))
        with pytest.raises(HTTPException) as refused:
            await tasks[3]
        assert refused.value.status_code == 503
        for number in range(2):
            await calls.end(number)
        assert rows(tasks[:3]) == [0, 1, 2]

    asyncio.run(go())


def test_an_explanation_takes_its_turn_among_the_batches():
    async def go():
        calls = Calls()
        one = Front(None, Serve(batch_size=9), None)
        methods = {"answer": calls, "explain": lambda photo: calls([photo])}
        one._retry = lambda method, given: methods[method](given)
        asked = [asyncio.create_task(one._ask([photo(number)])) for number in (0, 1)]
        await asyncio.sleep(0.01)
        explained = asyncio.create_task(one._explain(photo(5)))
        await asyncio.sleep(0.01)
        asked.append(asyncio.create_task(one._ask([photo(2)])))
        await asyncio.sleep(0.01)
        for number in range(3):
            await calls.end(number)
        assert calls.made == [[0, 1], [5], [2]]
        await asyncio.gather(*asked, explained)

    asyncio.run(go())


class Dying:
    """A handle whose first ``deaths`` replicas die at work."""

    def __init__(self, deaths):
        self._deaths = deaths
        self.answer = self

    async def remote(self, photos):
        self._deaths -= 1
        if self._deaths >= 0:
            raise RayActorError()
        return [{"photo": name} for name, _ in photos]


@pytest.mark.parametrize(("deaths", "status"), [(2, None), (9, 503)])
def test_another_replica_is_asked_where_one_dies(monkeypatch, deaths, status):
    monkeypatch.setattr(front, "ATTEMPTS", 4)
    asked = Front(Dying(deaths), Serve(), None)
    if status is None:
        assert asyncio.run(asked._ask([photo(7)])) == [{"photo": "7"}]
    else:
        with pytest.raises(HTTPException) as refused:
            asyncio.run(asked._ask([photo(7)]))
        assert refused.value.status_code == status


def test_a_port_that_is_taken_is_refused():
    with verb.bound("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(ValueError, match=rf"serve.port={port}: cannot listen there"):
            verb.bound("127.0.0.1", port).__enter__()
