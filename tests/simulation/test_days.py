"""The days that are measured, in small: what llmproxy makes of them, and that the predecessor does worse."""

from __future__ import annotations

import itertools

import pytest

from benchmarks.demand import TRACES, Trace, candidates, config
from benchmarks.limits import HEAD, measure, row
from llmproxy.core.config import parse
from llmproxy.routing.catalog import Catalog
from llmproxy.simulation.report import Setting, replay, routing_of

SMALL = 0.005


def test_the_world_is_as_large_as_is_said() -> None:
    """Sixty models of eleven providers."""
    names = candidates()
    assert len(set(names)) == 60
    assert len({name.partition("/")[0] for name in names}) == 11
    assert len(parse(config()).providers) == 11


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace.name)
def test_a_day_can_be_made_again(trace: Trace) -> None:
    """The same seed gives the same requests, another one others; they come in order, within the day."""
    made = trace.demand(3, 0.002)
    assert made == trace.demand(3, 0.002)
    assert made != trace.demand(4, 0.002)
    assert all(before.at_s <= after.at_s for before, after in itertools.pairwise(made))
    assert 0 <= made[0].at_s <= made[-1].at_s < 86_400


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace.name)
def test_small_days_are_served(trace: Trace) -> None:
    """Far below the limits: all but the pool of which most are dead is served, with fewer wasted calls than before."""
    by_policy = dict(measure(trace, SMALL, 1))
    now, before = by_policy["llmproxy"], by_policy["predecessor"]
    assert now["served"] <= now["bound"] <= now["demand"]
    assert now["bound_ratio"] >= 0.99
    assert now["wasted"] <= before["wasted"]
    assert now["over_limit"] <= (30 if trace.wrong else 0)
    assert row(trace, "llmproxy", now).count("|") == HEAD[0].count("|")


def test_any_policy_can_be_replayed() -> None:
    """A policy is made of a setting: who there is, and what is declared."""
    seen: list[Setting] = []

    def policy(setting: Setting):  # type: ignore[no-untyped-def]
        seen.append(setting)
        return routing_of(setting)

    body = replay(parse(config()), TRACES[0].demand(1, 0.001), policy=policy)
    assert body["served"] == 200
    assert isinstance(seen[0].catalog, Catalog)
