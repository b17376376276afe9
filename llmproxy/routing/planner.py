"""From a call to a plan: the ordered candidates, each kept or dropped with its reason. Pure; takes `now`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from llmproxy.core.types import Call, Candidate, Dropped, Kept, Plan
from llmproxy.routing.book import Book
from llmproxy.routing.capabilities import endpoint_fits, rank
from llmproxy.routing.catalog import Catalog, Selection
from llmproxy.routing.health import Cooldown, Health
from llmproxy.routing.policies import by_speed, rotated

_RANK_REASON = ("", "capabilities unknown", "not known to be capable")


def plan(
    catalog: Catalog,
    call: Call,
    health: Health,
    now: float,
    ticket: int = 0,
    *,
    most: int = 12,
    whole: bool = False,
    book: Book | None = None,
    wall: float = 0.0,
) -> Plan:
    """The plan for `call`; raises `ModelNotFound` for a name that stands for nothing.

    `ticket` counts calls and spreads them over candidates that are as good as each other. `book` knows what is left of
    free limits at `wall` (Unix seconds; `now` is of the clock of `health`). At most `most` candidates
    are kept. With `whole` everything is looked at, so that all that was dropped is told; without it, the planner
    stops as soon as it has enough.
    """
    selections = [catalog.select(name) for name in (call.model, *call.fallbacks)]
    first = selections[0]
    if (
        len(selections) == 1
        and len(first.candidates) == 1
        and health.spotless
        and (not first.pool or endpoint_fits(first.candidates[0].model, call))
        and (book is None or _no_room(first.candidates[0], call, book, wall) is None)
    ):
        return Plan(first.asked, first.reason, (Kept(first.candidates[0], first.reason, not first.pool),))
    features = _features(call)
    kept: list[Kept] = []
    later: list[Kept] = []
    dropped: list[Dropped] = []
    seen: set[str] = set()
    for selection in selections:
        for candidate in _ordered(selection, call, health, ticket):
            if candidate.key in seen:
                continue
            seen.add(candidate.key)
            if selection.pool and not endpoint_fits(candidate.model, call):
                dropped.append(Dropped(candidate, f"not a model for {call.endpoint}"))
                continue
            if len(kept) >= most:
                if not whole:
                    break
                dropped.append(Dropped(candidate, f"behind the first {most} (routing.max_attempts)"))
                continue
            if book is not None and (no_room := _no_room(candidate, call, book, wall)) is not None:
                dropped.append(no_room)
                continue
            refused = None if health.spotless else health.refused_size(candidate, now)
            if refused is not None and call.size_tokens >= refused:
                dropped.append(Dropped(candidate, f"it refused a call of about {refused} tokens", too_large=True))
                continue
            cooldown = None if health.spotless else health.cooldown(candidate, now)
            lack = health.learned_lack(candidate, features, now)
            if cooldown is not None and cooldown.binding:
                dropped.append(Dropped(candidate, _told(cooldown, now), cooldown.until_s - now))
            elif cooldown is not None:
                later.append(Kept(candidate, f"{selection.reason}; last, {_told(cooldown, now)}", not selection.pool))
            elif lack is not None:
                later.append(Kept(candidate, f"{selection.reason}; last, learned: {lack}", not selection.pool))
            elif (window := candidate.model.context_tokens) is not None and call.prompt_tokens > window:
                reason = f"{selection.reason}; last, about {call.prompt_tokens} tokens for a window of {window}"
                later.append(Kept(candidate, reason, not selection.pool))
            else:
                kept.append(Kept(candidate, _reason(selection, candidate, call.needs, health), not selection.pool))
    if whole:
        full = f"behind the first {most} (routing.max_attempts)"
        dropped += [Dropped(entry.candidate, full) for entry in (kept + later)[most:]]
    return Plan(
        asked=", ".join(selection.asked for selection in selections),
        reason=first.reason,
        kept=tuple((kept + later)[:most]),
        dropped=tuple(dropped),
        hint=first.hint,
    )


def _no_room(candidate: Candidate, call: Call, book: Book, wall: float) -> Dropped | None:
    """The candidate dropped, when a free limit leaves no room for the call."""
    blocked = book.blocked(candidate, book.cost(call, candidate), wall)
    if blocked is None:
        return None
    if blocked.wait_s == math.inf:
        return Dropped(
            candidate, f"more than its limit of {blocked.limit} ({blocked.rung})", too_large=blocked.fits_never
        )
    reason = f"used up: {blocked.limit} ({blocked.rung}), room in {blocked.wait_s:.0f} s"
    return Dropped(candidate, reason, blocked.wait_s)


def _ordered(selection: Selection, call: Call, health: Health, ticket: int) -> Iterator[Candidate]:
    for group in selection.groups(call.needs, health.gained):
        if selection.order == "fastest":
            yield from by_speed(group, health.speed)
        else:
            yield from rotated(group, ticket)


def _features(call: Call) -> frozenset[str]:
    """What a candidate may have been learned not to honour: capabilities in use and the names of the fields sent."""
    return call.needs | call.body.keys()


def _reason(selection: Selection, candidate: Candidate, needs: frozenset[str], health: Health) -> str:
    place = rank(candidate.model, needs | selection.needs, health.gained)
    return f"{selection.reason}; {_RANK_REASON[place]}" if place else selection.reason


def _told(cooldown: Cooldown, now: float) -> str:
    return f"{cooldown.provenance} cooldown for {cooldown.until_s - now:.0f} s: {cooldown.reason}"


def soonest_s(dropped: Sequence[Dropped]) -> float | None:
    """Seconds until the first dropped candidate may be asked again; None when none says."""
    times = [entry.retry_after_s for entry in dropped if entry.retry_after_s is not None]
    return min(times) if times else None
