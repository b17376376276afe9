"""Tool calls in a model's text, Hermes form (`<tool_call>{"name": …, "arguments": …}</tool_call>`), found while it
streams (https://github.com/NousResearch/Hermes-Function-Calling). Pure."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from llmproxy.core.text import overlap

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A complete call; `arguments` is JSON text."""

    name: str
    arguments: str


class ToolCallParser:
    """Splits text as it comes into content and tool calls; `feed` holds back what may yet become a tag."""

    def __init__(self) -> None:
        self._held = ""
        self._inside = False
        self._after_call = False
        self.found = 0

    def feed(self, text: str) -> list[str | ToolCall]:
        """What is certain by now, in order."""
        self._held += text
        out: list[str | ToolCall] = []
        while True:
            if self._inside:
                body, closed, rest = self._held.partition(_CLOSE)
                if not closed:
                    return out
                out.append(self._read(body))
                self._held, self._inside = rest, False
            else:
                before, opened, rest = self._held.partition(_OPEN)
                if opened:
                    self._say(out, before)
                    self._held, self._inside = rest, True
                    continue
                keep = overlap(self._held, _OPEN)
                cut = len(self._held) - keep
                self._say(out, self._held[:cut])
                self._held = self._held[cut:]
                return out

    def end(self) -> list[str | ToolCall]:
        """What is left when the text is over; an unfinished call that reads as JSON counts, any other is content."""
        held, self._held = self._held, ""
        if not held.strip():
            return []
        if self._inside:
            read = self._read(held)
            return [read if isinstance(read, ToolCall) else _OPEN + held]
        out: list[str | ToolCall] = []
        self._say(out, held)
        return out

    def _say(self, out: list[str | ToolCall], text: str) -> None:
        # White space after a call belongs to the format, not to the answer.
        if self._after_call:
            text = text.lstrip()
        if text:
            self._after_call = False
            out.append(text)

    def _read(self, body: str) -> str | ToolCall:
        try:
            call = orjson.loads(body)
            arguments = call.get("arguments", call.get("parameters", {}))
            read = ToolCall(
                str(call["name"]), arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()
            )
        except (orjson.JSONDecodeError, KeyError, AttributeError):
            return _OPEN + body + _CLOSE
        self.found += 1
        self._after_call = True
        return read
