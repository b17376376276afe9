"""What is left everywhere: a meter for each limit and scope, leases on them, and what replies teach. Pure; takes `now`.

A lease takes room for a request and its estimated tokens before it is sent. It is settled with the real usage, or given
back when nothing was used, or it expires; so parallel requests never overshoot a limit that is known.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, astuple, dataclass, field
from typing import Any, Literal, NamedTuple

from llmproxy.core.text import CHARACTERS_PER_TOKEN
from llmproxy.core.types import Call, Candidate, Model, Rate, Reading, Unit, Usage
from llmproxy.routing.costs import SPENT, Cost, Ratios, Spending, rates_of
from llmproxy.routing.declared import Rule
from llmproxy.routing.limits import Hold, Limit, Meter, meter, with_amount
from llmproxy.routing.novices import Novice

Rung = Literal["declared", "learned", "error body", "quota endpoint", "header"]
_TRUST: dict[Rung, int] = {"declared": 0, "learned": 1, "error body": 2, "quota endpoint": 3, "header": 4}

_LEASE_S = 900.0
_UNSET_MAX_TOKENS = 4096
# Held amounts are sums of floats: this much is nothing.
_NOTHING = 1e-6
# Providers say what is left in whole units.
_WHOLE = 1.0
# Requests of the second before a crash that may not have been written down.
_LOST = 1.0
# Replicas look so often at what the others have used.
LOOK_S = 0.25
# After so many refusals in spite of room, a window is taken to be of the strictest kind.
_MISFITS = 2
# What a provider can count only when an answer is over, unless it debits ahead.
_LATE: frozenset[Unit] = SPENT | {"tokens", "completion_tokens"}
# A limit that refusals taught, without a number, is tried to be a little more after so long; each time that was wrong,
# after twice as long. Fewer answers than this in a minute teach nothing.
_TRY_MORE_S = 600.0
_DAY_S = 86_400.0
_MORE = 0.1
_MINUTE_S = 60.0
_TEACH = 3
# Windows of at least so many seconds are used up evenly.
_LONG_S = 7_200.0
_PACE = 4


class Blocked(NamedTuple):
    """Why there is no room: which limit, and in how many seconds there is (inf: never for a request of this size)."""

    limit: Limit
    rung: Rung
    wait_s: float

    @property
    def fits_never(self) -> bool:
        """Whether it is the size of the request: a smaller one may do."""
        return self.wait_s == math.inf and self.limit.kind != "once" and self.limit.amount > 0


@dataclass(slots=True)
class Known:
    """One meter and how its limit is known: by which rung of the ladder, since when, and what was declared."""

    meter: Meter
    key: str  # scope and name, under which it is stored
    rung: Rung
    origin: str
    at: float
    declared: float | None = None
    held: float = 0.0  # what leases in flight have taken of it
    taken: int = 0  # leases so far
    misfits: int = 0  # how often it was refused where the meter saw room
    elsewhere: Elsewhere | None = None  # what other replicas use of it
    spending: Spending | None = None  # how fast it is used up, where nobody wrote that down
    more_at: float = 0.0  # when a learned limit is tried to be a little more
    patience_s: float = _TRY_MORE_S

    @property
    def limit(self) -> Limit:
        return self.meter.limit

    def room(self, now: float) -> float:
        """What may be taken now; of what replicas share, as far as this one knows."""
        room = self.meter.room(now)
        return room if self.elsewhere is None else self.elsewhere.part_of(room, now)

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until there may be room for `amount`; inf when never."""
        wait_s = self.meter.wait_s(amount, now)
        if self.elsewhere is not None and wait_s < math.inf and self.room(now) < amount:
            return max(wait_s, self.elsewhere.until - now, LOOK_S)
        return wait_s


class Elsewhere:
    """What other replicas have `used` of a meter, which is known until the time `until`.

    `growth` is how much they used between two times that this was heard.
    While the replicas cannot hear each other (`part`) each has a `share` of what was left when it was cut off, and its
    own use since is counted.
    """

    __slots__ = ("growth", "part", "share", "until", "used")

    def __init__(self) -> None:
        self.used = 0.0
        self.growth = 0.0
        self.until = 0.0
        self.share = 1.0
        self.part: Meter | None = None

    def part_of(self, room: float, now: float) -> float:
        """The room of this replica, where by its own counting there is `room`."""
        others = self.used if now < self.until else 0.0
        if self.part is None:
            return room - others
        mine = self.part.limit.amount - self.part.room(now)
        # They may have taken as much again since they were last heard of as between two times before.
        return self.share * (room + mine - others - self.growth) - mine


