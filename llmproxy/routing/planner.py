"""From a call to a plan: the ordered candidates, each kept or dropped with its reason. Pure; takes `now`.

A plan is drawn as far as it is needed: most calls are answered by their first candidate, and nobody looks at the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from llmproxy.core.types import Call, Candidate, Dropped, Kept, Plan
from llmproxy.routing.book import Book
from llmproxy.routing.capabilities import endpoint_fits, rank, unheeded
from llmproxy.routing.catalog import Catalog, Selection
from llmproxy.routing.health import Cooldown, Health
from llmproxy.routing.policies import by_speed, rotated
from llmproxy.routing.rotation import Rotation

_RANK_REASON = ("", "capabilities unknown", "not known to be capable")

# Who has failed always is still drawn now and then, once its cooldown is over, or nobody would see it recover.
_CHANCE = 0.05


@dataclass(slots=True)
class Moment:
    """What a plan is made of besides the call: what is known now.

    `now` is of the clock of `health`, `wall` in Unix seconds. `last` is the key of the candidate that answered this
    conversation the last time: a pool asks it first while it is as good as any. `loading` are the ids of local models
    that are being loaded: a pool asks them last. `ticket` counts calls: candidates that are as good as each other take
    turns by it, or with `random` (0 to 1) are drawn by weight where the order is `best`.
    """

    health: Health
    now: float
    ticket: int = 0
    book: Book | None = None
    wall: float = 0.0
    random: Callable[[], float] | None = None
    last: str = ""
    loading: Collection[str] = ()


class Draw:
    """The plan of one call, as far as it was asked for. Raises `ModelNotFound` for a name that stands for nothing.

    `kept` and `dropped` grow. At most `most` candidates are kept. With `whole` everything is looked at, so that all
    that was dropped is told.
    """

    __slots__ = ("_entries", "_most", "_selections", "_whole", "dropped", "kept")

    def __init__(self, catalog: Catalog, call: Call, moment: Moment, *, most: int = 12, whole: bool = False) -> None:
        self._selections = [catalog.select(name) for name in (call.model, *call.fallbacks)]
        self._most = most
        self._whole = whole
        self.kept: list[Kept] = []
        # The walk knows nothing of the draw: a cycle of the two would keep every call until the next collection.
        walk = _Walk(call, moment, whole)
        self.dropped = walk.dropped
        self._entries = walk.over(self._selections)

    @property
    def asked(self) -> str:
        """The names that the call gave."""
        return ", ".join(selection.asked for selection in self._selections)

    @property
    def alone(self) -> bool:
        """Whether the name stands for one candidate only."""
        return len(self._selections) == 1 and len(self._selections[0].candidates) == 1

    def has(self, count: int) -> bool:
        """Whether at least `count` candidates are kept; draws as many as that needs."""
        while len(self.kept) < count:
            entry = next(self._entries, None)
            if entry is None:
                return False
            self.kept.append(entry)
        return True

    def plan(self) -> Plan:
        """All of it."""
        self.has(self._most)
        if self._whole:
            full = f"behind the first {self._most} (routing.max_attempts)"
            self.dropped += [Dropped(entry.candidate, full) for entry in self._entries]
        first = self._selections[0]
        return Plan(self.asked, first.reason, tuple(self.kept), tuple(self.dropped), first.hint)


class _Walk:
    """One way through the candidates of a call."""

    __slots__ = ("_call", "_full", "_moment", "_whole", "dropped")

    def __init__(self, call: Call, moment: Moment, whole: bool) -> None:
        self._call = call
        self._moment = moment
        self._whole = whole
        self._full = False  # whether somebody has no room for the moment
        self.dropped: list[Dropped] = []

    def over(self, selections: Sequence[Selection]) -> Iterator[Kept]:
        """Those in good health, in order; then those that are better asked last.

        Who does not honour a field of the call stands behind those that do, but before the toys among them.
        Silent ones are left out when somebody in good health will have room again: waiting for that is the better bet.
        """
        later: list[Kept] = []
        unheeding: list[Kept] = []
        silent: list[tuple[Kept, Cooldown]] = []
        seen: set[str] = set()
        for selection in selections:
            if self._moment.last and selection.pool and (entry := self._again(selection)) is not None:
                seen.add(entry.candidate.key)
                yield entry
            for candidate, rotation in self._ordered(selection):
                if candidate.key in seen:
                    continue
                seen.add(candidate.key)
                if selection.pool and not endpoint_fits(candidate.model, self._call):
                    self.dropped.append(Dropped(candidate, f"not a model for {self._call.endpoint}"))
                    continue
                dropped = self._why_not(candidate, rotation)
                if dropped is not None:
                    self.dropped.append(dropped)
                    continue
                cooldown, last = self._why_last(candidate, named=not selection.pool)
                if last is None:
                    entry = Kept(candidate, self._reason(selection, candidate), not selection.pool)
                    if candidate.model.refuses and (fields := unheeded(candidate.model, self._call)):
                        why = f"{entry.reason}; behind those that honour {', '.join(fields)}"
                        unheeding.append(entry._replace(reason=why))
                        continue
                    if unheeding and candidate.model.toy:
                        yield from unheeding
                        unheeding.clear()
                    yield entry
                    continue
                entry = Kept(candidate, f"{selection.reason}; last, {last}", not selection.pool)
                if cooldown is not None and cooldown.silent and selection.pool:
                    silent.append((entry, cooldown))
                    if rotation is not None:
                        rotation.aside(candidate, cooldown.until_s - self._moment.now, self._moment.now, silent=True)
                else:
                    later.append(entry)
        yield from unheeding
        yield from later
        for entry, cooldown in silent:
            if self._full:
                wait_s = cooldown.until_s - self._moment.now
                self.dropped.append(Dropped(entry.candidate, _told(cooldown, self._moment.now), wait_s))
            else:
                yield entry

    def _again(self, selection: Selection) -> Kept | None:
        """The candidate that answered before, when nothing speaks against it."""
        candidate = next((one for one in selection.candidates if one.key == self._moment.last), None)
        if candidate is None or not endpoint_fits(candidate.model, self._call):
            return None
        if rank(candidate.model, self._call.needs | selection.needs, self._moment.health.gained):
            return None
        if self._why_not(candidate, None) is not None or self._why_last(candidate, named=False) != (None, None):
            return None
        if unheeded(candidate.model, self._call):
            return None
        return Kept(candidate, f"{selection.reason}; answered this conversation before")

    def _ordered(self, selection: Selection) -> Iterator[tuple[Candidate, Rotation | None]]:
        moment, needs = self._moment, self._call.needs
        if self._whole or selection.order in ("fastest", "pinned", "as_listed"):
            for group in selection.groups(needs, moment.health.gained):
                fastest = selection.order == "fastest"
                for candidate in by_speed(group, moment.health.speed) if fastest else rotated(group, moment.ticket):
                    yield candidate, None
            return
        random = moment.random if selection.order == "best" else None
        for rotation in selection.rotations(needs, moment.health.gained):
            for candidate in rotation.turns(moment.now, moment.ticket, self._weight, random):
                yield candidate, rotation
            self._full = self._full or rotation.waiting
            for candidate in rotation.silent:
                yield candidate, None

    def _weight(self, candidate: Candidate) -> float:
        """How well a candidate is placed among those as good as it: success × speed × what is left of its limits."""
        health, book = self._moment.health, self._moment.book
        weight = max(health.success_rate(candidate), _CHANCE) / (1.0 + (health.speed(candidate) or 0.0))
        return weight * book.headroom(candidate, self._moment.wall) if book is not None else weight

    def _why_not(self, candidate: Candidate, rotation: Rotation | None) -> Dropped | None:
        """Why the candidate cannot be asked; puts it aside when that lasts for any call."""
        health, now, call = self._moment.health, self._moment.now, self._call
        if self._moment.book is not None and (full := _no_room(candidate, call, self._moment.book, self._moment.wall)):
            dropped, every_call = full
            self._full = self._full or dropped.retry_after_s is not None
            if rotation is not None and every_call and dropped.retry_after_s is not None:
                rotation.aside(candidate, dropped.retry_after_s, now)
            return dropped
        if health.spotless:
            return None
        refused = health.refused_size(candidate, now)
        if refused is not None and call.size_tokens >= refused:
            return Dropped(
                candidate, f"it refused a call of about {refused} tokens", too_large=health.refused_how(candidate)
            )
        cooldown = health.cooldown(candidate, now)
        if cooldown is None or not cooldown.binding:
            return None
        wait_s = cooldown.until_s - now
        if rotation is not None:
            rotation.aside(candidate, wait_s, now)
        return Dropped(candidate, _told(cooldown, now), wait_s)

    def _why_last(self, candidate: Candidate, *, named: bool) -> tuple[Cooldown | None, str | None]:
        """The guess that puts the candidate last, and the reason in words; nothing when it is as good as any."""
        health, now, call = self._moment.health, self._moment.now, self._call
        if not health.spotless:
            cooldown = health.cooldown(candidate, now, named=named)
            if cooldown is not None:
                return cooldown, _told(cooldown, now)
            # What it may have been learned not to honour: capabilities in use and the names of the fields sent.
            lack = health.learned_lack(candidate, call.needs | call.body.keys(), now)
            if lack is not None:
                return None, f"learned: {lack}"
        window = candidate.model.context_tokens
        if window is not None and call.prompt_tokens > window:
            return None, f"about {call.prompt_tokens} tokens for a window of {window}"
        loading = self._moment.loading
        if not named and loading and candidate.model.source == "local" and candidate.model.id in loading:
            return None, "it is being loaded"
        if not named and self._moment.book is not None and self._moment.book.crowded(candidate, self._moment.wall):
            return None, "its limits are to be found out, and a call is on its way"
        return None, None

    def _reason(self, selection: Selection, candidate: Candidate) -> str:
        place = rank(candidate.model, self._call.needs | selection.needs, self._moment.health.gained)
        return f"{selection.reason}; {_RANK_REASON[place]}" if place else selection.reason


def plan(
    catalog: Catalog, call: Call, health: Health, now: float, ticket: int = 0, *, most: int = 12, whole: bool = False
) -> Plan:
    """The plan of a call without free limits, all of it."""
    return Draw(catalog, call, Moment(health, now, ticket), most=most, whole=whole).plan()


def _no_room(candidate: Candidate, call: Call, book: Book, wall: float) -> tuple[Dropped, bool] | None:
    """The candidate dropped, when a free limit leaves no room for the call; and whether for none at all."""
    if not book.limits(candidate, wall):
        return None
    blocked = book.blocked(candidate, book.cost(call, candidate, wall), wall)
    if blocked is None:
        return None
    if blocked.wait_s == math.inf:
        reason = f"more than its limit of {blocked.limit} ({blocked.rung})"
        return Dropped(candidate, reason, too_large="context_length" if blocked.fits_never else ""), False
    reason = f"used up: {blocked.limit} ({blocked.rung}), room in {blocked.wait_s:.0f} s"
    return Dropped(candidate, reason, blocked.wait_s), blocked.limit.unit == "requests"


def _told(cooldown: Cooldown, now: float) -> str:
    return f"{cooldown.provenance} cooldown for {cooldown.until_s - now:.0f} s: {cooldown.reason}"


def soonest_s(dropped: Sequence[Dropped]) -> float | None:
    """Seconds until the first dropped candidate may be asked again; None when none says."""
    times = [entry.retry_after_s for entry in dropped if entry.retry_after_s is not None]
    return min(times) if times else None
