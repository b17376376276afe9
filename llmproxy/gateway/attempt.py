"""One try of one candidate: bounded waiting, the judge, and the moment the first byte goes to the client."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from llmproxy.core.contract import Source, Stream
from llmproxy.core.errors import AttemptError, ConnectionLost, TimedOut
from llmproxy.core.types import Attempt, Call, Candidate, Kept, Reply, Usage
from llmproxy.gateway.judge import check_reply
from llmproxy.gateway.patience import Patience
from llmproxy.gateway.relay import Mode, RawRelay, Relay, read_usage


@dataclass(frozen=True, slots=True)
class Waits:
    """How long one attempt may take, in seconds."""

    request_s: float = 120.0
    first_token_s: float = 15.0
    stall_s: float = 15.0
    deadline_s: float = 90.0


class Head(NamedTuple):
    """What the client is told before the first byte of a stream: who answers, why, and after which attempts."""

    candidate: Candidate
    reason: str
    attempts: tuple[Attempt, ...]
    status: int = 200
    content_type: str = "text/event-stream; charset=utf-8"


class Client(Protocol):
    """The receiving end of a stream. `open` is called once, before anything else; that is the commit."""

    async def open(self, head: Head) -> None: ...

    async def write(self, data: bytes) -> None: ...

    async def finish(self, data: bytes) -> None:
        """The last bytes: nothing is written after them."""
        ...


class Exchange:
    """One call with one client over all its attempts; `kept` is the candidate whose turn it is."""

    __slots__ = (
        "attempts",
        "call",
        "client",
        "committed",
        "content_type",
        "kept",
        "raw",
        "relay",
        "started_s",
        "status",
        "streams",
    )

    def __init__(self, call: Call, client: Client, kept: Kept) -> None:
        self.call = call
        self.client = client
        self.kept = kept
        self.raw = call.endpoint == "passthrough"
        self.streams = call.stream or self.raw
        self.relay = RawRelay() if self.raw else Relay(call) if self.streams else None
        self.attempts: list[Attempt] = []
        self.started_s = 0.0
        self.committed = False
        self.status = 200
        self.content_type = "text/event-stream; charset=utf-8"

    @property
    def reason(self) -> str:
        """Why this candidate answers: its place in the plan, and what went wrong before it."""
        return f"{self.kept.reason}; after {self.attempts[-1].outcome}" if self.attempts else self.kept.reason

    async def write(self, data: bytes) -> None:
        """Send bytes to the client; the first time is the commit, and tells it who answers."""
        if not self.committed:
            await self._commit()
        await self.client.write(data)

    async def finish(self, data: bytes) -> None:
        """Send the last bytes."""
        if not self.committed:
            await self._commit()
        await self.client.finish(data)

    async def _commit(self) -> None:
        self.committed = True
        elapsed_s = asyncio.get_running_loop().time() - self.started_s
        now = Attempt(self.kept.candidate.model.name, "ok", elapsed_s, self.status)
        head = Head(self.kept.candidate, self.reason, (*self.attempts, now), self.status, self.content_type)
        await self.client.open(head)


async def whole(source: Source, candidate: Candidate, call: Call, waits: Waits, budget_s: float) -> tuple[Reply, Usage]:
    """The whole answer, judged; at most `budget_s` seconds. Raises an `AttemptError`."""
    try:
        reply = await _send(source, candidate, call, min(waits.request_s, budget_s))
    except ConnectionLost as lost:
        if not lost.sent_nothing:
            raise
        # The upstream had closed a kept-alive connection at that very moment: nothing was answered, so ask once more.
        reply = await _send(source, candidate, call, min(waits.request_s, budget_s))
    body = check_reply(call, reply.body)
    body["model"] = candidate.model.name
    return reply, read_usage(body.get("usage"))


async def streamed(
    source: Source, candidate: Candidate, mode: Mode, exchange: Exchange, waits: Waits, budget_s: float
) -> Usage:
    """The answer piece by piece into `exchange`; returns when all of it was written. Raises an `AttemptError`."""
    call = _continued(exchange) if mode == "append" else exchange.call
    relay = exchange.relay
    assert relay is not None
    # A local model may still be loading; nobody but the deadline hurries it.
    first_s = budget_s if candidate.model.local else min(waits.first_token_s, budget_s)
    for last_chance in (False, True):
        relay.begin(candidate.model.name, mode)
        last = b""
        try:
            last = await _pump(source, candidate, call, exchange, first_s, waits.stall_s)
        except ConnectionLost as lost:
            if lost.sent_nothing and not last_chance:
                continue
            if not relay.finished:
                raise
        except TimedOut:
            if not relay.finished:
                raise
        break
    try:
        end = relay.end()
    except AttemptError:
        if last:
            await exchange.write(last)
        raise
    await exchange.finish(last + end)
    return relay.usage or Usage(estimated=True)


def _continued(exchange: Exchange) -> Call:
    """The call with what the client has of the answer as its last message (or at the end of its prompt)."""
    assert isinstance(exchange.relay, Relay)
    text, body = exchange.relay.sent_text.rstrip(), exchange.call.body
    if exchange.call.endpoint == "completions":
        body = {**body, "prompt": body["prompt"] + text}
    else:
        body = {**body, "messages": [*body["messages"], {"role": "assistant", "content": text}]}
    return replace(exchange.call, body=body)


async def _send(source: Source, candidate: Candidate, call: Call, limit_s: float) -> Reply:
    async with Patience(limit_s, "request"):
        return await source.send(call, candidate)


async def _pump(
    source: Source, candidate: Candidate, call: Call, exchange: Exchange, first_s: float, stall_s: float
) -> bytes:
    """Relay until the stream says that it is done, or ends; what came with the end is left to be sent with it."""
    relay = exchange.relay
    assert relay is not None
    stream: Stream
    async with Patience(first_s, "first_token") as patience, source.stream(call, candidate) as stream:
        if exchange.raw:
            exchange.status = stream.status
            exchange.content_type = stream.headers.get("content-type", "application/octet-stream")
        async for data in stream:
            out = relay.feed(data)
            if relay.done:
                return out
            if out:
                patience.pause()
                await exchange.write(out)
            if relay.spoke:
                patience.phase(stall_s, "stall")
    return b""
