"""Candidates that are as good as each other, taking turns; those that cannot be asked for a while wait aside. Pure.

One rotation lives as long as the catalog it is of, so that a pool of a thousand of which most are used up is not looked
through for every call.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from llmproxy.core.types import Candidate, Model

# So many are compared for each choice: who of a few drawn at random is best is nearly as good as who of all is.
_COMPARED = 4
# Who is much worse than another one that was drawn, or has a poor chance at all, is not counted among them; but no
# more than so many are drawn.
_MUCH = 4.0
_POOR = 0.05
_MOST_DRAWN = 16
# A candidate that waits aside is looked at again after so long, whatever it was put aside for.
_ASIDE_S = 60.0
_SILENT_ASIDE_S = 30.0
_LONG_WINDOW_TOKENS = 100_000
_SPARED = 0.1
_NO_POOLS: Mapping[str, frozenset[str]] = {}


class Rotation:
    """One group. `turns` gives everybody who may be asked, each once; `aside` takes somebody out until a time."""

    __slots__ = ("_active", "_aside", "_count", "_places", "_silent", "_weights")

    def __init__(
        self,
        group: Sequence[Candidate],
        needs: frozenset[str] = frozenset(),
        pools: Mapping[str, frozenset[str]] = _NO_POOLS,
    ) -> None:
        self._active = list(group)
        self._places = {candidate.key: place for place, candidate in enumerate(group)}
        self._aside: list[tuple[float, int, Candidate]] = []
        self._silent: dict[str, Candidate] = {}
        self._count = itertools.count()
        self._weights = spared(group, needs, pools)

    def turns(
        self, now: float, ticket: int, weight: Callable[[Candidate], float] | None, random: Callable[[], float] | None
    ) -> Iterator[Candidate]:
        """Everybody, begun at `ticket`; with `random` (0 to 1) drawn by weight instead."""
        while self._aside and self._aside[0][0] <= now:
            self._enter(heapq.heappop(self._aside)[2])
        waiting = list(self._active)
        if random is None or weight is None:
            for offset in range(len(waiting)):
                yield waiting[(ticket + offset) % len(waiting)]
            return
        while waiting:
            drawn: list[tuple[float, int]] = []
            best, good = 0.0, 0
            while good < _COMPARED and len(drawn) < min(_MOST_DRAWN, len(waiting)):
                # The drawn ones stand at the end, where they can be taken off.
                last = len(waiting) - 1 - len(drawn)
                place = int(random() * (last + 1))
                waiting[place], waiting[last] = waiting[last], waiting[place]
                candidate = waiting[last]
                odds = weight(candidate) * self._weights.get(candidate.key, 1.0)
                if odds > _MUCH * best:
                    good = 0  # those so far are no match for this one
                good += odds * _MUCH >= best and odds >= _POOR
                best = max(best, odds)
                drawn.append((random() ** (1.0 / odds) if odds > 1e-9 else 0.0, last))
            chosen = [waiting[place] for _, place in sorted(drawn, reverse=True)]
            del waiting[len(waiting) - len(drawn) :]
            yield from chosen

    def aside(self, candidate: Candidate, wait_s: float, now: float, *, silent: bool = False) -> None:
        """It cannot be asked for `wait_s` seconds; or it is `silent`, and better not asked."""
        place = self._places.pop(candidate.key, None)
        if place is None:
            return
        last = self._active.pop()
        if last is not candidate and last.key != candidate.key:
            self._active[place] = last
            self._places[last.key] = place
        if silent:
            self._silent[candidate.key] = candidate
        until_s = now + min(wait_s, _SILENT_ASIDE_S if silent else _ASIDE_S)
        heapq.heappush(self._aside, (until_s, next(self._count), candidate))

    @property
    def waiting(self) -> bool:
        """Whether anybody waits aside who will have room again."""
        return len(self._aside) > len(self._silent)

    @property
    def silent(self) -> tuple[Candidate, ...]:
        """Those aside who are silent."""
        return tuple(self._silent.values())

    def _enter(self, candidate: Candidate) -> None:
        self._silent.pop(candidate.key, None)
        self._places[candidate.key] = len(self._active)
        self._active.append(candidate)


def spared(
    group: Sequence[Candidate], needs: frozenset[str], pools: Mapping[str, frozenset[str]] = _NO_POOLS
) -> dict[str, float]:
    """Weights from 0.1 to 1 that spare what few have and the call does not need, by the key of the candidate.

    To be in a pool of the user is such a trait: calls for that pool have nobody else. `pools` are those that each
    candidate is in.
    """
    traits_of = {one.key: _traits(one.model) | pools.get(one.key, frozenset()) for one in group}
    counts = Counter(trait for traits in traits_of.values() for trait in traits)
    rare = {trait: count / len(group) for trait, count in counts.items() if count < len(group) and trait not in needs}
    weights: dict[str, float] = {}
    for candidate in group if rare else ():
        weight = 1.0
        for trait in traits_of[candidate.key]:
            share = rare.get(trait)
            if share is not None:
                weight *= max(share, _SPARED)
        if weight < 1.0:
            weights[candidate.key] = max(weight, _SPARED)
    return weights


def _traits(model: Model) -> set[str]:
    """What some calls cannot do without."""
    traits = set(model.capabilities)
    if model.context_tokens is not None and model.context_tokens >= _LONG_WINDOW_TOKENS:
        traits.add("a long window")
    return traits
