"""Conversations that stay with the candidate that answered them."""

from __future__ import annotations

from typing import Any

from llmproxy.core.config import Config
from llmproxy.core.errors import Refused
from llmproxy.core.types import Call, Candidate, Model
from llmproxy.gateway.conversations import Conversations
from llmproxy.gateway.dispatch import Settings
from llmproxy.routing.catalog import Catalog, Offer
from tests.gateway.scripted import Sink, Source, World, says

NAMES = ("a", "b", "c", "d")


def turn(*said: str, system: str = "Be brief.", model: str = "llmproxy/free") -> Call:
    """A call after so many messages, of user and assistant in turns."""
    messages = [{"role": "system", "content": system}]
    messages += [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]
    return Call("c", "chat", model, {"messages": messages})


async def answered(world: World, *calls: Call) -> list[str]:
    return [(await world.dispatcher.answer(call, Sink())).candidate.model.id for call in calls]


def world(**settings: Any) -> World:
    made = World(Source({name: says("yes") for name in NAMES}), settings=Settings(**settings))
    made.dispatcher._random = iter([0.1, 0.7, 0.3, 0.9, 0.5, 0.2, 0.8, 0.4, 0.6] * 40).__next__
    return made


async def test_a_conversation_stays_where_it_was() -> None:
    """Later turns begin with the same messages; other conversations are spread as ever."""
    made = world(sticky=True)
    first = await answered(made, turn("hi"), turn("hi", "yes", "and?"), turn("hi", "yes", "and?", "yes", "so?"))
    assert len(set(first)) == 1
    others = await answered(made, *(turn(f"question {n}") for n in range(12)))
    assert len(set(others)) > 1


async def test_it_is_an_option() -> None:
    """Without it each turn is drawn anew."""
    turns = [turn("hi", *["yes", "and?"] * n) for n in range(12)]
    assert len(set(await answered(world(), *turns))) > 1


async def test_who_is_out_is_not_waited_for() -> None:
    """The candidate that answered before has failed since: another one answers, and from then on it."""
    made = world(sticky=True)
    [first] = await answered(made, turn("hi"))
    made.dispatcher.health.failed(Candidate(Model("s", first)), Refused("no", kind="server", http_status=500), 1e9)
    second, third = await answered(made, turn("hi", "yes", "and?"), turn("hi", "yes", "and?", "yes", "so?"))
    assert first != second == third


def test_the_memory_is_bounded() -> None:
    """The conversation that was not heard of for the longest time is forgotten."""
    known = Conversations()
    known.answered(turn("first"), "s/a")
    for number in range(10_000):
        known.answered(turn(f"{number}"), "s/b")
    assert known.last(turn("first")) == ""
    assert known.last(turn("9999", "yes", "more")) == "s/b"
    assert known.last(turn("9999", model="llmproxy/auto")) == ""
    assert known.last(Call("c", "embeddings", "llmproxy/free", {"input": "9999"})) == ""


def test_favourites_come_first_in_the_order_best() -> None:
    """Before the stronger tier, and not before who has the capabilities that are needed."""
    models = tuple(Model("s", name, free=True) for name in NAMES)
    config = Config.model_validate(
        {"routing": {"favourites": ["s/c", "s/d"]}, "model_reasoning": {"s/a": "deep", "s/d": "exploratory"}}
    )
    groups = Catalog([Offer("s", models)], config).select("llmproxy/free").groups(frozenset())
    assert [[one.model.id for one in group] for group in groups] == [["c"], ["d"], ["a"], ["b"]]
