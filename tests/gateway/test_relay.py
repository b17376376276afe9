"""An upstream's stream becomes the client's: as scripts of bytes, in any chunking, by either lane."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk

from llmproxy.core.errors import AttemptError, BadReply, Refused, Truncated, Unmet
from llmproxy.core.types import Call, Forced, Usage
from llmproxy.gateway.relay import RawRelay, read_usage
from tests.core.properties import SMALLEST_BYTES, cuts, quick
from tests.gateway.streams import (
    MODEL,
    PLAIN,
    Json,
    Wire,
    answers,
    begun,
    call_of,
    chunk,
    events,
    relayed,
    text_chunk,
    tool_delta,
    usage_chunk,
    words,
)

NASTY = [
    '"', "\\", '\\"', "\n", "\n\n", "\r\n", "\t", "\u2028", "é", "🐦", "👩‍👩‍👧", "data: [DONE]", '","role":"x', "a",
    " word", '"content":"', "}]}", "\\u0041", "<|im_end|>", "\x00", "llmproxy", "", "日本語", "\ud7ff",
]  # fmt: skip
texts = st.lists(st.sampled_from(NASTY), max_size=4).map("".join) | st.text(max_size=6)
flags = st.booleans()
wires = st.builds(
    Wire, st.sampled_from(["\n", "\n", "\r\n"]), flags, flags, flags, st.sampled_from([True, True, False])
)


@st.composite
def streams(draw: st.DrawFn, choices: int, kinds: tuple[str, ...]) -> list[Json]:
    """The chunks of an answer with text, reasoning and tool calls, over several choices, all of them finished."""
    chunks: list[Json] = []
    opened: dict[int, int] = {}
    if draw(st.booleans()):
        chunks += [chunk({"role": "assistant", "content": ""}, index=index) for index in range(choices)]
    for _ in range(draw(st.integers(0, 10))):
        index = draw(st.integers(0, choices - 1))
        kind = draw(st.sampled_from(kinds))
        if kind == "text":
            chunks.append(chunk({"content": draw(texts)}, index=index))
        elif kind == "think":
            chunks.append(chunk({"reasoning_content": draw(texts)}, index=index))
        else:
            place = opened[index] = opened.get(index, -1) + 1
            chunks.append(chunk(tool_delta(place, f"call_{index}_{place}", "weather", ""), index=index))
            chunks += [chunk(tool_delta(place, args=part), index=index) for part in draw(st.lists(texts, max_size=3))]
    for index in range(choices):
        chunks.append(chunk({"content": "end"}, index=index))
        chunks.append(chunk({}, "tool_calls" if index in opened else "stop", index=index))
    if draw(st.booleans()):
        chunks.append(usage_chunk())
    return chunks


def told(answer: Any) -> Any:
    return answer.text, answer.calls, answer.finish


@quick
@given(st.data(), st.integers(1, 3), wires, st.booleans())
def test_chunking_changes_nothing(data: st.DataObject, choices: int, wire: Wire, usage: bool) -> None:
    """In any chunking and any way of writing, the client gets every choice's text, calls and finish reason."""
    kinds = ("text", "text", "think", *(["tool"] if choices == 1 else []))  # calls over several choices: see below
    chunks = data.draw(streams(choices, kinds))
    raw = wire.stream(chunks, done=data.draw(st.booleans()))
    call = call_of(usage=usage, n=choices)
    out = relayed(data.draw(cuts(raw, SMALLEST_BYTES)), call)
    seen = events(out)
    assert {index: told(one) for index, one in answers(seen).items()} == {
        index: told(one) for index, one in answers(chunks).items()
    }
    assert events(relayed([raw], call)) == seen
    invariants(seen, usage)


def invariants(seen: list[Json], usage: bool) -> None:
    """What strict clients rely on in every chat stream."""
    assert {entry["id"] for entry in seen} == {"chatcmpl-up"}
    assert {(entry["object"], entry["created"], entry["model"]) for entry in seen} == {
        ("chat.completion.chunk", 1700000000, MODEL)
    }
    for answer in answers(seen).values():
        assert answer.roles == ["assistant"]
    first: dict[int, Json] = {}
    for entry in seen:
        for choice in entry["choices"]:
            first.setdefault(choice["index"], choice)
            assert "finish_reason" in choice
    assert all(choice["delta"]["role"] == "assistant" for choice in first.values())
    counted = [entry for entry in seen if entry.get("usage")]
    assert len(counted) == usage
    assert all(("usage" in entry) is usage for entry in seen)
    assert all(entry["choices"] for entry in (seen[:-1] if usage else seen))
    assert not usage or (seen[-1]["choices"] == [] and seen[-1] in counted)
    for entry in seen:
        ChatCompletionChunk.model_validate(entry, strict=True)


