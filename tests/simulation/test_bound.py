"""The bound: never below what can be served, and near it."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from random import Random

import pytest

from llmproxy.core.errors import ConfigError
from llmproxy.routing.limits import Hold, Limit, Meter, meter
from llmproxy.simulation.bound import Side, bound
from llmproxy.simulation.demand import Request
from llmproxy.simulation.engine import BEGIN
from llmproxy.simulation.upstreams import seconds

POOL = "llmproxy/free"


def most(demand: Sequence[Request], sides: Sequence[Side]) -> int:
    """What the best of all ways to place the requests serves, found by trying all of them."""
    ways = itertools.product([None, *sides], repeat=len(demand))
    return max(sum(side is not None for side in way) for way in ways if fits(demand, way))


def fits(demand: Sequence[Request], way: Sequence[Side | None]) -> bool:
    """Whether no limit is exceeded when each request goes where the way says."""
    meters: dict[tuple[str, str], Meter] = {}
    ends: list[tuple[float, Meter, Hold]] = []
    for request, side in zip(demand, way, strict=True):
        now = BEGIN + request.at_s
        for end in [end for end in ends if end[0] <= now]:
            ends.remove(end)
            end[1].change(end[2], -1.0, now)
        if side is None:
            continue
        for scope, limit in side.limits:
            amount = {"requests": 1, "prompt_tokens": request.prompt_tokens}.get(
                limit.unit, request.prompt_tokens + request.completion_tokens
            )
            if limit.kind == "request":
                if amount > limit.amount:
                    return False
                continue
            found = meters.setdefault((scope, limit.name), meter(limit))
            if found.room(now) < amount - 1e-6:
                return False
            hold = found.take(amount, now)
            if limit.kind == "concurrent":
                ends.append((now + seconds(request), found, hold))
    return True


def a_limit(chance: Random) -> Limit:
    """Some limit that a few requests can use up."""
    unit, amount = chance.choice([("requests", 1), ("requests", 2), ("tokens", 500), ("prompt_tokens", 400)])
    kind = chance.choice(["sliding", "fixed", "bucket", "once", "request", "concurrent"])
    length = chance.choice([60.0, 3_600.0, 86_400.0])
    if kind == "concurrent":
        return Limit("requests", 1, "concurrent")
    if kind == "request":
        return Limit("tokens", chance.choice([200, 400]), "request")
    return Limit(unit, amount, kind, 0.0 if kind == "once" else length)  # type: ignore[arg-type]


def test_it_is_never_below_what_can_be_served() -> None:
    """Against every way to place a few requests, with limits of every kind, shared ones among them; and near it."""
    all_best = all_found = 0
    for seed in range(40):
        chance = Random(seed)
        spread_s = chance.choice([90.0, 1_800.0, 40_000.0])
        demand = sorted(
            Request(chance.uniform(0, spread_s), POOL, chance.randint(50, 350), chance.randint(10, 200))
            for _ in range(5)
        )
        shared = a_limit(chance)
        sides = [
            Side(name, ((name, a_limit(chance)), (name, a_limit(chance)), ("both", shared))[: chance.randint(1, 3)])
            for name in ("a/m", "b/m")
        ]
        best, found = most(demand, sides), bound(demand, {POOL: sides}, BEGIN)
        assert best <= found, seed
        all_best, all_found = all_best + best, all_found + found
    assert all_found <= 1.3 * all_best


@pytest.mark.parametrize(
    ("limit", "hours", "expected"),
    [
        (Limit("requests", 10, "sliding", 86_400.0), 20, 10),
        (Limit("requests", 10, "fixed", 86_400.0, "day", "America/Los_Angeles"), 20, 20),
        (Limit("requests", 24, "bucket", 86_400.0), 24, 48),
        (Limit("requests", 7, "once"), 20, 7),
        (Limit("requests", 2, "sliding", 3_600.0), 10, 20),
        (Limit("tokens", 2_000, "sliding", 86_400.0), 20, 10),
    ],
    ids=str,
)
def test_what_one_limit_lets_through(limit: Limit, hours: int, expected: int) -> None:
    """A request of 200 tokens every minute; one more may fit where the first hour begins."""
    demand = [Request(60.0 * minute, POOL, 150, 50) for minute in range(hours * 60)]
    assert expected <= bound(demand, {POOL: [Side("a/m", (("a/m", limit),))]}, BEGIN) <= expected + 1


def test_a_burst_is_more_than_its_minute_takes() -> None:
    """A hundred in one minute, at 10 a minute; the quiet rest of the hour does not help."""
    demand = sorted([Request(600.0 + 0.5 * number, POOL, 10, 10) for number in range(100)])
    demand += [Request(1_200.0 + 60.0 * number, POOL, 10, 10) for number in range(30)]
    side = Side("a/m", (("a/m", Limit("requests", 10, "sliding", 60.0)),))
    assert bound(demand, {POOL: [side]}, BEGIN) == 40


def test_small_requests_are_served_before_large_ones() -> None:
    """A budget of tokens goes to those that need few."""
    demand = [Request(60.0 * number, POOL, 100 if number % 2 else 1_000, 0) for number in range(100)]
    side = Side("a/m", (("a/m", Limit("tokens", 10_000, "sliding", 86_400.0)),))
    assert bound(demand, {POOL: [side]}, BEGIN) == 55


def test_nobody_serves_nothing() -> None:
    """A pool of whom none answers, and an empty day."""
    assert bound([Request(1.0, POOL, 1, 1)], {POOL: []}, BEGIN) == 0
    assert bound([], {POOL: []}, BEGIN) == 0


def test_without_scipy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not part of the small installation."""
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ConfigError, match=r"llmproxy\[simulate\]"):
        bound([], {}, BEGIN)
