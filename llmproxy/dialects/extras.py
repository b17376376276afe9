"""What canonical requests may hold beyond the OpenAI format, for the upstreams that understand it.

- `anthropic` of a body: fields of the Messages API that have no counterpart.
- `anthropic` of a tool, a message or a content part: what it was made of, where the rest of it tells less; an empty
  object where that is told by another one.
- `thinking_blocks` of a message of the assistant: its reasoning with the signatures that its maker asks for.
- `reasoning_content` of a message: reasoning that nobody signed.
- `cache_control` of parts, messages, tools and calls; `is_error` of a tool's message.
- `extra_content` of messages and calls: the signatures of Gemini, as its OpenAI endpoint has them.

Whoever speaks plain OpenAI refuses unknown fields: `plain` takes them out.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from llmproxy.core.types import JsonObject
from llmproxy.dialects.gemini_fields import GEMINI

ANTHROPIC = "anthropic"
_EVERYWHERE = (ANTHROPIC, GEMINI, "thinking_blocks", "reasoning_content", "cache_control", "is_error", "extra_content")


def cache_of(holder: JsonObject) -> JsonObject:
    """The `cache_control` of a part, a message, a tool or a call, as a field to add to another; empty without one."""
    return {"cache_control": holder["cache_control"]} if isinstance(holder.get("cache_control"), dict) else {}


def plain(body: JsonObject, keeps: Collection[str] = ()) -> tuple[JsonObject, tuple[str, ...]]:
    """(`body` in the OpenAI format alone, the names of what was taken out); the same object where there is nothing.

    `keeps` names those of the fields that the upstream knows.
    """
    fields = [field for field in _EVERYWHERE if field not in keeps]
    lost: set[str] = set()
    clean = dict(body)
    for own in (ANTHROPIC, GEMINI):
        if isinstance(body.get(own), dict) and own in fields:
            lost |= {f"{own}.{name}" for name in clean.pop(own)}
    for key in ("messages", "tools"):
        if isinstance(body.get(key), list):
            clean[key] = _each(body[key], fields, key, lost)
    unchanged = len(clean) == len(body) and all(clean[key] is value for key, value in body.items())
    return body if unchanged else clean, tuple(sorted(lost))


def _each(items: list[Any], fields: Collection[str], path: str, lost: set[str]) -> list[Any]:
    """The items without `fields`; the same list where none of them has any."""
    clean = [_one(item, fields, path, lost) for item in items]
    return items if all(new is old for new, old in zip(clean, items, strict=True)) else clean


def _one(item: Any, fields: Collection[str], path: str, lost: set[str]) -> Any:
    if not isinstance(item, dict):
        return item
    found = [field for field in fields if field in item]
    # What an item was made of is told by the rest of it, as far as anybody else can be told.
    lost |= {f"{path}.{field}" for field in found if field != ANTHROPIC}
    inner: JsonObject = {}
    for key in ("content", "tool_calls"):
        if isinstance(item.get(key), list):
            cleaned = _each(item[key], fields, f"{path}.{key}", lost)
            if cleaned is not item[key]:
                inner[key] = cleaned
    if not found and not inner:
        return item
    return {key: inner.get(key, value) for key, value in item.items() if key not in found}