@quick
@given(streams(1, ("text",) * 6 + ("think", "tool")), wires, st.booleans())
@example(words("a", "b\tc", "d"), Wire(), False)
def test_both_lanes_say_the_same(chunks: list[Json], wire: Wire, usage: bool) -> None:
    """The lane that passes text on by its bytes gives what the parsed lane gives, event for event."""
    varied = [{"obfuscation": "x" * place, **entry} for place, entry in enumerate(chunks, 1)]
    fast = events(relayed([wire.stream(chunks)], call_of(usage=usage)))
    parsed = events(relayed([wire.stream(varied)], call_of(usage=usage)))
    for entry in parsed:
        assert entry.pop("obfuscation", "x")
    assert counted_by_upstream(fast) == counted_by_upstream(parsed)


def counted_by_upstream(seen: list[Json]) -> list[Json]:
    """The chunks without a usage that is only estimated: how text is escaped has a part in it."""
    return [entry for entry in seen if not (entry.get("usage") or {}).get("estimated")]


@quick
@given(st.data(), st.lists(texts, max_size=8), wires, st.booleans())
def test_completions(data: st.DataObject, pieces: list[str], wire: Wire, usage: bool) -> None:
    """Legacy completions keep their shape; both lanes agree here too."""
    chunks = [*(text_chunk(piece) for piece in [*pieces, "end"]), text_chunk("", "length")]
    call = call_of("completions", usage=usage)
    seen = events(relayed(data.draw(cuts(wire.stream(chunks), SMALLEST_BYTES)), call))
    assert told(answers(seen)[0]) == ("".join(pieces) + "end", {}, "length")
    assert {(entry["object"], entry["model"], entry["id"]) for entry in seen} == {("text_completion", MODEL, "cmpl-up")}
    assert all("delta" not in choice for entry in seen for choice in entry["choices"])
    varied = [{"obfuscation": "x" * place, **entry} for place, entry in enumerate(chunks, 1)]
    parsed = events(relayed([wire.stream(varied)], call))
    for entry in parsed:
        entry.pop("obfuscation", None)
    assert counted_by_upstream(parsed) == counted_by_upstream(seen)
    for entry in seen:
        Completion.model_validate(
            {**entry, "choices": [choice for choice in entry["choices"] if choice["finish_reason"]]}
        )


@pytest.mark.parametrize(
    "head",
    [
        [chunk({"role": "assistant", "content": ""})],
        [chunk({"role": "assistant"}), chunk({"content": None}), chunk({})],
        [usage_chunk(), {**chunk(), "choices": []}],
    ],
)
def test_nothing_is_let_out_before_output(head: list[Json]) -> None:
    """Roles, empty deltas and usage are held until something is said; then all of it comes in order."""
    relay = begun()
    for entry in head:
        assert relay.feed(PLAIN.event(entry)) == b""
        assert not relay.spoke
    out = relay.feed(PLAIN.event(chunk({"content": "hi"})))
    assert relay.spoke
    assert answers(events(out + b"data: [DONE]\n\n"))[0].text == "hi"
    assert out.index(b'"role":"assistant"') < out.index(b'"content":"hi"')


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "x"}, {"reasoning_content": "x"}, {"reasoning": "x"}, {"refusal": "x"}, {"audio": {"id": "a"}},
        {"function_call": {"name": "f", "arguments": ""}},
    ],
)  # fmt: skip
def test_what_counts_as_output(delta: Json) -> None:
    """Text, reasoning, refusals and audio are output, and go out as they come."""
    assert begun().feed(PLAIN.event(chunk(delta)))


def test_calls_come_whole() -> None:
    """A tool call goes out when it is complete: when the next one begins, or its choice ends."""
    relay = begun()
    assert relay.feed(PLAIN.event(chunk(tool_delta(0, "a", "f", '{"x"')))) == b""
    assert relay.feed(PLAIN.event(chunk(tool_delta(0, args=":1}")))) == b""
    out = relay.feed(PLAIN.event(chunk(tool_delta(1, "b", "g", "{}"))))
    assert out.count(b'"id":"a"') == 1
    assert b'"id":"b"' not in out
    out += relay.feed(PLAIN.event(chunk({}, "tool_calls"))) + relay.end()
    (first, second) = answers(events(out))[0].calls.values()
    assert first == {"id": "a", "name": "f", "arguments": '{"x":1}'}
    assert second == {"id": "b", "name": "g", "arguments": "{}"}


