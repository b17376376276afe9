"""One try of one candidate: bounded waiting, the judge, and the moment the first byte goes to the client."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from llmproxy.core.contract import Source, Stream
from llmproxy.core.errors import ConnectionLost, TimedOut
from llmproxy.core.types import Attempt, Call, Candidate, Reply, Usage
from llmproxy.gateway.judge import check_reply
from llmproxy.gateway.patience import Patience
from llmproxy.gateway.relay import RawRelay, Relay, read_usage


@dataclass(frozen=True, slots=True)
class Waits:
    """How long one attempt may take, in seconds."""

    request_s: float = 120.0
    first_token_s: float = 15.0
    stall_s: float = 15.0
    deadline_s: float = 90.0


@dataclass(frozen=True, slots=True)
class Head:
    """What the client is told before the first byte of a stream: who answers, why, and after which attempts."""

    candidate: Candidate
    reason: str
    attempts: tuple[Attempt, ...]
    status: int = 200
    content_type: str = "text/event-stream; charset=utf-8"


class Client(Protocol):
    """The receiving end of a stream. `open` is called once, before the first `write`; that is the commit."""

    async def open(self, head: Head) -> None: ...

    async def write(self, data: bytes) -> None: ...


@dataclass(slots=True)
class Exchange:
    """One call with one client over all its attempts; `head` is that of the attempt in progress."""

    call: Call
    client: Client
    relay: Relay | RawRelay
    head: Head
    opened: bool = False
    attempts: list[Attempt] = field(default_factory=list)

    async def write(self, data: bytes) -> None:
        if not self.opened:
            self.opened = True
            await self.client.open(self.head)
        if data:
            await self.client.write(data)


async def whole(source: Source, candidate: Candidate, call: Call, waits: Waits, budget_s: float) -> tuple[Reply, Usage]:
    """The whole answer, judged; at most `budget_s` seconds. Raises an `AttemptError`."""
    try:
        reply = await _send(source, candidate, call, min(waits.request_s, budget_s))
    except ConnectionLost as lost:
        if not lost.sent_nothing:
            raise
        # The upstream had closed a kept-alive connection at that very moment: nothing was answered, so ask once more.
        reply = await _send(source, candidate, call, min(waits.request_s, budget_s))
    if call.endpoint == "passthrough":
        return reply, Usage(estimated=True)
    body = check_reply(call, reply.body)
    body["model"] = candidate.model.name
    return reply, read_usage(body.get("usage"))


async def streamed(source: Source, candidate: Candidate, exchange: Exchange, waits: Waits, budget_s: float) -> Usage:
    """The answer piece by piece into `exchange`; returns when all of it was written. Raises an `AttemptError`."""
    relay = exchange.relay
    # A local model may still be loading; nobody but the deadline hurries it.
    first_s = budget_s if candidate.model.local else min(waits.first_token_s, budget_s)
    for last_chance in (False, True):
        relay.begin(candidate.model.name)
        try:
            await _pump(source, candidate, exchange, first_s, waits.stall_s)
        except ConnectionLost as lost:
            if lost.sent_nothing and not last_chance:
                continue
            if not relay.finished:
                raise
        except TimedOut:
            if not relay.finished:
                raise
        break
    await exchange.write(relay.end())
    return relay.usage or Usage(estimated=True)


async def _send(source: Source, candidate: Candidate, call: Call, limit_s: float) -> Reply:
    async with Patience(limit_s, "request"):
        return await source.send(call, candidate)


async def _pump(source: Source, candidate: Candidate, exchange: Exchange, first_s: float, stall_s: float) -> None:
    relay = exchange.relay
    stream: Stream
    async with Patience(first_s, "first_token") as patience, source.stream(exchange.call, candidate) as stream:
        if isinstance(relay, RawRelay):
            content_type = stream.headers.get("content-type", "application/octet-stream")
            head = exchange.head
            exchange.head = Head(head.candidate, head.reason, head.attempts, stream.status, content_type)
        async for data in stream:
            out = relay.feed(data)
            if out:
                patience.pause()
                await exchange.write(out)
            if relay.spoke:
                patience.phase(stall_s, "stall")
            if relay.done:
                return
