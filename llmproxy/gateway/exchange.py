"""One call with one client over all its attempts: the commit, what was heard so far, and life signs meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import orjson

from llmproxy.core import sse
from llmproxy.core.errors import ClientGone, LlmproxyError
from llmproxy.core.types import Attempt, Call, Candidate, trail
from llmproxy.dialects.openai import error_body
from llmproxy.gateway.relay import RawRelay, Relay

_NO_HEADERS: Mapping[str, str] = {}
_LIFE_SIGN = sse.comment("still waiting")
EVENTS = "text/event-stream; charset=utf-8"


class Head(NamedTuple):
    """What the client is told before the first byte of a stream: who answers, why, and after which attempts.

    `headers` are those of the source. `candidate` is None when the stream is opened only to keep the client waiting:
    nobody has answered yet.
    """

    candidate: Candidate | None
    reason: str
    attempts: tuple[Attempt, ...]
    status: int = 200
    content_type: str = EVENTS
    headers: Mapping[str, str] = _NO_HEADERS


class Client(Protocol):
    """The receiving end of a stream. `open` is called once, before anything else."""

    async def open(self, head: Head) -> None: ...

    async def write(self, data: bytes) -> None: ...

    async def finish(self, data: bytes) -> None:
        """The last bytes: nothing is written after them."""
        ...


class Exchange:
    """`opened` once the client has a status; `committed` once it has part of an answer, which is then that of `relay`.

    Between the two there are only comments, one for each `life_sign_s` seconds in which nothing else went out.
    """

    __slots__ = (
        "_client",
        "_door",
        "_life_sign_s",
        "_loop",
        "_sign",
        "_timer",
        "_told",
        "_writes",
        "attempts",
        "call",
        "committed",
        "opened",
        "raw",
        "relay",
        "streams",
    )

    def __init__(self, call: Call, client: Client, life_sign_s: float | None = None) -> None:
        self.call = call
        self.raw = call.endpoint == "passthrough"
        self.streams = call.stream or self.raw
        self.relay: Relay | RawRelay = Relay(call) if call.stream and not self.raw else RawRelay()
        self.attempts: list[Attempt] = []
        self.opened = False
        self.committed = False
        self._client = client
        self._told: Candidate | None = None
        self._door = asyncio.Lock()
        self._writes = 0
        self._loop = asyncio.get_running_loop()
        self._life_sign_s = life_sign_s or 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._sign: asyncio.Task[None] | None = None
        if life_sign_s is not None and call.stream:
            self._timer = self._loop.call_later(life_sign_s, self._look, 0)

    async def commit(self, relay: Relay | RawRelay, head: Head) -> None:
        """From here on the client hears `relay`."""
        self.committed = True
        self.relay = relay
        await self._open(head)

    async def write(self, data: bytes) -> None:
        """Send bytes to the client; waits while the client is slower than the source."""
        self._writes += 1
        await self._client.write(data)

    async def finish(self, data: bytes, head: Head) -> None:
        """Send the last bytes, and before them the trail if the client was told of another candidate than `head`."""
        if self._told is not head.candidate and not self.raw:
            data = sse.comment(f"trail {trail(head.attempts)}") + data
        await self._finish(data)

    async def tell(self, error: LlmproxyError) -> None:
        """The client has begun to read, and nobody can finish what it reads: tell it so, in the stream."""
        await self._finish(b"" if self.raw else sse.event(orjson.dumps(error_body(error))) + sse.DONE)

    def close(self) -> None:
        """No more life signs."""
        if self._timer is not None:
            self._timer.cancel()
        if self._sign is not None:
            self._sign.cancel()
            self._sign = None  # it keeps its frame, and that the exchange

    async def _finish(self, data: bytes) -> None:
        async with self._door:
            self.close()
        await self._client.finish(data)

    async def _open(self, head: Head) -> None:
        async with self._door:
            if not self.opened:
                self.opened, self._told = True, head.candidate
                await self._client.open(head)

    # -- life signs -----------------------------------------------------------------------------------------------

    def _look(self, writes: int) -> None:
        if self._writes == writes:
            self._sign = self._loop.create_task(self._give_sign())
        else:
            self._timer = self._loop.call_later(self._life_sign_s, self._look, self._writes)

    async def _give_sign(self) -> None:
        try:
            await self._open(Head(None, "", tuple(self.attempts)))
            await self._client.write(_LIFE_SIGN)
        except ClientGone:
            return  # whoever makes the answer finds out by itself
        self._timer = self._loop.call_later(self._life_sign_s, self._look, self._writes)
