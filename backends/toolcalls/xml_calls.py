"""Calls as Qwen3-Coder writes them: `<tool_call><function=f><parameter=x>…</parameter></function></tool_call>`. Pure.

Source: https://huggingface.co/Qwen/Qwen3-Coder-30B-A3B-Instruct (chat template).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from backends.toolcalls.calls import Found, Reader, ToolCall, closing
from backends.toolcalls.kinds import Kinds, Parameters
from llmproxy.core.text import overlap
from llmproxy.core.types import JsonObject

_CALL, _CALL_END, _FUNCTION, _FUNCTION_END = "<tool_call>", "</tool_call>", "<function=", "</function>"
_PARAMETER_END = "</parameter>"
_SPACE = " \t\r\n"
_HEAD = re.compile(r"<function=([^<>\n]+)>")
_NAME = re.compile(r"<parameter=([^<>\n]+)>")
# A parameter ends where another one or the call's end follows: texts that hold such a tag themselves are kept whole.
_AFTER = r"(?:</parameter>\s*(?=<parameter=|\Z)|(?=\n<parameter=)|\Z)\s*"
_TEXT = re.compile(rf"(.*?){_AFTER}", re.DOTALL)
# Tags in the strings of an object or a list are no tags.
_NESTING = frozenset({"object", "array"})
_OPENING = re.compile(r"\s*[\[{]")
_NESTED = re.compile(rf'(\s*[\[{{](?:(?>"(?:[^"\\]|\\.)*")|[^"])*?){_AFTER}', re.DOTALL)

_NOTHING = object()


class _Unfinished(Exception):
    """An object or a list goes on after the tag that was taken for the call's end."""


@dataclass(frozen=True, slots=True)
class XmlFamily:
    """The `Family` of Qwen3-Coder. The outer tag is sometimes left out by the models, so the inner one counts too."""

    opens: tuple[str, ...] = (_CALL, _FUNCTION)
    silent: tuple[str, ...] = ()
    marks: tuple[str, ...] = (_CALL, _CALL_END)
    between: str = _SPACE
    bare: bool = False
    repeats: bool = False

    def reader(self, tag: str, tools: Sequence[JsonObject], *, deltas: bool) -> Reader:
        return XmlReader(tag, tools)


class XmlReader:
    """Reads one call; its values get the types that the schema of the tool asks for. Calls come whole, never in deltas:
    what a value is shows only at its end."""

    def __init__(self, tag: str, tools: Sequence[JsonObject]) -> None:
        self._tag, self._tools = tag, tools
        self._close = _CALL_END if tag == _CALL else _FUNCTION_END
        self._at = 0

    def read(self, held: str, found: list[Found], *, last: bool) -> int | None:
        inner = held[len(_CALL) :].lstrip() if self._tag == _CALL else held
        if not inner.startswith(_FUNCTION):
            return None if not last and _FUNCTION.startswith(inner) else 0
        used = self._end(held, last=last)
        if used is None:
            return 0 if last else None
        if self._tag == _FUNCTION:
            tail = closing(held[used:], (_CALL_END,), _SPACE, last=last)
            if tail is None:
                return None
            used += max(tail, 0)
        call = self._call(held[held.index(_FUNCTION) : used])
        if call is None:
            return 0
        found.append(call)
        return used

    def _end(self, held: str, *, last: bool) -> int | None:
        """The place after the closing tag; one that follows no other tag belongs to a value, and so does one inside of
        an object or a list, unless it is never closed."""
        while (place := held.find(self._close, self._at)) >= 0:
            end = place + len(self._close)
            if _is_closed(held[:place]) and self._is_whole(held[:end]):
                return end
            self._at = place + 1
        self._at = max(self._at, len(held) - len(self._close) + 1)
        return self._last_end(held) if last else None

    def _last_end(self, held: str) -> int | None:
        """The place after a closing tag, or after the beginning of one, when no more text comes."""
        place = held.find(self._close)
        while place >= 0 and not _is_closed(held[:place]):
            place = held.find(self._close, place + 1)
        if place >= 0:
            return place + len(self._close)
        return len(held) if _is_closed(_without(held, self._close)) else None

    def _is_whole(self, held: str) -> bool:
        try:
            self._call(held[held.index(_FUNCTION) :], whole=True)
        except _Unfinished:
            return False
        return True

    def _call(self, text: str, *, whole: bool = False) -> ToolCall | None:
        """The call that `text` is, None for what is none.

        Raises `_Unfinished`, but only with `whole`, where an object or a list does not end.
        """
        head = _HEAD.match(text)
        if head is None:
            return None
        name = head[1].strip()
        body = _without(_without(text[head.end() :], _CALL_END), _FUNCTION_END).lstrip()
        parameters = Parameters(_schema(self._tools, name))
        arguments: JsonObject = {}
        place = 0
        while place < len(body):
            key = _NAME.match(body, place)
            if key is None:
                return None
            kinds = parameters.kinds(key[1].strip())
            value = _value(body, key.end(), kinds, whole=whole)
            arguments[key[1].strip()] = typed(value[1].removeprefix("\n").removesuffix("\n"), kinds)
            place = value.end()
        return ToolCall(name, orjson.dumps(arguments).decode())


def typed(text: str, kinds: Kinds | None) -> Any:
    """The value that `text` stands for; the text itself where it is nothing of these kinds.

    Where no kind is known, objects and lists are read and everything else is text.
    """
    if kinds is not None:
        word = text.strip().lower()
        if kinds.texts is not None and text in kinds.texts:
            return text
        if "null" in kinds.types and word in ("null", "none"):
            return None
        if kinds.texts is None:
            return text
        if "boolean" in kinds.types and word in ("true", "false"):
            return word == "true"
    value = _loaded(text)
    return value if value is not _NOTHING and (kinds is not None or isinstance(value, dict | list)) else text


def _loaded(text: str) -> Any:
    """What a JSON text stands for, `_NOTHING` for what is none."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _NOTHING


def _value(body: str, place: int, kinds: Kinds | None, *, whole: bool) -> re.Match[str]:
    """The text of a value from `place` on, with what follows it up to the next parameter."""
    if kinds is not None and kinds.texts is not None and kinds.types & _NESTING and _OPENING.match(body, place):
        nested = _NESTED.match(body, place)
        if nested is not None and _loaded(nested[1]) is not _NOTHING:
            return nested
        if whole:
            raise _Unfinished
    text = _TEXT.match(body, place)
    assert text is not None  # it matches whatever is left
    return text


def _schema(tools: Sequence[JsonObject], name: str) -> Any:
    """The parameters of a tool."""
    functions = (tool.get("function") or {} for tool in tools)
    return next((function.get("parameters") for function in functions if function.get("name") == name), None)


def _is_closed(text: str) -> bool:
    """Whether a call may end after `text`: no value is open there."""
    text = text.rstrip()
    opened = text.rfind(_FUNCTION)
    return text.endswith((_PARAMETER_END, _FUNCTION_END)) or bool(opened >= 0 and _HEAD.fullmatch(text, opened))


def _without(text: str, tag: str) -> str:
    """`text` without the `tag`, or the beginning of it, that it ends in."""
    text = text.rstrip()
    size = len(tag) if text.endswith(tag) else overlap(text, tag)
    return text[: len(text) - size].rstrip()
