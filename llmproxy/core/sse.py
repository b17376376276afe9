"""Server-sent events: bytes in any chunking ⇄ events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from llmproxy.core.errors import BadReply

_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n|\n\r(?!\n)")
_LINE_END = re.compile(rb"\r\n|\n|\r")

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Event:
    """One event: `data` is the joined data lines, None for a block that holds comments only."""

    data: bytes | None
    event: bytes = b""

    @property
    def done(self) -> bool:
        return self.data == b"[DONE]"


def parse_event(block: bytes) -> Event:
    """Read one block of lines (without its blank line)."""
    if block.startswith(b"data: ") and b"\n" not in block and b"\r" not in block:
        return Event(block[6:])
    data: list[bytes] = []
    name = b""
    for line in _LINE_END.split(block):
        key, _, value = line.partition(b":")
        if key == b"data":
            data.append(value.removeprefix(b" "))
        elif key == b"event":
            name = value.removeprefix(b" ")
    return Event(b"\n".join(data) if data else None, name)


class Splitter:
    """Cuts a byte stream into blocks of whole events, whatever the chunking.

    `feed` returns the bytes of all events that are complete by now, blank lines included (empty when none is);
    `rest` is what is left of an unfinished one. Raises `BadReply` when one grows over the limit without an end: no
    provider sends that, so memory is not spent on it.
    """

    __slots__ = ("limit_bytes", "rest")

    def __init__(self, limit_bytes: int = 16 * 1024 * 1024) -> None:
        self.rest = b""
        self.limit_bytes = limit_bytes

    def feed(self, data: bytes) -> bytes:
        if self.rest:
            data = self.rest + data
        found = data.rfind(b"\n\n")
        end = found + 2 if found >= 0 else 0
        if end and end == len(data):
            self.rest = b""
            return data
        if b"\r" in data:
            ends = [match.end() for match in _EVENT_END.finditer(data)]
            # A block that ends in a lone \r may be the first half of \r\n: it is kept until the next byte tells.
            if ends and ends[-1] == len(data) and data.endswith(b"\r"):
                ends.pop()
            end = max([end, *ends])
        self.rest = data[end:]
        if len(self.rest) > self.limit_bytes:
            raise BadReply(f"an event of over {self.limit_bytes} bytes has no end", outcome="event_too_large")
        return data[:end]


def split(block: bytes) -> list[Event]:
    """The events of a block as `Splitter.feed` returns it; comment-only events are left out."""
    parts = block.split(b"\n\n") if b"\r" not in block else _EVENT_END.split(block)
    events = (parse_event(part.strip(b"\r\n")) for part in parts if part.strip(b"\r\n"))
    return [event for event in events if event.data is not None]


def event(data: bytes, name: str = "") -> bytes:
    """Render one event; `data` must hold no line end (JSON of orjson never does)."""
    if name:
        return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
    return b"data: " + data + b"\n\n"


def comment(text: str) -> bytes:
    """A comment: keeps connections alive and is ignored by every reader."""
    return b": " + text.encode() + b"\n\n"
