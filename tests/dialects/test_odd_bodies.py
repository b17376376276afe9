"""One odd value anywhere in a body is refused by name, or harmless; it never makes a dialect fall over."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from llmproxy.core import sse
from llmproxy.core.errors import AttemptError, BadReply, InvalidRequest, LlmproxyError
from llmproxy.dialects.anthropic import AnthropicMessages, count_tokens
from llmproxy.dialects.anthropic_upstream import AnthropicUpstream, headers
from llmproxy.dialects.extras import plain
from llmproxy.dialects.gemini import Gemini
from llmproxy.dialects.gemini_upstream import GeminiUpstream
from llmproxy.dialects.ollama import OllamaChat, OllamaGenerate, embed_request
from llmproxy.dialects.openai import parse_chat
from llmproxy.dialects.responses import Responses
from tests.dialects.odd import spoilt

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
CACHE = {"cache_control": {"type": "ephemeral"}}
TEXT = {"type": "text", "text": "x"}
IMAGE = {"type": "image", "source": {"type": "url", "url": "https://x.test"}}
THOUGHT = {"type": "thinking", "thinking": "t", "signature": "s"}
USE = {"type": "tool_use", "id": "i", "name": "f", "input": {"a": 1}}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
MESSAGES = {
    "model": "m",
    "max_tokens": 9,
    "system": [{**TEXT, **CACHE}],
    "stream": True,
    "temperature": 1,
    "top_k": 3,
    "stop_sequences": ["x"],
    "metadata": {"user_id": "u"},
    "thinking": {"type": "enabled", "budget_tokens": 2000},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
    "tools": [{"name": "f", "input_schema": SCHEMA, "description": "d", **CACHE, "x": 1}, {"type": "bash_20250124"}],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "messages": [
        {
            "role": "user",
            "content": [
                {**TEXT, **CACHE},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}},
                {"type": "document", "title": "t", "source": {"type": "text", "media_type": "text/plain", "data": "d"}},
                {"type": "document", "source": {"type": "content", "content": [TEXT, IMAGE]}},
                {"type": "document", "source": {"type": "file", "file_id": "f"}},
                {"type": "search_result", "title": "t", "source": "s", "content": [TEXT]},
            ],
        },
        {"role": "assistant", "content": [THOUGHT, {"type": "redacted_thinking", "data": "d"}, TEXT, USE, THOUGHT]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "i", "is_error": True, "content": [TEXT, IMAGE]}, TEXT],
        },
    ],
}
CHAT = {
    "model": "m",
    "messages": [
        {"role": "user", "content": "a", "images": ["AA"]},
        {
            "role": "assistant",
            "content": "",
            "thinking": "t",
            "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"a": 1}}}],
        },
        {"role": "tool", "tool_name": "f", "content": "x"},
    ],
    "tools": [FUNCTION],
    "format": SCHEMA,
    "options": {"temperature": 1, "seed": 1, "stop": ["x"], "num_predict": 3},
    "think": True,
    "logprobs": True,
}
GENERATE = {"model": "m", "prompt": "p", "system": "s", "images": ["AA"], "format": "json", "options": {"top_k": 1}}
CANONICAL: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": [{**TEXT, **CACHE}]},
        {
            "role": "user",
            "name": "n",
            "content": [
                {**TEXT, "anthropic": TEXT},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}},
                {"type": "file", "file": {"file_data": "data:text/plain;base64,aGk=", "filename": "f"}},
                {"type": "file", "file": {"file_id": "f"}},
            ],
        },
        {
            "role": "assistant",
            "content": "b",
            "reasoning_content": "t",
            "refusal": "q",
            "thinking_blocks": [THOUGHT],
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}, **CACHE}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "x", "is_error": True, "anthropic": USE},
        {"role": "assistant", "content": "c", "anthropic": [TEXT]},
        {"role": "user", "content": "d"},
    ],
    "tools": [{**FUNCTION, "anthropic": {"x": 1}}, {"type": "other", "name": "o"}],
    "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [FUNCTION]}},
    "parallel_tool_calls": False,
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "description": "d", "schema": SCHEMA}},
    "reasoning_effort": "high",
    "stop": ["x"],
    "temperature": 1,
    "top_p": 1,
    "top_k": 2,
    "user": "u",
    "n": 1,
    "max_tokens": 3000,
    "logit_bias": {},
    "anthropic": {
        "betas": ["b"],
        "thinking": {"type": "enabled", "budget_tokens": 1500},
        "output_config": {"effort": "low"},
    },
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "content": [THOUGHT, TEXT, USE, {"type": "server_tool_use", "id": "s", "input": {}}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "stop_details": {"explanation": "x"},
    "usage": {"input_tokens": 1, "output_tokens": 2, "output_tokens_details": {"thinking_tokens": 1}},
}
CONTENTS = {
    "contents": [
        {
            "role": "user",
            "parts": [
                {"text": "a"},
                {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
                {"fileData": {"fileUri": "https://x.test/a.png", "mimeType": "image/png"}},
            ],
        },
        {
            "role": "model",
            "parts": [
                {"text": "t", "thought": True},
                {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "c2ln"},
            ],
        },
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": "x"}}}]},
    ],
    "systemInstruction": {"parts": [{"text": "s"}]},
    "tools": [{"functionDeclarations": [{"name": "f", "parameters": {"type": "OBJECT", "properties": {}}}]}],
    "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
    "generationConfig": {
        "temperature": 1,
        "maxOutputTokens": 5,
        "stopSequences": ["x"],
        "responseMimeType": "application/json",
        "responseSchema": {"type": "OBJECT", "nullable": True, "properties": {"a": {"type": "STRING"}}},
        "thinkingConfig": {"includeThoughts": True, "thinkingBudget": 100},
    },
}
ITEMS = {
    "model": "m",
    "input": [
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "a"},
                {"type": "input_image", "image_url": "https://x.test"},
                {"type": "input_file", "file_data": "data:text/plain;base64,aGk=", "filename": "f"},
            ],
        },
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "x"}], "encrypted_content": "y"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "x"},
    ],
    "instructions": "i",
    "tools": [
        {"type": "function", "name": "f", "parameters": {"type": "object"}},
        {"type": "namespace", "name": "n", "tools": [{"type": "custom", "name": "g", "format": {"type": "grammar"}}]},
    ],
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "max_output_tokens": 5,
    "include": ["message.output_text.logprobs"],
    "top_logprobs": 2,
}
TOKEN = {"token": "a", "logProbability": -1}
CANDIDATES = {
    "responseId": "r",
    "candidates": [
        {
            "index": 0,
            "content": {
                "role": "model",
                "parts": [
                    {"text": "a", "thought": True},
                    {"text": "b", "thoughtSignature": "c2ln"},
                    {"functionCall": {"id": "1", "name": "f", "args": {"a": 1}}},
                    {"inlineData": {"mimeType": "image/png", "data": "AA"}},
                    {"executableCode": {"language": "PYTHON", "code": "x"}},
                    {"codeExecutionResult": {"output": "y"}},
                ],
            },
            "finishReason": "STOP",
            "logprobsResult": {"chosenCandidates": [TOKEN], "topCandidates": [{"candidates": [TOKEN]}]},
        }
    ],
    "promptFeedback": {"blockReason": "x"},
    "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 2},
}
MODELS = ["claude-3-5-sonnet-20241022", "claude-haiku-4-5", "claude-opus-4-7", "claude-opus-5-5"]


def _refusal(run: Callable[[], Any]) -> InvalidRequest | None:
    try:
        run()
    except InvalidRequest as error:
        return error
    return None


def _asked_of(canonical: dict[str, Any], model: str) -> None:
    call = parse_chat(canonical, "c")
    made, _ = AnthropicUpstream().request(call.body, model, stream=True)
    assert orjson.loads(orjson.dumps(made)) == made
    assert all(isinstance(value, str) for value in headers("k", call.body).values())
    plain(call.body)


@pytest.mark.parametrize(
    ("dialect", "whole"),
    [
        (AnthropicMessages(), MESSAGES),
        (OllamaChat(), CHAT),
        (OllamaGenerate(), GENERATE),
        (Gemini("m"), CONTENTS),
        (Responses("r"), ITEMS),
    ],
    ids=lambda one: type(one).__name__,
)
def test_requests(dialect: Any, whole: dict[str, Any]) -> None:
    """A client's body becomes a canonical one that can be parsed, or is refused with the path of a field."""
    parse_chat(dialect.request(whole, {}), "c")
    for body in spoilt(whole):
        error = _refusal(lambda body=body: parse_chat(dialect.request(body, {}), "c"))
        assert error is None or error.param, body