FORCED = Forced(tools={"weather": {"type": "object", "required": ["city"]}})


WEATHER_CALL = [
    chunk(tool_delta(0, "a", "weather", "")),
    chunk(tool_delta(0, args='{"city"')),
    chunk(tool_delta(0, args=':"Rome"}')),
    chunk({}, "tool_calls"),
]


def test_what_is_forced_is_held_until_it_is_right() -> None:
    """When a tool call is forced, nothing goes out before it is whole and judged."""
    relay = begun(call_of(forced=FORCED))
    assert [relay.feed(PLAIN.event(entry)) for entry in WEATHER_CALL[:-1]] == [b""] * 3
    seen = answers(events(relay.feed(PLAIN.event(WEATHER_CALL[-1])) + relay.end()))[0]
    assert seen.calls == {0: {"id": "a", "name": "weather", "arguments": '{"city":"Rome"}'}}


@pytest.mark.parametrize(
    ("call", "chunks"),
    [
        (call_of(forced=Forced(json=True)), words('{"a"', ": 1}")),
        (call_of(forced=Forced(tools=FORCED.tools, parallel=False)), WEATHER_CALL),
    ],
)
def test_what_is_forced_is_held_to_the_end(call: Call, chunks: list[Json]) -> None:
    """Forced JSON, and a single forced call, can be judged only when the stream is over: all of it is held."""
    relay = begun(call)
    assert relay.feed(PLAIN.stream(chunks)) == b""
    assert events(relay.end())


def attempt(call: Call, raw: bytes) -> bytes:
    """What goes out until the end; or until an `Unmet`, which must come before the first byte."""
    relay = begun(call)
    out = b""
    try:
        out += relay.feed(raw)
        return out + relay.end()
    except Unmet:
        assert out == b""
        raise


@pytest.mark.parametrize(
    ("forced", "chunks"),
    [
        (FORCED, words("It is sunny.")),
        (FORCED, [chunk(tool_delta(0, "a", "weather", '{"town":1}')), chunk({}, "tool_calls")]),
        (FORCED, [chunk(tool_delta(0, "a", "weather", '{"city"')), chunk({}, "tool_calls")]),
        (FORCED, [chunk(tool_delta(0, "a", "other", "{}")), chunk({}, "tool_calls")]),
        (Forced(json=True), words("It is sunny.")),
        (Forced(json=True), words("[1]")),
        (Forced(json=True, json_schema={"type": "object", "required": ["a"]}), words("{}")),
    ],
)
def test_what_is_forced_is_judged(forced: Forced, chunks: list[Json]) -> None:
    """An answer without the forced thing raises, and not one byte was let out."""
    with pytest.raises(Unmet):
        attempt(call_of(forced=forced), PLAIN.stream(chunks))


@pytest.mark.parametrize(
    ("forced", "chunks"),
    [
        (FORCED, [chunk({"content": "x"}), chunk({}, "length")]),
        (FORCED, [chunk({}, "content_filter")]),
        (FORCED, [chunk({"refusal": "I cannot."}), chunk({}, "stop")]),
        (Forced(json=True), words('{"a"', ": 1}")),
        (Forced(json=True, json_schema={}), words("[1", "]")),
    ],
)
def test_honest_answers_to_what_is_forced(forced: Forced, chunks: list[Json]) -> None:
    """What fits goes out; so does a refusal, or an answer that was cut off honestly."""
    assert events(attempt(call_of(forced=forced), PLAIN.stream(chunks)))


@pytest.mark.parametrize("choices", [1, 2])
def test_a_stream_that_breaks_off(choices: int) -> None:
    """A stream that ends before every choice has its finish reason is no answer, [DONE] or not."""
    chunks = [chunk({"content": "x"}, index=index) for index in range(choices)]
    chunks += [chunk({}, "stop", index=index) for index in range(choices - 1)]
    for done in (True, False):
        relay = begun(call_of(n=choices))
        relay.feed(PLAIN.stream(chunks, done=done))
        assert not relay.finished
        with pytest.raises(Truncated, match=f"{choices - 1} of {choices}"):
            relay.end()


