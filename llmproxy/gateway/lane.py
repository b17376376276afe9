"""The fast lane of a stream: the bytes around the text of a plain delta, as they come in and as they go out."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

import orjson

from llmproxy.core.types import JsonObject
from llmproxy.gateway.judge import speaks

_MARK = "text of the lane"
_PLAIN = re.compile(rb"[ !#-\[\]-~]*")  # printable ASCII but the quote and the backslash


class Lane:
    """Recognises events that differ from a learned one in their text alone. `out_head + text + out_tail` goes out."""

    __slots__ = ("_head", "_tail", "out_head", "out_tail")

    def __init__(self, head: bytes, tail: bytes, out_head: bytes, out_tail: bytes) -> None:
        self._head, self._tail, self.out_head, self.out_tail = head, tail, out_head, out_tail

    def text(self, event: bytes) -> bytes | None:
        """The text of `event` as the inside of a JSON string, or None when the event is not a plain delta."""
        if not (event.startswith(self._head) and event.endswith(self._tail)):
            return None
        text = event[len(self._head) : -len(self._tail)]
        if len(text) + len(self._head) + len(self._tail) != len(event):
            return None
        if _PLAIN.fullmatch(text):
            return text
        try:
            orjson.loads(b'"' + text + b'"')
        except orjson.JSONDecodeError:
            return None
        return text

    @staticmethod
    def learn(
        raw: bytes,
        chunk: JsonObject,
        rest: JsonObject,
        render: Callable[[JsonObject], bytes],
        field: Literal["text", "content"],
    ) -> Lane | None:
        """The lane of events like `raw`, when that is a delta of text and nothing else; None when it is not.

        `chunk` is `raw` decoded, `rest` what of its envelope goes to the client, `render` writes an event.
        """
        choice = chunk["choices"][0]
        if not raw.startswith(b"{") or choice.get("finish_reason") or (choice.get("index") or 0) != 0:
            return None
        holder = choice if field == "text" else choice.get("delta")
        if not isinstance(holder, dict) or not isinstance(holder.get(field), str) or not holder[field]:
            return None
        if field == "content" and speaks({**holder, "content": None}):
            return None
        place = _string_after(raw, field)
        if place is None:
            return None
        head, tail = raw[: place[0]], raw[place[1] :]
        probe = orjson.loads(head + _MARK.encode() + tail)["choices"][0]
        if (probe if field == "text" else probe["delta"]).get(field) != _MARK:
            return None
        out: JsonObject = {"finish_reason": None, **choice, "index": 0}
        if field == "text":
            out["text"] = _MARK
        else:
            kept = {key: value for key, value in holder.items() if key not in ("role", "content", "tool_calls")}
            out["delta"] = {**kept, "content": _MARK}
        parts = render({**rest, "choices": [out]}).split(b'"' + _MARK.encode() + b'"')
        return Lane(b"data: " + head, tail, parts[0] + b'"', b'"' + parts[1]) if len(parts) == 2 else None


def _string_after(raw: bytes, field: str) -> tuple[int, int] | None:
    """Where the string value of the only `field` in `raw` begins and ends, inside its quotes."""
    for written in (b'"%s":"' % field.encode(), b'"%s": "' % field.encode()):
        if raw.count(written) == 1:
            begin = end = raw.index(written) + len(written)
            while raw[end : end + 1] != b'"':
                end += 2 if raw[end : end + 1] == b"\\" else 1
            return begin, end
    return None
