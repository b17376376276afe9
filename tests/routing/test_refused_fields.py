"""A field that a source does not honour makes its models worse candidates for the calls that have it, and no others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core.config import Config
from llmproxy.core.types import Model
from llmproxy.routing.capabilities import Facts, describe, says_nothing, unheeded
from llmproxy.routing.catalog import Catalog, Offer
from llmproxy.routing.health import Health
from llmproxy.routing.planner import Draw, Moment
from tests.core.properties import quick
from tests.routing.worlds import NOW, call_of, kept

PLAIN = Model("a", "plain", free=True)
FACTS = Facts(refuses=frozenset({"seed", "logprobs", "tools"}))
DEAF = Model("b", "deaf", free=True)
TOY = Model("local", "toy", local=True, toy=True)


def over(*models: Model, name: str = "llmproxy/free", order: Any = None, **body: Any) -> list[tuple[str, str]]:
    """(key, reason) of the kept candidates, in order; models of the source `b` refuse fields."""
    offers = [
        Offer(source, tuple(model for model in models if model.source == source), facts=facts)
        for source, facts in (("b", FACTS), ("a", Facts()), ("local", Facts()))
    ]
    config = Config.model_validate({"pools": {"own": {"where": {"models": ["b/*", "a/*"]}, "order": order or "best"}}})
    found = Catalog([offer for offer in offers if offer.models], config)
    draw = Draw(found, call_of(name, **body), Moment(Health(), NOW))
    return [(entry.candidate.key, entry.reason) for entry in draw.plan().kept]


def keys(found: list[tuple[str, str]]) -> list[str]:
    return [key for key, _ in found]


@pytest.mark.parametrize("order", ["best", "fastest", "cheapest", "round_robin", "as_listed"])
def test_who_honours_the_field_comes_first(order: str) -> None:
    """Whatever the order of the pool; the reason names the fields."""
    found = over(DEAF, PLAIN, name="llmproxy/own", order=order, seed=7, logprobs=True)
    assert keys(found) == ["a/plain", "b/deaf"]
    assert found[1][1].endswith("; behind those that honour logprobs, seed")
    assert "honour" not in found[0][1]


@pytest.mark.parametrize("body", [{}, {"seed": None}, {"logprobs": False}, {"temperature": 1}, {"tools": []}])
def test_other_calls_are_not_touched(body: dict[str, Any]) -> None:
    """Without the field, or where it asks for nothing, the order stays."""
    assert keys(over(DEAF, PLAIN, name="llmproxy/own", order="as_listed", **body)) == ["b/deaf", "a/plain"]


def test_it_is_no_worse_than_a_toy() -> None:
    """A toy honours everything and knows nothing: it stays the last resort."""
    assert keys(over(DEAF, PLAIN, TOY, name="llmproxy", seed=7)) == ["a/plain", "b/deaf", "local/toy"]


def test_a_model_that_is_named_stands_behind_its_fallbacks() -> None:
    """Of the names that a call gives, those that can honour it come first."""
    found = Catalog([Offer("b", (DEAF,), facts=FACTS), Offer("a", (PLAIN,))], Config())
    draw = Draw(found, call_of("b/deaf", "a/plain", seed=7), Moment(Health(), NOW))
    assert kept(draw.plan()) == ["a/plain", "b/deaf"]
    assert keys(over(DEAF, name="b/deaf", seed=7)) == ["b/deaf"]


def test_the_same_candidate_again_only_while_it_honours_the_call() -> None:
    """The one that answered a conversation before is first, unless the call has a field that it does not know."""
    offers = [Offer("b", (DEAF,), facts=FACTS), Offer("a", (PLAIN,))]

    def first(**body: Any) -> str:
        moment = Moment(Health(), NOW, last="b/deaf")
        return kept(Draw(Catalog(offers, Config()), call_of("llmproxy/free", **body), moment).plan())[0]

    assert (first(), first(seed=7)) == ("b/deaf", "a/plain")


@pytest.mark.parametrize("endpoint", ["embeddings", "passthrough"])
def test_only_chats_and_completions(endpoint: str) -> None:
    """Elsewhere the fields mean something else."""
    model = describe(DEAF, Config(), FACTS)
    assert unheeded(model, call_of("b/deaf", endpoint=endpoint, seed=7)) == []
    assert unheeded(model, call_of("b/deaf", endpoint="completions", seed=7)) == ["seed"]


@pytest.mark.parametrize(
    ("name", "value", "nothing"),
    [
        ("n", 1, True),
        ("n", 2, False),
        ("presence_penalty", 0.0, True),
        ("presence_penalty", 0.1, False),
        ("parallel_tool_calls", True, True),
        ("parallel_tool_calls", False, False),
        ("tool_choice", "auto", True),
        ("tool_choice", {"type": "function"}, False),
        ("seed", 0, False),
        ("logit_bias", {}, True),
        ("stop", [], True),
        ("anything", None, True),
    ],
)
def test_what_says_nothing(name: str, value: Any, nothing: bool) -> None:
    """The default of a field, and nothing at all."""
    assert says_nothing(name, value) is nothing


@quick
@given(
    st.lists(st.sampled_from(["seed", "logprobs", "stop", "tools"]), unique=True),
    st.lists(st.frozensets(st.sampled_from(["seed", "logprobs", "stop", "tools"])), min_size=1, max_size=5),
    st.integers(0, 5),
)
def test_nobody_is_lost(fields: list[str], refused: list[frozenset[str]], ticket: int) -> None:
    """Every candidate is kept, each once, whatever fields the call has; who refuses none of them comes first."""
    offers = [
        Offer(f"s{place}", (Model(f"s{place}", "m", free=True),), facts=Facts(refuses=names))
        for place, names in enumerate(refused)
    ]
    call = call_of("llmproxy/free", **{name: ["x"] for name in fields})
    made = Draw(Catalog(offers, Config()), call, Moment(Health(), NOW, ticket)).plan()
    assert sorted(kept(made)) == [f"s{place}/m" for place in range(len(refused))]
    heeding = [not unheeded(entry.candidate.model, call) for entry in made.kept]
    assert heeding == sorted(heeding, reverse=True)
