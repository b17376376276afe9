"""Parts of a stream put together: reasoning in the text, tool-call fragments, a whole message. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from llmproxy.core.text import overlap
from llmproxy.core.types import JsonObject

_OPEN, _CLOSE = "<think>", "</think>"


class Thinking:
    """Separates `<think>…</think>` at the beginning of a text from the answer after it, across pieces."""

    __slots__ = ("_held", "_said", "_state")

    def __init__(self) -> None:
        self._held = ""
        self._said = False
        self._state = "start"

    @property
    def over(self) -> bool:
        """Whether all that comes from here on is the answer."""
        return self._state == "outside"

    def feed(self, text: str) -> tuple[str, str]:
        """(reasoning, answer) that became certain with `text`."""
        if self._state == "outside":
            return "", text
        self._held += text
        if self._state == "start":
            begun = self._held.lstrip()
            if begun and not begun.startswith(_OPEN) and not _OPEN.startswith(begun):
                return "", self._leave("outside")
            if not begun.startswith(_OPEN):
                return "", ""
            self._held, self._state = begun[len(_OPEN) :], "inside"
        if self._state == "inside":
            if not self._said:
                self._held = self._held.lstrip("\n")
                self._said = bool(self._held)
            reasoning, closed, rest = self._held.partition(_CLOSE)
            if not closed:
                keep = overlap(self._held, _CLOSE)
                cut = len(self._held) - keep
                reasoning, self._held = self._held[:cut], self._held[cut:]
                return reasoning, ""
            self._held, self._state = rest, "after"
            return reasoning, self._trimmed()
        return "", self._trimmed()

    def end(self) -> tuple[str, str]:
        """(reasoning, answer) that was still held back."""
        inside = self._state == "inside"
        held = self._leave("outside")
        return (held, "") if inside else ("", held)

    def _trimmed(self) -> str:
        """The answer without the empty lines that follow the reasoning."""
        self._held = self._held.lstrip()
        return self._leave("outside") if self._held else ""

    def _leave(self, state: str) -> str:
        held, self._held, self._state = self._held, "", state
        return held


class ToolCalls:
    """Fragments of tool calls → whole calls, each given out when it is complete.

    Repairs what providers do to indices: a new id begins a new call whatever the index says; a missing index belongs
    to the call in progress. Arguments that come as an object become text.
    """

    __slots__ = ("_by_given", "_by_id", "_calls", "_given_out")

    def __init__(self) -> None:
        self._calls: list[JsonObject] = []
        self._by_id: dict[str, int] = {}
        self._by_given: dict[int, int] = {}
        self._given_out = 0

    @property
    def found(self) -> bool:
        """Whether there is a call."""
        return bool(self._calls)

    def add(self, fragments: Any) -> list[JsonObject]:
        """The calls that are complete now, because another one has begun."""
        for fragment in fragments if isinstance(fragments, list) else ():
            if isinstance(fragment, dict):
                self._merge(fragment)
        return self._take(len(self._calls) - 1, _is_whole)

    def end(self) -> list[JsonObject]:
        """The calls that were still in progress."""
        return self._take(len(self._calls), lambda call: True)

    def _take(self, until: int, ready: Callable[[JsonObject], bool]) -> list[JsonObject]:
        # Fragments of two calls may alternate: a call whose arguments are not whole yet waits, and those behind it.
        begin = self._given_out
        while self._given_out < until and ready(self._calls[self._given_out]):
            self._given_out += 1
        return self._calls[begin : self._given_out]

    def _merge(self, fragment: JsonObject) -> None:
        call = self._calls[self._place(fragment)]
        function = fragment.get("function") or {}
        held = call["function"]
        held["name"] = held["name"] or function.get("name") or ""
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            arguments = orjson.dumps(arguments).decode()
        held["arguments"] += arguments or ""
        for key, value in fragment.items():
            if key not in ("index", "function") and value is not None:
                call[key] = value

    def _place(self, fragment: JsonObject) -> int:
        given, call_id = fragment.get("index"), fragment.get("id")
        if call_id and call_id in self._by_id:
            return self._by_id[call_id]
        if not call_id and isinstance(given, int) and given in self._by_given:
            return self._by_given[given]
        if not call_id and self._calls and not (fragment.get("function") or {}).get("name"):
            return len(self._calls) - 1
        self._calls.append({"type": "function", "function": {"name": "", "arguments": ""}})
        place = len(self._calls) - 1
        if call_id:
            self._by_id[call_id] = place
        if isinstance(given, int):
            self._by_given[given] = place
        return place


def _is_whole(call: JsonObject) -> bool:
    try:
        orjson.loads(call["function"]["arguments"])
    except orjson.JSONDecodeError:
        return False
    return True


class Message:
    """What one choice has said, as a reply without streaming would hold it."""

    __slots__ = ("calls", "refusal", "text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.refusal: list[str] = []
        self.calls: list[JsonObject] = []

    def value(self) -> JsonObject:
        return {
            "role": "assistant",
            "content": "".join(self.text),
            "refusal": "".join(self.refusal) or None,
            "tool_calls": list(self.calls),
        }


def as_text(content: Any) -> tuple[str, Any]:
    """(reasoning, text) of a content that should be text: Mistral sends parts, Cloudflare the decoded JSON."""
    if isinstance(content, dict):
        return "", orjson.dumps(content).decode()
    if not isinstance(content, list):
        return "", content
    thoughts: list[str] = []
    texts: list[str] = []
    for part in content:
        if isinstance(part, dict) and part.get("type") == "thinking":
            inner = part.get("thinking")
            thoughts += [str(one.get("text") or "") for one in inner] if isinstance(inner, list) else [str(inner or "")]
        elif isinstance(part, dict):
            texts.append(str(part.get("text") or ""))
    return "".join(thoughts), "".join(texts)
