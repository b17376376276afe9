"""Canonical streams become Anthropic's events, which Anthropic's SDK puts together."""

from __future__ import annotations

from typing import Any

import anthropic
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core import sse
from llmproxy.dialects.anthropic import AnthropicMessages
from tests.core.properties import cuts, quick
from tests.dialects.anthropic_client import streamed, told
from tests.dialects.talks import call, end, stream, usage

HEAD = {"id": "msg_1", "type": "message", "role": "assistant", "model": "acme/large"}
REQUEST = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x" * 40}]}
ROLE = {"role": "assistant", "content": ""}


def rendered(data: bytes, *pieces: bytes) -> list[bytes]:
    renderer = AnthropicMessages().renderer(REQUEST)
    return [*map(renderer.feed, (data, *pieces)), renderer.finish()]


def events(data: bytes) -> list[dict[str, Any]]:
    found = sse.split(b"".join(rendered(data)))
    bodies = [orjson.loads(event.data or b"") for event in found]
    assert [event.event.decode() for event in found] == [body["type"] for body in bodies]
    return bodies


def kinds(data: bytes) -> list[str]:
    return [
        body["type"].removeprefix("content_block_") + (f" {body['index']}" if "index" in body else "")
        for body in events(data)
    ]


def test_a_text() -> None:
    """A text is one block between the beginning and the end of a message; the real usage comes last."""
    found = events(stream(ROLE, {"content": "Hel"}, {"content": "lo"}, end("stop"), usage(30, 2, cached=10)))
    assert found == [
        {
            "type": "message_start",
            "message": {
                **HEAD,
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {
                    "input_tokens": 14,
                    "cache_creation_input_tokens": 0,
                    "cache_read_input_tokens": 0,
                    "output_tokens": 0,
                },
            },
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {
                "input_tokens": 20,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 10,
                "output_tokens": 2,
            },
        },
        {"type": "message_stop"},
    ]


def test_blocks_follow_each_other() -> None:
    """Each kind of output has a block of its own: closed before the next begins, numbered without a gap."""
    data = stream(
        {"reasoning_content": "hm"},
        {"reasoning_content": "m"},
        {"content": "a"},
        call(0, "c1", "f", '{"x":1}'),
        call(1, "c2", "g", "{}"),
        {"content": "b"},
        end("tool_calls"),
        usage(1, 1),
    )
    assert kinds(data) == [
        "message_start",
        *["start 0", "delta 0", "delta 0", "stop 0"],
        *["start 1", "delta 1", "stop 1"],
        *["start 2", "delta 2", "stop 2"],
        *["start 3", "delta 3", "stop 3"],
        *["start 4", "delta 4", "stop 4"],
        "message_delta",
        "message_stop",
    ]
    message = told(streamed(rendered(data)))
    assert message["content"] == [
        {"type": "thinking", "thinking": "hmm", "signature": ""},
        {"type": "text", "text": "a"},
        {"type": "tool_use", "id": "c1", "name": "f", "input": {"x": 1}},
        {"type": "tool_use", "id": "c2", "name": "g", "input": {}},
        {"type": "text", "text": "b"},
    ]
    assert message["stop_reason"] == "tool_use"


def test_signatures_end_the_thoughts_that_they_sign() -> None:
    """A signed block adds its signature to the block that is open; hidden thoughts are blocks of their own."""
    data = stream(
        {"reasoning_content": "one"},
        {"thinking_blocks": [{"type": "thinking", "thinking": "one", "signature": "s1"}]},
        {"thinking_blocks": [{"type": "redacted_thinking", "data": "xyz"}]},
        {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "s2"}]},
        {"content": "a"},
        end("stop"),
        usage(1, 1),
    )
    assert told(streamed(rendered(data)))["content"] == [
        {"type": "thinking", "thinking": "one", "signature": "s1"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "thinking", "thinking": "", "signature": "s2"},
        {"type": "text", "text": "a"},
    ]


def test_a_late_signature_says_nothing_twice() -> None:
    """Signed thoughts that come after the text are not told again."""
    data = stream(
        {"reasoning_content": "one"},
        {"content": "a"},
        {"thinking_blocks": [{"type": "thinking", "thinking": "one", "signature": "s1"}]},
        end("stop"),
        usage(1, 1),
    )
    assert told(streamed(rendered(data)))["content"] == [
        {"type": "thinking", "thinking": "one", "signature": ""},
        {"type": "text", "text": "a"},
    ]


