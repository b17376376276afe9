"""Replies and streams of the Messages API become canonical ones, recorded ones too."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core import sse
from llmproxy.core.errors import AttemptError, BadReply, Refused
from llmproxy.core.types import Call, Forced
from llmproxy.dialects.anthropic import AnthropicMessages
from llmproxy.dialects.anthropic_upstream import AnthropicUpstream
from llmproxy.dialects.refusals import refusal
from llmproxy.gateway.judge import check_reply
from llmproxy.gateway.relay import Relay
from tests.core.properties import cuts, quick
from tests.dialects.anthropic_client import streamed, told
from tests.dialects.recordings import RECORDED, Recording

UPSTREAM = AnthropicUpstream()
STREAMS = [one for one in RECORDED if one.status == 200 and one.streamed]
WHOLE = [one for one in RECORDED if one.status == 200 and not one.streamed and one.asks]
# Answers that the judge rightly does not take: no text, no tool call, and no reason for it.
JUDGED = {
    "chatlas__test_anthropic_empty_response__0",
    "ruby_llm__chat_tool_choice_and_calls_control_anthropic_claude-haiku-4-5_respects_choice_none__0",
}
REFUSED = [one for one in RECORDED if one.status >= 400]
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "s"}
TEXT = {"type": "text", "text": "hello"}
USE = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}


def message(*blocks: Any, stop: str = "end_turn", **more: Any) -> dict[str, Any]:
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 60,
        "cache_creation_input_tokens": 30,
        "output_tokens": 20,
        "output_tokens_details": {"thinking_tokens": 5},
    }
    body = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": list(blocks)}
    return {**body, "stop_reason": stop, "stop_sequence": None, "usage": usage, **more}


def as_stream(body: dict[str, Any]) -> bytes:
    """A whole message as the events of a stream, each text in two pieces."""
    start = {**body, "content": [], "stop_reason": None, "usage": {**body["usage"], "output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for index, block in enumerate(body["content"]):
        empty, deltas = _taken_apart(block)
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    ended = {key: body[key] for key in ("stop_reason", "stop_sequence", "stop_details") if key in body}
    events += [{"type": "message_delta", "delta": ended, "usage": body["usage"]}, {"type": "message_stop"}]
    return b"".join(sse.event(orjson.dumps(event), event["type"]) for event in events)


def _taken_apart(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    kind = block["type"]
    if kind == "text":
        pieces = [block["text"][:3], block["text"][3:]]
        return {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in pieces]
    if kind == "thinking":
        thought = {"type": "thinking_delta", "thinking": block["thinking"]}
        signed = {"type": "signature_delta", "signature": block["signature"]}
        return {"type": "thinking", "thinking": "", "signature": ""}, [thought, signed]
    if kind in ("tool_use", "server_tool_use"):
        raw = orjson.dumps(block["input"]).decode()
        pieces = ["", raw[:4], raw[4:]] if block["input"] else [""]
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    return block, []


def relayed(data: bytes, **call: Any) -> tuple[bytes, Relay]:
    """What the gateway makes of an upstream's stream."""
    relay = Relay(Call("0123456789ab", "chat", "m", {"messages": []}, stream=True, include_usage=True, **call))
    relay.begin("anthropic/claude")
    translator = UPSTREAM.translator("claude")
    return relay.feed(translator.feed(data)) + relay.feed(translator.finish()) + relay.end(), relay


def canonical(data: bytes) -> list[dict[str, Any]]:
    translator = UPSTREAM.translator("claude")
    found = sse.split(translator.feed(data) + translator.finish())
    return [orjson.loads(event.data or b"") for event in found if not event.done]


