"""Repair before giving up: a forced capability that was delivered in the wrong wrapping. Pure.

JSON inside code fences or prose, with single quotes or trailing commas; tool calls written as text: Hermes
`<tool_call>`, Llama `<|python_tag|>` and bare JSON, Mistral `[TOOL_CALLS]`, DeepSeek's `<｜tool▁call▁begin｜>`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from llmproxy.core.types import Forced, JsonObject

_FENCE = re.compile(r"```[\w+-]*\s*\n?(.*?)```", re.DOTALL)
_HERMES = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|$)", re.DOTALL)
_DEEPSEEK = re.compile(
    r"<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>)?(?P<name>[\w.-]+)(?:<｜tool▁sep｜>)?\s*(?:```json)?\s*"
    r"(?P<arguments>\{.*?\})\s*(?:```)?\s*<｜tool▁call▁end｜>",
    re.DOTALL,
)
_MISTRAL_NEW = re.compile(
    r"\[TOOL_CALLS\](?P<name>[\w.-]+)(?:\[CALL_ID\][\w-]*)?\[ARGS\](?P<arguments>\{.*)", re.DOTALL
)
_MARKS = ("[TOOL_CALLS]", "<|python_tag|>", "<functioncall>")
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")


def as_json(text: str) -> str | None:
    """The JSON value that `text` holds, as JSON text; None when it holds none."""
    for candidate in _wrapped(text):
        value = _read(candidate)
        if isinstance(value, dict | list):
            return orjson.dumps(value).decode()
    return None


def tool_calls(text: str, forced: Forced, call_id: str) -> list[JsonObject]:
    """The calls of offered tools that `text` spells out, in the OpenAI shape; empty when there are none."""
    found = list(_calls_in(text, forced.tools or {}))
    if not forced.parallel:
        found = found[:1]
    return [
        {
            "id": f"call_{call_id[-12:]}{index:02x}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        for index, (name, arguments) in enumerate(found)
    ]


def _calls_in(text: str, tools: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    found = False
    for pattern in (_DEEPSEEK, _MISTRAL_NEW):
        for match in pattern.finditer(text):
            value, _ = _first_value(match["arguments"])
            if match["name"] in tools and isinstance(value, dict):
                found = True
                yield match["name"], orjson.dumps(value).decode()
    if found:
        return
    bodies = _HERMES.findall(text)
    for mark in _MARKS:
        if mark in text:
            bodies.append(text.partition(mark)[2])
    bodies = bodies or list(_wrapped(text))
    for body in bodies:
        calls = [call for value in _values(body) for call in _as_calls(value, tools)]
        yield from calls
        found = found or bool(calls)
        if calls and not text.lstrip().startswith("<tool_call>"):
            return


def _as_calls(value: Any, tools: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A decoded value as calls: one, or a list of them, in any of the usual spellings of its keys."""
    for entry in value if isinstance(value, list) else [value]:
        if not isinstance(entry, dict):
            continue
        inner = entry.get("function")
        call = inner if isinstance(inner, dict) else entry
        name = call.get("name") or (inner if isinstance(inner, str) else None) or call.get("tool")
        arguments: Any = next((call[key] for key in ("arguments", "parameters", "args", "input") if key in call), {})
        if isinstance(arguments, str):
            arguments = _read(arguments)
        if isinstance(name, str) and name in tools and isinstance(arguments, dict):
            yield name, orjson.dumps(arguments).decode()


def _values(text: str) -> Iterator[Any]:
    """The JSON values that stand one after the other in `text` (Llama separates parallel calls by `;`)."""
    rest = text.strip()
    while rest:
        value, rest = _first_value(rest)
        if value is None:
            return
        yield value
        rest = rest.lstrip(" \t\r\n;,")


def _wrapped(text: str) -> Iterator[str]:
    """Where in `text` a JSON value may be: all of it, inside fences, from the first bracket on."""
    yield text.strip()
    yield from (match.strip() for match in _FENCE.findall(text))
    starts = [place for place in (text.find("{"), text.find("[")) if place >= 0]
    for start in sorted(starts):
        _, rest = _first_value(text[start:])
        yield text[start : len(text) - len(rest)] if rest else text[start:]


def _read(text: str) -> Any:
    """`text` as a JSON value, leniently: trailing commas and Python's spelling (single quotes, True) are read too."""
    for spelling in (text, _TRAILING_COMMA.sub(r"\1", text)):
        try:
            return orjson.loads(spelling)
        except orjson.JSONDecodeError:
            continue
    try:
        value = ast.literal_eval(text)
        orjson.dumps(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return value


def _first_value(text: str) -> tuple[Any, str]:
    """(the value that `text` begins with, what follows it); (None, "") when it begins with no object or array."""
    text = text.lstrip()
    if not text.startswith(("{", "[")):
        return None, ""
    depth, quote, escaped = 0, "", False
    for place, char in enumerate(text):
        if quote:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == quote:
                quote = ""
        elif char == '"' or (char == "'" and text[place - 1] in "[{,: "):
            quote = char
        elif char in "{[":
            depth += 1
        elif char in "}]":
            depth -= 1
            if depth == 0:
                return _read(text[: place + 1]), text[place + 1 :]
    return None, ""
