"""Free limits, and the meters that count what was used of them. Pure: whatever depends on time takes `now`.

Times are Unix seconds. A meter never lets out more than its limit in any window of the kind that it models; where it
has to be coarse, it is so on the safe side.

| kind | what comes back, and when |
|---|---|
| sliding | each amount, `seconds` after it was used (also: rolling day, rolling month) |
| fixed | everything at the turn of a minute, hour, day, week or month in `zone`, or of every `seconds` since 1970 |
| bucket | `amount` every `seconds`, continuously, up to `amount` |
| once | nothing: a credit is spent |
| concurrent | each amount, when its request has ended |
| request | not a meter: no single request may be larger |
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, Protocol
from zoneinfo import ZoneInfo

from llmproxy.core.types import Unit

Kind = Literal["sliding", "fixed", "bucket", "once", "concurrent", "request"]
Period = Literal["second", "minute", "hour", "day", "week", "month"]

SECONDS: dict[Period, float] = {
    "second": 1.0, "minute": 60.0, "hour": 3_600.0, "day": 86_400.0, "week": 604_800.0, "month": 2_678_400.0
}  # fmt: skip

# Beyond so many entries those that are near each other are counted as one, at the time of the latest.
_EXACT_ENTRIES = 256
_UNSEEN_PIECES = 16
# Of so many steps of a bucket the least used is remembered exactly; before them, on the safe side.
_MOST_MARKS = 64
# Amounts of tokens and money are sums of floats: this much is no excess.
_SLACK = 1e-6


@dataclass(frozen=True, slots=True)
class Limit:
    """`amount` of `unit`; `seconds` is the length of the window (of a month the longest), `period` its calendar name.

    A fixed limit has `period` and `zone`, or only `seconds`.
    """

    unit: Unit
    amount: float
    kind: Kind = "sliding"
    seconds: float = 0.0
    period: Period | None = None
    zone: str = "UTC"

    @property
    def name(self) -> str:
        """What is limited, whatever the amount: the same limit of two sources has the same name."""
        if self.kind == "concurrent":
            return "concurrency"
        if self.kind == "request":
            return f"{self.unit} in one request"
        if self.kind == "once":
            return f"{self.unit} once"
        for period, seconds in SECONDS.items():
            if self.period == period or seconds == self.seconds:
                return f"{self.unit} per {period}"
        return f"{self.unit} per {self.seconds:g} s"

    def __str__(self) -> str:
        how = {
            "fixed": f", {self.zone}" if self.period in ("day", "week", "month") else ", fixed",
            "bucket": ", refilled",
        }
        return f"{self.amount:g} {self.name}{how.get(self.kind, '')}"


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def window_of(limit: Limit, now: float) -> tuple[float, float]:
    """Where the fixed window that `now` is in begins and ends."""
    if limit.period is None or limit.period in ("second", "minute"):
        length = limit.seconds or SECONDS[limit.period or "minute"]
        begin = math.floor(now / length) * length
        return begin, begin + length
    here = datetime.fromtimestamp(now, _zone(limit.zone))
    if limit.period == "hour":
        # An hour of the clock is an hour: zones whose offset is no whole hour have theirs at :30 or :45.
        offset = (here.utcoffset() or timedelta()).total_seconds() % 3_600
        begin = math.floor((now + offset) / 3_600) * 3_600 - offset
        return begin, begin + 3_600
    first = here.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if limit.period == "day":
        return _midnight(first), _midnight(first, days=1)
    if limit.period == "week":
        return _midnight(first, days=-here.weekday()), _midnight(first, days=7 - here.weekday())
    first = first.replace(day=1)
    return _midnight(first), _midnight(first.replace(day=28), days=4, day=1)


def _midnight(first: datetime, *, days: int = 0, day: int | None = None) -> float:
    """The Unix time of the midnight `days` days of the calendar later, whatever clocks were changed in between."""
    there = (first.replace(tzinfo=None) + timedelta(days=days)).replace(tzinfo=first.tzinfo)
    if day is not None:
        there = there.replace(day=day)
    return there.timestamp()


class Hold:
    """What one request has taken from one meter. `at` is when; a meter that has given it back sets it to -inf.

    `since` is when the first of those that are counted together was taken, or the step of a bucket.
    """

    __slots__ = ("amount", "at", "since")

    def __init__(self, at: float, amount: float) -> None:
        self.at = at
        self.since = at
        self.amount = amount


class Meter(Protocol):
    """Counts one limit. Amounts are in its unit; `room` may be negative when more was used than was reserved."""

    limit: Limit

    def room(self, now: float) -> float:
        """What may be taken now."""
        ...

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken if nobody takes anything; inf when never."""
        ...

    def take(self, amount: float, now: float) -> Hold:
        """Use up `amount`, whether there is room or not."""
        ...

    def arrived(self, hold: Hold, now: float) -> None:
        """The provider may have counted it as late as now: from now on its window is counted."""
        ...

    def change(self, hold: Hold, delta: float, now: float) -> None:
        """It was `delta` more than what was taken (or less)."""
        ...

    def time_left(self, now: float) -> float:
        """The share of the window's time that is still to come, from 0 to 1; 0 where all comes back bit by bit."""
        ...

    def observe(self, room: float, reset_s: float | None, now: float) -> None:
        """The provider says that `room` is left, and (where it does) in how many seconds the window is over."""
        ...

    def state(self) -> Any:
        """What `restore` needs, as JSON."""
        ...

    def restore(self, state: Any, now: float) -> None: ...


