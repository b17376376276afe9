"""The loop: read this first. Candidates in order, attempt, judge, commit or next; one loop for every kind of source.

plan ─► for each candidate ─► attempt ─► answered ─► done
               ▲                 └─► failed ─► health, trail ─┐
               └── afresh, or from what the client has ◄──────┘
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from llmproxy.core.contract import Source
from llmproxy.core.errors import (
    AttemptError,
    BadReply,
    ClientError,
    ClientGone,
    ConnectFailed,
    DeadlineExceeded,
    LlmproxyError,
    Refused,
)
from llmproxy.core.types import Attempt, Call, Candidate, Kept, Model, Plan, Reply, Usage
from llmproxy.gateway.attempt import Try, Waits, streamed, whole
from llmproxy.gateway.conversations import Conversations
from llmproxy.gateway.exchange import Client, Exchange
from llmproxy.gateway.failures import Failures
from llmproxy.gateway.ledger import Ledger
from llmproxy.gateway.metrics import Metrics
from llmproxy.gateway.queue import Queue
from llmproxy.gateway.race import Failed, Race
from llmproxy.gateway.relay import Mode, Relay
from llmproxy.gateway.verdict import nobody, of_failures, same_refusal
from llmproxy.routing.book import Book
from llmproxy.routing.catalog import Catalog
from llmproxy.routing.health import Health
from llmproxy.routing.planner import Draw, Moment

_log = logging.getLogger(__name__)

# The share of the deadline that the first of several candidates may use up, so that one failover always fits.
_FIRST_SHARE = 0.6
# The last attempt may end this much before the deadline that ended it.
_NEARLY_S = 0.01
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
    content_filter_fallback: bool = False
    sticky: bool = False


class Dispatcher:
    """Finds an answer for each call. Holds the current snapshot; owns nothing that outlives a configuration but it.

    `random` (0 to 1) spreads calls over candidates that are as good as each other by their weight; without it they take
    turns.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        catalog: Callable[[], Catalog],
        settings: Callable[[], Settings],
        metrics: Metrics,
        ledger: Ledger | None = None,
        random: Callable[[], float] | None = None,
    ) -> None:
        self.sources = sources
        self.health = Health(random)
        self.ledger = ledger or Ledger(Book(lambda model: None))
        self.failures = Failures()
        self.conversations = Conversations()
        # The ids of local models that are being loaded, whoever knows that.
        self.loading: Callable[[], Collection[str]] = tuple
        # Is told when a model that is believed to be free has cost something.
        self.on_cost: Callable[[Model, float], None] = lambda model, cost_usd: None
        self._catalog = catalog
        self._settings = settings
        self._metrics = metrics
        self._random = random
        self._tickets = itertools.count()

    def plan(self, call: Call, *, whole: bool = False) -> Plan:
        """The plan for `call` at this moment; `whole` also tells everything that was dropped."""
        return self._draw(call, self._settings(), whole=whole).plan()

    def _draw(self, call: Call, settings: Settings, *, whole: bool = False) -> Draw:
        most = settings.max_attempts if settings.fallbacks else 1
        now = asyncio.get_running_loop().time()
        random = None if whole else self._random
        moment = Moment(self.health, now, next(self._tickets), self.ledger.book, self.ledger.now(), random)
        moment.loading = self.loading()
        if settings.sticky:
            moment.last = self.conversations.last(call)
        return Draw(self._catalog(), call, moment, most=most, whole=whole)

    async def answer(self, call: Call, client: Client) -> Answer:
        """Ask candidates until one answers; streams go to `client`.

        Raises one `LlmproxyError` for all failures. A client that has begun to read was told of it in the stream.
        """
        settings = self._settings()
        draw = self._draw(call, settings)
        if not draw.has(1):
            raise nobody(self.plan(call, whole=True))
        exchange, outcome = Exchange(call, client, settings.waits.life_sign_s), "client_closed_request"
        try:
            answer = await self._answer(exchange, draw, settings)
            outcome = "ok" if len(answer.attempts) == 1 else "ok_after_failures"
            if settings.sticky:
                self.conversations.answered(call, answer.candidate.key)
            return answer
        except ClientGone:
            raise
        except LlmproxyError as error:
            error.attempts = tuple(exchange.attempts)
            outcome = "broken_off" if exchange.committed else error.code
            if exchange.opened:
                await exchange.tell(error)
            raise error.with_traceback(None)  # noqa: B904  the same error, without the frames that hold it
        finally:
            exchange.close()
            self._metrics.call(call.endpoint, outcome)

    async def _answer(self, exchange: Exchange, draw: Draw, settings: Settings) -> Answer:
        loop, waits = asyncio.get_running_loop(), settings.waits
        deadline = loop.time() + waits.deadline_s
        queue = Queue(draw)
        broke: AttemptError | None = None
        while (kept := queue.next(exchange)) is not None:
            now = loop.time()
            if now >= deadline and not exchange.committed:
                raise DeadlineExceeded(f"no answer within {waits.deadline_s:g} s")
            share = _FIRST_SHARE if not queue.failures and not draw.alone else 1.0
            budget_s = waits.deadline_s if exchange.committed else (deadline - now) * share
            if waits.hedge_s is not None and not exchange.committed and not exchange.raw:
                outcome = await self._hedged(kept, queue, exchange, waits, deadline, budget_s)
                if isinstance(outcome, Answer):
                    return outcome
                failed = outcome
            else:
                attempt = Try(exchange, kept, self._mode(kept.candidate, exchange, now))
                try:
                    return await self._attempt(attempt, exchange, waits, budget_s)
                except AttemptError as failure:
                    failed = [(attempt, failure)]
            for attempt, error in failed:
                error.forget_frames()
                if attempt.mode == "append" and self._refused_to_continue(error, exchange.call):
                    # It takes no partial answer: remembered, and asked once more, from the beginning.
                    self.health.learn_lack(attempt.candidate, "prefill", error.message, loop.time())
                    queue.again(attempt.kept)
                    continue
                queue.failed(attempt.kept, error)
                if exchange.committed:
                    broke = broke or error
                elif isinstance(error, Refused) and self._is_final(error, settings):
                    raise same_refusal(error) from error
        last = queue.failures[-1]
        if broke is not None:
            raise broke from last
        if loop.time() >= deadline - _NEARLY_S:
            raise DeadlineExceeded(f"no answer within {waits.deadline_s:g} s") from last
        raise of_failures(draw.plan(), queue.failures) from last

    async def _hedged(
        self, kept: Kept, queue: Queue, exchange: Exchange, waits: Waits, deadline: float, budget_s: float
    ) -> Answer | list[Failed]:
        """Ask `kept`, and the next one too when it has delivered nothing after a while: the first to deliver wins."""
        assert waits.hedge_s is not None
        loop = asyncio.get_running_loop()
        race: Race[Answer] = Race(
            lambda attempt: self._attempt(attempt, exchange, waits, min(budget_s, deadline - loop.time())),
            lambda attempt: self._stopped(attempt, exchange),
        )
        async with race:
            race.enter(Try(exchange, kept, "fresh", claim=race.claim))
            if not await race.decided(waits.hedge_s) and (second := queue.next(exchange)) is not None:
                race.enter(Try(exchange, second, "fresh", claim=race.claim))
            answer = await race.result()
        for beaten in race.beaten if answer is None else ():
            queue.again(beaten.kept)  # the winner broke off: the other one is as good as before
        return race.failed if answer is None else answer._replace(attempts=tuple(exchange.attempts))

    @staticmethod
    def _is_final(error: Refused, settings: Settings) -> bool:
        """Whether the refusal is the answer: it would be the same everywhere, or is not to be routed around."""
        return error.kind == "invalid" or (error.kind == "content_filter" and not settings.content_filter_fallback)

    @staticmethod
    def _refused_to_continue(error: AttemptError, call: Call) -> bool:
        return isinstance(error, Refused) and error.http_status in (400, 422) and call.endpoint == "chat"

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

    async def _attempt(self, attempt: Try, exchange: Exchange, waits: Waits, budget_s: float) -> Answer:
        """One candidate's turn, in the trail, the health and the metrics whatever becomes of it."""
        loop = asyncio.get_running_loop()
        candidate, reply, lease = attempt.candidate, None, None
        self.health.asked(candidate, attempt.started_s)
        try:
            if self.ledger.replicas is None:
                lease = self.ledger.lease(candidate, exchange.call)
            else:
                lease = await self.ledger.shared_lease(candidate, exchange.call)
            source = self.sources.get(candidate.model.source)
            if source is None:
                raise ConnectFailed(f"the source {candidate.model.source} was removed from the configuration")
            if exchange.streams:
                attempt.listen = partial(self.ledger.heard, lease)
                usage = await streamed(source, attempt, waits, budget_s)
            else:
                reply, usage = await whole(source, candidate, exchange.call, waits, budget_s)
        except asyncio.CancelledError:
            if lease is not None:
                self.ledger.cancelled(lease, attempt.relay.heard)
            self._stopped(attempt, exchange)
            raise
        except ClientError:  # its client left, or the request cannot be served anywhere
            if lease is not None:
                self.ledger.cancelled(lease, attempt.relay.heard)
            raise
        except Exception as raised:
            error, now = _failure(raised, candidate), loop.time()
            if lease is not None:
                self.ledger.failed(lease, error, attempt.relay.heard)
            made = Attempt(
                candidate.model.name,
                error.outcome,
                now - attempt.started_s,
                error.http_status,
                error.message[:300],
                error.retry_after_s,
            )
            self.health.failed(candidate, error, now, exchange.call)
            self.failures.add(exchange.call, candidate, made, error)
            self._record(exchange, made, candidate)
            raise error from (None if error is raised else raised)
        self.ledger.settle(lease, usage)
        if reply is not None:
            self.ledger.heard(lease, reply.headers)
        now, reason = loop.time(), attempt.reason
        first_s = now - attempt.started_s if attempt.first_s is None else attempt.first_s
        self.health.succeeded(candidate, first_s, exchange.call, attempt.started_s)
        self._metrics.tokens(candidate.model, usage)
        if usage.cost_usd and candidate.model.free:
            self.on_cost(candidate.model, usage.cost_usd)
        self._record(exchange, Attempt(candidate.model.name, "ok", now - attempt.started_s, 200), candidate)
        return Answer(candidate, reason, tuple(exchange.attempts), usage, reply)

    def _stopped(self, attempt: Try, exchange: Exchange) -> None:
        """Its client left, or the other one of two was faster: told once."""
        if not attempt.beaten:
            attempt.beaten = True
            elapsed_s = asyncio.get_running_loop().time() - attempt.started_s
            self._record(exchange, Attempt(attempt.candidate.model.name, "cancelled", elapsed_s), attempt.candidate)

    def _record(self, exchange: Exchange, made: Attempt, candidate: Candidate) -> None:
        exchange.attempts.append(made)
        self._metrics.attempt(candidate.model, made.outcome, made.elapsed_s)


def _failure(raised: Exception, candidate: Candidate) -> AttemptError:
    """What a source raises on purpose; anything else is a fault of ours, which costs the candidate its turn and not the
    client its answer."""
    if isinstance(raised, AttemptError):
        return raised
    _log.error("an answer of %s could not be read", candidate.key, exc_info=raised)
    return BadReply(f"its answer could not be read: {type(raised).__name__}", outcome="internal_error")