def test_what_comes_through_can_be_sent_on() -> None:
    """What an odd body of Anthropic's makes can be asked of an upstream of Anthropic's, or is refused."""
    for body in spoilt(MESSAGES):
        assert count_tokens(body) >= 0
        try:
            _asked_of(AnthropicMessages().request(body, {}), MODELS[1])
        except LlmproxyError:
            continue


@pytest.mark.parametrize("model", MODELS)
def test_canonical_requests(model: str) -> None:
    """An odd canonical body is asked of an upstream, or refused."""
    _asked_of(CANONICAL, model)
    for body in spoilt(CANONICAL):
        try:
            _asked_of(body, model)
        except LlmproxyError:
            continue


def test_canonical_requests_for_gemini() -> None:
    """An odd canonical body is asked of Gemini, or refused."""
    whole = copy.deepcopy(CANONICAL)
    whole["tools"].pop()  # it takes neither tools of others nor files that others keep
    whole["messages"][1]["content"].pop()
    GeminiUpstream().request(parse_chat(whole, "c").body, "gemini-3-pro", stream=False)
    for body in spoilt(whole):
        try:
            made, _ = GeminiUpstream().request(parse_chat(body, "c").body, "gemini-3-pro", stream=False)
        except LlmproxyError:
            continue
        assert orjson.loads(orjson.dumps(made)) == made