class Sliding:
    """Every amount comes back `seconds` after it was used."""

    __slots__ = ("_entries", "_used", "limit")

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._entries: deque[Hold] = deque()
        self._used = 0.0

    def room(self, now: float) -> float:
        self._expire(now)
        return self.limit.amount - self._used

    def wait_s(self, amount: float, now: float) -> float:
        missing = amount - self.room(now)
        if missing <= _SLACK:
            return 0.0
        if amount > self.limit.amount + _SLACK:
            return math.inf
        for entry in self._entries:
            missing -= entry.amount
            if missing <= _SLACK:
                return max(0.0, entry.at + self.limit.seconds - now)
        return self.limit.seconds

    def take(self, amount: float, now: float) -> Hold:
        entries = self._entries
        self._used += amount
        if entries:
            last = entries[-1]
            now = max(now, last.at)  # a clock that was set back does not make anything older
            if len(entries) >= _EXACT_ENTRIES and now - last.since < self.limit.seconds / _EXACT_ENTRIES:
                last.at = now
                last.amount += amount
                return last
        hold = Hold(now, amount)
        entries.append(hold)
        return hold

    def arrived(self, hold: Hold, now: float) -> None:
        self._expire(now)
        if hold.at == -math.inf:
            self._used += hold.amount
        else:
            try:
                self._entries.remove(hold)
            except ValueError:
                return  # it is of a meter that this one has replaced
        hold.at = max(hold.at, now)
        self._insert(hold)

    def change(self, hold: Hold, delta: float, now: float) -> None:
        self._expire(now)
        if hold.at == -math.inf:
            if delta > 0:
                self.take(delta, now)
            return
        hold.amount += delta
        self._used += delta

    def time_left(self, now: float) -> float:
        self._expire(now)
        return max(0.0, 1.0 - (now - self._entries[0].at) / self.limit.seconds) if self._entries else 1.0

    def observe(self, room: float, reset_s: float | None, now: float) -> None:
        excess = self.room(now) - room
        if excess > 0:
            self._used += excess
            seconds = self.limit.seconds
            first = seconds if reset_s is None else min(reset_s, seconds)
            # When all is used up, the first of what was used unseen comes back in `reset_s` seconds. Nothing says when
            # the rest does, so that it comes bit by bit.
            pieces = max(1, min(_UNSEEN_PIECES, int(excess))) if room <= 0 else 1
            for piece in range(pieces):
                back_s = first + (seconds - first) * piece / pieces
                self._insert(Hold(now - seconds + back_s, excess / pieces))
            return
        for entry in list(self._entries):
            if excess >= 0:
                break
            back = min(entry.amount, -excess)
            entry.amount -= back
            self._used -= back
            excess += back

    def state(self) -> Any:
        return [[round(entry.at, 3), entry.amount] for entry in self._entries if entry.amount]

    def restore(self, state: Any, now: float) -> None:
        for at, amount in state:
            self._used += amount
            self._insert(Hold(min(at, now), amount))
        self._expire(now)

    def _insert(self, hold: Hold) -> None:
        """Put an entry where its time belongs; nearly always that is the end."""
        later: list[Hold] = []
        while self._entries and self._entries[-1].at > hold.at:
            later.append(self._entries.pop())
        self._entries.append(hold)
        self._entries.extend(reversed(later))

    def _expire(self, now: float) -> None:
        entries, over = self._entries, now - self.limit.seconds
        while entries and entries[0].at <= over:
            gone = entries.popleft()
            gone.at = -math.inf
            self._used -= gone.amount
        if not entries:
            self._used = 0.0  # whatever rounding left


