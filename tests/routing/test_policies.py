"""Orderings are permutations, cut into groups of equals."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core.types import Candidate, Model
from llmproxy.routing import policies
from llmproxy.routing.capabilities import rank
from tests.core.properties import quick
from tests.routing.worlds import candidates, models, tags

several = st.lists(st.builds(Candidate, models(), st.integers(0, 2)), max_size=12, unique_by=lambda one: one.key)
orders = st.sampled_from(sorted(policies.ORDERS))


@quick
@given(orders, several)
def test_an_ordering_is_a_permutation(order: policies.Order, given_ones: list[Candidate]) -> None:
    """Every policy gives back each candidate exactly once, in groups that are not empty."""
    groups = policies.ORDERS[order](given_ones)
    assert all(groups)
    assert Counter(one.key for group in groups for one in group) == Counter(one.key for one in given_ones)


@quick
@given(several, tags)
def test_capability_buckets_are_a_permutation(given_ones: list[Candidate], needs: frozenset[str]) -> None:
    """Cut by capability, each candidate is there once; the known-capable come first and the incapable last."""
    buckets = policies.by_capability(given_ones, lambda model: rank(model, needs))
    flat = [one for bucket in buckets for one in bucket]
    assert Counter(one.key for one in flat) == Counter(one.key for one in given_ones)
    ranks = [rank(one.model, needs) for one in flat]
    assert ranks == sorted(ranks)


@quick
@given(several, st.integers(0, 1000))
def test_rotation_is_a_permutation(given_ones: list[Candidate], ticket: int) -> None:
    """A rotated group has the same neighbours and begins somewhere else for each ticket."""
    group = tuple(given_ones)
    turned = policies.rotated(group, ticket)
    assert len(turned) == len(group)
    if group:
        start = ticket % len(group)
        assert turned == group[start:] + group[:start]


@quick
@given(several, st.dictionaries(st.integers(0, 11), st.floats(0.001, 10)))
def test_speed_is_a_permutation(given_ones: list[Candidate], speeds: dict[int, float]) -> None:
    """Ordered by speed, the unmeasured come first and the rest from fast to slow."""
    speed = {one.key: speeds.get(index) for index, one in enumerate(given_ones)}
    flat = policies.by_speed(given_ones, lambda one: speed[one.key])
    assert Counter(one.key for one in flat) == Counter(one.key for one in given_ones)
    times = [speed[one.key] or 0.0 for one in flat]
    assert times == sorted(times)


def ids(groups: policies.Groups) -> list[list[str]]:
    return [[one.model.id for one in group] for group in groups]


def test_best_goes_by_tier() -> None:
    """Strongest first; an unknown tier stands between standard and exploratory; toys stand behind everything."""
    ones = candidates(
        Model("a", "toy", tier="deep", toy=True),
        Model("a", "weak", tier="exploratory"),
        Model("a", "unknown"),
        Model("a", "strong", tier="deep"),
        Model("b", "middle", tier="standard"),
        Model("b", "strong2", tier="deep"),
    )
    assert ids(policies.best(ones)) == [["strong", "strong2"], ["middle"], ["unknown"], ["weak"], ["toy"]]


def test_cheapest_goes_by_price() -> None:
    """Free before cheap before dear before unknown; what is free costs nothing whatever its list price is."""
    ones = candidates(
        Model("a", "unknown"),
        Model("a", "dear", price_usd_per_mtok=10.0),
        Model("a", "cheap", price_usd_per_mtok=0.1),
        Model("a", "free", free=True, price_usd_per_mtok=5.0),
        Model("a", "zero", price_usd_per_mtok=0.0),
        Model("local", "toy", toy=True, free=True),
    )
    assert ids(policies.cheapest(ones)) == [["free", "zero"], ["cheap"], ["dear"], ["unknown"], ["toy"]]


def test_as_listed_keeps_the_order() -> None:
    """Only the keys of one model are a group."""
    x, y = Model("a", "x"), Model("a", "y")
    ones = [Candidate(y, 0), Candidate(y, 1), Candidate(x, 0)]
    assert ids(policies.as_listed(ones)) == [["y", "y"], ["x"]]


@pytest.mark.parametrize("order", sorted(policies.ORDERS))
def test_nothing_stays_nothing(order: policies.Order) -> None:
    """No candidates make no groups."""
    assert policies.ORDERS[order]([]) == ()
