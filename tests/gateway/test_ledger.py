"""Free limits in the loop: what has no room is not asked, what was asked is counted, what was said is believed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from llmproxy.core.errors import ClientGone, QuotaExhausted, Refused, SameRefusal
from llmproxy.core.types import Candidate, Model, Reading
from llmproxy.gateway.ledger import Ledger
from llmproxy.routing.book import Book
from llmproxy.routing.declared import Rule
from llmproxy.routing.limits import Limit
from tests.gateway.scripted import Sink, Source, Step, World, event, says

NOW = 1_800_000_000.0
RPM, TPM, ONE_AT_A_TIME = (
    Limit("requests", 2, "sliding", 60.0),
    Limit("tokens", 1000, "sliding", 60.0),
    Limit("requests", 1, "concurrent"),
)
both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def world(
    scripts: Mapping[str, list[Step]], limits: Mapping[str, tuple[Limit, ...]], **source: Any
) -> tuple[World, Clock]:
    """A source whose models have limits of their own, and the clock of the ledger."""
    clock = Clock()
    rules = {name: Rule((name,), of, False, "configuration") for name, of in limits.items()}
    ledger = Ledger(Book(lambda model: rules.get(model.id)), clock)
    ledger.windows["s"] = {"requests": 60.0, "tokens": 60.0}
    return World(Source(scripts, **source), ledger=ledger), clock


def left(made: World, model: str, name: str) -> float:
    told = made.dispatcher.ledger.book.told(Candidate(Model("s", model)), made.dispatcher.ledger.now())
    [line] = [line for line in told if name in line["limit"]]
    return float(line["left"])


@both_ways
async def test_a_candidate_without_room_is_passed_over(stream: bool) -> None:
    """Two requests a minute go to the first one, the third to the second; a minute later the first one is back."""
    made, clock = world({"a": says("yes"), "b": says("yes")}, {"a": (RPM,)})
    for _ in range(3):
        await made.ask(stream=stream)
    assert made.source.asked == ["a", "a", "b"]
    clock.now += 60
    await made.ask(stream=stream)
    assert made.source.asked[-1] == "a"


@both_ways
async def test_when_nobody_has_room_nothing_is_sent(stream: bool) -> None:
    """429 with the time until there is room; the upstream never sees it."""
    made, clock = world({"a": says("yes")}, {"a": (RPM,)})
    for _ in range(2):
        await made.ask(stream=stream)
    clock.now += 10
    with pytest.raises(QuotaExhausted, match=r"used up: 2 requests per minute \(declared\)") as raised:
        await made.ask(stream=stream)
    assert raised.value.retry_after_s == pytest.approx(50)
    assert len(made.source.asked) == 2


async def test_parallel_requests_never_overshoot() -> None:
    """Forty at once: two for the limited one, the others for the other one."""
    made, _ = world({"a": says("yes", after=0.01), "b": says("yes", after=0.01)}, {"a": (RPM,)})
    made.source.asked = asked = Unbounded()
    await asyncio.gather(*(made.ask(sink=Sink()) for _ in range(40)))
    assert (asked.count("a"), asked.count("b")) == (2, 38)


class Unbounded(list[str]):
    """Asked as often as it takes."""

    def __len__(self) -> int:
        return 0


async def test_one_at_a_time() -> None:
    """A limit of concurrency is free again when the request has ended, whether it went well or was left."""
    made, _ = world({"a": says("yes", after=0.05), "b": says("yes")}, {"a": (ONE_AT_A_TIME,)})
    await asyncio.gather(made.ask(sink=Sink()), made.ask(sink=Sink()))
    assert sorted(made.source.asked) == ["a", "b"]
    task = asyncio.ensure_future(made.ask())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await made.ask()
    assert made.source.asked[2:] == ["a", "a"]


async def test_a_client_that_is_gone_leaves_nothing_on_its_way() -> None:
    """A connection that breaks while something is written ends the call, and its candidate is free again."""
    made, _ = world({"a": says("one", "two"), "b": says("yes")}, {"a": (ONE_AT_A_TIME,)})

    class Gone(Sink):
        async def write(self, data: bytes) -> None:
            raise ClientGone("the client closed the connection")

    for _ in range(2):
        with pytest.raises(ClientGone):
            await made.ask(sink=Gone())
    await made.ask()
    assert made.source.asked == ["a", "a", "a"]


async def test_tokens_are_settled_with_the_real_usage() -> None:
    """The estimate is replaced by what the provider counted."""
    made, _ = world(
        {"a": says("yes")}, {"a": (TPM,)}, usage={"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}
    )
    await made.ask(stream=False, prompt_tokens=100)
    assert left(made, "a", "tokens") == 958


@pytest.mark.parametrize(
    ("script", "requests", "tokens"),
    [
        pytest.param([Refused("no", kind="rate_limit", http_status=429)], 2, 1000, id="refused: nothing"),
        pytest.param([Refused("no", kind="server", http_status=500)], 1, 900, id="a server error: request and prompt"),
        pytest.param([event("x" * 80)], 1, 880, id="broken off: and what was made"),
    ],
)
async def test_what_failed_costs_what_the_provider_counts(script: list[Step], requests: int, tokens: int) -> None:
    """A refusal is not counted by those who refuse; a request that was worked on is."""
    made, _ = world({"a": script, "b": says("x" * 80 + " end")}, {"a": (RPM, TPM)})
    await made.ask(prompt_tokens=100)
    assert (left(made, "a", "requests"), left(made, "a", "tokens")) == (requests, tokens)


@both_ways
async def test_headers_are_believed(stream: bool) -> None:
    """Somebody else uses the same key: the provider says that nothing is left, and is not asked again."""
    headers = {"x-ratelimit-limit-requests": "30", "x-ratelimit-remaining-requests": "0"}
    made, clock = world({"a": says("yes")}, {"a": (Limit("requests", 30, "sliding", 60.0),)}, headers=headers)
    await made.ask(stream=stream)
    with pytest.raises(QuotaExhausted, match=r"\(header\)"):
        await made.ask(stream=stream)
    clock.now += 60
    await made.ask(stream=stream)


async def test_a_refusal_teaches_the_limit() -> None:
    """Declared were 100 a minute, the refusal says 5: from then on 5, and both are shown."""
    told = Refused(
        "no", kind="rate_limit", http_status=429, retry_after_s=12.0, readings=(Reading("requests", 60.0, 5, 0, 12.0),)
    )
    made, clock = world({"a": [told], "b": says("yes")}, {"a": (Limit("requests", 100, "sliding", 60.0),)})
    await made.ask()
    [line] = made.dispatcher.ledger.book.told(Candidate(Model("s", "a")), clock.now)
    assert (line["amount"], line["declared"], line["from"], line["left"]) == (5, 100, "error body", 0)


async def test_a_request_that_is_larger_than_a_window_is_the_clients_error() -> None:
    """No waiting would help, and nobody else is there."""
    made, _ = world({"a": says("yes")}, {"a": (Limit("tokens", 500, "request"),)})
    with pytest.raises(SameRefusal, match="more than its limit of 500 tokens in one request") as raised:
        await made.ask(prompt_tokens=2000)
    assert (raised.value.refusal_status, raised.value.code) == (400, "context_length_exceeded")
    assert made.source.asked == []


async def test_the_beaten_one_of_a_hedge_has_cost_its_request() -> None:
    """It was sent; its place is free again."""
    from llmproxy.gateway.attempt import Waits
    from llmproxy.gateway.dispatch import Settings

    made, _ = world({"a": says("no", after=30), "b": says("yes")}, {"a": (ONE_AT_A_TIME, RPM)})
    made.settings = Settings(Waits(hedge_s=0.02))
    await asyncio.wait_for(made.ask(prompt_tokens=100), 5)
    assert (left(made, "a", "concurrency"), left(made, "a", "requests per minute")) == (1, 1)