class Fixed:
    """Everything comes back at the turn of the window."""

    __slots__ = ("_begin", "_end", "_used", "limit")

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._begin = -math.inf
        self._end = -math.inf
        self._used = 0.0

    def room(self, now: float) -> float:
        self._turn(now)
        return self.limit.amount - self._used

    def wait_s(self, amount: float, now: float) -> float:
        if amount - self.room(now) <= _SLACK:
            return 0.0
        return math.inf if amount > self.limit.amount + _SLACK else max(0.0, self._end - now)

    def take(self, amount: float, now: float) -> Hold:
        self._turn(now)
        self._used += amount
        return Hold(self._begin, amount)

    def arrived(self, hold: Hold, now: float) -> None:
        self._turn(now)
        if hold.at != self._begin:
            self._used += hold.amount
            hold.at = self._begin

    def change(self, hold: Hold, delta: float, now: float) -> None:
        self._turn(now)
        if hold.at == self._begin or delta > 0:
            self._used = max(0.0, self._used + delta)

    def time_left(self, now: float) -> float:
        self._turn(now)
        return (self._end - now) / (self._end - self._begin)

    def observe(self, room: float, reset_s: float | None, now: float) -> None:
        self._turn(now)
        self._used = max(0.0, self.limit.amount - room)
        if reset_s is not None and room < self.limit.amount and 0 < reset_s <= self.limit.seconds * 1.1:
            self._end = now + reset_s

    def state(self) -> Any:
        return [self._begin, self._end, self._used]

    def restore(self, state: Any, now: float) -> None:
        begin, end, used = state
        if begin <= now < end:
            self._begin, self._end, self._used = begin, end, used

    def _turn(self, now: float) -> None:
        if now >= self._end:
            self._begin, self._end = window_of(self.limit, now)
            self._used = 0.0