def test_other_requests_of_ollama() -> None:
    """Nothing odd makes the smaller functions fall over."""
    for body in spoilt(CHAT):
        OllamaChat().preloaded(body, 1)
        OllamaChat().unheard(body)
    for body in spoilt({"model": "m", "input": ["a"], "dimensions": 3}):
        error = _refusal(lambda body=body: embed_request(body))
        assert error is None or error.param in ("input", "prompt")


@pytest.mark.parametrize(
    ("upstream", "client", "whole"),
    [(AnthropicUpstream(), AnthropicMessages(), MESSAGE), (GeminiUpstream(), Gemini(), CANDIDATES)],
    ids=["anthropic", "gemini"],
)
def test_replies(upstream: Any, client: Any, whole: dict[str, Any]) -> None:
    """An odd reply is read, or is a failure of the candidate."""
    client.reply(upstream.reply(whole, "m"))
    for body in spoilt(whole):
        try:
            canonical = upstream.reply(body, "m")
        except AttemptError:
            continue
        client.reply(canonical)


def test_events_of_gemini() -> None:
    """An odd event of a Gemini stream is read, or is a failure of the candidate."""
    for odd in spoilt([CANDIDATES]):
        translator, renderer = GeminiUpstream().translator("m"), Gemini(stream=True).renderer({})
        try:
            out = translator.feed(b"".join(sse.event(orjson.dumps(event)) for event in odd)) + translator.finish()
        except AttemptError:
            continue
        assert renderer.feed(out) + renderer.finish()


@pytest.mark.parametrize("upstream", [AnthropicUpstream(), GeminiUpstream()], ids=lambda one: type(one).__name__)
def test_events_without_an_end(upstream: Any) -> None:
    """An event that grows over all bounds is a failure of the candidate, and is not kept."""
    with pytest.raises(BadReply) as caught:
        upstream.translator("m").feed(b"data: " + b"x" * (17 << 20))
    assert caught.value.outcome == "event_too_large"


def test_streams() -> None:
    """An odd event is read, or is a failure of the candidate."""
    start = {"type": "message_start", "message": {**MESSAGE, "content": []}}
    events: list[dict[str, Any]] = [start]
    for index, (block, delta) in enumerate(
        (
            (THOUGHT, {"type": "signature_delta", "signature": "s"}),
            ({"type": "thinking", "thinking": ""}, {"type": "thinking_delta", "thinking": "t"}),
            (TEXT, {"type": "text_delta", "text": "x"}),
            ({**USE, "input": {}}, {"type": "input_json_delta", "partial_json": "{}"}),
            ({"type": "server_tool_use", "id": "s", "input": {}}, {"type": "input_json_delta", "partial_json": "{}"}),
        )
    ):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events.append({"type": "content_block_delta", "index": index, "delta": delta})
        events.append({"type": "content_block_stop", "index": index})
    events.append({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}})
    events.append({"type": "error", "error": {"type": "api_error", "message": "m"}})
    for odd in spoilt(events):
        translator, renderer = AnthropicUpstream().translator("m"), AnthropicMessages().renderer({})
        try:
            out = translator.feed(b"".join(sse.event(orjson.dumps(event)) for event in odd)) + translator.finish()
        except AttemptError:
            continue
        assert renderer.feed(out) + renderer.finish()