def test_a_stream_cut_in_an_event() -> None:
    """The half of an event is not let out."""
    raw = PLAIN.stream(words("one", "two"))
    relay = begun()
    out = relay.feed(raw[: raw.index(b"two")])
    assert b"one" in out
    with pytest.raises(Truncated):
        relay.end()


@pytest.mark.parametrize(
    "ending", [b"", b"\n", b"data: [DONE]", b"data: [DONE]\n", b"data: [DONE]\n\n", b"data: [DONE]\n\n: late\n\n"]
)
def test_the_end_of_a_stream(ending: bytes) -> None:
    """A missing or unfinished [DONE] is made up for; there is exactly one."""
    raw = PLAIN.stream(words("x"), done=False)
    out = relayed([raw + ending])
    assert out.count(b"[DONE]") == 1
    assert answers(events(out))[0].text == "x"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_last_event_needs_no_end(end: str) -> None:
    """A last event without its blank line counts."""
    raw = Wire(end).stream(words("x"), done=False)
    assert answers(events(relayed([raw.rstrip(b"\r\n")])))[0].finish == "stop"


@pytest.mark.parametrize("chunks", [[chunk({}, "stop")], [chunk({"content": ""}), chunk({}, "stop")]])
def test_a_stream_without_output(chunks: list[Json]) -> None:
    """A finish reason alone is no answer."""
    relay = begun()
    assert relay.feed(PLAIN.stream(chunks)) == b""
    with pytest.raises(BadReply) as caught:
        relay.end()
    assert caught.value.outcome == "empty"


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_an_honest_end_is_an_answer(reason: str) -> None:
    """An answer without a word that says why it has none is passed on."""
    assert answers(events(relayed([PLAIN.stream([chunk({}, reason)])])))[0].finish == reason


@pytest.mark.parametrize("broken", ["{", "not json", '"text"', "7", "null", "[]", '{"id": "x", "choi'])
def test_a_malformed_event_is_skipped(broken: str) -> None:
    """An event that is no chunk is left out and counted; the rest goes on, in either lane."""
    relay = begun()
    good = words("a", "b", "c")
    raw = PLAIN.stream(good[:3], done=False) + PLAIN.event(broken) + PLAIN.stream(good[3:])
    out = relay.feed(raw) + relay.end()
    assert answers(events(out))[0].text == "abc"
    assert relay.skipped == 1


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (PLAIN.event({"error": {"message": "boom", "type": "server_error", "code": None}}), "server"),
        (PLAIN.event({"error": {"message": "slow down", "code": 429}}), "rate_limit"),
        (PLAIN.event([{"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}]), "server"),
        (PLAIN.event({"error": "text"}), "server"),
        (b'event: error\ndata: {"message": "boom"}\n\n', "server"),
        (
            PLAIN.event(
                {**chunk({"content": "x"}), "error": {"message": "context", "code": "context_length_exceeded"}}
            ),
            "context_length",
        ),
    ],
)
@pytest.mark.parametrize("before", [0, 1, 5])
def test_an_error_in_the_stream(event: bytes, kind: str, before: int) -> None:
    """An error that the upstream reports in its stream raises, classified, whatever came before it."""
    relay = begun()
    assert bool(relay.feed(PLAIN.stream([chunk({"content": "x"})] * before, done=False))) is (before > 0)
    with pytest.raises(Refused) as caught:
        relay.feed(event)
    assert (caught.value.kind, caught.value.outcome) == (kind, "error_in_200")


@pytest.mark.parametrize("first", [words("lost", "words"), [chunk({"role": "assistant", "content": ""})]])
def test_the_next_candidate(first: list[Json]) -> None:
    """A relay that begins again forgets what the first candidate said, and keeps the stream's id."""
    relay = begun(call_of(forced=Forced(json=True)))
    relay.feed(PLAIN.stream(first))
    relay.begin("b/other")
    relay.feed(PLAIN.stream([{**entry, "id": "second", "created": 5} for entry in words("{}")]))
    seen = events(relay.end())
    assert answers(seen)[0].text == "{}"
    assert {(entry["id"], entry["created"], entry["model"]) for entry in seen} == {
        ("chatcmpl-up", 1700000000, "b/other")
    }


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("stop", "stop"), ("length", "length"), ("tool_calls", "tool_calls"), ("content_filter", "content_filter"),
        ("function_call", "function_call"), ("end_turn", "stop"), ("eos", "stop"), ("stop_sequence", "stop"),
        ("max_tokens", "length"), ("tool_use", "tool_calls"), ("SAFETY", "content_filter"), ("STOP", "stop"),
        ("MAX_TOKENS", "length"), ("weird", "stop"),
    ],
)  # fmt: skip
def test_finish_reasons(said: str, heard: str) -> None:
    """Clients know five finish reasons; all others are translated."""
    assert answers(events(relayed([PLAIN.stream([chunk({"content": "x"}), chunk({}, said)])])))[0].finish == heard