class Bucket:
    """`amount` is refilled continuously over `seconds`.

    What is given back is what would be there now if it had never been taken. A bucket that has been full in between
    would be no fuller: so the least that was used since each step is remembered, as far as it matters.
    """

    __slots__ = ("_at", "_least", "_steps", "_used", "limit")

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._used = 0.0
        self._at = -math.inf
        self._steps = 0
        self._least: list[list[float]] = []  # (step, least used from then on), both rising

    def room(self, now: float) -> float:
        if now > self._at:
            if self._used > 0:
                self._used = max(0.0, self._used - (now - self._at) * self.limit.amount / self.limit.seconds)
                self._note()
            self._at = now
        return self.limit.amount - self._used

    def wait_s(self, amount: float, now: float) -> float:
        missing = amount - self.room(now)
        if missing <= _SLACK:
            return 0.0
        if amount > self.limit.amount + _SLACK:
            return math.inf
        return missing * self.limit.seconds / self.limit.amount

    def take(self, amount: float, now: float) -> Hold:
        self.room(now)
        self._used += amount
        self._note()
        hold = Hold(self._at, amount)
        hold.since = self._steps
        return hold

    def arrived(self, hold: Hold, now: float) -> None:
        self.room(now)
        self._used += min(hold.amount, max(0.0, now - hold.at) * self.limit.amount / self.limit.seconds)
        self._note()
        hold.at, hold.since = max(hold.at, self._at), self._steps

    def change(self, hold: Hold, delta: float, now: float) -> None:
        self.room(now)
        if delta < 0:
            since = [entry for entry in self._least if entry[0] >= hold.since]
            delta = max(delta, -since[0][1]) if since else 0.0
            for entry in since:
                entry[1] += delta
        hold.amount += delta
        self._used += delta
        self._note()

    def time_left(self, now: float) -> float:
        return 0.0

    def observe(self, room: float, reset_s: float | None, now: float) -> None:
        self.room(now)
        self._used = max(0.0, self.limit.amount - room)
        self._least.clear()
        self._note()

    def state(self) -> Any:
        return [self._at, self._used] if self._at > -math.inf else []

    def restore(self, state: Any, now: float) -> None:
        if state:
            self._at, self._used = min(state[0], now), state[1]

    def _note(self) -> None:
        """A step ends: so much is used now, and whatever was more before does not matter any more."""
        self._steps += 1
        least = self._least
        while least and least[-1][1] >= self._used:
            least.pop()
        least.append([self._steps, self._used])
        if len(least) > _MOST_MARKS:
            least[0:2] = [[least[1][0], least[0][1]]]


class Once:
    """A credit: what is used is gone."""

    __slots__ = ("_used", "limit")

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._used = 0.0

    def room(self, now: float) -> float:
        return self.limit.amount - self._used

    def wait_s(self, amount: float, now: float) -> float:
        return 0.0 if amount - self.room(now) <= _SLACK else math.inf

    def take(self, amount: float, now: float) -> Hold:
        self._used += amount
        return Hold(now, amount)

    def arrived(self, hold: Hold, now: float) -> None:
        """It is gone whenever that was."""

    def change(self, hold: Hold, delta: float, now: float) -> None:
        self._used = max(0.0, self._used + delta)

    def time_left(self, now: float) -> float:
        return 0.0

    def observe(self, room: float, reset_s: float | None, now: float) -> None:
        self._used = max(0.0, self.limit.amount - room)

    def state(self) -> Any:
        return self._used

    def restore(self, state: Any, now: float) -> None:
        self._used = state


class Concurrent(Once):
    """Requests at the same time; a request that has ended gives its place back."""

    __slots__ = ()

    def wait_s(self, amount: float, now: float) -> float:
        # When the ones before end is not known: soon, or it would not be a limit of concurrency.
        return 0.0 if amount - self.room(now) <= _SLACK else 1.0 if self.limit.amount >= amount else math.inf

    def observe(self, room: float, reset_s: float | None, now: float) -> None:
        """Nobody else's requests are counted here."""

    def state(self) -> Any:
        return None

    def restore(self, state: Any, now: float) -> None:
        """Whatever was in flight has ended with the process."""


_METERS: dict[Kind, type[Sliding | Fixed | Bucket | Once | Concurrent]] = {
    "sliding": Sliding, "fixed": Fixed, "bucket": Bucket, "once": Once, "concurrent": Concurrent
}  # fmt: skip


def meter(limit: Limit) -> Meter:
    """A meter of `limit` of which nothing is used."""
    return _METERS[limit.kind](limit)


def with_amount(found: Meter, amount: float) -> None:
    """The limit was learned to be another one; what was used stays used."""
    found.limit = replace(found.limit, amount=amount)
