"""Turns within a group: everybody once, by weight where that is wanted, without those who wait aside."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core.config import Config
from llmproxy.core.types import Candidate, Model
from llmproxy.routing.catalog import Catalog, Offer
from llmproxy.routing.rotation import Rotation, spared
from tests.core.properties import quick

NOW = 1000.0


def group(count: int) -> list[Candidate]:
    return [Candidate(Model("a", f"m{place}")) for place in range(count)]


def ids(found: list[Candidate]) -> list[str]:
    return [candidate.model.id for candidate in found]


def test_turns_begin_at_the_ticket() -> None:
    """Without chance the group is begun at another place for each ticket."""
    rotation = Rotation(group(3))
    assert ids(list(rotation.turns(NOW, 4, None, None))) == ["m1", "m2", "m0"]


@quick
@given(st.integers(1, 40), st.integers(0, 2**32), st.lists(st.integers(0, 39), max_size=20))
def test_everybody_who_may_be_asked_comes_once(count: int, seed: int, gone: list[int]) -> None:
    """Drawn by weight or not, and whoever waits aside."""
    chance, everybody = random.Random(seed), group(count)
    rotation = Rotation(everybody)
    for place in gone:
        if place < count:
            rotation.aside(everybody[place], 10.0, NOW)
    left = sorted(f"m{place}" for place in range(count) if place not in gone)
    assert sorted(ids(list(rotation.turns(NOW, seed, None, None)))) == left
    assert sorted(ids(list(rotation.turns(NOW, seed, lambda _: chance.random(), chance.random)))) == left
    assert len(list(rotation.turns(NOW + 10.0, seed, None, None))) == count


def test_who_waits_aside_is_looked_at_again_within_a_minute() -> None:
    """Also when it was put aside for a day: a header may have said otherwise meanwhile."""
    one, two = group(2)
    rotation = Rotation([one, two])
    rotation.aside(one, 86_400.0, NOW)
    rotation.aside(one, 86_400.0, NOW)
    assert ids(list(rotation.turns(NOW + 59, 0, None, None))) == ["m1"]
    assert sorted(ids(list(rotation.turns(NOW + 60, 0, None, None)))) == ["m0", "m1"]


def test_turns_that_are_half_taken_survive_a_change() -> None:
    """Somebody is put aside while another call goes through the same group."""
    everybody = group(5)
    rotation = Rotation(everybody)
    turns = rotation.turns(NOW, 0, None, None)
    first = next(turns)
    rotation.aside(first, 10.0, NOW)
    assert ids([first, *turns]) == ["m0", "m1", "m2", "m3", "m4"]


def test_weights_are_odds() -> None:
    """Three times the weight is first about three times as often."""
    chance, (one, two) = random.Random(1), group(2)
    rotation = Rotation([one, two])
    firsts = Counter(
        next(rotation.turns(NOW, 0, lambda candidate: 3.0 if candidate is one else 1.0, chance.random)).model.id
        for _ in range(4000)
    )
    assert firsts["m0"] / firsts["m1"] == pytest.approx(3.0, rel=0.15)


def test_nothing_left_comes_last() -> None:
    """A weight of 0 is asked when nobody else is there."""
    chance, (one, two) = random.Random(1), group(2)
    rotation = Rotation([one, two])
    for _ in range(50):
        turns = rotation.turns(NOW, 0, lambda candidate: 0.0 if candidate is one else 0.2, chance.random)
        assert ids(list(turns)) == ["m1", "m0"]


def test_what_few_have_is_spared_for_those_who_need_it() -> None:
    """Plain calls go to plain models first; a call that needs vision sees no difference; what all have is not rare."""
    plain = [Candidate(Model("a", f"p{place}", capabilities=frozenset({"tools"}))) for place in range(9)]
    sees = Candidate(Model("a", "v", capabilities=frozenset({"tools", "vision"})))
    reads = Candidate(Model("a", "l", capabilities=frozenset({"tools"}), context_tokens=1_000_000))
    weights = spared([*plain, sees, reads], frozenset())
    assert weights == {"a/v": pytest.approx(0.1), "a/l": pytest.approx(0.1)}
    assert "a/v" not in spared([*plain, sees], frozenset({"vision"}))
    assert spared(plain, frozenset()) == {}
    chance, rotation = random.Random(2), Rotation([*plain, sees])
    firsts = Counter(next(rotation.turns(NOW, 0, lambda _: 1.0, chance.random)).model.id for _ in range(1000))
    assert firsts["v"] < 40


def test_who_is_much_worse_does_not_take_the_place_of_a_better_one() -> None:
    """Of many that have nearly nothing left and three that have all, one of the three comes first."""
    everybody = group(30)
    good = {candidate.key for candidate in everybody[:3]}
    rotation, chance = Rotation(everybody), random.Random(2)
    first = [
        next(rotation.turns(NOW, 0, lambda one: 1.0 if one.key in good else 0.01, chance.random)).key in good
        for _ in range(400)
    ]
    assert sum(first) > 300


def test_silent_ones_stand_aside_and_are_still_known() -> None:
    """They are no reason to wait for room; after half a minute they take part again."""
    everybody = group(3)
    rotation = Rotation(everybody)
    rotation.aside(everybody[1], 600.0, NOW, silent=True)
    assert (rotation.waiting, rotation.silent) == (False, (everybody[1],))
    rotation.aside(everybody[2], 600.0, NOW)
    assert rotation.waiting
    assert ids(list(rotation.turns(NOW + 29.0, 0, None, None))) == ["m0"]
    assert set(ids(list(rotation.turns(NOW + 30.0, 0, None, None)))) == {"m0", "m1"}
    assert rotation.silent == ()


def test_the_members_of_a_pool_are_spared_by_calls_for_others() -> None:
    """Who asks for that pool has nobody else."""
    everybody = group(4)
    assert spared(everybody, frozenset(), {everybody[0].key: frozenset({"pool coder"})}) == {everybody[0].key: 0.25}


def test_members_of_a_small_pool_are_asked_by_others_only_when_nobody_else_is_left() -> None:
    """Calls for that pool have nobody else; a pool of most of the models sets nobody apart."""
    models = tuple(Model("s", name, free=True) for name in "abcdef")
    config = Config.model_validate(
        {"pools": {"few": {"where": {"models": ["s/a", "s/b"]}}, "most": {"where": {"models": ["s/[c-f]"]}}}}
    )
    catalog = Catalog([Offer("s", models)], config)

    def drawn(name: str) -> list[list[str]]:
        rotations = catalog.select(name).rotations(frozenset())
        draw = random.Random(1).random
        return [sorted(one.model.id for one in part.turns(0.0, 0, lambda _: 1.0, draw)) for part in rotations]

    assert drawn("llmproxy/free") == [["c", "d", "e", "f"], ["a", "b"]]
    assert drawn("llmproxy/few") == [["a", "b"]]
    assert drawn("llmproxy/most") == [["c", "d", "e", "f"]]