@pytest.mark.parametrize("missing", ["id", "created", "object", "model"])
def test_a_chunk_may_lack_its_frame(missing: str) -> None:
    """Fields that every chunk must have are filled in, the same ones in all chunks."""
    chunks = [{key: value for key, value in entry.items() if key != missing} for entry in words("a", "b")]
    seen = events(relayed([PLAIN.stream(chunks)]))
    assert len({(entry["id"], entry["created"], entry["object"], entry["model"]) for entry in seen}) == 1
    for entry in seen:
        ChatCompletionChunk.model_validate(entry, strict=True)


def test_ids_that_change_on_the_way() -> None:
    """One id and one time for the whole stream, whatever the upstream does."""
    chunks = [{**entry, "id": f"id{place}", "created": place} for place, entry in enumerate(words("a", "b"), 1)]
    assert {(entry["id"], entry["created"]) for entry in events(relayed([PLAIN.stream(chunks)]))} == {("id1", 1)}


@pytest.mark.parametrize(
    ("deltas", "calls"),
    [
        (
            [
                tool_delta(0, "a", "f", ""),
                tool_delta(0, args="{"),
                tool_delta(0, args="}"),
                tool_delta(1, "b", "g", "{}"),
            ],
            [("a", "f", "{}"), ("b", "g", "{}")],
        ),
        (  # the same index for each call
            [
                tool_delta(0, "a", "f", ""),
                tool_delta(0, args="{}"),
                tool_delta(0, "b", "g", ""),
                tool_delta(0, args="[]"),
            ],
            [("a", "f", "{}"), ("b", "g", "[]")],
        ),
        (  # no index at all
            [
                tool_delta(None, "a", "f", ""),
                tool_delta(args="{}"),
                tool_delta(None, "b", "g", ""),
                tool_delta(args="[]"),
            ],
            [("a", "f", "{}"), ("b", "g", "[]")],
        ),
        (  # gaps
            [
                tool_delta(3, "a", "f", "{"),
                tool_delta(3, args="}"),
                tool_delta(7, "b", "g", "["),
                tool_delta(7, args="]"),
            ],
            [("a", "f", "{}"), ("b", "g", "[]")],
        ),
        (  # counted from 1
            [tool_delta(1, "a", "f", "{}"), tool_delta(2, "b", "g", "[]")],
            [("a", "f", "{}"), ("b", "g", "[]")],
        ),
        (  # the id in every fragment
            [tool_delta(0, "a", "f", "{"), tool_delta(0, "a", args="}"), tool_delta(0, "b", "g", "[]")],
            [("a", "f", "{}"), ("b", "g", "[]")],
        ),
        ([tool_delta(0, "a", "f", {"city": "Rome"})], [("a", "f", '{"city":"Rome"}')]),  # arguments as an object
        pytest.param(
            [
                tool_delta(0, "a", "f", "{"),
                tool_delta(1, "b", "g", "["),
                tool_delta(0, args="}"),
                tool_delta(1, args="]"),
            ],
            [("a", "f", "{}"), ("b", "g", "[]")],
        ),
    ],
    ids=["sound", "same index", "no index", "gaps", "from one", "id everywhere", "object", "interleaved"],
)
def test_tool_indices_are_repaired(deltas: list[Json], calls: list[tuple[str, str, str]]) -> None:
    """Each call gets an index of its own, from 0 without gaps, and its arguments as text."""
    chunks = [*map(chunk, deltas), chunk({}, "tool_calls")]
    seen = answers(events(relayed([PLAIN.stream(chunks)])))[0].calls
    assert sorted(seen) == list(range(len(calls)))
    assert [(call["id"], call["name"], call["arguments"]) for _, call in sorted(seen.items())] == calls


