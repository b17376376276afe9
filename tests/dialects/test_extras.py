"""Plain OpenAI requests have no fields that only others know."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from llmproxy.dialects.extras import plain
from tests.core.properties import quick
from tests.dialects.talks import talks

CACHE = {"cache_control": {"type": "ephemeral"}}
RICH: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "s", **CACHE}]},
        {"role": "assistant", "content": "a", "reasoning_content": "r", "thinking_blocks": [{}], "anthropic": []},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": {}, "extra_content": {"google": {}}, **CACHE}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "no", "is_error": True},
        {"role": "user", "content": [{"type": "text", "text": "u", "anthropic": {"type": "document"}}]},
    ],
    "tools": [{"type": "function", "function": {"name": "f"}, **CACHE, "anthropic": {"defer_loading": True}}],
    "temperature": 1,
    "anthropic": {"service_tier": "auto", "betas": ["b"]},
}


def test_everything_beyond_openai_goes_and_is_named() -> None:
    """What is left is the OpenAI format; what said more than the rest of its item is named by its path."""
    body, lost = plain(RICH)
    assert body == {
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "s"}]},
            {"role": "assistant", "content": "a"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {}}]},
            {"role": "tool", "tool_call_id": "1", "content": "no"},
            {"role": "user", "content": [{"type": "text", "text": "u"}]},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "temperature": 1,
    }
    assert lost == (
        "anthropic.betas",
        "anthropic.service_tier",
        "messages.content.cache_control",
        "messages.is_error",
        "messages.reasoning_content",
        "messages.thinking_blocks",
        "messages.tool_calls.cache_control",
        "messages.tool_calls.extra_content",
        "tools.cache_control",
    )


@pytest.mark.parametrize(
    "field", ["reasoning_content", "thinking_blocks", "extra_content", "cache_control", "is_error"]
)
def test_what_an_upstream_knows_is_kept(field: str) -> None:
    """A field that is to be kept stays wherever it is, and is not named."""
    body, lost = plain(RICH, keeps={field})
    assert f"'{field}'" in str(body)
    assert not any(name.endswith(field) for name in lost)


def test_the_original_is_not_touched() -> None:
    """Taking fields out makes a new body; another candidate may want the fields."""
    before = str(RICH)
    plain(RICH)
    assert str(RICH) == before


@quick
@given(talks(thoughts=False))
def test_plain_bodies_are_not_copied(messages: list[dict[str, Any]]) -> None:
    """A body in the OpenAI format comes back as the same object."""
    body = {"messages": messages, "tools": [{"type": "function", "function": {"name": "f"}}], "temperature": 0}
    same, lost = plain(body)
    assert same is body
    assert lost == ()