def collected(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """The message of a canonical stream, with its calls by index."""
    made: dict[str, Any] = {"content": "", "reasoning_content": "", "thinking_blocks": [], "tool_calls": {}}
    for chunk in chunks:
        for choice in chunk["choices"]:
            delta = choice["delta"]
            for name in ("content", "reasoning_content"):
                made[name] += delta.get(name) or ""
            made["thinking_blocks"] += delta.get("thinking_blocks") or []
            for fragment in delta.get("tool_calls") or ():
                call = made["tool_calls"].setdefault(fragment["index"], {"arguments": ""})
                call |= {key: fragment[key] for key in ("id", "type") if key in fragment}
                call["name"] = call.get("name") or fragment["function"].get("name")
                call["arguments"] += fragment["function"].get("arguments") or ""
    return made


# -- whole replies ------------------------------------------------------------------------------------------------


def test_a_whole_reply() -> None:
    """Text, thoughts and calls stand where OpenAI's clients look for them; the usage counts as OpenAI does."""
    assert UPSTREAM.reply(message(THOUGHT, TEXT, USE, stop="tool_use"), "claude") == {
        "id": "msg_1",
        "object": "chat.completion",
        "created": 0,
        "model": "claude",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "hello",
                    "reasoning_content": "hm",
                    "thinking_blocks": [THOUGHT],
                    "tool_calls": [
                        {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
                    ],
                },
                "finish_reason": "tool_calls",
                "native_finish_reason": "tool_use",
            }
        ],
        "usage": {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "total_tokens": 120,
            "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
            "completion_tokens_details": {"reasoning_tokens": 5},
        },
    }


@pytest.mark.parametrize(
    ("stop", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("something_new", "stop"),
    ],
)
def test_stop_reasons(stop: str, finish: str) -> None:
    """Each reason to stop has its canonical word, in whole replies and in streams."""
    body = message(TEXT, stop=stop)
    (choice,) = UPSTREAM.reply(body, "m")["choices"]
    assert (choice["finish_reason"], choice["native_finish_reason"]) == (finish, stop)
    ended = [chunk for chunk in canonical(as_stream(body)) if chunk["choices"] and chunk["choices"][0]["finish_reason"]]
    assert [chunk["choices"][0]["finish_reason"] for chunk in ended] == [finish]


def test_the_sequence_that_stopped_the_text() -> None:
    """It goes through the gateway to a client that asks in the same dialect."""
    body = message(TEXT, stop="stop_sequence", stop_sequence="END")
    reply = AnthropicMessages().reply(UPSTREAM.reply(body, "m"))
    assert (reply["stop_reason"], reply["stop_sequence"]) == ("stop_sequence", "END")


def test_a_refusal_tells_why() -> None:
    """The explanation of a refusal is told, whole and streamed."""
    details = {"type": "refusal", "category": "cyber", "explanation": "not this"}
    body = message(stop="refusal", stop_details=details)
    assert UPSTREAM.reply(body, "m")["choices"][0]["message"]["refusal"] == "not this"
    assert any(chunk["choices"][0]["delta"].get("refusal") == "not this" for chunk in canonical(as_stream(body))[:-1])


@pytest.mark.parametrize("blocks", [[TEXT, THOUGHT, USE], [{"type": "server_tool_use", "id": "s", "input": {}}, TEXT]])
def test_what_canonical_messages_cannot_tell_goes_along(blocks: list[Any]) -> None:
    """Blocks out of the usual order, and of no usual type, come out of the other end as they were."""
    canonical_reply = UPSTREAM.reply(message(*blocks), "m")
    assert AnthropicMessages().reply(canonical_reply)["content"] == blocks


@pytest.mark.parametrize("body", [{}, {"content": "x"}, {"content": [7]}, {"content": [{"text": "x"}]}, [], None])
def test_what_is_no_reply(body: Any) -> None:
    """A body that is no message is a failure of the candidate."""
    with pytest.raises(BadReply):
        UPSTREAM.reply(body, "m")


@pytest.mark.parametrize(
    ("name", "given", "content"),
    [
        ("llmproxy_answer", {"city": "Rome"}, '{"city":"Rome"}'),
        ("llmproxy_answer", {}, "{}"),
        ("llmproxy_answer_value", {"value": [1, 2]}, "[1,2]"),
        ("llmproxy_answer_value", {"value": None}, "null"),
    ],
)
def test_an_answer_by_a_tool_is_content(name: str, given: Any, content: str) -> None:
    """The arguments of the tool that stands for the answer are the content, whole and streamed."""
    body = message({"type": "tool_use", "id": "t", "name": name, "input": given}, stop="tool_use")
    (choice,) = UPSTREAM.reply(body, "m")["choices"]
    assert choice["message"] == {"role": "assistant", "content": content}
    assert choice["finish_reason"] == "stop"
    chunks = canonical(as_stream(body))
    assert collected(chunks)["content"] == content
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"]][-1] == "stop"