@dataclass(slots=True)
class Account:
    """One candidate's limits: meters (its own and shared ones), ceilings of a single request, and learned ratios.

    `reserves` where the provider debits the output that is asked for ahead. Of a `novice` nobody wrote down a limit.
    """

    scopes: tuple[str, ...]
    ratios: Ratios
    reserves: bool
    rates: tuple[Rate, ...] = ()
    novice: Novice | None = None
    known: list[Known] = field(default_factory=list)
    ceilings: list[tuple[Limit, Rung]] = field(default_factory=list)


class Lease:
    """Room that one request has; `holds` are (known, hold, amount): what was reserved, and when it is over, used.

    `ahead` where its tokens are debited before it is answered.
    """

    __slots__ = ("ahead", "alone", "answered", "candidate", "cost", "expires", "holds", "novice", "over", "sent_at")

    def __init__(self, candidate: Candidate, cost: Cost, expires: float) -> None:
        self.candidate = candidate
        self.cost = cost
        self.expires = expires
        self.holds: list[tuple[Known, Hold, float]] = []
        self.alone: dict[str, int] = {}  # meters of which nobody else had anything → how many leases they had had
        self.ahead = False
        self.answered = False
        self.novice: Novice | None = None
        self.sent_at = 0.0
        self.over = False


