"""A canonical stream → the two forms of a Gemini stream: server-sent events (`alt=sse`), and one JSON array.

Each element is a `GenerateContentResponse`. Finish reasons wait for the usage, which belongs into the last one.
The SDKs of Google read a comment as JSON and fail, so a life sign is an answer without text, as Gemini itself sends it.
"""

from __future__ import annotations

from typing import Any

import orjson

from llmproxy.core.types import JsonObject
from llmproxy.dialects.canonical import CUT_OFF, Reader, error_of, status_of
from llmproxy.dialects.gemini_reply import (
    error_object,
    finish_reason,
    logprobs_result,
    origin,
    parts,
    usage_metadata,
)

_NO_TEXT: JsonObject = {"parts": [{"text": ""}], "role": "model"}


class _Frames:
    """The canonical stream as the elements of a Gemini stream; None for a life sign. Nothing follows an error."""

    def __init__(self, *, thoughts: bool) -> None:
        self._thoughts = thoughts
        self._reader = Reader()
        self._finishes: dict[int, JsonObject] = {}
        self._refused: set[int] = set()
        self._usage: JsonObject | None = None
        self.origin: JsonObject = {}
        self.ended = False

    def feed(self, data: bytes) -> list[JsonObject | None]:
        found: list[JsonObject | None] = []
        for chunk in self._reader.feed(data):
            if self.ended:
                return found
            if chunk is None:
                found.append(None)
            elif chunk.get("error"):
                found.append(self._failed(chunk["error"]))
            elif (frame := self._frame(chunk)) is not None:
                found.append(frame)
        if self._reader.done and not self.ended:
            found.append(self._last())
        return found

    def finish(self) -> list[JsonObject | None]:
        return [] if self.ended else [self._failed(CUT_OFF)]

    def _frame(self, chunk: JsonObject) -> JsonObject | None:
        self.origin = self.origin or origin(chunk)
        if isinstance(chunk.get("usage"), dict):
            self._usage = chunk["usage"]
        candidates = [self._candidate(choice) for choice in chunk.get("choices") or ()]
        said = [candidate for candidate in candidates if candidate is not None]
        return {"candidates": said, **self.origin} if said else None

    def _candidate(self, choice: JsonObject) -> JsonObject | None:
        """What a choice says now; None when it says nothing, or only that it is over."""
        index, delta = choice.get("index") or 0, choice.get("delta") or {}
        if delta.get("refusal"):
            self._refused.add(index)
        if choice.get("finish_reason"):
            reason = finish_reason(choice, refused=index in self._refused)
            self._finishes[index] = {"content": _NO_TEXT, "finishReason": reason, "index": index}
        said = parts(delta, thoughts=self._thoughts)
        if not said:
            return None
        found: JsonObject = {"content": {"parts": said, "role": "model"}, "index": index}
        if result := logprobs_result(choice.get("logprobs")):
            found["logprobsResult"] = result
        return found

    def _last(self) -> JsonObject:
        self.ended = True
        last: JsonObject = {"candidates": [self._finishes[index] for index in sorted(self._finishes)]}
        if self._usage is not None:
            last["usageMetadata"] = usage_metadata(self._usage)
        return last | self.origin

    def _failed(self, error: Any) -> JsonObject:
        self.ended = True
        error = error_of(error)
        return error_object(status_of(error), str(error.get("message") or ""))


class EventsRenderer:
    """`alt=sse`."""

    content_type = "text/event-stream"

    def __init__(self, *, thoughts: bool) -> None:
        self._frames = _Frames(thoughts=thoughts)

    def feed(self, data: bytes) -> bytes:
        return b"".join(map(self._event, self._frames.feed(data)))

    def finish(self) -> bytes:
        return b"".join(map(self._event, self._frames.finish()))

    def _event(self, frame: JsonObject | None) -> bytes:
        if frame is None:
            frame = {"candidates": [{"content": _NO_TEXT, "index": 0}], **self._frames.origin}
        return b"data: " + orjson.dumps(frame) + b"\r\n\r\n"


class ArrayRenderer:
    """Without `alt=sse`: one JSON array, element by element; white space is a life sign."""

    content_type = "application/json; charset=utf-8"

    def __init__(self, *, thoughts: bool) -> None:
        self._frames = _Frames(thoughts=thoughts)
        self._begun = False

    def feed(self, data: bytes) -> bytes:
        return b"".join(map(self._element, self._frames.feed(data)))

    def finish(self) -> bytes:
        return b"".join(map(self._element, self._frames.finish())) + b"]"

    def _element(self, frame: JsonObject | None) -> bytes:
        if frame is None:
            return b"\n"
        lead = b",\r\n" if self._begun else b"["
        self._begun = True
        return lead + orjson.dumps(frame)