def test_an_answer_that_broke_off_is_told_as_far_as_it_went() -> None:
    """The arguments of the tool that stands for the answer may end anywhere."""
    use = {"type": "tool_use", "id": "t", "name": "llmproxy_answer_value", "input": {"value": "abc"}}
    cut = as_stream(message(use, stop="max_tokens")).replace(b'e\\":\\"abc\\"}', b'e\\":\\"ab')
    assert collected(canonical(cut))["content"] == '{"value":"ab'


# -- streams ------------------------------------------------------------------------------------------------------


def test_a_stream() -> None:
    """Role, thoughts, text, calls, the end, the usage and the mark of the end, each in its chunk."""
    translator = UPSTREAM.translator("claude")
    out = translator.feed(as_stream(message(THOUGHT, TEXT, USE, stop="tool_use")))
    assert out.endswith(sse.DONE)
    chunks = [orjson.loads(event.data or b"") for event in sse.split(out)[:-1]]
    assert {(chunk["id"], chunk["model"]) for chunk in chunks} == {("msg_1", "claude")}
    assert [chunk["choices"][0]["delta"] for chunk in chunks[:-1]] == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "hm"},
        {"thinking_blocks": [THOUGHT]},
        {"content": "hel"},
        {"content": "lo"},
        {"tool_calls": [{"index": 0, "id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]},
        {},
    ]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == UPSTREAM.reply(message(), "m")["usage"]
    assert translator.finish() == b""


def test_a_call_without_arguments_is_whole() -> None:
    """A call that has no arguments has an empty object of them; input that comes at once is told too."""
    empty = {**USE, "input": {}}
    assert collected(canonical(as_stream(message(empty))))["tool_calls"][0]["arguments"] == "{}"
    at_once = as_stream(message(empty)).replace(b'"name":"f","input":{}', b'"name":"f","input":{"a":1}')
    assert collected(canonical(at_once))["tool_calls"][0]["arguments"] == '{"a":1}'


@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        ("overloaded_error", "server"),
        ("rate_limit_error", "rate_limit"),
        ("api_error", "server"),
        ("authentication_error", "auth"),
        ("request_too_large", "too_large"),
    ],
)
def test_an_error_in_the_stream(kind: str, refused: str) -> None:
    """An error event is the canonical one, which the gateway reads as what it is; nothing follows it."""
    error = sse.event(orjson.dumps({"type": "error", "error": {"type": kind, "message": "no"}}), "error")
    translator = UPSTREAM.translator("claude")
    out = translator.feed(error + as_stream(message(TEXT)))
    assert len(sse.split(out)) == 1
    assert translator.finish() == b""
    with pytest.raises(Refused) as caught:
        relayed(error)
    assert caught.value.kind == refused
    assert caught.value.message == "no"


def test_a_stream_that_breaks_off_has_no_end() -> None:
    """Only a message that was stopped ends with the mark; a reason to stop alone is enough for the usage."""
    data = as_stream(message(TEXT))
    half, most = data[: data.index(b"event: message_delta")], data[: data.index(b"event: message_stop")]
    assert not any(chunk.get("usage") for chunk in canonical(half))
    assert canonical(most)[-1]["usage"]["completion_tokens"] == 20
    for cut in (half, most):
        translator = UPSTREAM.translator("claude")
        assert sse.DONE not in translator.feed(cut) + translator.finish()
    with pytest.raises(AttemptError):
        relayed(half)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "content_block_delta", "index": 3, "delta": {"type": "text_delta", "text": "x"}},
        {"type": "content_block_start", "index": 0},
        {"type": "message_start"},
    ],
)
def test_events_of_an_odd_shape(event: dict[str, Any]) -> None:
    """An event that cannot be read is a failure of the candidate, not of the proxy."""
    with pytest.raises(BadReply):
        UPSTREAM.translator("m").feed(sse.event(orjson.dumps(event), event["type"]))


@pytest.mark.parametrize(
    "event", [b"event: ping\ndata: {}\n\n", b": hi\n\n", b"data: odd\n\n", b"data: 7\n\n", b'data: {"type":"new"}\n\n']
)
def test_events_that_say_nothing(event: bytes) -> None:
    """Pings, comments and events that nobody knows yet are passed over."""
    assert UPSTREAM.translator("m").feed(event) == b""