def test_calls_of_several_choices() -> None:
    """The calls of each choice are counted from 0."""
    chunks = [chunk(tool_delta(0, f"a{index}", "f", "{}"), index=index) for index in (0, 1)]
    chunks += [chunk({}, "tool_calls", index=index) for index in (0, 1)]
    seen = answers(events(relayed([PLAIN.stream(chunks)], call_of(n=2))))
    assert [list(seen[index].calls) for index in (0, 1)] == [[0], [0]]


def test_several_fragments_in_one_delta() -> None:
    """Calls that come in one delta are numbered in order."""
    fragments = [{"id": name, "type": "function", "function": {"name": name, "arguments": "{}"}} for name in "ab"]
    seen = answers(events(relayed([PLAIN.stream([chunk({"tool_calls": fragments}), chunk({}, "tool_calls")])])))[0]
    assert [call["name"] for _, call in sorted(seen.calls.items())] == ["a", "b"]


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([*words("a b c d e f"), usage_chunk(7, 3)], (7, 3, False)),
        ([*words("a")[:-1], chunk({}, "stop", usage={"prompt_tokens": 7, "completion_tokens": 3})], (7, 3, False)),
        (
            [*words("a")[:-1], chunk({}, "stop", x_groq={"usage": {"prompt_tokens": 7, "completion_tokens": 3}})],
            (7, 3, False),
        ),
        (words("12345678" * 5), (11, 10, True)),
        (words("x"), (11, 1, True)),
    ],
)
def test_usage(asked: bool, chunks: list[Json], expected: tuple[int, int, bool]) -> None:
    """The upstream's own count wins, wherever it stands; without one it is estimated; the client sees it on request."""
    relay = begun(call_of(usage=asked))
    seen = events(relay.feed(PLAIN.stream(chunks)) + relay.end())
    prompt, completion, estimated = expected
    assert relay.usage == Usage(prompt, completion, estimated=estimated)
    shown = [entry for entry in seen if entry.get("usage")]
    assert len(shown) == asked
    if asked:
        assert shown[0]["choices"] == []
        assert shown[0]["usage"]["completion_tokens"] == completion
        assert bool(shown[0]["usage"].get("estimated")) is estimated


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}, Usage(5, 2, 3)),
        ({"prompt_tokens": 5.0}, Usage(5, 0)),
        ({"prompt_tokens": None, "completion_tokens": "7", "prompt_tokens_details": []}, Usage()),
        ({"prompt_tokens": -5}, Usage()),
        ({}, Usage()),
        (None, Usage(estimated=True)),
        ([], Usage(estimated=True)),
    ],
)
def test_read_usage(body: Any, usage: Usage) -> None:
    """Missing or odd numbers count as 0; no usage at all is an estimate."""
    assert read_usage(body) == usage


def test_other_fields_go_on() -> None:
    """What the proxy does not know reaches the client, in both lanes."""
    chunks = [{**entry, "system_fingerprint": "fp", "provider": "X", "service_tier": None} for entry in words("a", "b")]
    for entry in events(relayed([PLAIN.stream(chunks)])):
        assert (entry["system_fingerprint"], entry["provider"], "service_tier" in entry) == ("fp", "X", False)


def test_log_probabilities_stay_with_their_text() -> None:
    """Chunks that differ in more than their text never take the fast lane."""
    chunks = words("a", "b", "b")
    for place, entry in enumerate(chunks[1:4]):
        entry["choices"][0]["logprobs"] = {"content": [{"token": "x", "logprob": -float(place)}]}
    seen = events(relayed([PLAIN.stream(chunks)]))
    said = [entry["choices"][0]["logprobs"]["content"][0]["logprob"] for entry in seen[1:4]]
    assert said == [0.0, -1.0, -2.0]


def test_raw_bytes_pass() -> None:
    """Nothing is added to a pass-through stream, nor taken from it."""
    relay = RawRelay()
    relay.begin("x")
    assert (relay.feed(b""), relay.feed(b"\x00any"), relay.end()) == (b"", b"\x00any", b"")


def outcome(relay_call: Call, raw: bytes) -> bytes | type[BaseException]:
    try:
        return relayed([raw], relay_call)
    except AttemptError as error:
        return type(error)


odd = st.none() | st.booleans() | st.integers(-1, 2) | st.sampled_from(["", "x", [], ["x"], [[]], {}, {"x": []}])


