"""One try of one candidate: bounded waiting, the judge, and the moment the first byte goes to the client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from llmproxy.core.contract import Source, Stream
from llmproxy.core.errors import AttemptError, ConnectionLost, TimedOut
from llmproxy.core.text import CHARACTERS_PER_TOKEN
from llmproxy.core.types import Attempt, Call, Candidate, Kept, Reply, Usage
from llmproxy.gateway.exchange import EVENTS, Exchange, Head
from llmproxy.gateway.judge import check_reply
from llmproxy.gateway.patience import Patience
from llmproxy.gateway.relay import Mode, Relay, read_usage

# A trickle is measured over so many stall timeouts of waiting for the source.
_TRICKLE_STALLS = 2


@dataclass(frozen=True, slots=True)
class Waits:
    """How long one attempt may take, in seconds; `slowest_tokens_s` is the slowest stream that is waited for."""

    request_s: float = 120.0
    first_token_s: float = 15.0
    stall_s: float = 15.0
    deadline_s: float = 90.0
    slowest_tokens_s: float = 0.0
    life_sign_s: float | None = None
    hedge_s: float | None = None


class Pace:
    """Raises `TimedOut` when a source that has begun makes less than `slowest_tokens_s` over `window_s` of waiting."""

    __slots__ = ("_fewest", "_heard", "_waited_s", "_window_s")

    def __init__(self, slowest_tokens_s: float, window_s: float) -> None:
        self._fewest = slowest_tokens_s * window_s * CHARACTERS_PER_TOKEN
        self._window_s = window_s
        self._waited_s = 0.0
        self._heard = 0

    def piece(self, waited_s: float, characters: int) -> None:
        """After `waited_s` seconds of waiting for the source (not for the client) came so many characters of output."""
        self._waited_s += waited_s
        self._heard += characters
        if self._waited_s >= self._window_s:
            if self._heard < self._fewest:
                message = f"a trickle: {self._heard} characters in {self._waited_s:.0f} s"
                raise TimedOut(message, outcome="trickle")
            self._waited_s, self._heard = 0.0, 0


class Try:
    """One candidate's turn in an exchange. `claim` is called right before its first byte goes to the client."""

    __slots__ = (
        "_exchange",
        "beaten",
        "claim",
        "content_type",
        "first_s",
        "headers",
        "kept",
        "listen",
        "mode",
        "relay",
        "started_s",
        "status",
    )

    def __init__(self, exchange: Exchange, kept: Kept, mode: Mode, *, claim: Callable[[], None] | None = None) -> None:
        self._exchange = exchange
        self.kept = kept
        self.mode = mode
        self.claim = claim
        # Of two that are asked at the same time, each has its own; the one that delivers is heard.
        self.relay = exchange.relay if claim is None else Relay(exchange.call)
        self.started_s = asyncio.get_running_loop().time()
        self.first_s: float | None = None  # seconds until its first byte went to the client
        self.beaten = False
        self.listen: Callable[[Mapping[str, str]], None] | None = None  # is told the headers of a stream
        self.status = 200
        self.content_type = EVENTS
        self.headers: Mapping[str, str] = {}

    @property
    def candidate(self) -> Candidate:
        return self.kept.candidate

    @property
    def call(self) -> Call:
        """The call as this candidate gets it."""
        return _continued(self._exchange) if self.mode == "append" else self._exchange.call

    @property
    def raw(self) -> bool:
        return self._exchange.raw

    @property
    def reason(self) -> str:
        """Why this candidate answers: its place in the plan, and what went wrong before it."""
        tried = self._exchange.attempts
        return f"{self.kept.reason}; after {tried[-1].outcome}" if tried else self.kept.reason

    async def write(self, data: bytes) -> None:
        """Send bytes to the client; the first time is the commit, and tells it who answers."""
        if self.first_s is None:
            await self._begin()
        await self._exchange.write(data)

    async def finish(self, data: bytes) -> None:
        """Send the last bytes."""
        if self.first_s is None:
            await self._begin()
        await self._exchange.finish(data, self._head())

    async def _begin(self) -> None:
        self.first_s = asyncio.get_running_loop().time() - self.started_s
        if self.claim is not None:
            self.claim()
        if not self._exchange.committed:
            await self._exchange.commit(self.relay, self._head())

    def _head(self) -> Head:
        elapsed_s = asyncio.get_running_loop().time() - self.started_s
        now = Attempt(self.candidate.model.name, "ok", elapsed_s, self.status)
        attempts = (*self._exchange.attempts, now)
        return Head(self.candidate, self.reason, attempts, self.status, self.content_type, self.headers)


async def whole(source: Source, candidate: Candidate, call: Call, waits: Waits, budget_s: float) -> tuple[Reply, Usage]:
    """The whole answer, judged; at most `budget_s` seconds. Raises an `AttemptError`."""
    # As in a stream: a local model may still be loading, and nobody but the deadline hurries it.
    limit_s = budget_s if candidate.model.local else min(waits.request_s, budget_s)
    try:
        reply = await _send(source, candidate, call, limit_s)
    except ConnectionLost as lost:
        if not lost.sent_nothing:
            raise
        # The upstream had closed a kept-alive connection at that very moment: nothing was answered, so ask once more.
        reply = await _send(source, candidate, call, limit_s)
    body = check_reply(call, reply.body)
    body["model"] = candidate.model.name
    return reply, read_usage(body.get("usage"))


async def streamed(source: Source, attempt: Try, waits: Waits, budget_s: float) -> Usage:
    """The answer piece by piece to the client; returns when all of it was written. Raises an `AttemptError`."""
    call, relay = attempt.call, attempt.relay
    for last_chance in (False, True):
        relay.begin(attempt.candidate.model.name, attempt.mode)
        last = b""
        try:
            last = await _pump(source, attempt, call, waits, budget_s)
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
            await attempt.write(last)
        raise
    await attempt.finish(last + end)
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


async def _pump(source: Source, attempt: Try, call: Call, waits: Waits, budget_s: float) -> bytes:
    """Relay until the stream says that it is done, or ends; what came with the end is left to be sent with it."""
    relay, local = attempt.relay, attempt.candidate.model.local
    # A local model may still be loading, and is as fast as this machine: nobody but the deadline hurries it.
    # Where nothing streams, the first piece is the whole answer.
    remote_s = waits.first_token_s if attempt.candidate.model.streams else waits.request_s
    first_s = budget_s if local else min(remote_s, budget_s)
    pace = Pace(0.0 if local or attempt.raw else waits.slowest_tokens_s, _TRICKLE_STALLS * waits.stall_s)
    clock = asyncio.get_running_loop().time
    stream: Stream
    async with Patience(first_s, "first_token") as patience, source.stream(call, attempt.candidate) as stream:
        attempt.headers = stream.headers
        if attempt.listen is not None:
            attempt.listen(stream.headers)
        if attempt.raw:
            attempt.status = stream.status
            attempt.content_type = stream.headers.get("content-type", "application/octet-stream")
        since_s = clock()
        async for data in stream:
            waited_s, heard = clock() - since_s, relay.heard
            out = relay.feed(data)
            if relay.done:
                return out
            if out:
                patience.pause()
                await attempt.write(out)
                patience.progress()
            if relay.heard != heard:
                patience.phase(waits.stall_s, "stall")
            if heard:
                pace.piece(waited_s, relay.heard - heard)
            since_s = clock()
    return b""
