"""The events of a simulated day: requests come, attempts end, answers end. All routing is that of the server."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from llmproxy.core.errors import AttemptError, NoRoom, Refused, TimedOut
from llmproxy.core.types import Call, Kept
from llmproxy.gateway.dispatch import Settings
from llmproxy.gateway.ledger import Ledger
from llmproxy.gateway.queue import Queue
from llmproxy.routing.book import Lease
from llmproxy.routing.catalog import Catalog
from llmproxy.routing.health import Health
from llmproxy.routing.planner import Draw, Moment
from llmproxy.simulation.demand import Request
from llmproxy.simulation.upstreams import Upstreams

# The virtual day begins at a midnight, UTC: Monday, 5 January 2026.
BEGIN = 1_767_571_200.0


@dataclass(slots=True)
class Result:
    """What became of the demand. `wasted` counts upstream calls without an answer, `over_limit` those over a limit."""

    demand: int = 0
    served: int = 0
    refused: int = 0
    calls: int = 0
    wasted: int = 0
    over_limit: int = 0
    by_candidate: Counter[str] = field(default_factory=Counter)

    def body(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "demand": self.demand,
            "served": self.served,
            "refused": self.refused,
            "calls": self.calls,
            "wasted": self.wasted,
            "over_limit": self.over_limit,
            "candidates": [{"model": name, "served": count} for name, count in self.by_candidate.most_common()],
        }


class _Fresh:
    """A simulated client has nothing before the end: every failover begins anew."""

    committed = False
    relay = None


class Simulation:
    """One run. `ledger` believes what was declared and what it learns; `upstreams` know better."""

    def __init__(
        self, catalog: Catalog, ledger_of: Callable[[Callable[[], float]], Ledger], upstreams: Upstreams,
        settings: Settings, seed: int = 0,
    ) -> None:  # fmt: skip
        self._now = BEGIN
        self._catalog = catalog
        self._ledger = ledger_of(lambda: self._now)
        self._upstreams = upstreams
        self._settings = settings
        self._random = Random(seed).random
        self._health = Health(self._random)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self.result = Result()

    def run(self, demand: Sequence[Request]) -> Result:
        """Replay the whole demand, which is in the order of its times."""
        self.result.demand = len(demand)
        for request in demand:
            self._until(BEGIN + request.at_s)
            self._now = BEGIN + request.at_s
            self._arrive(request)
        self._until(float("inf"))
        return self.result

    def _until(self, moment: float) -> None:
        while self._events and self._events[0][0] <= moment:
            self._now, _, happen = heapq.heappop(self._events)
            happen()

    def _later(self, wait_s: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._now + wait_s, next(self._count), happen))

    def _arrive(self, request: Request) -> None:
        call = Call(
            "simulated", "chat", request.pool, {}, needs=request.needs, prompt_tokens=request.prompt_tokens
        )  # fmt: skip
        moment = Moment(self._health, self._now, next(self._count), self._ledger.book, self._now, self._random)
        draw = Draw(self._catalog, call, moment, most=self._settings.max_attempts)
        self._go_on(request, call, Queue(draw))

    def _go_on(self, request: Request, call: Call, queue: Queue) -> None:
        """Ask candidates until one takes the request, or keeps it waiting."""
        while (kept := queue.next(_Fresh())) is not None:
            candidate = kept.candidate
            try:
                lease = self._ledger.lease(candidate, call)
            except NoRoom as full:
                queue.failed(kept, full)
                continue
            self._health.asked(candidate, self._now)
            self.result.calls += 1
            if candidate.model.source in self._upstreams.dead:
                self._later(self._settings.waits.first_token_s, self._silence(request, call, queue, kept, lease))
                return
            said = self._upstreams.ask(candidate, request, int(lease.cost.completion_tokens), self._now)
            if isinstance(said, Refused):
                self.result.over_limit += 1
                self._fail(call, queue, kept, lease, said)
                continue
            self._later(self._upstreams.seconds(request), self._answer(call, kept, lease, said))
            return
        self.result.refused += 1

    def _fail(self, call: Call, queue: Queue, kept: Kept, lease: Lease, error: AttemptError) -> None:
        self.result.wasted += 1
        self._ledger.failed(lease, error, 0)
        self._health.failed(kept.candidate, error, self._now, call)
        queue.failed(kept, error)

    def _silence(self, request: Request, call: Call, queue: Queue, kept: Kept, lease: Lease) -> Callable[[], None]:
        def happen() -> None:
            self._fail(call, queue, kept, lease, TimedOut("silence", outcome="first_token_timeout"))
            self._go_on(request, call, queue)

        return happen

    def _answer(self, call: Call, kept: Kept, lease: Lease, taken: Lease) -> Callable[[], None]:
        def happen() -> None:
            usage = self._upstreams.done(taken, self._now)
            self._ledger.settle(lease, usage)
            self._health.succeeded(kept.candidate, 0.3, call)
            self.result.served += 1
            self.result.by_candidate[kept.candidate.key] += 1

        return happen