def test_blocks_of_its_own_tools() -> None:
    """What only Anthropic's upstream makes passes through: its tools' calls and results, and citations of text."""
    cited = {"type": "web_search_result_location", "url": "https://x.test", "title": "T", "cited_text": "c"}
    result = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []}
    data = stream(
        {"anthropic": [{"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "q"}}]},
        {"anthropic": [result]},
        {"content": "a"},
        {"anthropic": [{"type": "citations_delta", "citation": cited}]},
        end("stop"),
        usage(1, 1),
    )
    found = told(streamed(rendered(data)))["content"]
    assert [block["type"] for block in found] == ["server_tool_use", "web_search_tool_result", "text"]
    assert found[0]["input"] == {"query": "q"}
    assert found[2]["citations"][0]["url"] == "https://x.test"


@pytest.mark.parametrize(
    ("ending", "reason", "sequence"),
    [
        (end("stop"), "end_turn", None),
        (end("length"), "max_tokens", None),
        (end("content_filter"), "refusal", None),
        (end("stop", native_finish_reason="stop_sequence", stop_sequence="END"), "stop_sequence", "END"),
    ],
)
def test_stop_reasons(ending: dict[str, Any], reason: str, sequence: str | None) -> None:
    """The finish reason is told in Anthropic's word, with the sequence that stopped the text."""
    message = streamed(rendered(stream({"content": "a"}, ending, usage(1, 1))))
    assert (message.stop_reason, message.stop_sequence) == (reason, sequence)


def test_a_refusal_is_text() -> None:
    """What is said instead of an answer is the text of the message, and the reason why it stopped."""
    found = events(stream({"refusal": "I would "}, {"refusal": "rather not"}, end("stop"), usage(1, 1)))
    assert found[2]["delta"] == {"type": "text_delta", "text": "I would rather not"}
    assert found[-2]["delta"]["stop_reason"] == "refusal"


def test_life_signs() -> None:
    """A comment is a ping once the message has begun, and before that a comment, as nothing may come first."""
    out = b"".join(rendered(stream("queued", ROLE, "working", {"content": "a"}, end("stop"), usage(1, 1))))
    assert out.startswith(b": waiting\n\nevent: message_start\n")
    assert out.count(b'event: ping\ndata: {"type":"ping"}\n\n') == 1
    assert streamed([out]).content[0].text == "a"


def test_an_empty_answer() -> None:
    """A stream without output is still a message from its beginning to its end."""
    assert kinds(stream(end("length"), usage(1, 0))) == ["message_start", "message_delta", "message_stop"]
    assert kinds(stream()) == ["message_start", "message_delta", "message_stop"]


def test_usage_is_estimated_where_nobody_told_it() -> None:
    """Without a usage chunk the counts are those of the text."""
    found = events(stream({"content": "x" * 40}, end("stop")))
    assert found[-2]["usage"]["output_tokens"] == 10


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "m", "type": "rate_limit_error", "code": "rate_limit_exceeded"}, "rate_limit_error"),
        ({"message": "m", "type": "invalid_request_error", "code": "invalid_request"}, "invalid_request_error"),
        ({"message": "m", "type": "api_error", "code": "deadline_exceeded"}, "timeout_error"),
        ({"message": "m", "type": "api_error", "code": "no_candidates"}, "overloaded_error"),
        ({"message": "m", "type": "api_error", "code": "all_candidates_failed"}, "api_error"),
        ({"message": "m", "type": "odd", "code": None}, "api_error"),
    ],
)
@pytest.mark.parametrize("begun", [False, True])
def test_an_error_in_the_stream(error: dict[str, Any], kind: str, begun: bool) -> None:
    """An error is told as one, also before anything else; nothing follows it, and the SDK raises it."""
    chunks = [{"content": "a"}] if begun else []
    data = stream(*chunks, {"error": error}, {"content": "never"})
    found = events(data)
    assert found[-1] == {"type": "error", "error": {"type": kind, "message": "m"}}
    with pytest.raises(anthropic.APIStatusError, match="m"):
        streamed(rendered(data))


@pytest.mark.parametrize("data", [b"", stream({"content": "a"}, done=False), stream("wait", done=False)])
def test_an_end_that_nothing_announced_is_an_error(data: bytes) -> None:
    """A stream that breaks off is never taken for an answer."""
    assert events(data)[-1]["type"] == "error"


deltas = st.lists(
    st.one_of(
        st.text(min_size=1, max_size=8).map(lambda text: {"content": text}),
        st.text(min_size=1, max_size=8).map(lambda text: {"reasoning_content": text}),
        st.integers(0, 99).map(lambda number: call(0, f"call_{number}", "f", f'{{"n":{number}}}')),
        st.sampled_from(["alive"]),
    ),
    max_size=8,
)


@quick
@given(st.data(), deltas, st.sampled_from(["stop", "length", "tool_calls"]))
def test_any_stream_in_any_cutting_is_one_message(data: st.DataObject, given_deltas: list[Any], finish: str) -> None:
    """However a stream is cut, the events are the same, and the SDK finds all the output in its order."""
    whole = stream(*given_deltas, end(finish), usage(5, 7))
    pieces = data.draw(cuts(whole))
    out = rendered(*pieces) if pieces else rendered(b"")
    assert b"".join(out) == b"".join(rendered(whole))
    message = told(streamed(out))
    said: list[tuple[str, Any]] = []
    for delta in given_deltas:
        if isinstance(delta, str):
            continue
        ((name, value),) = delta.items()
        kind = {"content": "text", "reasoning_content": "thinking"}.get(name, "tool_use")
        if kind == "tool_use":
            said.append((kind, value[0]["id"]))
        elif said and said[-1][0] == kind:
            said[-1] = (kind, said[-1][1] + value)
        else:
            said.append((kind, value))
    found = [
        (block["type"], block["id" if block["type"] == "tool_use" else block["type"]]) for block in message["content"]
    ]
    assert found == said
    assert message["usage"]["input_tokens"] == 5
    assert message["usage"]["output_tokens"] == 7
