"""A coding agent's requests, as Claude Code writes them, over every kind of upstream: what arrives there, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.fakes import anthropic_replies, scenarios
from tests.fakes.exchange import Request
from tests.sdk.conftest import Fakes
from tests.sdk.matrix import FAKES
from tests.servers import Json, Server

EPHEMERAL = {"cache_control": {"type": "ephemeral"}}
SYSTEM = ("You are an agent for software.", "Rules of the house.\n" * 400)
LARGE = "".join(f"{number:6}\tline {number} of a file, “quoted” \\ and {{braced}}\n" for number in range(4000))
BETAS = "claude-code-20250219,interleaved-thinking-2025-05-14,fine-grained-tool-streaming-2025-05-14"
MODEL = "claude-sonnet-4-5-tools"
FAILED = [{"type": "text", "text": text} for text in ("File does not exist.", "There is /a.")]
THOUGHT = "I should read the file first."
KINDS: Json = {
    "file_path": {"type": "string", "description": "The absolute path"},
    "limit": {"type": "integer", "minimum": 1},
    "mode": {"type": "string", "enum": ["content", "files_with_matches"]},
    "edits": {
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "properties": {"old": {"type": "string"}, "new": {"type": "string"}, "all": {"type": "boolean"}},
            "required": ["old", "new"],
            "additionalProperties": False,
        },
    },
}
upstreams = pytest.mark.parametrize("source", FAKES)


@pytest.fixture(scope="module")
def client(polyglot: Server) -> Iterator[anthropic.Anthropic]:
    headers = {"anthropic-beta": BETAS}
    with anthropic.Anthropic(
        base_url=polyglot.url, auth_token="unused", max_retries=0, timeout=30, default_headers=headers
    ) as client:
        yield client


def tools() -> list[Json]:
    """Two dozen tools with schemas of some size, and the one that the fakes call."""
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": KINDS,
        "required": ["file_path"],
        "additionalProperties": False,
    }
    many: list[Json] = [
        {"name": f"mcp__files__Tool{number}", "description": f"Does {number}.\n" * 40, "input_schema": schema}
        for number in range(24)
    ]
    weather = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return [*many, {"name": scenarios.TOOL, "description": "Tells the weather.", "input_schema": weather, **EPHEMERAL}]


def conversation() -> list[Json]:
    """A task, two calls of the agent after a signed thought, and their results: one is large, one says what failed."""
    calls = [
        {"type": "tool_use", "id": f"toolu_01{name}", "name": "mcp__files__Tool0", "input": {"file_path": f"/{name}"}}
        for name in ("A", "B")
    ]
    thought = {"type": "thinking", "thinking": THOUGHT, "signature": anthropic_replies.SIGNATURE}
    results = [
        {"type": "tool_result", "tool_use_id": "toolu_01A", "content": LARGE},
        {"type": "tool_result", "tool_use_id": "toolu_01B", "content": FAILED, "is_error": True},
    ]
    reminder = {"type": "text", "text": "<system-reminder>\nBe brief.\n</system-reminder>"}
    return [
        {"role": "user", "content": [reminder, {"type": "text", "text": "Tell the weather of the file’s cities."}]},
        {"role": "assistant", "content": [thought, {"type": "text", "text": "I’ll look."}, *calls]},
        {"role": "user", "content": [*results, {"type": "text", "text": "Go on.", **EPHEMERAL}]},
    ]


def request(source: str, messages: list[Json]) -> Json:
    return {
        "model": f"{source}/{MODEL}",
        "max_tokens": 32_000,
        "system": [{"type": "text", "text": text, **EPHEMERAL} for text in SYSTEM],
        "messages": messages,
        "tools": tools(),
        "metadata": {"user_id": "user_" + "0123456789abcdef" * 8},
        "thinking": {"type": "enabled", "budget_tokens": 10_000},
        "extra_body": {"temperature": 1},
    }


def sent(fakes: Fakes, source: str) -> Request:
    """The newest request that the upstream got."""
    found: Request = getattr(fakes, source).last(MODEL)
    return found


@upstreams
def test_a_turn_and_the_next(client: Any, source: str) -> None:
    """The calls come back in a stream, go in again with their results, and the upstream finds them paired."""
    messages = conversation()
    with client.messages.stream(**request(source, messages)) as stream:
        first = stream.get_final_message()
    calls = [block for block in first.content if block.type == "tool_use"]
    assert [call.input["city"] for call in calls] == list(scenarios.CITIES)
    assert first.stop_reason == "tool_use"
    results = [
        {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": degrees}]}
        for call, degrees in zip(calls, scenarios.TEMPERATURES, strict=True)
    ]
    # Blocks go back as the agent keeps them: plain objects.
    said = [block.model_dump(exclude_none=True) for block in first.content]
    kept = [{key: value for key, value in block.items() if key in ("type", "id", "name", "input")} for block in said]
    again = [*messages, {"role": "assistant", "content": kept}, {"role": "user", "content": results}]
    with client.messages.stream(**request(source, again)) as stream:
        second = stream.get_final_message()
    assert [block.text for block in second.content if block.type == "text"] == [scenarios.WEATHER]


def test_anthropic_gets_it_as_it_was(client: Any, fakes: Fakes) -> None:
    """An Anthropic upstream gets the body field for field, and the betas: nothing is degraded."""
    body = request("claude", conversation())
    answer = client.messages.with_raw_response.create(**body)
    got = sent(fakes, "claude")
    del body["extra_body"]  # a temperature of 1 is what there is without one
    assert got.json == {**body, "model": MODEL}
    assert got.headers["anthropic-beta"] == BETAS
    assert "x-llmproxy-degraded" not in answer.headers


def test_openai_gets_all_that_it_has_words_for(client: Any, fakes: Fakes) -> None:
    """Each text, tool, call and result arrives whole and in its place; what OpenAI has no field for is told."""
    answer = client.messages.with_raw_response.create(**request("oai", conversation()))
    got = sent(fakes, "oai").json
    system, task, said, large, failed, go_on = got["messages"]
    assert [part["text"] for part in system["content"]] == list(SYSTEM)
    assert [part["text"] for part in task["content"]] == [block["text"] for block in conversation()[0]["content"]]
    assert said["content"] == "I’ll look."
    calls = [
        (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"])) for call in said["tool_calls"]
    ]
    assert calls == [(f"toolu_01{name}", "mcp__files__Tool0", {"file_path": f"/{name}"}) for name in ("A", "B")]
    assert (large["role"], large["tool_call_id"], large["content"]) == ("tool", "toolu_01A", LARGE)
    assert (failed["tool_call_id"], failed["content"]) == ("toolu_01B", FAILED)
    assert go_on["role"] == "user"
    assert "Go on." in json.dumps(go_on["content"])
    told = [
        {
            "name": tool["function"]["name"],
            "description": tool["function"]["description"],
            "input_schema": tool["function"]["parameters"],
        }
        for tool in got["tools"]
    ]
    assert told == [{key: value for key, value in tool.items() if key != "cache_control"} for tool in tools()]
    assert (got["max_tokens"], got["reasoning_effort"], got["temperature"]) == (32_000, "medium", 1)
    degraded = set(answer.headers["x-llmproxy-degraded"].split(", "))
    assert degraded == {
        "anthropic.betas",
        "anthropic.metadata",
        "anthropic.thinking",
        "messages.content.cache_control",
        "messages.is_error",
        "messages.reasoning_content",
        "messages.thinking_blocks",
        "tools.cache_control",
    }


def test_gemini_gets_all_that_it_has_words_for(client: Any, fakes: Fakes) -> None:
    """Each text, tool, call and result arrives whole and in its place."""
    client.messages.create(**request("gem", conversation()))
    got = sent(fakes, "gem").json
    assert [part["text"] for part in got["systemInstruction"]["parts"]] == list(SYSTEM)
    declared = [one for tool in got["tools"] for one in tool["functionDeclarations"]]
    assert [one["name"] for one in declared] == [tool["name"] for tool in tools()]
    assert [one["parametersJsonSchema"]["properties"] for one in declared[:-1]] == [KINDS] * 24
    assert json.dumps(LARGE)[1:-1] in json.dumps(got["contents"])
    assert all(part["text"] in json.dumps(got["contents"]) for part in FAILED)


def test_a_local_model_is_told_what_it_lacks(client: Any) -> None:
    """The embedded model refuses such a request in Anthropic's words: it has no room for it."""
    with pytest.raises(anthropic.BadRequestError) as raised:
        client.messages.create(**{**request("local", conversation()), "model": "local/tiny"})
    assert raised.value.body["error"]["type"] == "invalid_request_error"  # type: ignore[index]


def test_a_model_without_thoughts_answers_without_them(client: Any) -> None:
    """A small request that asks for thoughts is answered by a model that has none, and told so."""
    reply = client.messages.with_raw_response.create(
        model="local/tiny",
        max_tokens=2048,
        thinking={"type": "enabled", "budget_tokens": 1024},
        messages=[{"role": "user", "content": "What is 12 + 34?"}],
    )
    assert "reasoning_effort" in reply.headers["x-llmproxy-degraded"]
    assert reply.parse().content[0].text == "12 + 34 = 46"
