"""The responses that are kept for `previous_response_id`: bounded in number and in bytes, the least used go first."""

from __future__ import annotations

from collections import OrderedDict

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.dialects.responses_history import Stored
from llmproxy.gateway.responses import Responses
from tests.core.properties import quick


def made(name: str, length: int = 4) -> Stored:
    """A response of one message of so many characters."""
    item = {"id": f"msg_{name}", "type": "message", "role": "assistant", "content": "x" * length}
    question = {"type": "message", "role": "user", "content": "hello"}
    return Stored((question, item), {"id": name, "status": "completed", "output": [item]})


def size_of(stored: Stored) -> int:
    """Its bytes, as JSON."""
    return len(orjson.dumps(stored.items)) + len(orjson.dumps(stored.response))


def test_what_is_kept_can_be_had() -> None:
    """The response, by its id, and its items, by theirs."""
    kept, one = Responses(), made("a")
    kept.keep(one)
    assert kept.get("a") == one
    assert kept.item("msg_a") == one.response["output"][0]
    assert (kept.get("b"), kept.item("msg_b"), len(kept)) == (None, None, 1)


def test_what_is_forgotten_is_gone() -> None:
    """With its items; a second time there is nothing to forget."""
    kept = Responses()
    kept.keep(made("a"))
    assert (kept.forget("a"), kept.forget("a")) == (True, False)
    assert (kept.get("a"), kept.item("msg_a"), len(kept)) == (None, None, 0)


def test_the_one_that_was_used_longest_ago_makes_room() -> None:
    """Reading one is a use of it."""
    kept = Responses(most=2)
    kept.keep(made("a"))
    kept.keep(made("b"))
    kept.get("a")
    kept.keep(made("c"))
    assert [kept.get(name) is not None for name in "abc"] == [True, False, True]
    assert kept.item("msg_b") is None


def test_bytes_make_room_too() -> None:
    """As many go as are needed for a large one."""
    kept = Responses(most_bytes=3 * size_of(made("a")))
    for name in "abc":
        kept.keep(made(name))
    assert len(kept) == 3
    kept.keep(made("d", length=4 + size_of(made("a")) // 2))
    assert [kept.get(name) is not None for name in "abcd"] == [False, False, True, True]


def test_one_that_is_larger_than_all_the_room_is_not_kept() -> None:
    """And nothing goes for it."""
    kept = Responses(most_bytes=2 * size_of(made("a")))
    kept.keep(made("a"))
    kept.keep(made("b", length=10_000))
    assert [kept.get(name) is not None for name in "ab"] == [True, False]
    assert kept.item("msg_b") is None


@pytest.mark.parametrize("length", [4, 40])
def test_the_same_id_again_replaces_it(length: int) -> None:
    """Its room is counted once."""
    kept = Responses(most_bytes=2 * size_of(made("a")) + 80)
    for _ in range(50):
        kept.keep(made("a", length))
    kept.keep(made("b"))
    assert kept.get("a") == made("a", length)
    assert kept.get("b") == made("b")


STEPS = st.lists(
    st.tuples(st.sampled_from(["keep", "get", "forget"]), st.sampled_from("abcdefgh"), st.integers(0, 300)),
    max_size=60,
)


@quick
@given(STEPS, st.integers(1, 5), st.integers(200, 1500))
def test_it_stays_within_its_bounds(steps: list[tuple[str, str, int]], most: int, most_bytes: int) -> None:
    """Whatever happens: what is kept is what a list sorted by last use would keep."""
    kept, known = Responses(most, most_bytes), OrderedDict[str, Stored]()
    for step, name, length in steps:
        if step == "keep":
            one = made(name, length)
            kept.keep(one)
            known.pop(name, None)
            if size_of(one) <= most_bytes:
                known[name] = one
        elif step == "get":
            assert kept.get(name) == known.get(name)
            if name in known:
                known.move_to_end(name)
        else:
            assert kept.forget(name) == (known.pop(name, None) is not None)
        while len(known) > most or sum(map(size_of, known.values())) > most_bytes:
            known.popitem(last=False)
        assert len(kept) == len(known)
        for letter in "abcdefgh":
            expected = known[letter].response["output"][0] if letter in known else None
            assert kept.item(f"msg_{letter}") == expected
