"""The right reaction to each refusal: sizes, filters, dead servers, capabilities; and failures that can be seen."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from llmproxy.core.errors import Refused, SameRefusal, Unmet
from llmproxy.core.types import Forced
from llmproxy.gateway.dispatch import Settings
from tests.gateway.scripted import Source, World, event, says

TOO_LONG = Refused("too long", kind="context_length", http_status=400)
TOO_LARGE = Refused("too large", kind="too_large", http_status=413)
FILTERED = Refused("the filter says no", kind="content_filter", http_status=400, code="content_filter")
both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


def windows(**sizes: int) -> dict[str, dict[str, Any]]:
    return {name: {"context_tokens": size} for name, size in sizes.items()}


@both_ways
async def test_a_call_that_is_too_long_goes_to_a_larger_window(stream: bool) -> None:
    """Windows that are known to be no larger are passed over; an unknown one may do."""
    source = Source({"a": [TOO_LONG], "same": says("no"), "small": says("no"), "large": says("yes")})
    world = World(source, models=windows(a=8000, same=8000, small=4000, large=16_000))
    answer, _ = await world.ask(stream=stream)
    assert source.asked == ["a", "large"]
    assert answer.candidate.model.id == "large"


async def test_when_no_window_is_larger_the_client_is_told() -> None:
    """400 with the code that SDKs know, after one attempt."""
    world = World(Source({"a": [TOO_LONG], "same": says("no")}), models=windows(a=8000, same=8000))
    with pytest.raises(SameRefusal) as raised:
        await world.ask()
    assert (raised.value.refusal_status, raised.value.code) == (400, "context_length_exceeded")
    assert len(raised.value.attempts) == 1


@pytest.mark.parametrize("refusal", [TOO_LONG, TOO_LARGE], ids=["context length", "413"])
async def test_a_size_that_was_refused_is_not_sent_there_again(refusal: Refused) -> None:
    """Neither the same size nor a larger one; a smaller one is. With nobody else the refusal needs no request."""
    source = Source({"a": [refusal], "b": says("yes")})
    world = World(source)
    await world.ask(prompt_tokens=1000)
    await world.ask(prompt_tokens=1000)
    await world.ask(prompt_tokens=500, body={"messages": [], "max_tokens": 600})
    assert source.asked == ["a", "b", "b", "b"]
    with pytest.raises(SameRefusal, match="refused a call of about 1000 tokens") as raised:
        await world.ask("a", prompt_tokens=2000)
    how = (413, "request_too_large") if refusal is TOO_LARGE else (400, "context_length_exceeded")
    assert (raised.value.refusal_status, raised.value.code) == how
    assert source.asked == ["a", "b", "b", "b"]
    await world.ask(prompt_tokens=900)
    assert source.asked[4:] == ["a", "b"]


@both_ways
async def test_a_filter_is_not_routed_around(stream: bool) -> None:
    """The provider's reason reaches the client, and nobody else is asked."""
    source = Source({"a": [FILTERED], "b": says("yes")})
    with pytest.raises(SameRefusal, match="the filter says no") as raised:
        await World(source).ask(stream=stream)
    assert raised.value.code == "content_filter"
    assert source.asked == ["a"]


@both_ways
async def test_a_filter_is_routed_around_where_that_is_wanted(stream: bool) -> None:
    """`routing.content_filter_fallback`; when all refuse, it is the filter that is told."""
    source = Source({"a": [FILTERED], "b": says("yes"), "c": [FILTERED]})
    world = World(source, Settings(content_filter_fallback=True))
    answer, _ = await world.ask(stream=stream)
    assert answer.candidate.model.id == "b"
    with pytest.raises(SameRefusal, match="the filter says no"):
        await world.ask("a", "c", stream=stream)


@both_ways
async def test_a_model_that_delivers_gains_the_tag(stream: bool) -> None:
    """What it was not known to be capable of, it has shown."""
    world = World(Source({"prose": says("no"), "writes": says('{"a": 1}')}))
    await world.ask(stream=stream, needs=frozenset({"json"}), forced=Forced(json=True))
    assert world.dispatcher.health.gained == {("s/writes", "json")}


@both_ways
async def test_a_model_that_never_delivers_loses_its_place(stream: bool) -> None:
    """After three answers in prose it is asked last for JSON, and as ever for other calls."""
    source = Source({"prose": says("no"), "writes": says('{"a": 1}')})
    world = World(source)
    forced: dict[str, Any] = {"needs": frozenset({"json"}), "forced": Forced(json=True), "stream": stream}
    for _ in range(4):
        await world.ask(**forced)
    assert source.asked == ["prose", "writes"] * 3 + ["writes"]
    await world.ask(stream=stream)
    assert source.asked[-1] == "prose"


@both_ways
async def test_a_fault_of_ours_costs_a_candidate_its_turn(stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    """An error that nobody foresaw is logged, the next candidate answers, and nothing stays on its way."""
    source = Source({"a": [0.0, TypeError("no such thing")], "b": says("yes")})
    world = World(source)
    with caplog.at_level(logging.ERROR):
        answer, sink = await world.ask(stream=stream)
    assert answer.candidate.model.id == "b"
    assert [made.outcome for made in answer.attempts] == ["internal_error", "ok"]
    assert "no such thing" in caplog.text
    if stream:
        assert sink.text == "yes"


async def test_failures_can_be_seen() -> None:
    """Newest first, by model and by outcome, with the kind and the status; answers are not in it."""
    source = Source({"a": [Refused("busy", kind="server", http_status=503)], "b": [TOO_LARGE], "c": says("yes")})
    world = World(source)
    await world.ask(stream=False)
    seen = world.dispatcher.failures.latest(10)
    assert [(entry["model"], entry["kind"], entry["status"]) for entry in seen["data"]] == [
        ("s/b", "too_large", 413),
        ("s/a", "server", 503),
    ]
    assert seen["outcomes"] == {"413": 1, "503": 1}
    assert [entry["detail"] for entry in world.dispatcher.failures.latest(10, model="s/a")["data"]] == ["busy"]
    assert world.dispatcher.failures.latest(10, outcome="404")["data"] == []
    assert len(world.dispatcher.failures.latest(1)["data"]) == 1
    json.dumps(seen)


async def test_the_outcome_of_a_call_is_counted() -> None:
    """One count for each call, whatever its attempts were."""
    world = World(
        Source({"a": [Refused("busy", kind="server", http_status=503)], "b": says("yes"), "cut": [event("x")]})
    )
    await world.ask("b")
    await world.ask("a", "b")
    for models in (("cut",), ("a",)):
        with pytest.raises(Exception, match=r"finish reason|failed"):
            await world.ask(*models)
    told = world.metrics.render().decode()
    for outcome in ("ok", "ok_after_failures", "broken_off", "all_candidates_failed"):
        assert f'llmproxy_calls_total{{endpoint="chat",outcome="{outcome}"}} 1.0' in told


async def test_unmet_by_all_is_told_with_each_reason() -> None:
    """What each candidate did instead stands in the attempts."""
    world = World(Source({"a": says("prose"), "b": says("[1]")}))
    with pytest.raises(Exception, match="not an object") as raised:
        await world.ask(stream=False, forced=Forced(json=True))
    assert [made.outcome for made in raised.value.attempts] == ["unmet", "unmet"]  # type: ignore[attr-defined]
    assert isinstance(raised.value.__cause__, Unmet)
