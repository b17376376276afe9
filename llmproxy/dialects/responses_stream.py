"""A canonical stream → the events of the Responses API; comments stay comments. There is no `[DONE]`."""

from __future__ import annotations

import orjson

from llmproxy.core import sse
from llmproxy.core.types import JsonObject
from llmproxy.dialects.canonical import CUT_OFF, Reader, error_of, only_choice
from llmproxy.dialects.responses_output import Output

_LIFE_SIGN = sse.comment("still waiting")


class ResponsesRenderer:
    """`response` is the whole response once it has ended, however it ended; None before that."""

    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, request: JsonObject, call_id: str = "") -> None:
        self._reader = Reader()
        self._out: list[bytes] = []
        self._output = Output(request, call_id, self._heard)
        self._finish_reason = ""
        self._usage: JsonObject | None = None
        self.response: JsonObject | None = None

    def feed(self, data: bytes) -> bytes:
        for chunk in self._reader.feed(data):
            if self.response is not None:
                break
            if chunk is None:
                self._out.append(_LIFE_SIGN)
            elif chunk.get("error"):
                self.response = self._output.fail(error_of(chunk["error"]), self._usage)
            else:
                self._chunk(chunk)
        if self._reader.done and self.response is None:
            self.response = self._output.end(self._finish_reason, self._usage)
        return self._taken()

    def finish(self) -> bytes:
        if self.response is None:
            self.response = self._output.fail(CUT_OFF, self._usage)
        return self._taken()

    def _chunk(self, chunk: JsonObject) -> None:
        if not self._output.begun:
            self._output.begin(chunk)
        if isinstance(chunk.get("usage"), dict):
            self._usage = chunk["usage"]
        choice = only_choice(chunk)
        if choice is not None:
            self._output.delta(choice.get("delta") or {}, choice.get("logprobs"))
            self._finish_reason = choice.get("finish_reason") or self._finish_reason

    def _heard(self, kind: str, event: JsonObject) -> None:
        self._out.append(sse.event(orjson.dumps(event), kind))

    def _taken(self) -> bytes:
        out, self._out = b"".join(self._out), []
        return out
