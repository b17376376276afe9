"""Who is asked next in one call, by what has become of those that were asked before."""

from __future__ import annotations

from typing import Any, Protocol

from llmproxy.core.errors import AttemptError, ConnectFailed, ConnectionLost, Refused, TimedOut, Truncated
from llmproxy.core.types import Kept
from llmproxy.routing.planner import Draw

# After so many failures of one provider's servers in one call, a pool asks it no more.
_MOST_DOWN = 4


class Heard(Protocol):
    """What the client has so far, as far as it decides who is next."""

    @property
    def committed(self) -> bool: ...

    @property
    def relay(self) -> Any: ...


class Queue:
    """The candidates of one call that are still worth asking, in their order.

    A dead key is not asked again for another model, nor a window that is known to be no larger than one for which the
    call was too long. A source that could not be reached, or whose servers failed, is
    asked again only after all others, and through a pool no more than a few times. Once the client has part of an
    answer, those that can continue it come first, and the candidate that broke off may try once more when nobody else
    is left.
    """

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._taken = 0
        self._waiting: list[Kept] = []
        self._tried: list[Kept] = []
        self._retried = False
        self.failures: list[AttemptError] = []

    def next(self, exchange: Heard) -> Kept | None:
        """The one whose turn it is; None when nobody is left."""
        if not self.failures:
            return self._first()
        self._draw.plan()
        self._waiting += self._draw.kept[self._taken :]
        self._taken = len(self._draw.kept)
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

    def _first(self) -> Kept | None:
        """As long as nobody has failed the plan is drawn one by one."""
        if self._waiting:
            return self._waiting.pop(0)
        if not self._draw.has(self._taken + 1):
            return None
        self._taken += 1
        return self._draw.kept[self._taken - 1]

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
            if isinstance(error, Refused) and error.kind == "context_length" and _no_larger(entry, kept):
                return "none"
            if kept.candidate.model.source != candidate.model.source:
                continue
            kind = error.kind if isinstance(error, Refused) else None
            if kind in ("auth", "credit") and kept.candidate.credential == candidate.credential:
                return "none"
            down += kind == "server" or isinstance(error, ConnectFailed)
        return "good" if not down else "poor" if entry.named or down < _MOST_DOWN else "none"


def _no_larger(entry: Kept, refused: Kept) -> bool:
    """Whether the window of `entry` is known to be no larger than that of `refused`."""
    window, too_small = entry.candidate.model.context_tokens, refused.candidate.model.context_tokens
    return window is not None and too_small is not None and window <= too_small