@quick
@given(st.binary(max_size=80))
def test_any_bytes(raw: bytes) -> None:
    """Whatever bytes an upstream sends, an attempt ends in an answer or in an `AttemptError`."""
    assert outcome(call_of(), raw) is not None
    assert outcome(call_of(forced=FORCED), b"data: " + raw + b"\n\n") is not None


@pytest.mark.parametrize(
    "entry",
    [
        {"choices": [{"index": ["a"], "delta": {"content": "x"}}]},
        {"choices": [{"delta": "text"}]},
        {"choices": [{"delta": {}, "finish_reason": ["stop"]}]},
        {"choices": [{"delta": {"tool_calls": [{"id": "a", "function": {"arguments": 7}}]}}]},
        {"choices": [{"delta": {"tool_calls": [{"id": ["a"]}]}}]},
        {"choices": [], "x_groq": "yes"},
        [chunk({"content": "x"})],
    ],
    ids=str,
)
def test_odd_shapes(entry: Any) -> None:
    """A chunk of an odd shape fails the attempt, or is skipped; it is no error of the proxy."""
    try:
        outcome(call_of(), PLAIN.stream([entry, *words("x")]))
    except (AttributeError, TypeError, ValueError) as error:
        pytest.fail(repr(error))


@pytest.mark.parametrize(
    "deltas",
    [
        [tool_delta(0, None, "f", "{}"), tool_delta(1, None, "g", "[]")],
        [tool_delta(0, None, "f", "{}"), tool_delta(1, "b", "g", "[]")],
        [tool_delta(None, None, "f", "{}"), tool_delta(None, None, "g", "[]")],
    ],
    ids=["index only", "one id", "neither"],
)
def test_calls_without_ids(deltas: list[Json]) -> None:
    """Two calls stay two calls when the upstream gives them no ids."""
    seen = answers(events(relayed([PLAIN.stream([*map(chunk, deltas), chunk({}, "tool_calls")])])))[0].calls
    assert [(call["name"], call["arguments"]) for _, call in sorted(seen.items())] == [("f", "{}"), ("g", "[]")]


def test_the_fast_lane_finds_the_text() -> None:
    """Text goes where text belongs, also when another field says what the lane uses as a marker."""
    chunks = [{"provider": "llmproxy", **entry} for entry in words("a", "b", "c")]
    seen = events(relayed([PLAIN.stream(chunks)]))
    assert answers(seen)[0].text == "abc"
    assert {entry["provider"] for entry in seen} == {"llmproxy"}


@pytest.mark.parametrize("raw", ["\t", "\x00", "\x1f"])
def test_raw_control_characters(raw: str) -> None:
    """A control character that is not escaped makes an event malformed: it is skipped in the fast lane too."""
    good = words("a", "b", "c")
    bad = PLAIN.event(json.dumps(chunk({"content": "X"}), separators=(",", ":")).replace("X", raw))
    out = relayed([PLAIN.stream(good[:3], done=False) + bad + PLAIN.stream(good[3:])])
    assert answers(events(out))[0].text == "abc"


def test_calls_end_in_tool_calls() -> None:
    """An answer that calls a tool ends in `tool_calls`, whatever word the upstream has for it."""
    chunks = [chunk(tool_delta(0, "a", "f", "{}")), chunk({}, "stop")]
    assert answers(events(relayed([PLAIN.stream(chunks)])))[0].finish == "tool_calls"


@pytest.mark.parametrize("role", [None, ""])
def test_an_empty_role(role: str | None) -> None:
    """The first delta says `assistant` also when the upstream's role is empty."""
    seen = events(relayed([PLAIN.stream([chunk({"role": role, "content": "x"}), chunk({}, "stop")])]))
    assert seen[0]["choices"][0]["delta"]["role"] == "assistant"


def test_several_prompts() -> None:
    """A completion of two prompts is whole when both have their finish reason."""
    relay = begun(call_of("completions", prompt=["a", "b"]))
    relay.feed(PLAIN.stream([text_chunk("x"), text_chunk("", "stop"), text_chunk("y", index=1)]))
    with pytest.raises(Truncated):
        relay.end()


def test_an_endless_event_fails_the_attempt() -> None:
    """An event that never ends is a fault of the upstream."""
    relay = begun()
    relay._splitter.limit_bytes = 100
    try:
        relay.feed(b"data: " + b"x" * 200)
    except AttemptError:
        return
    except ValueError as error:
        pytest.fail(repr(error))
