"""The loop: read this first. Candidates in order, attempt, judge, commit or next; one loop for every kind of source.

plan ─► for each candidate ─► attempt ─► answered ─► done
               ▲                 └─► failed ─► health, trail ─┐
               └──────────── not committed ◄──────────────────┘
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llmproxy.core.contract import Source
from llmproxy.core.errors import (
    AttemptError,
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    LlmproxyError,
    Refused,
    TimedOut,
    Truncated,
)
from llmproxy.core.types import Attempt, Call, Candidate, Kept, Plan, Reply, Usage, trail
from llmproxy.gateway.attempt import Client, Exchange, Waits, streamed, whole
from llmproxy.gateway.metrics import Metrics
from llmproxy.gateway.relay import Mode, Relay
from llmproxy.gateway.verdict import nobody, of_failures, same_refusal
from llmproxy.routing.catalog import Catalog
from llmproxy.routing.health import Health
from llmproxy.routing.planner import plan

# The share of the deadline that the first of several candidates may use up, so that one failover always fits.
_FIRST_SHARE = 0.6
# After so many failures of one provider's servers in one call, a pool asks it no more.
_MOST_DOWN = 4
_PREFILL = frozenset({"prefill"})


class Answer(NamedTuple):
    """Who answered, why, after which attempts; `reply` is None when the answer went out as a stream."""

    candidate: Candidate
    reason: str
    attempts: tuple[Attempt, ...]
    usage: Usage
    reply: Reply | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """What the loop needs of the configuration."""

    waits: Waits = Waits()
    max_attempts: int = 12
    fallbacks: bool = True


class Dispatcher:
    """Finds an answer for each call. Holds the current snapshot; owns nothing that outlives a configuration but it."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        catalog: Callable[[], Catalog],
        settings: Callable[[], Settings],
        metrics: Metrics,
    ) -> None:
        self.sources = sources
        self.health = Health()
        self._catalog = catalog
        self._settings = settings
        self._metrics = metrics
        self._tickets = itertools.count()

    def plan(self, call: Call, *, whole: bool = False) -> Plan:
        """The plan for `call` at this moment; `whole` also tells everything that was dropped."""
        settings = self._settings()
        most = settings.max_attempts if settings.fallbacks else 1
        now = asyncio.get_running_loop().time()
        return plan(self._catalog(), call, self.health, now, next(self._tickets), most=most, whole=whole)

    async def answer(self, call: Call, client: Client) -> Answer:
        """Ask candidates until one answers; streams go to `client`. Raises one `LlmproxyError` for all failures."""
        loop = asyncio.get_running_loop()
        waits = self._settings().waits
        deadline = loop.time() + waits.deadline_s
        made = self.plan(call)
        if not made.kept:
            raise nobody(made)
        exchange = Exchange(call, client, made.kept[0])
        queue = Queue(made.kept)
        broke: AttemptError | None = None
        while (kept := queue.next(exchange)) is not None:
            now = loop.time()
            if now >= deadline and not exchange.committed:
                raise self._failed(DeadlineExceeded(f"no answer within {waits.deadline_s:g} s"), exchange)
            share = _FIRST_SHARE if not queue.failures and len(made.kept) > 1 else 1.0
            budget_s = waits.deadline_s if exchange.committed else (deadline - now) * share
            mode = self._mode(kept.candidate, exchange, now)
            try:
                return await self._attempt(kept, mode, exchange, waits, budget_s)
            except AttemptError as error:
                self._note(kept.candidate, error, exchange, loop.time() - now)
                refused_prefill = (
                    isinstance(error, Refused) and error.http_status in (400, 422) and call.endpoint == "chat"
                )
                if mode == "append" and refused_prefill:
                    # It takes no partial answer: remembered, and asked once more, from the beginning.
                    self.health.learn_lack(kept.candidate, "prefill", error.message, loop.time())
                    queue.again(kept)
                    continue
                queue.failed(kept, error)
                if exchange.committed:
                    broke = broke or error
                    continue
                if isinstance(error, Refused) and error.kind in ("invalid", "content_filter"):
                    raise self._failed(same_refusal(error), exchange) from error
        last = queue.failures[-1]
        if broke is not None:
            await self._break_off(exchange, broke)
            raise self._failed(broke, exchange) from last
        if loop.time() >= deadline:
            raise self._failed(DeadlineExceeded(f"no answer within {waits.deadline_s:g} s"), exchange) from last
        raise self._failed(of_failures(made, queue.failures), exchange) from last

    def _mode(self, candidate: Candidate, exchange: Exchange, now: float) -> Mode:
        """How the candidate is asked: from the beginning, or to go on from what the client has."""
        relay = exchange.relay
        if not exchange.committed or not isinstance(relay, Relay):
            return "fresh"
        relay.settle()
        if relay.sent_text and not relay.sent_calls:
            call = exchange.call
            takes_prefill = "prefill" in candidate.model.capabilities and not self.health.learned_lack(
                candidate, _PREFILL, now
            )
            if takes_prefill if call.endpoint == "chat" else isinstance(call.body.get("prompt"), str):
                return "append"
        return "align" if relay.sent_text or relay.sent_calls else "fresh"

    async def _attempt(self, kept: Kept, mode: Mode, exchange: Exchange, waits: Waits, budget_s: float) -> Answer:
        loop = asyncio.get_running_loop()
        candidate, started = kept.candidate, loop.time()
        exchange.kept, exchange.started_s = kept, started
        source = self.sources.get(candidate.model.source)
        if source is None:
            raise ConnectFailed(f"the source {candidate.model.source} was removed from the configuration")
        reply = None
        try:
            if exchange.streams:
                usage = await streamed(source, candidate, mode, exchange, waits, budget_s)
            else:
                reply, usage = await whole(source, candidate, exchange.call, waits, budget_s)
        except asyncio.CancelledError:
            elapsed_s = loop.time() - started
            exchange.attempts.append(Attempt(candidate.model.name, "cancelled", elapsed_s))
            self._metrics.attempt(candidate.model, "cancelled", elapsed_s)
            raise
        elapsed_s, reason = loop.time() - started, exchange.reason
        self.health.succeeded(candidate, elapsed_s)
        self._metrics.attempt(candidate.model, "ok", elapsed_s)
        self._metrics.tokens(candidate.model, usage)
        exchange.attempts.append(Attempt(candidate.model.name, "ok", elapsed_s, 200))
        return Answer(candidate, reason, tuple(exchange.attempts), usage, reply)

    def _note(self, candidate: Candidate, error: AttemptError, exchange: Exchange, elapsed_s: float) -> None:
        exchange.attempts.append(
            Attempt(
                candidate.model.name,
                error.outcome,
                elapsed_s,
                error.http_status,
                error.message[:300],
                error.retry_after_s,
            )
        )
        self.health.failed(candidate, error, asyncio.get_running_loop().time())
        self._metrics.attempt(candidate.model, error.outcome, elapsed_s)

    async def _break_off(self, exchange: Exchange, error: AttemptError) -> None:
        """The client has part of an answer that nobody can finish: tell it so, in the stream."""
        assert exchange.relay is not None
        body = {"message": error.message, "type": "api_error", "param": None, "code": error.outcome}
        told = exchange.relay.broken(body, f"attempts: {trail(exchange.attempts)}")
        if told:
            await exchange.finish(told)

    @staticmethod
    def _failed(error: LlmproxyError, exchange: Exchange) -> LlmproxyError:
        error.attempts = tuple(exchange.attempts)
        return error


