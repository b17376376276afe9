"""How many requests of a demand anybody could have served: an upper bound, from a linear program (needs scipy).

The bound holds for every router that asks when a request comes and keeps to the limits, even one that knows the whole
day ahead, and how long each answer will be. The program allows all that such a router may do, and more:

- The day is cut into spans of up to an hour; minutes with much demand are spans of their own. Requests are counted by
  span and class (who is able to take them, and how large they are), and may be split between candidates.
- A limit is kept over spans only: over those that one window covers together, and over each for itself by the number
  of windows that touch it; a bucket by what is in it after each span. Of a limit with a short window no more is used
  in a span than each minute of it could bring and take.
- The tokens of some requests of a class and span are at least those of its smallest ones.
- Candidates with equal limits count as one with several times the amount.

Nothing that a real router could do is forbidden by any of these, so no router serves more.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from llmproxy.core.errors import ConfigError
from llmproxy.routing.limits import Limit, window_of
from llmproxy.simulation.demand import Request
from llmproxy.simulation.upstreams import seconds

# A resource is a unit of limits, or `busy`: the seconds that a request keeps one place of a limit of concurrency.
Resource = Literal["requests", "tokens", "prompt_tokens", "completion_tokens", "busy"]
_OF: Mapping[Resource, Callable[[Request], float]] = {
    "tokens": lambda request: request.prompt_tokens + request.completion_tokens,
    "prompt_tokens": lambda request: request.prompt_tokens,
    "completion_tokens": lambda request: request.completion_tokens,
    "busy": seconds,
}
_MINUTE_S = 60.0
_HOUR_S = 3_600.0
# A minute with so many times the demand of its hour is a span of its own; the busiest ones, at most so many.
_BURST = 2.0
_MOST_BURSTS = 150
# Requests that the same candidates are able to take are told apart by size, in so many classes.
_SIZES = 3
# The tokens of the smallest requests of a class grow with their number; so many straight lines stand for the curve.
_LINES = 4


@dataclass(frozen=True, slots=True)
class Side:
    """One candidate as the bound sees it: limits with the scopes that count them, and tokens that are debited ahead."""

    key: str
    limits: tuple[tuple[str, Limit], ...]
    ahead: int = 0

    @property
    def most_prompt(self) -> float:
        """The largest prompt that it takes."""
        most = math.inf
        for _, limit in self.limits:
            if limit.unit == "prompt_tokens":
                most = min(most, limit.amount)
            elif limit.unit == "tokens":
                most = min(most, limit.amount - self.ahead)
            elif limit.amount < (self.ahead if limit.unit == "completion_tokens" else limit.unit == "requests"):
                return -1.0
        return most


@dataclass(slots=True)
class _Group:
    """Candidates that are the same to the bound: `count` of them; `meters` are (name, limit, whether it is shared)."""

    count: int
    most_prompt: float
    pools: frozenset[str]
    meters: list[tuple[str, Limit, bool]] = field(default_factory=list)


@dataclass(slots=True)
class _Class:
    """Requests of one span that the same groups are able to take, with much the same size."""

    groups: tuple[int, ...]
    requests: list[Request] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)


def bound(demand: Sequence[Request], pools: Mapping[str, Sequence[Side]], begin: float) -> int:
    """The most requests that can be served. `pools` gives who may take a request of a name; times count from `begin`.

    Raises `ConfigError` without scipy.
    """
    linprog, coo_matrix = solver()
    if not demand:
        return 0
    program = _Program(demand, pools, begin)
    program.write()
    if not program.served:
        return 0
    shape = len(program.limits), program.columns
    rows = coo_matrix((program.values, (program.row_of, program.column_of)), shape=shape).tocsr()
    cost = [0.0] * program.columns
    for column in program.served:
        cost[column] = -1.0
    found: Any = linprog(cost, A_ub=rows, b_ub=program.limits, bounds=(0, None), method="highs")
    if found.status != 0:
        raise ArithmeticError(f"the bound was not found: {found.message}")
    return min(len(demand), math.floor(-float(found.fun) * (1 + 1e-7) + 1e-3))


def solver() -> tuple[Any, Any]:
    """What is needed of scipy; raises `ConfigError` where it is not there."""
    try:
        from scipy.optimize import linprog
        from scipy.sparse import coo_matrix
    except ImportError as missing:
        raise ConfigError("the bound needs the simulate extra: pip install 'llmproxy[simulate]'") from missing
    return linprog, coo_matrix


class _Program:
    """The linear program: maximize what `served` columns sum up to, with each row at most its limit."""

    def __init__(self, demand: Sequence[Request], pools: Mapping[str, Sequence[Side]], begin: float) -> None:
        self.columns = 0
        self.served: list[int] = []
        self.limits: list[float] = []
        self.row_of: list[int] = []
        self.column_of: list[int] = []
        self.values: list[float] = []
        self._begin = begin
        self._demand = demand
        self._groups = _groups(pools)
        self._spans = _spans(demand)
        self._shortest_s, self._longest_s = min(map(seconds, demand)), max(map(seconds, demand))
        # Use by meter and span: (column, factor)
        self._use: dict[str, dict[int, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
        self._meters: dict[str, tuple[Limit, float]] = {}
        self._in_minute: dict[tuple[str, int], float] = {}
        for group in self._groups:
            for name, limit, shared in group.meters:
                self._meters[name] = limit, 1.0 if shared else float(group.count)

    def write(self) -> None:
        """All columns and rows."""
        by_span = self._classes()
        for number, classes in enumerate(by_span):
            for one in classes:
                self._serve(number, one)
        for name, (limit, count) in self._meters.items():
            self._limit(name, limit, count)
        for number, classes in enumerate(by_span):
            self._minutes(number, classes)

    # -- the demand -----------------------------------------------------------------------------------------------

    def _classes(self) -> list[list[_Class]]:
        """The classes of each span."""
        able = _Able(self._groups)
        grouped: dict[tuple[int, ...], list[Request]] = defaultdict(list)
        for request in self._demand:
            grouped[able.groups(request)].append(request)
        begins = [span[0] for span in self._spans]
        found: list[list[_Class]] = [[] for _ in self._spans]
        for groups, requests in grouped.items():
            if not groups:
                continue
            sizes = sorted(map(_OF["tokens"], requests))
            steps = [sizes[len(sizes) * part // _SIZES] for part in range(1, _SIZES)]
            parts: dict[tuple[int, int], _Class] = {}
            for request in requests:
                span = bisect_right(begins, request.at_s) - 1
                place = span, bisect_right(steps, _OF["tokens"](request))
                if place not in parts:
                    parts[place] = _Class(groups)
                    found[span].append(parts[place])
                parts[place].requests.append(request)
        return found

    def _serve(self, span: int, one: _Class) -> None:
        """The columns of a class: how many of it each group serves, and the tokens that they use there."""
        served = {group: self._column() for group in one.groups}
        one.columns += served.values()
        self.served += served.values()
        self._row([(column, 1.0) for column in served.values()], len(one.requests))
        by_resource: dict[Resource, list[tuple[str, int]]] = defaultdict(list)
        for group in one.groups:
            for name, limit, _ in self._groups[group].meters:
                resource = _resource(limit)
                if resource == "requests":
                    self._use[name][span].append((served[group], 1.0))
                elif resource is not None:
                    by_resource[resource].append((name, group))
        for resource, meters in by_resource.items():
            sizes = sorted(map(_OF[resource], one.requests))
            used = {group: self._column() for group in dict.fromkeys(group for _, group in meters)}
            for name, group in meters:
                self._use[name][span].append((used[group], 1.0))
            for group, column in used.items():
                self._row([(served[group], sizes[0]), (column, -1.0)], 0.0)
                self._row([(served[group], -sizes[-1]), (column, 1.0)], 0.0)
            elsewhere = [served[group] for group in one.groups if group not in used]
            self._at_least(sizes, list(served.values()), list(used.values()), elsewhere)

    def _at_least(self, sizes: list[float], served: list[int], used: list[int], elsewhere: list[int]) -> None:
        """`served` of the requests use at least what the smallest ones do, less what the largest do `elsewhere`."""
        sums = list(itertools.accumulate(sizes, initial=0.0))
        for number in sorted({max(1, len(sizes) * part // _LINES) for part in range(1, _LINES + 1)}):
            slope, there = sizes[number - 1], set(elsewhere)
            row = [(column, slope - (sizes[-1] if column in there else 0.0)) for column in served]
            self._row(row + [(column, -1.0) for column in used], slope * number - sums[number])

    # -- the limits -----------------------------------------------------------------------------------------------

    def _limit(self, name: str, limit: Limit, count: float) -> None:
        """The rows of one meter."""
        by_span = self._use.get(name)
        if not by_span:
            return
        amount = limit.amount * count
        used: list[int] = []
        for span in range(len(self._spans)):
            column = self._column()
            used.append(column)
            self._row([*by_span[span], (column, -1.0)], 0.0)
            self._row([(column, 1.0)], self._most(limit, *self._spans[span]) * count)
        if limit.kind == "once":
            self._row([(column, 1.0) for column in used], amount)
        elif limit.kind == "bucket":
            self._bucket(used, limit, count)
        elif limit.kind in ("sliding", "fixed"):
            for first, last in self._covered(limit):
                self._row([(column, 1.0) for column in used[first:last]], amount)

    def _bucket(self, used: list[int], limit: Limit, count: float) -> None:
        """What is in a bucket after each span: at most its amount, and what was there and refilled, less the use."""
        amount, before = limit.amount * count, -1
        for (start, end), use in zip(self._spans, used, strict=True):
            left = self._column()
            refill = amount * (end - start) / limit.seconds
            self._row([(left, 1.0)], amount)
            if before < 0:
                self._row([(left, 1.0), (use, 1.0)], amount + refill)
            else:
                self._row([(left, 1.0), (use, 1.0), (before, -1.0)], refill)
            before = left

    def _covered(self, limit: Limit) -> list[tuple[int, int]]:
        """The ranges of at least two spans that one window covers, as long as they can be."""
        found: list[tuple[int, int]] = []
        for first, (start, _) in enumerate(self._spans):
            if limit.kind == "fixed":
                over = window_of(limit, self._begin + start)[1] - self._begin
            else:
                over = start + limit.seconds
            last = first
            while last < len(self._spans) and self._spans[last][1] <= over:
                last += 1
            if last - first > 1 and (not found or last > found[-1][1]):
                found.append((first, last))
        return found

    def _most(self, limit: Limit, start: float, end: float) -> float:
        """The most that can be used of one meter between two times."""
        if limit.kind == "concurrent":
            return limit.amount * (end - start + self._longest_s)
        if limit.kind == "once":
            return limit.amount
        if limit.kind == "bucket":
            return limit.amount * (1 + (end - start) / limit.seconds)
        windows = 1
        if limit.kind == "sliding":
            windows = max(1, math.ceil((end - start) / limit.seconds - 1e-9))
        else:
            at = window_of(limit, self._begin + start)[1]
            while at < self._begin + end - 1e-9:
                windows, at = windows + 1, window_of(limit, at)[1]
        return windows * (limit.amount)

    # -- the minutes of a span ------------------------------------------------------------------------------------

    def _minutes(self, span: int, classes: Sequence[_Class]) -> None:
        """What the minutes of a span can bring and take: for each meter, and for groups together."""
        by_meter: dict[str, list[Request]] = defaultdict(list)
        by_groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for number, one in enumerate(classes):
            by_groups[one.groups].append(number)
            for name in {name for group in one.groups for name, _, _ in self._groups[group].meters}:
                by_meter[name] += one.requests
        for name, requests in by_meter.items():
            limit, count = self._meters[name]
            resource = _resource(limit)
            if resource is None or limit.seconds >= _HOUR_S:
                continue
            most, brought = 0.0, defaultdict[int, float](float)
            for request in requests:
                brought[_minute(request)] += 1 if resource == "requests" else _OF[resource](request)
            for minute, amount in brought.items():
                most += min(amount, self._of_minute(name, minute) * count)
            self._row(self._use[name][span], most)
        by_groups[tuple(sorted({group for groups in by_groups for group in groups}))] = list(range(len(classes)))
        for groups, numbers in by_groups.items():
            self._together(groups, [classes[number] for number in numbers])

    def _together(self, groups: tuple[int, ...], classes: Sequence[_Class]) -> None:
        """What `groups`, and nobody else is able to serve, is no more than what they take in each minute."""
        count: Counter[int] = Counter()
        for one in classes:
            count.update(map(_minute, one.requests))
        most = sum(min(number, self._taken(groups, minute)) for minute, number in count.items())
        if most < sum(count.values()):
            self._row([(column, 1.0) for one in classes for column in one.columns], most)

    def _taken(self, groups: tuple[int, ...], minute: int) -> float:
        """The requests that groups take in a minute, whatever their sizes."""
        own, shared = 0.0, defaultdict[str, float](float)
        for number in groups:
            group, most, scope = self._groups[number], math.inf, ""
            for name, limit, is_shared in group.meters:
                if limit.unit != "requests":
                    continue
                if not is_shared:
                    most = min(most, self._taken_by(name, minute) * group.count)
                elif not scope or self._taken_by(name, minute) < self._taken_by(scope, minute):
                    scope = name
            if scope:
                shared[scope] += most
            else:
                own += most
        return own + sum(min(most, self._taken_by(scope, minute)) for scope, most in shared.items())

    def _taken_by(self, name: str, minute: int) -> float:
        """The requests that a limit of requests lets through in a minute."""
        limit = self._meters[name][0]
        if limit.kind == "concurrent":
            return limit.amount * math.ceil(_MINUTE_S / self._shortest_s)
        return self._of_minute(name, minute)

    def _of_minute(self, name: str, minute: int) -> float:
        """The most that can be used of one meter in a minute."""
        found = self._in_minute.get((name, minute))
        if found is None:
            start = minute * _MINUTE_S
            found = self._in_minute[name, minute] = self._most(self._meters[name][0], start, start + _MINUTE_S)
        return found

    # -- columns and rows -----------------------------------------------------------------------------------------

    def _column(self) -> int:
        self.columns += 1
        return self.columns - 1

    def _row(self, entries: Sequence[tuple[int, float]], most: float) -> None:
        """The sum of columns times factors is at most `most`."""
        if most == math.inf:
            return
        row = len(self.limits)
        for column, value in entries:
            self.row_of.append(row)
            self.column_of.append(column)
            self.values.append(value)
        self.limits.append(most)


class _Able:
    """Which groups are able to take a request: those of its pool that take its prompt."""

    def __init__(self, groups: Sequence[_Group]) -> None:
        self._groups = groups
        self._steps = sorted({group.most_prompt for group in groups})
        self._found: dict[tuple[str, int], tuple[int, ...]] = {}

    def groups(self, request: Request) -> tuple[int, ...]:
        step = bisect_left(self._steps, request.prompt_tokens)
        found = self._found.get((request.pool, step))
        if found is None:
            found = self._found[request.pool, step] = tuple(
                number
                for number, group in enumerate(self._groups)
                if request.pool in group.pools and request.prompt_tokens <= group.most_prompt
            )
        return found


def _groups(pools: Mapping[str, Sequence[Side]]) -> list[_Group]:
    """The candidates of all pools, those that are alike together."""
    sides = {side.key: side for members in pools.values() for side in members}
    in_pools: dict[str, set[str]] = defaultdict(set)
    for pool, members in pools.items():
        for side in members:
            in_pools[side.key].add(pool)
    alike: dict[Any, list[Side]] = defaultdict(list)
    for side in sides.values():
        limits = tuple(("" if scope == side.key else scope, limit) for scope, limit in side.limits)
        alike[frozenset(in_pools[side.key]), side.most_prompt, limits].append(side)
    groups: list[_Group] = []
    for (names, most_prompt, limits), members in alike.items():
        group = _Group(len(members), most_prompt, names)
        for scope, limit in limits:
            if limit.kind != "request" and _resource(limit) is not None:
                name = f"{scope or members[0].key} | {limit.name}"
                group.meters.append((name, limit, bool(scope)))
        groups.append(group)
    return groups


def _spans(demand: Sequence[Request]) -> list[tuple[float, float]]:
    """The day in hours, with the minutes of bursts cut out."""
    minutes = Counter(map(_minute, demand))
    hours = Counter(int(request.at_s // _HOUR_S) for request in demand)
    busy = [minute for minute, count in minutes.items() if count * 60 > _BURST * hours[minute // 60]]
    busy.sort(key=lambda minute: (-minutes[minute], minute))
    cuts = {hour * _HOUR_S for hour in range(max(hours) + 2)}
    for minute in busy[:_MOST_BURSTS]:
        cuts |= {minute * _MINUTE_S, (minute + 1) * _MINUTE_S}
    return list(itertools.pairwise(sorted(cuts)))


def _resource(limit: Limit) -> Resource | None:
    """What a limit is of; None for what requests of a demand do not tell."""
    if limit.kind == "concurrent":
        return "busy"
    return limit.unit if limit.unit in ("requests", "tokens", "prompt_tokens", "completion_tokens") else None


def _minute(request: Request) -> int:
    return int(request.at_s // _MINUTE_S)
