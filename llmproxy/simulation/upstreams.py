"""Upstreams that enforce limits: the provider's side of a simulated call. Their count is their own."""

from __future__ import annotations

import math
from collections.abc import Callable

from llmproxy.core.errors import Refused
from llmproxy.core.types import Candidate, Model, Reading, Usage
from llmproxy.routing.book import Book, Cost, Lease
from llmproxy.routing.declared import Rule
from llmproxy.simulation.demand import Request

# These say how long to wait and nothing of the limit; the others name it, in a header or in the refusal.
_MUTE = frozenset({"nvidia", "z-ai", "zhipu", "mistral", "llm7", "kilo"})

_FIRST_OUTPUT_S = 0.3
_TOKENS_S = 100.0


class Upstreams:
    """`rule` gives the limits that hold in truth; whoever is in `dead` never answers."""

    def __init__(
        self, rule: Callable[[Model], Rule | None], reserves: Callable[[Model], bool], dead: frozenset[str]
    ) -> None:
        self._book = Book(rule)
        self._reserves = reserves
        self.dead = dead

    def ask(self, candidate: Candidate, request: Request, most_tokens: int, now: float) -> Lease | Refused:
        """Whether the request is taken, with all it will use, or refused."""
        ahead = most_tokens if self._reserves(candidate.model) else 0
        blocked = self._book.blocked(candidate, Cost(request.prompt_tokens, ahead), now)
        if blocked is None:
            return self._book.force(candidate, Cost(request.prompt_tokens, request.completion_tokens), now)
        limit = blocked.limit
        if blocked.wait_s == math.inf:
            size = Reading(limit.unit, None, limit.amount, kind="request")
            return Refused("too large", kind="too_large", http_status=413, readings=(size,))
        readings: tuple[Reading, ...] = ()
        if candidate.model.source not in _MUTE:
            if limit.kind == "concurrent":
                readings = (Reading(limit.unit, None, limit.amount, kind="concurrent"),)
            else:
                readings = (Reading(limit.unit, limit.seconds, limit.amount, 0.0, blocked.wait_s),)
        wait_s = blocked.wait_s
        return Refused("too many", kind="rate_limit", http_status=429, retry_after_s=wait_s, readings=readings)

    def done(self, lease: Lease, now: float) -> Usage:
        """The answer is over; what it used."""
        usage = Usage(int(lease.cost.prompt_tokens), int(lease.cost.completion_tokens))
        self._book.settle(lease, usage, now)
        return usage

    @staticmethod
    def seconds(request: Request) -> float:
        """How long an answer takes."""
        return _FIRST_OUTPUT_S + request.completion_tokens / _TOKENS_S