class Queue:
    """The candidates of one call that are still worth asking, in their order.

    A dead key is not asked again for another model. A source that could not be reached, or whose servers failed, is
    asked again only after all others, and through a pool no more than a few times. Once the client has part of an
    answer, those that can continue it come first, and the candidate that broke off may try once more when nobody else
    is left.
    """

    def __init__(self, kept: Sequence[Kept]) -> None:
        self._waiting = list(kept)
        self._tried: list[Kept] = []
        self._retried = False
        self.failures: list[AttemptError] = []

    def next(self, exchange: Exchange) -> Kept | None:
        """The one whose turn it is; None when nobody is left."""
        if not self.failures:
            return self._waiting.pop(0) if self._waiting else None
        relay = exchange.relay
        if exchange.committed and not (relay is not None and relay.can_take_over):
            return None
        chances = [(self._chance(entry), entry) for entry in self._waiting]
        worth = [entry for chance, entry in chances if chance == "good"] or [
            entry for chance, entry in chances if chance == "poor"
        ]
        if exchange.committed:
            worth.sort(key=lambda entry: "prefill" not in entry.candidate.model.capabilities)
        if worth:
            self._waiting.remove(worth[0])
            return worth[0]
        return self._broken_off() if exchange.committed else None

    def failed(self, kept: Kept, error: AttemptError) -> None:
        """`kept` was asked and failed."""
        self._tried.append(kept)
        self.failures.append(error)

    def again(self, kept: Kept) -> None:
        """`kept` is to be asked next, in another way."""
        self._waiting.insert(0, kept)

    def _broken_off(self) -> Kept | None:
        """The candidate whose stream was the last to break off, once."""
        if self._retried:
            return None
        self._retried = True
        broken = (ConnectionLost, Truncated, TimedOut)
        pairs = zip(self._tried, self.failures, strict=True)
        return next((kept for kept, error in reversed(list(pairs)) if isinstance(error, broken)), None)

    def _chance(self, entry: Kept) -> str:
        candidate, down = entry.candidate, 0
        for kept, error in zip(self._tried, self.failures, strict=True):
            if kept.candidate.model.source != candidate.model.source:
                continue
            kind = error.kind if isinstance(error, Refused) else None
            if kind in ("auth", "credit") and kept.candidate.credential == candidate.credential:
                return "none"
            down += kind == "server" or isinstance(error, ConnectFailed)
        return "good" if not down else "poor" if entry.named or down < _MOST_DOWN else "none"