def test_forced_tools_reach_the_judge() -> None:
    """A forced call in an Anthropic stream is what the gateway waits for."""
    forced = Forced(tools={"f": {"type": "object"}})
    out, _ = relayed(as_stream(message(USE, stop="tool_use")), forced=forced)
    assert b'"finish_reason":"tool_calls"' in out


blocks = st.lists(
    st.one_of(
        st.text(min_size=1, max_size=9).map(lambda text: {"type": "text", "text": text}),
        st.text(max_size=9).map(lambda text: {"type": "thinking", "thinking": text, "signature": "s" + text[:1]}),
        st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=2).map(lambda found: {**USE, "input": found}),
    ),
    max_size=5,
)


@quick
@given(st.data(), blocks)
def test_a_stream_says_what_the_whole_reply_says(data: st.DataObject, given_blocks: list[dict[str, Any]]) -> None:
    """In any cutting, and with any line ends, a stream is the same message as the reply without streaming."""
    body = message(*given_blocks)
    raw = as_stream(body)
    if data.draw(st.booleans()):
        raw = raw.replace(b"\n", b"\r\n")
    translator = UPSTREAM.translator("claude")
    out = b"".join(map(translator.feed, data.draw(cuts(raw)))) + translator.finish()
    found = collected([orjson.loads(event.data or b"") for event in sse.split(out) if not event.done])
    whole = UPSTREAM.reply(body, "claude")["choices"][0]["message"]
    assert found["content"] == (whole["content"] or "")
    assert found["reasoning_content"] == whole.get("reasoning_content", "")
    assert found["thinking_blocks"] == whole.get("thinking_blocks", [])
    calls = [(call["id"], call["name"], orjson.loads(call["arguments"])) for call in found["tool_calls"].values()]
    expected = [
        (call["id"], call["function"]["name"], orjson.loads(call["function"]["arguments"]))
        for call in whole.get("tool_calls", [])
    ]
    assert calls == expected


# -- recorded -----------------------------------------------------------------------------------------------------


def _same(found: dict[str, Any], original: dict[str, Any]) -> None:
    """Compare what a client gets through the gateway with what Anthropic said."""
    assert found["content"] == [block for block in original["content"] if block.get("text") != ""]
    assert found["stop_reason"] == original["stop_reason"]
    assert found.get("stop_sequence") == original.get("stop_sequence")
    for name in ("input_tokens", "output_tokens"):
        assert found["usage"][name] == original["usage"][name]


@pytest.mark.parametrize("recording", STREAMS, ids=lambda one: one.name)
def test_a_recorded_stream(recording: Recording) -> None:
    """A real stream through translator, relay and renderer is the same message to Anthropic's own SDK."""
    if recording.name in JUDGED:
        with pytest.raises(BadReply, match="no output"):
            relayed(recording.body)
        return
    out, _ = relayed(recording.body)
    renderer = AnthropicMessages().renderer(recording.request)
    through = renderer.feed(out) + renderer.finish()
    _same(told(streamed([through])), told(streamed([recording.body])))


@pytest.mark.parametrize("recording", WHOLE, ids=lambda one: one.name)
def test_a_recorded_reply(recording: Recording) -> None:
    """A real reply is taken by the judge, and comes out of the other end as it was."""
    original = orjson.loads(recording.body)
    reply = UPSTREAM.reply(original, "claude")
    if recording.name in JUDGED:
        with pytest.raises(BadReply, match="no output"):
            check_reply(Call("c", "chat", "m", {"messages": []}), reply)
    else:
        check_reply(Call("c", "chat", "m", {"messages": []}), reply)
    found = AnthropicMessages().reply(reply)
    _same(
        {**found, "content": [{k: v for k, v in b.items() if v is not None} for b in found["content"]]},
        {
            **original,
            "content": [{k: v for k, v in b.items() if v is not None and k != "caller"} for b in original["content"]],
        },
    )


@pytest.mark.parametrize("recording", REFUSED, ids=lambda one: one.name)
def test_a_recorded_refusal(recording: Recording) -> None:
    """Anthropic's errors are read as what they are."""
    error = refusal(recording.status, {}, recording.body, now=0.0)
    assert error.message == orjson.loads(recording.body)["error"]["message"]
    assert error.kind == {401: "auth", 404: "not_found", 400: "unsupported"}[recording.status]