class Book:
    """The one owner of meters. `rule` finds what is declared, `reserves` tells whether output is debited ahead.

    `unmeasured` tells whether a model surely has limits, of which nobody wrote any down.
    """

    def __init__(
        self,
        rule: Callable[[Model], Rule | None],
        reserves: Callable[[Model], bool] = lambda model: False,
        unmeasured: Callable[[Model], bool] = lambda model: False,
    ) -> None:
        self._rule = rule
        self._reserves = reserves
        self._unmeasured = unmeasured
        self._known: dict[str, dict[str, Known]] = {}  # scope → name of the limit → meter
        self._ceilings: dict[str, dict[str, tuple[Limit, Rung]]] = {}
        self._accounts: dict[str, Account] = {}
        self._ratios: dict[str, Ratios] = {}
        self._novices: dict[str, Novice] = {}
        self._leases: list[tuple[float, int, Lease]] = []
        self._changed: dict[str, Known] = {}
        self._count = itertools.count()
        # Where replicas share the counts, whoever does it is told of new meters, and of what providers say is left.
        self.on_meter: Callable[[Known], None] = lambda known: None
        self.on_observed: Callable[[Known, float, float | None], None] = lambda known, room, reset_s: None

    def reconfigure(
        self, rule: Callable[[Model], Rule | None], reserves: Callable[[Model], bool] | None = None
    ) -> None:
        """Other limits are declared; what was used and learned stays."""
        self._rule = rule
        self._reserves = reserves or self._reserves
        self._accounts.clear()

    # -- before a request -----------------------------------------------------------------------------------------

    def cost(self, call: Call, candidate: Candidate, now: float) -> Cost:
        """What `call` will probably use up on this candidate, with the output that the provider debits ahead."""
        account = self._account(candidate, now)
        characters = float(call.prompt_tokens * CHARACTERS_PER_TOKEN)
        prompt = characters / account.ratios.characters_per_token
        if call.endpoint == "embeddings":
            return Cost(prompt, rates=account.rates, characters=characters)
        if call.endpoint == "passthrough":
            return Cost(prompt, audio_seconds=call.audio_seconds, rates=account.rates)
        asked = call.output_tokens
        if account.reserves:
            return Cost(prompt, asked or _UNSET_MAX_TOKENS, rates=account.rates, characters=characters)
        likely = account.ratios.completion_tokens
        return Cost(prompt, min(asked, likely) if asked else likely, rates=account.rates, characters=characters)

    def limits(self, candidate: Candidate, now: float) -> bool:
        """Whether any limit of the candidate is known."""
        account = self._account(candidate, now)
        return bool(account.known or account.ceilings)

    def blocked(self, candidate: Candidate, cost: Cost, now: float) -> Blocked | None:
        """The limit that leaves no room for `cost` for the longest time; None when there is room."""
        account = self._account(candidate, now)
        worst: Blocked | None = None
        for limit, rung in account.ceilings:
            if cost.of(limit.unit) > limit.amount:
                return Blocked(limit, rung, math.inf)
        for known in account.known:
            amount = cost.needs(known.limit.unit)
            if amount and known.room(now) < amount:
                wait_s = known.wait_s(amount, now)
                if wait_s > 0 and (worst is None or wait_s > worst.wait_s):
                    worst = Blocked(known.limit, known.rung, wait_s)
        return worst

    def crowded(self, candidate: Candidate, now: float) -> bool:
        """Whether nobody wrote down a limit of it, and what is on its way to it is enough to find one out."""
        novice = self._account(candidate, now).novice
        return novice is not None and novice.crowded(now)

    def headroom(self, candidate: Candidate, now: float) -> float:
        """The share that is left of the scarcest limit, from 0 to 1; 1 without limits.

        Of a long window that is used up faster than its time passes much less counts: what comes back soon is better
        used first.
        """
        share = 1.0
        for known in self._account(candidate, now).known:
            limit = known.limit
            if limit.amount > 0:
                left = known.room(now) / limit.amount
                if limit.seconds >= _LONG_S and 0 < left < (time_left := known.meter.time_left(now)):
                    left *= (left / time_left) ** _PACE
                share = min(share, left)
        return max(0.0, share)

    def reserve(self, candidate: Candidate, cost: Cost, now: float) -> Lease | None:
        """Take room for `cost`; None when there is none."""
        account = self._account(candidate, now)
        if not account.known and not account.ceilings:
            return _sent(Lease(candidate, cost, now), account, now)
        self._end_expired(now)
        if self.blocked(candidate, cost, now) is not None:
            return None
        return self.force(candidate, cost, now)

    def force(self, candidate: Candidate, cost: Cost, now: float) -> Lease:
        """Take `cost`, whether there is room or not."""
        lease, account = Lease(candidate, cost, now + _LEASE_S), self._account(candidate, now)
        lease.ahead = account.reserves
        for known in account.known:
            amount = cost.of(known.limit.unit)
            known.taken += 1
            if known.held <= _NOTHING:
                lease.alone[known.key] = known.taken
            known.held += amount
            self._changed[known.key] = known
            lease.holds.append((known, known.meter.take(amount, now), amount))
            if known.elsewhere is not None and known.elsewhere.part is not None:
                known.elsewhere.part.take(amount, now)
        if lease.holds:
            heapq.heappush(self._leases, (lease.expires, next(self._count), lease))
        return _sent(lease, account, now)

    # -- after it -------------------------------------------------------------------------------------------------

    def arrived(self, lease: Lease, now: float) -> None:
        """The provider has begun to answer: it has counted the request by now, and not before it was sent."""
        if not lease.over:
            lease.answered = True
            for known, hold, _ in lease.holds:
                known.meter.arrived(hold, now)
                self._changed[known.key] = known

    def settle(self, lease: Lease, usage: Usage, now: float) -> None:
        """The request was answered and used this."""
        if lease.over:
            return
        if not usage.estimated:
            self._account(lease.candidate, now).ratios.learn(lease.cost, usage)
        if not lease.holds and lease.novice is None:
            lease.over = True
            return
        prompt, completion = float(usage.prompt_tokens), float(usage.completion_tokens)
        if usage.estimated:
            prompt = max(prompt, lease.cost.prompt_tokens)
        self._end(lease, lease.cost._replace(prompt_tokens=prompt, completion_tokens=completion), now)

    def release(self, lease: Lease, now: float, *, sent: bool = False, completion_tokens: float = 0.0) -> None:
        """The request was not answered. Where it was `sent`, the provider has counted it, with its prompt."""
        if not lease.over:
            used = lease.cost._replace(completion_tokens=completion_tokens) if sent else Cost(requests=0.0)
            self._end(lease, used, now)

    def _end(self, lease: Lease, used: Cost, now: float) -> None:
        lease.over = True
        if lease.novice is not None:
            lease.novice.ended(lease.sent_at, counted=used.requests > 0)
        holds, lease.holds = lease.holds, []
        for known, hold, amount in holds:
            known.held = max(0.0, known.held - amount)
            really = 0.0 if known.limit.kind == "concurrent" else used.of(known.limit.unit)
            late = known.limit.unit in _LATE and not lease.ahead
            if really and (late or not lease.answered):
                known.meter.arrived(hold, now)  # it may have been counted at the very end
                self._changed[known.key] = known
            if known.spending is not None:
                known.spending.used(used.prompt_tokens + used.completion_tokens)
            if really != amount:
                known.meter.change(hold, really - amount, now)
                self._changed[known.key] = known
            lease.holds.append((known, hold, really))
            if known.rung == "learned" and really and now >= known.more_at and known.meter.room(now) < 1.0:
                # All of it was answered for a while: it may be more.
                with_amount(known.meter, known.limit.amount + max(1.0, math.floor(known.limit.amount * _MORE)))
                known.more_at = now + known.patience_s

    def _end_expired(self, now: float) -> None:
        """Leases that nobody ended: their requests count as answered, their places are free."""
        while self._leases and (self._leases[0][0] <= now or self._leases[0][2].over):
            lease = heapq.heappop(self._leases)[2]
            if not lease.over:
                self._end(lease, lease.cost, now)

    # -- what replies teach ---------------------------------------------------------------------------------------

    def learn(
        self,
        candidate: Candidate,
        reading: Reading,
        rung: Rung,
        now: float,
        *,
        own: float = 0.0,
        lease: Lease | None = None,
    ) -> None:
        """Take over what a provider says of a limit. `own` is what `lease`, which was answered, holds of it."""
        if reading.kind == "request":
            if reading.limit is not None:
                limit = Limit(reading.unit, reading.limit, "request")
                self._ceilings.setdefault(candidate.key, {})[limit.name] = (limit, rung)
                self._accounts.pop(candidate.key, None)
            return
        known = self._match(candidate, reading, rung, now)
        if known is None:
            return
        self._changed[known.key] = known
        if rung == "error body":
            self._check_fit(known, reading, now)
        if reading.limit is not None and reading.limit > 0 and reading.limit != known.limit.amount:
            if _TRUST[rung] >= _TRUST[known.rung]:
                with_amount(known.meter, reading.limit)
                known.rung, known.at = rung, now
        elif reading.limit is not None and _TRUST[rung] > _TRUST[known.rung]:
            known.rung, known.at = rung, now
        if reading.remaining is not None:
            if known.spending is not None and known.spending.told(reading.remaining):
                self._accounts.clear()  # what a request costs is known better now
            # Others in flight may or may not be in the provider's count. What fits either way changes nothing; less is
            # believed with room kept for them, more only when nobody else was on the way all the time, since answers
            # overtake each other.
            others = max(0.0, known.held - own)
            alone = others <= _NOTHING and (lease is None or lease.alone.get(known.key) == known.taken)
            room, counted = reading.remaining - others, known.meter.room(now)
            if counted - reading.remaining >= _WHOLE or (counted < room and alone):
                known.meter.observe(room, reading.reset_s, now)
                self.on_observed(known, room, reading.reset_s)

    def refused(self, candidate: Candidate, wait_s: float | None, now: float) -> None:
        """It refused for a quota of which it said nothing: what it answered in the last minute is all there is.

        Nothing is learned where it asks to wait for longer than a minute.
        """
        if wait_s is not None and wait_s > _MINUTE_S:
            return
        account = self._account(candidate, now)
        minutes = (known for known in account.known if known.limit.unit == "requests")
        known = next(
            (one for one in minutes if one.limit.kind != "concurrent" and one.limit.seconds == _MINUTE_S), None
        )
        if known is not None:
            count = math.floor(known.limit.amount - known.meter.room(now))
            if _TRUST[known.rung] > _TRUST["learned"] or not _TEACH <= count < known.limit.amount:
                return
            with_amount(known.meter, count)
        else:
            times = account.novice.last_minute(now) if account.novice is not None else []
            if len(times) < _TEACH:
                return
            limit = Limit("requests", len(times), "sliding", _MINUTE_S)
            known = self._know(account.scopes[0], limit, "learned", "refusals", now)
            for at in times:
                known.meter.take(1.0, at)
            self._accounts.clear()
        known.patience_s = (
            min(_DAY_S, known.patience_s * 2) if known.rung == "learned" and known.more_at else _TRY_MORE_S
        )
        known.rung, known.at, known.more_at = "learned", now, now + known.patience_s
        self._changed[known.key] = known

    @staticmethod
    def _check_fit(known: Known, reading: Reading, now: float) -> None:
        """Refused although there seemed to be room under the very same limit: its window is of another kind.

        Each amount coming back one window after its use is the strictest kind, and never wrong.
        """
        if known.limit.kind not in ("bucket", "fixed") or reading.limit not in (None, known.limit.amount):
            return
        if known.meter.room(now) < 1.0:
            return
        known.misfits += 1
        if known.misfits >= _MISFITS:
            used = known.limit.amount - known.meter.room(now)
            strict = Limit(known.limit.unit, known.limit.amount, "sliding", known.limit.seconds)
            known.meter, known.misfits = meter(strict), 0
            known.meter.take(max(0.0, used), now)

    def _match(self, candidate: Candidate, reading: Reading, rung: Rung, now: float) -> Known | None:
        """The meter that a reading is about; a new one when no limit of this unit and window was known."""
        account = self._account(candidate, now)
        fitting = [known for known in account.known if known.limit.unit == reading.unit]
        if reading.kind == "concurrent":
            fitting = [known for known in fitting if known.limit.kind == "concurrent"]
        else:
            fitting = [known for known in fitting if known.limit.kind not in ("concurrent", "once")]
        if reading.seconds is not None:
            exact = [known for known in fitting if abs(known.limit.seconds - reading.seconds) < 0.5]
            if exact:
                return exact[0]
        elif fitting:
            same = [known for known in fitting if reading.limit == known.limit.amount]
            return (same or fitting)[0]
        if reading.limit is None or reading.limit <= 0 or (reading.seconds is None and reading.kind == "window"):
            return None
        if reading.kind == "concurrent":
            limit = Limit(reading.unit, reading.limit, "concurrent")
        else:
            limit = Limit(reading.unit, reading.limit, "sliding", reading.seconds or 0.0)
        known = self._know(account.scopes[0], limit, rung, "reply", now)
        self._accounts.clear()
        return known

    # -- for people and for the disk ------------------------------------------------------------------------------

    def told(self, candidate: Candidate, now: float) -> list[dict[str, Any]]:
        """Every limit of a candidate: what is left, how it is known, and what was declared where that differs."""
        account = self._account(candidate, now)
        lines: list[dict[str, Any]] = []
        for known in account.known:
            room = known.room(now)
            line: dict[str, Any] = {
                "limit": str(known.limit),
                "amount": known.limit.amount,
                "left": round(max(0.0, room), 3),
                "from": known.rung,
                "origin": known.origin,
            }
            if room < 1:
                line["more_in_s"] = round(known.wait_s(min(1.0, known.limit.amount), now), 1)
            if known.declared is not None and known.declared != known.limit.amount:
                line["declared"] = known.declared
            lines.append(line)
        lines += [{"limit": str(limit), "amount": limit.amount, "from": rung} for limit, rung in account.ceilings]
        return lines

    # -- accounts -------------------------------------------------------------------------------------------------

    def _account(self, candidate: Candidate, now: float) -> Account:
        account = self._accounts.get(candidate.key)
        if account is None:
            account = self._accounts[candidate.key] = self._open(candidate, now)
        return account

    def _open(self, candidate: Candidate, now: float) -> Account:
        rule = self._rule(candidate.model)
        own = candidate.key
        rules = [rule] if rule is not None else []
        if rule is not None and rule.beside is not None:
            rules.append(rule.beside)
        places = [
            f"{one.owner or candidate.model.source}#key{candidate.credential}/{one.pool}" if one.shared else own
            for one in rules
        ]
        scopes = (*(place for place in places if place != own), own)
        ratios = self._ratios.setdefault(candidate.model.name, Ratios())
        account = Account(scopes, ratios, self._reserves(candidate.model), rates_of(candidate.model))
        for one, place in zip(rules, places, strict=True):
            here = self._known.setdefault(place, {})
            for limit in one.limits:
                if limit.kind == "request":
                    account.ceilings.append((limit, "declared"))
                    continue
                known = here.get(limit.name)
                if known is None:
                    known = self._know(place, limit, "declared", one.origin, now)
                elif known.rung == "declared" and known.limit != limit:
                    fresh = meter(limit)
                    if fresh.limit.kind == known.limit.kind:
                        fresh.restore(known.meter.state(), now)
                    known.meter = fresh
                known.declared = limit.amount
        account.known = [known for scope in scopes for known in self._known.get(scope, {}).values()]
        learned = self._ceilings.get(own, {})
        account.ceilings = [entry for entry in account.ceilings if entry[0].name not in learned]
        account.ceilings += learned.values()
        written = {rate.unit for rate in account.rates}
        for known in account.known:
            unit = known.limit.unit
            if unit in SPENT and unit not in written:
                known.spending = known.spending or Spending()
                per_million = known.spending.per_token * 1e6
                account.rates += (Rate(unit, per_million, per_million),)
        if self._unmeasured(candidate.model):
            account.novice = self._novices.setdefault(own, Novice())
        return account

    def _know(self, scope: str, limit: Limit, rung: Rung, origin: str, now: float) -> Known:
        known = Known(meter(limit), f"{scope} | {limit.name}", rung, origin, now)
        self._known.setdefault(scope, {})[limit.name] = known
        self.on_meter(known)
        return known

    # -- between replicas -----------------------------------------------------------------------------------------

    def meters(self) -> Iterator[Known]:
        """All meters."""
        for known in self._known.values():
            yield from known.values()

    def meters_of(self, candidate: Candidate, now: float) -> list[Known]:
        """The meters that bind a candidate."""
        return self._account(candidate, now).known

    def meter_of(self, key: str) -> Known | None:
        """The meter that is stored under `key`."""
        scope, _, name = key.rpartition(" | ")
        return self._known.get(scope, {}).get(name)

    def knowledge(self) -> dict[str, dict[str, Any]]:
        """What was learned of limits, as JSON by key; no counts."""
        learned: dict[str, dict[str, Any]] = {
            known.key: _told(known) for known in self.meters() if known.rung != "declared"
        }
        learned |= {
            f"{key} | {name}": {"ceiling": [limit.unit, limit.amount, rung], "at": 0.0}
            for key, found in self._ceilings.items()
            for name, (limit, rung) in found.items()
        }
        return learned

    def adopt(self, key: str, value: Mapping[str, Any]) -> None:
        """Take over what another replica's `knowledge` says, where it is to be trusted more, or as much and newer."""
        scope, _, name = key.rpartition(" | ")
        self._accounts.clear()
        if "ceiling" in value:
            unit, amount, rung = value["ceiling"]
            self._ceilings.setdefault(scope, {})[name] = (Limit(unit, amount, "request"), rung)
            return
        known, limit, at = self.meter_of(key), Limit(**value["limit"]), value["at"]
        if known is None:
            self._know(scope, limit, value["rung"], value["origin"], at)
        elif (_TRUST[value["rung"]], at) > (_TRUST[known.rung], known.at):
            if limit.kind == known.limit.kind:
                with_amount(known.meter, limit.amount)
            else:
                used = known.limit.amount - known.meter.room(at)
                known.meter = meter(limit)
                known.meter.take(max(0.0, used), at)
            known.rung, known.at = value["rung"], at

    # -- over a restart -------------------------------------------------------------------------------------------

    def changed(self) -> dict[str, dict[str, Any]]:
        """What has changed since this was asked the last time, as JSON by key."""
        changed, self._changed = self._changed, {}
        values: dict[str, dict[str, Any]] = {
            known.key: {**_told(known), "state": known.meter.state()} for known in changed.values()
        }
        if changed:
            values["ratios"] = {name: astuple(ratios) for name, ratios in self._ratios.items() if ratios.seen}
            values["ceilings"] = {
                key: [[limit.unit, limit.amount, rung] for limit, rung in found.values()]
                for key, found in self._ceilings.items()
            }
        return values

    def restore(self, values: Mapping[str, Any], now: float, *, clean: bool) -> None:
        """Take over what `changed` gave, maybe long ago. Not `clean`: a second of counts may be missing.

        Then each meter of requests is taken to have been used once more than it knows.
        """
        for name, found in (values.get("ratios") or {}).items():
            self._ratios[name] = Ratios(*found)
        for key, entries in (values.get("ceilings") or {}).items():
            limits = [(Limit(unit, amount, "request"), rung) for unit, amount, rung in entries]
            self._ceilings[key] = {limit.name: (limit, rung) for limit, rung in limits}
        for key, value in values.items():
            scope, split, _ = key.rpartition(" | ")
            if not split or not isinstance(value, dict):
                continue
            known = self._know(scope, Limit(**value["limit"]), value["rung"], value["origin"], now)
            known.at = value["at"]
            if "per_token" in value:
                known.spending = Spending(value["per_token"])
            if value["state"] is not None:
                known.meter.restore(value["state"], now)
            if not clean and known.limit.kind != "concurrent":
                known.meter.take(min(_LOST, known.limit.amount) if known.limit.unit == "requests" else 0.0, now)
        self._accounts.clear()


def _sent(lease: Lease, account: Account, now: float) -> Lease:
    if account.novice is not None:
        lease.novice, lease.sent_at = account.novice, now
        account.novice.sent(now)
    return lease


def _told(known: Known) -> dict[str, Any]:
    told = {"limit": asdict(known.limit), "rung": known.rung, "origin": known.origin, "at": known.at}
    return {**told, "per_token": known.spending.per_token} if known.spending is not None else told
