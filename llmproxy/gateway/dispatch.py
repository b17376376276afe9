"""The loop: read this first. Candidates in order, attempt, judge, commit or next; one loop for every kind of source.

plan ─► for each candidate ─► attempt ─► answered ─► done
               ▲                 └─► failed ─► health, trail ─┐
               └──────────── not committed ◄──────────────────┘
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from llmproxy.core import sse
from llmproxy.core.contract import Source
from llmproxy.core.errors import (
    AttemptError,
    ConnectFailed,
    DeadlineExceeded,
    LlmproxyError,
    Refused,
)
from llmproxy.core.types import Attempt, Call, Candidate, Kept, Plan, Reply, Usage
from llmproxy.gateway.attempt import Client, Exchange, Waits, streamed, whole
from llmproxy.gateway.metrics import Metrics
from llmproxy.gateway.verdict import nobody, of_failures, same_refusal
from llmproxy.routing.catalog import Catalog
from llmproxy.routing.health import Health
from llmproxy.routing.planner import plan

# The share of the deadline that the first of several candidates may use up, so that one failover always fits.
_FIRST_SHARE = 0.6


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
        failures: list[AttemptError] = []
        tried: list[Candidate] = []
        for kept in _worth_trying(made.kept, tried, failures):
            now = loop.time()
            if now >= deadline:
                raise self._failed(DeadlineExceeded(f"no answer within {waits.deadline_s:g} s"), exchange)
            share = _FIRST_SHARE if not failures and len(made.kept) > 1 else 1.0
            try:
                return await self._attempt(kept, exchange, waits, (deadline - now) * share)
            except AttemptError as error:
                tried.append(kept.candidate)
                failures.append(error)
                self._note(kept.candidate, error, exchange, loop.time() - now)
                if exchange.committed:
                    await self._break_off(exchange, error)
                    raise self._failed(error, exchange) from error
                if isinstance(error, Refused) and error.kind in ("invalid", "content_filter"):
                    raise self._failed(same_refusal(error), exchange) from error
        if loop.time() >= deadline:
            raise self._failed(DeadlineExceeded(f"no answer within {waits.deadline_s:g} s"), exchange) from failures[-1]
        raise self._failed(of_failures(made, failures), exchange) from failures[-1]

    async def _attempt(self, kept: Kept, exchange: Exchange, waits: Waits, budget_s: float) -> Answer:
        loop = asyncio.get_running_loop()
        candidate, started = kept.candidate, loop.time()
        exchange.kept = kept
        source = self.sources.get(candidate.model.source)
        if source is None:
            raise ConnectFailed(f"the source {candidate.model.source} was removed from the configuration")
        reply = None
        try:
            if exchange.streams:
                usage = await streamed(source, candidate, exchange, waits, budget_s)
            else:
                reply, usage = await whole(source, candidate, exchange.call, waits, budget_s)
        except asyncio.CancelledError:
            elapsed_s = loop.time() - started
            exchange.attempts.append(Attempt(candidate.model.name, "cancelled", elapsed_s))
            self._metrics.attempt(candidate.model, "cancelled", elapsed_s)
            raise
        elapsed_s = loop.time() - started
        self.health.succeeded(candidate, elapsed_s)
        self._metrics.attempt(candidate.model, "ok", elapsed_s)
        self._metrics.tokens(candidate.model, usage)
        exchange.attempts.append(Attempt(candidate.model.name, "ok", elapsed_s, 200))
        reason = kept.reason if not exchange.attempts[:-1] else f"{kept.reason}; after {exchange.attempts[-2].outcome}"
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
        if not exchange.raw:
            body = {"message": error.message, "type": "api_error", "param": None, "code": error.outcome}
            await exchange.finish(sse.event(orjson.dumps({"error": body})))

    @staticmethod
    def _failed(error: LlmproxyError, exchange: Exchange) -> LlmproxyError:
        error.attempts = tuple(exchange.attempts)
        return error


def _worth_trying(kept: Sequence[Kept], tried: Sequence[Candidate], failures: Sequence[AttemptError]) -> Iterator[Kept]:
    """`kept` in its order, leaving for last (or out) what the failures so far make pointless.

    A dead key is not asked again for another model. A source that could not be reached, or whose servers failed, is
    asked again only after all others.
    """
    later: list[Kept] = []
    for entry in kept:
        verdict = _pointless(entry.candidate, tried, failures)
        if verdict == "later":
            later.append(entry)
        elif verdict == "no":
            yield entry
    for entry in later:
        if _pointless(entry.candidate, tried, failures) != "never":
            yield entry


def _pointless(candidate: Candidate, tried: Sequence[Candidate], failures: Sequence[AttemptError]) -> str:
    answer = "no"
    for other, failure in zip(tried, failures, strict=True):
        if other.model.source != candidate.model.source:
            continue
        if (
            isinstance(failure, Refused)
            and failure.kind in ("auth", "credit")
            and other.credential == candidate.credential
        ):
            return "never"
        if isinstance(failure, ConnectFailed) or (isinstance(failure, Refused) and failure.kind == "server"):
            answer = "later"
    return answer
