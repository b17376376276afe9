"""Who is asked first: orderings as pure functions. Each result is a permutation of its input, cut into groups.

Candidates of one group are as good as each other; the planner rotates a group so that load and quotas spread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, Literal

from llmproxy.core.types import Candidate, Model

Order = Literal["best", "fastest", "cheapest", "round_robin", "as_listed", "pinned"]
Groups = tuple[tuple[Candidate, ...], ...]

# An unknown tier stands between exploratory and standard.
_TIER_RANK = {"deep": 0, "standard": 1, None: 2, "exploratory": 3}


def best(candidates: Iterable[Candidate]) -> Groups:
    """Favourites first, then by tier, the strongest first; toys last."""
    return _grouped(candidates, lambda model: (not model.favourite, model.toy, _TIER_RANK[model.tier]))


def cheapest(candidates: Iterable[Candidate]) -> Groups:
    """Free first, then by price in USD per million tokens; an unknown price comes last."""

    def price(model: Model) -> tuple[bool, float]:
        if model.free or model.local:
            return False, 0.0
        known = model.price_usd_per_mtok
        return known is None, known or 0.0

    return _grouped(candidates, lambda model: (model.toy, *price(model)))


def round_robin(candidates: Iterable[Candidate]) -> Groups:
    """One group: everyone takes turns."""
    all_of_them = tuple(candidates)
    return (all_of_them,) if all_of_them else ()


def as_listed(candidates: Iterable[Candidate]) -> Groups:
    """Exactly in the order given; only the keys of one model take turns."""
    return tuple(tuple(group) for _, group in groupby(candidates, key=lambda candidate: candidate.model.name))


def by_capability(candidates: Iterable[Candidate], rank: Callable[[Model], int]) -> list[list[Candidate]]:
    """Known-capable, then unknown, then known-incapable; empty ones left out."""
    buckets: list[list[Candidate]] = [[], [], []]
    for candidate in candidates:
        buckets[rank(candidate.model)].append(candidate)
    return [bucket for bucket in buckets if bucket]


ORDERS: dict[Order, Callable[[Iterable[Candidate]], Groups]] = {
    "best": best,
    "fastest": round_robin,
    "cheapest": cheapest,
    "round_robin": round_robin,
    "as_listed": as_listed,
    "pinned": as_listed,
}


def by_speed(group: Sequence[Candidate], speed: Callable[[Candidate], float | None]) -> list[Candidate]:
    """Fewest seconds to the first output first; those never measured come before all, so that they are measured."""
    return sorted(group, key=lambda candidate: speed(candidate) or 0.0)


def rotated(group: tuple[Candidate, ...], ticket: int) -> tuple[Candidate, ...]:
    """The group begun at another place for each ticket."""
    if len(group) < 2:
        return group
    start = ticket % len(group)
    return group[start:] + group[:start]


def _grouped(candidates: Iterable[Candidate], key: Callable[[Model], Any]) -> Groups:
    ordered = sorted(candidates, key=lambda candidate: key(candidate.model))
    return tuple(tuple(group) for _, group in groupby(ordered, key=lambda candidate: key(candidate.model)))
