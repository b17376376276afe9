"""The scripted upstreams of OpenAI's and Anthropic's format: they refuse what the real ones refuse."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.fakes import anthropic_replies, openai_upstream, scenarios

Json = dict[str, Any]

FUNCTION = {"type": "function", "function": {"name": scenarios.TOOL, "parameters": {"properties": {"city": {}}}}}
TOOL = {"name": scenarios.TOOL, "input_schema": {"type": "object", "properties": {"city": {}}}}
HELLO = {"role": "user", "content": "hello"}
CALL = {"id": "call_1", "type": "function", "function": {"name": scenarios.TOOL, "arguments": "{}"}}
USE = {"type": "tool_use", "id": "toolu_1", "name": scenarios.TOOL, "input": {}}


def openai(model: str = "text", **body: Any) -> Any:
    return openai_upstream.answer({"model": model, "messages": [HELLO], **body})


def claude(model: str = "text", **body: Any) -> Any:
    return anthropic_replies.answer({"model": model, "max_tokens": 2000, "messages": [HELLO], **body})


@pytest.mark.parametrize(
    ("model", "played"),
    [
        ("refused", "refused"),
        ("refused+text", "refused"),
        ("claude-sonnet-4-5-tools", "tools"),
        ("acme/image", "image"),
        ("nobody-knows", "text"),
    ],
)
def test_the_name_says_what_is_played(model: str, played: str) -> None:
    """The first of its words that is a scenario; what follows a plus is not read."""
    assert scenarios.scenario_of(model) == played


@pytest.mark.parametrize(
    "body",
    [
        {"top_k": 1},
        {"messages": []},
        {"messages": [{**HELLO, "cache_control": {}}]},
        {"messages": [{"role": "assistant", "content": "a", "reasoning_content": "b"}, HELLO]},
        {"messages": [HELLO, {"role": "assistant", "tool_calls": [CALL]}, HELLO]},
        {"messages": [HELLO, {"role": "assistant", "tool_calls": [CALL]}]},
        {"messages": [HELLO, {"role": "tool", "tool_call_id": "call_1", "content": "x"}]},
        {"messages": [{"role": "assistant", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{**FUNCTION, "cache_control": {}}]},
    ],
)
def test_what_openai_refuses(body: Json) -> None:
    """Fields that are not OpenAI's, and calls and results that do not pair up."""
    with pytest.raises(openai_upstream.Refused) as raised:
        openai(**body)
    assert raised.value.status == 400


@pytest.mark.parametrize(
    "body",
    [
        {"seed": 1},
        {"max_tokens": None},
        {"messages": []},
        {"messages": [{"role": "assistant", "content": "a"}]},
        {"messages": [{"role": "system", "content": "a"}]},
        {"messages": [{"role": "user", "content": " "}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "name": "b"}]}]},
        {"messages": [HELLO, {"role": "assistant", "content": [USE]}, HELLO]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1"}]}]},
        {"messages": [HELLO, {"role": "assistant", "content": [{**USE, "id": "a:1"}]}]},
        {"messages": [HELLO, {"role": "assistant", "content": [{"type": "thinking", "thinking": "a"}]}]},
        {"thinking": {"type": "enabled", "budget_tokens": 2000}},
        {"thinking": {"type": "enabled", "budget_tokens": 1024}, "temperature": 0.5},
        {"tools": [{"name": "x", "input_schema": {}}]},
    ],
)
def test_what_anthropic_refuses(body: Json) -> None:
    """Fields that are not Anthropic's, empty texts, forged thoughts, and calls and results that do not pair up."""
    with pytest.raises(anthropic_replies.Refused) as raised:
        claude(**body)
    assert raised.value.status == 400


def test_only_the_right_image_is_seen() -> None:
    """Another media type is another image."""
    url = f"data:image/jpeg;base64,{base64.b64encode(scenarios.IMAGE).decode()}"
    part = {"type": "image_url", "image_url": {"url": url}}
    assert openai("image", messages=[{"role": "user", "content": [part]}]).message["content"] == scenarios.NO_IMAGE
    source = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    found = claude("image", messages=[{"role": "user", "content": [{"type": "image", "source": source}]}])
    assert found.blocks[0]["text"] == scenarios.NO_IMAGE


def test_only_the_right_schema_is_followed() -> None:
    """Without it, or with another one, the answer is prose."""
    other = {**scenarios.SCHEMA, "required": ["name"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": other}}
    assert openai("schema", response_format=form).message["content"] == scenarios.NO_SCHEMA
    assert openai("schema").message["content"] == scenarios.NO_SCHEMA
    config = {"format": {"type": "json_schema", "schema": other}}
    assert claude("schema", output_config=config).blocks[0]["text"] == scenarios.NO_SCHEMA
    free = {"name": "x", "input_schema": scenarios.SCHEMA}  # nothing makes the model call it
    assert claude("schema", tools=[free]).blocks[0]["text"] == scenarios.NO_SCHEMA


def test_results_that_are_mixed_up_are_refused() -> None:
    """Each call must have its own result."""
    first = openai("tools", tools=[FUNCTION]).message
    swapped = [
        {"role": "tool", "tool_call_id": call["id"], "content": degrees}
        for call, degrees in zip(first["tool_calls"], reversed(scenarios.TEMPERATURES), strict=True)
    ]
    with pytest.raises(openai_upstream.Refused, match="is not 21"):
        openai("tools", tools=[FUNCTION], messages=[HELLO, {"role": "assistant", **first}, *swapped])
    blocks = claude("tools", tools=[TOOL]).blocks
    results = [
        {"type": "tool_result", "tool_use_id": block["id"], "content": degrees}
        for block, degrees in zip(blocks, reversed(scenarios.TEMPERATURES), strict=True)
    ]
    said = [HELLO, {"role": "assistant", "content": list(blocks)}, {"role": "user", "content": results}]
    with pytest.raises(anthropic_replies.Refused, match="is not 21"):
        claude("tools", tools=[TOOL], messages=said)


def test_a_stream_says_what_the_whole_says() -> None:
    """The pieces add up, and a stream that breaks has no end."""
    body = {"model": "text", "stream_options": {"include_usage": True}}
    events = [event.decode().removeprefix("data: ").strip() for event in openai_upstream.events(openai(), body)]
    chunks = [json.loads(event) for event in events[:-1]]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert "".join(delta.get("content", "") for delta in deltas) == scenarios.greeting("OpenAI")
    assert (events[-1], chunks[-1]["usage"]) == ("[DONE]", openai().usage())
    assert b"message_stop" in b"".join(anthropic_replies.events(claude(), "text"))
    assert b"message_delta" not in b"".join(anthropic_replies.events(claude("cut"), "cut"))
