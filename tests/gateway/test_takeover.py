"""A candidate dies after the client has had text: the next one goes on from there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import orjson
import pytest

from backends.local import LocalStream
from llmproxy.core.config import Config
from llmproxy.core.errors import BadReply, Refused, Truncated, Unmet
from llmproxy.core.types import Call, Candidate, Forced, Model
from llmproxy.gateway.dispatch import Dispatcher, Settings
from llmproxy.gateway.metrics import Metrics
from llmproxy.gateway.relay import Mode, Relay
from llmproxy.routing.catalog import Catalog, Offer
from tests.gateway.scripted import Sink, event, text_of

SENTENCE = "The quick brown fox jumps over the lazy dog and goes"
BEGUN = ("The quick", " brown fox jumps", " over the lazy dog", " and goes")


def begun(pieces: Sequence[str] = BEGUN) -> tuple[Relay, bytes]:
    """A relay whose first candidate has died after `pieces`, and what the client has of it."""
    relay = Relay(Call("call", "chat", "m", {"messages": []}, stream=True))
    relay.begin("a/one")
    sent = b"".join(relay.feed(event(piece)) for piece in pieces)
    with pytest.raises(Truncated):
        relay.end()
    relay.settle()
    return relay, sent


@pytest.mark.parametrize(
    ("mode", "pieces"),
    [
        pytest.param("append", (" home.",), id="goes on"),
        pytest.param("append", (SENTENCE[:10], SENTENCE[10:40], SENTENCE[40:] + " home."), id="begins again"),
        pytest.param("align", (SENTENCE + " home.",), id="gives it again at once"),
        pytest.param("align", (SENTENCE[:30], SENTENCE[30:], " home."), id="gives it again in pieces"),
    ],
)
def test_the_client_has_each_word_once(mode: Mode, pieces: Sequence[str]) -> None:
    """However the next candidate goes on, the text is whole and nothing is repeated."""
    relay, sent = begun()
    assert text_of(sent) == relay.sent_text == SENTENCE
    relay.begin("b/two", mode)
    rest = b"".join(relay.feed(event(piece)) for piece in pieces) + relay.feed(event(None, "stop")) + relay.end()
    assert text_of(rest) == " home."
    assert relay.usage is not None
    assert relay.usage.estimated
    assert relay.usage.completion_tokens >= len(SENTENCE) // 4


def test_space_at_the_seam_is_not_doubled() -> None:
    """The text is handed over without its last space; whether the next one begins with it or not, one goes out."""
    for continuation in ("home.", " home."):
        relay, _ = begun(("The way ",))
        relay.begin("b/two", "append")
        assert text_of(relay.feed(event(continuation)) + relay.feed(event(None, "stop"))) == "home."


def test_an_answer_that_has_nothing_more_to_say_is_whole() -> None:
    """The candidate died between its last word and its finish reason."""
    for mode, pieces in (("append", ()), ("align", (SENTENCE,))):
        relay, _ = begun()
        relay.begin("b/two", mode)  # type: ignore[arg-type]
        rest = b"".join(relay.feed(event(piece)) for piece in pieces) + relay.feed(event(None, "stop")) + relay.end()
        assert text_of(rest) == ""
        assert rest.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("pieces", [("Another",), ("The quick red",), (SENTENCE[:20], "!")])
def test_another_answer_is_dropped(pieces: Sequence[str]) -> None:
    """An answer that is not the one that was begun never reaches the client."""
    relay, _ = begun()
    relay.begin("b/two", "align")
    with pytest.raises(BadReply) as raised:
        b"".join(relay.feed(event(piece)) for piece in pieces)
    assert raised.value.outcome == "diverged"


def test_an_answer_that_ends_too_soon_is_dropped() -> None:
    """Less than what the client has is not the answer either."""
    relay, _ = begun()
    relay.begin("b/two", "align")
    relay.feed(event(SENTENCE[:20]) + event(None, "stop"))
    with pytest.raises(BadReply, match="before what the client already has"):
        relay.end()


def test_a_candidate_that_says_nothing_did_not_diverge() -> None:
    """Asked to give the answer again it gave none: that is its failure, as it is at the beginning of a stream."""
    relay, _ = begun()
    relay.begin("b/two", "align")
    relay.feed(event(None, "stop"))
    with pytest.raises(BadReply) as raised:
        relay.end()
    assert raised.value.outcome == "empty"


def test_tool_calls_that_the_client_has_are_skipped() -> None:
    """The next candidate gives both calls; only the second one goes out, with the next index."""

    def call(index: int, city: str) -> dict[str, object]:
        return {
            "tool_calls": [
                {"index": index, "id": f"c{index}", "function": {"name": "f", "arguments": f'{{"city": "{city}"}}'}}
            ]
        }

    relay = Relay(Call("call", "chat", "m", {"messages": []}, stream=True))
    relay.begin("a/one")
    first = relay.feed(event(**call(0, "Rome"))) + relay.feed(event(**call(1, "Oslo")))
    assert b"Rome" in first
    assert b"Oslo" not in first  # not whole yet, for all that is known
    relay.settle()
    relay.begin("b/two", "align")
    rest = relay.feed(event(**call(0, "Rome")) + event(**call(1, "Paris")) + event(None, "tool_calls")) + relay.end()
    assert b"Rome" not in rest
    assert b'"index":1' in rest
    assert b"Paris" in rest


@pytest.mark.parametrize("whole", ['{"a": 1, "b": 2}', '{"a": 1, "b": 2'])
def test_forced_json_that_was_let_out_early_is_judged_as_one(whole: str) -> None:
    """`x-llmproxy-delivery: stream`: what both candidates said is the answer, and it is that which must be JSON."""
    relay = Relay(Call("call", "chat", "m", {"messages": []}, stream=True, early=True, forced=Forced(json=True)))
    relay.begin("a/one")
    assert text_of(relay.feed(event(whole[:6])) + relay.feed(event(whole[6:9]))) == whole[:9]
    relay.settle()
    relay.begin("b/two", "align")
    relay.feed(event(whole) + event(None, "stop"))
    if whole.endswith("}"):
        assert relay.end().endswith(b"data: [DONE]\n\n")
    else:
        with pytest.raises(Unmet):
            relay.end()


def test_a_forced_call_that_the_client_has_counts() -> None:
    """The first candidate gave the call and died; the next one gives it again, and nothing more is missing."""
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    relay = Relay(Call("call", "chat", "m", {"messages": []}, stream=True, forced=Forced(tools={"f": {}})))
    relay.begin("a/one")
    first = relay.feed(event(tool_calls=[call]) + event(tool_calls=[{**call, "index": 1, "id": "d"}]))
    assert first.count(b'"name":"f"') == 1
    relay.settle()
    relay.begin("b/two", "align")
    rest = relay.feed(event(tool_calls=[call]) + event(None, "tool_calls")) + relay.end()
    assert b'"name"' not in rest
    assert b'"finish_reason":"tool_calls"' in rest


class Scripted:
    """A source whose first model breaks off after two words, and whose second refuses every request with a 400."""

    name = "s"

    def __init__(self) -> None:
        self.asked: list[str] = []

    @asynccontextmanager
    async def stream(self, call: Call, candidate: Candidate) -> AsyncIterator[LocalStream]:
        self.asked.append(candidate.model.id)
        assert len(self.asked) < 10, "asked again and again"
        if candidate.model.id != "dies":
            raise Refused("no", kind="invalid", http_status=400)
        yield LocalStream(self._pieces(call.endpoint))

    async def _pieces(self, endpoint: str) -> AsyncIterator[bytes]:
        for word in ("one", " two"):
            choice = (
                {"index": 0, "text": word} if endpoint == "completions" else {"index": 0, "delta": {"content": word}}
            )
            yield b"data: " + orjson.dumps({"id": "up", "choices": [choice]}) + b"\n\n"


@pytest.mark.parametrize(
    ("call", "refusals"),
    [
        pytest.param(Call("c", "completions", "s/dies", {"prompt": "p"}, ("s/no",), True), 1, id="completions"),
        pytest.param(Call("c", "chat", "s/dies", {"messages": [], "prompt": "p"}, ("s/no",), True), 1, id="chat"),
        pytest.param(Call("c", "chat", "s/dies", {"messages": []}, ("s/prefill",), True), 2, id="prefill"),
    ],
)
async def test_a_refusal_to_go_on_is_not_asked_for_without_end(call: Call, refusals: int) -> None:
    """One that refuses to continue is asked once more from the beginning where it can be, and then no more."""
    models = tuple(
        Model("s", name, capabilities=frozenset({"prefill"} if name == "prefill" else ()))
        for name in ("dies", "no", "prefill")
    )
    catalog, source, sink = Catalog([Offer("s", models)], Config()), Scripted(), Sink()
    dispatcher = Dispatcher({"s": source}, lambda: catalog, Settings, Metrics())  # type: ignore[dict-item]
    with pytest.raises(Truncated):
        await dispatcher.answer(call, sink)
    assert source.asked.count(call.fallbacks[0].removeprefix("s/")) == refusals
    assert b'"error"' in sink.got
    assert sink.got.endswith(b"data: [DONE]\n\n")
