"""What a worker sends up is what the official client accepts."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from backends.render import TokenLogprob, renderer
from backends.toolcalls import ToolCall
from llmproxy.core import sse
from llmproxy.core.types import JsonObject

Said = tuple[int, str | ToolCall, Sequence[TokenLogprob]]
LOGPROBS: list[TokenLogprob] = [("é", -0.5, [("é", -0.5), ("🐦", -1.5)])]
PLAIN: list[Said] = [(0, "Hello", ()), (0, " é🐦", ())]
WITH_LOGPROBS: list[Said] = [(0, "é", LOGPROBS), (0, "é", LOGPROBS)]
TWO: list[Said] = [(0, "a", ()), (1, "b", ()), (0, "c", ())]
CALLS: list[Said] = [(0, "Let me see.", ()), (0, ToolCall("f", '{"x":1}'), ()), (0, ToolCall("g", "{}"), ())]
CALLS_OF_TWO: list[Said] = [(0, ToolCall("f", "{}"), ()), (1, ToolCall("f", "{}"), ())]
SILENT: list[Said] = []


def rendered(endpoint: str, said: list[Said], reasons: dict[int, str], *, stream: bool) -> bytes:
    made = renderer(endpoint, stream=stream, call_id="0a1b", model="local/x")
    out = b"".join(made.say(*one) for one in said)
    out += b"".join(made.finish(index, reason) for index, reason in reasons.items())
    return out + made.end(7, 3)


def chunks(raw: bytes) -> list[JsonObject]:
    events = sse.split(raw)
    assert events[-1].done
    return [orjson.loads(event.data or b"") for event in events[:-1]]


@pytest.mark.parametrize("said", [PLAIN, WITH_LOGPROBS, TWO, CALLS, CALLS_OF_TWO, SILENT])
@pytest.mark.parametrize("reason", ["stop", "length"])
def test_chat_streams(said: list[Said], reason: str) -> None:
    """Each chunk is valid; all have one id; text, calls, finish reasons and usage add up."""
    reasons = dict.fromkeys({index for index, _, _ in said} or {0}, reason)
    seen = [
        ChatCompletionChunk.model_validate(chunk, strict=True)
        for chunk in chunks(rendered("chat", said, reasons, stream=True))
    ]
    assert {(chunk.id, chunk.model, chunk.object) for chunk in seen} == {
        ("chatcmpl-0a1b", "local/x", "chat.completion.chunk")
    }
    assert seen[-1].choices == []
    assert seen[-1].usage is not None
    assert (seen[-1].usage.prompt_tokens, seen[-1].usage.completion_tokens, seen[-1].usage.total_tokens) == (7, 3, 10)
    for index in reasons:
        mine = [choice for chunk in seen for choice in chunk.choices if choice.index == index]
        texts = [text for place, text, _ in said if place == index and isinstance(text, str)]
        calls = [call for place, call, _ in said if place == index and isinstance(call, ToolCall)]
        assert "".join(choice.delta.content or "" for choice in mine) == "".join(texts)
        fragments = [fragment for choice in mine for fragment in choice.delta.tool_calls or ()]
        assert [fragment.index for fragment in fragments] == list(range(len(calls)))
        assert [fragment.function and fragment.function.arguments for fragment in fragments] == [
            one.arguments for one in calls
        ]
        ends = [choice.finish_reason for choice in mine if choice.finish_reason]
        assert ends == ["tool_calls" if calls and reason == "stop" else reason]
        if texts or calls:
            assert [choice.delta.role for choice in mine if choice.delta.role] == ["assistant"]


@pytest.mark.parametrize("said", [PLAIN, WITH_LOGPROBS, TWO, CALLS, CALLS_OF_TWO, SILENT])
@pytest.mark.parametrize("reason", ["stop", "length"])
def test_whole_chats(said: list[Said], reason: str) -> None:
    """The whole reply is valid and says what the stream says."""
    reasons = dict.fromkeys({index for index, _, _ in said} or {0}, reason)
    seen = ChatCompletion.model_validate(orjson.loads(rendered("chat", said, reasons, stream=False)), strict=True)
    assert [choice.index for choice in seen.choices] == sorted(reasons)
    for choice in seen.choices:
        texts = [text for place, text, _ in said if place == choice.index and isinstance(text, str)]
        calls = [call for place, call, _ in said if place == choice.index and isinstance(call, ToolCall)]
        assert (choice.message.content or "") == "".join(texts)
        assert (choice.message.content is None) is bool(calls and not texts)
        assert [call.id for call in choice.message.tool_calls or ()] == [
            f"call_chatcmpl-0a1b{choice.index}{n:02x}" for n in range(len(calls))
        ]
        assert choice.finish_reason == ("tool_calls" if calls and reason == "stop" else reason)
    assert seen.usage is not None
    assert seen.usage.total_tokens == 10


@pytest.mark.parametrize("said", [PLAIN, TWO, SILENT])
def test_whole_completions(said: list[Said]) -> None:
    """A legacy completion is valid, choice by choice."""
    reasons = dict.fromkeys({index for index, _, _ in said} or {0}, "length")
    seen = Completion.model_validate(orjson.loads(rendered("completions", said, reasons, stream=False)), strict=True)
    for choice in seen.choices:
        assert choice.text == "".join(str(text) for place, text, _ in said if place == choice.index)
    assert seen.id == "cmpl-0a1b"


@pytest.mark.parametrize("said", [PLAIN, TWO])
def test_completion_streams(said: list[Said]) -> None:
    """The chunks of a legacy completion add up; the last one before [DONE] has the usage."""
    seen = chunks(rendered("completions", said, {0: "stop", 1: "length"}, stream=True))
    for index in (0, 1):
        mine = [choice for chunk in seen for choice in chunk["choices"] if choice["index"] == index]
        assert "".join(choice["text"] for choice in mine) == "".join(
            str(text) for place, text, _ in said if place == index
        )
    assert seen[-1]["choices"] == []
    assert seen[-1]["usage"]["total_tokens"] == 10
    for chunk in seen:
        ended = [choice for choice in chunk["choices"] if choice["finish_reason"]]
        Completion.model_validate({**chunk, "choices": ended}, strict=True)


def test_log_probabilities() -> None:
    """Log probabilities carry the token, its bytes and its alternatives, in both shapes."""
    whole = ChatCompletion.model_validate(orjson.loads(rendered("chat", WITH_LOGPROBS, {0: "stop"}, stream=False)))
    logprobs = whole.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [(entry.token, entry.bytes) for entry in logprobs.content] == [("é", [195, 169])] * 2
    assert [alternative.token for alternative in logprobs.content[0].top_logprobs] == ["é", "🐦"]
    text = Completion.model_validate(orjson.loads(rendered("completions", WITH_LOGPROBS, {0: "stop"}, stream=False)))
    legacy = text.choices[0].logprobs
    assert legacy is not None
    assert (legacy.tokens, legacy.token_logprobs) == (["é", "é"], [-0.5, -0.5])
    assert legacy.top_logprobs == [{"é": -0.5, "🐦": -1.5}] * 2
