"""The process of a model as the server sees it: its queue, its memory, and what becomes of one that is stuck."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import pytest

from backends.memory import measure
from backends.parameters import Sampling
from backends.placement import Need
from backends.process import Worker
from backends.residency import Residency
from backends.residents import Limits
from llmproxy.core.errors import ConnectionLost, Refused
from llmproxy.core.types import JsonObject

pytestmark = pytest.mark.limit(120)

SLEEPER: JsonObject = {"handler": "tests.backends.handlers.Sleeper"}


@asynccontextmanager
async def working(folder: Path, settings: JsonObject, **options: Any) -> AsyncIterator[Worker]:
    """A process with a handler, which is ended."""
    worker = Worker("model", folder, "cpu", settings, **options)
    worker.start()
    try:
        yield worker
    finally:
        await worker.aclose()


def request(text: str) -> JsonObject:
    """A chat as the server sends it."""
    body = {"messages": [{"role": "user", "content": text}]}
    return {"id": "x", "endpoint": "chat", "stream": False, "sampling": asdict(Sampling()), "body": body}


async def answer(worker: Worker, text: str) -> str:
    """The text of an answer."""
    raw = b"".join([piece async for piece in worker.run(request(text))])
    return str(orjson.loads(raw)["choices"][0]["message"]["content"])


async def test_one_call_too_many(tmp_path: Path) -> None:
    """A queue is bounded: one more call is told when to come again, and those that wait are all answered."""
    async with working(tmp_path, SLEEPER, most_calls=3) as worker:
        waiting = [asyncio.create_task(answer(worker, "0.2")) for _ in range(3)]
        await asyncio.sleep(0)
        while worker.state == "loading":  # noqa: ASYNC110 - a worker has no event for its beginning
            await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        with pytest.raises(Refused) as caught:
            await answer(worker, "0")
        assert (caught.value.kind, caught.value.http_status, caught.value.upstream_code) == (
            "rate_limit",
            429,
            "queue_full",
        )
        assert caught.value.retry_after_s is not None
        assert caught.value.retry_after_s >= 1
        assert await asyncio.gather(*waiting) == ["awake"] * 3
        assert await answer(worker, "0") == "awake"


async def test_a_process_tells_what_it_takes(tmp_path: Path) -> None:
    """Its memory is known as soon as it is ready, and forgotten when it has ended."""
    async with working(tmp_path, SLEEPER) as worker:
        assert await answer(worker, "0") == "awake"
        assert 20 << 20 < worker.memory_bytes["cpu"] < 8 << 30
    assert worker.memory_bytes == {}


async def test_a_call_that_does_not_end(tmp_path: Path) -> None:
    """A process that works on long after its call was given up is ended; the next call is answered by a new one."""
    async with working(tmp_path, SLEEPER, most_calls=9, patience_s=0.5) as worker:
        assert await answer(worker, "0") == "awake"
        pid = worker.pid
        given_up = asyncio.create_task(answer(worker, "600"))
        behind = asyncio.create_task(answer(worker, "0"))
        await asyncio.sleep(0.05)
        given_up.cancel()
        with pytest.raises(ConnectionLost):
            await behind
        assert await answer(worker, "0") == "awake"
        assert worker.pid != pid


async def test_a_call_that_ends_after_it_was_given_up(tmp_path: Path) -> None:
    """A process that stops in time lives on, and so does one whose answer lay unread."""
    async with working(tmp_path, SLEEPER, patience_s=1.0) as worker:
        assert await answer(worker, "0") == "awake"
        pid = worker.pid
        given_up = asyncio.create_task(answer(worker, "0.3"))
        await asyncio.sleep(0.05)
        given_up.cancel()
        unread = worker.run(request("0"))
        await anext(unread)
        assert await answer(worker, "0") == "awake"
        await unread.aclose()
        await asyncio.sleep(1.2)
        assert await answer(worker, "0") == "awake"
        assert worker.pid == pid


async def test_a_call_that_is_given_up_in_the_queue(tmp_path: Path) -> None:
    """A call that was given up before its turn says nothing about the process: those before it are answered."""
    async with working(tmp_path, SLEEPER, most_calls=9, patience_s=0.3) as worker:
        assert await answer(worker, "0") == "awake"
        pid = worker.pid
        first = asyncio.create_task(answer(worker, "1.2"))
        second = asyncio.create_task(answer(worker, "0"))
        await asyncio.sleep(0.05)
        second.cancel()
        assert await first == "awake"
        assert await answer(worker, "0") == "awake"
        assert worker.pid == pid


async def test_token_ids_in_a_request(tmp_path: Path) -> None:
    """Biases, which are by the ids of tokens, reach the process."""
    async with working(tmp_path, SLEEPER) as worker:
        asked = {**request("0"), "sampling": asdict(Sampling(logit_bias={5: -100.0}))}
        raw = b"".join([piece async for piece in worker.run(asked)])
        assert orjson.loads(raw)["choices"][0]["message"]["content"] == "awake"


async def test_a_request_that_cannot_be_sent(tmp_path: Path) -> None:
    """What the process never heard of is no call that it works on: it lives on."""
    async with working(tmp_path, SLEEPER, patience_s=0.2) as worker:
        assert await answer(worker, "0") == "awake"
        pid = worker.pid
        with pytest.raises(TypeError):
            await answer(worker, "\ud800")
        assert await answer(worker, "0.5") == "awake"
        assert worker.pid == pid


async def test_a_model_that_shows_nothing(tmp_path: Path) -> None:
    """A model that never answers what it is to show has failed when the time for its load is over; its process ends."""
    made: list[Worker] = []

    def make(name: str, place: tuple[str, ...]) -> Worker:
        settings = {"handler": "tests.backends.handlers.Deaf", "rehearsals": ["chat"]}
        made.append(Worker(name, tmp_path, "cpu", settings))
        return made[-1]

    residency = Residency([Need("deaf", 1)], make, ("cpu",), measure, Limits(load_s=2.0))
    try:
        assert "not within 2 s" in (await residency.warm(["deaf"]))["deaf"]
        assert made[0].pid is None
    finally:
        await residency.aclose()


async def test_what_is_shown_before_it_is_ready(tmp_path: Path) -> None:
    """A model that loads and then cannot answer has failed, with the reason."""
    settings = {"handler": "tests.backends.handlers.Mute", "rehearsals": ["chat"]}
    async with working(tmp_path, settings) as worker:
        with pytest.raises(Refused, match="cannot do chat: RuntimeError: no voice") as caught:
            await answer(worker, "0")
        assert caught.value.upstream_code == "model_load_failed"
    async with working(tmp_path, {**SLEEPER, "rehearsals": ["chat"]}) as worker:
        assert await answer(worker, "0") == "awake"
