"""Streams of the Messages API → canonical ones (https://platform.claude.com/docs/en/build-with-claude/streaming)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from llmproxy.core import sse
from llmproxy.core.errors import BadReply
from llmproxy.core.types import JsonObject
from llmproxy.dialects.anthropic_prompt import tool_input
from llmproxy.dialects.anthropic_replies import (
    ANSWER,
    VALUE,
    answer_of,
    call_of,
    explanation_of,
    finish_of,
    is_signed,
    usage_of,
)
from llmproxy.dialects.canonical import error_of
from llmproxy.dialects.extras import ANTHROPIC

_STATUSES: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


def _checked(text: Any) -> str:
    if not isinstance(text, str):
        raise TypeError(f"text is a {type(text).__name__}")
    return text


class _Block:
    """A content block in the making; `parts` are the pieces of its text, thought or arguments."""

    __slots__ = ("given", "index", "parts")

    def __init__(self, given: JsonObject, index: int) -> None:
        self.given, self.index = given, index
        self.parts: list[str] = []

    @property
    def kind(self) -> str:
        return str(self.given.get("type"))

    @property
    def text(self) -> str:
        return "".join(self.parts)


class AnthropicTranslator:
    """Implements `base.Translator`."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._id = ""
        self._splitter = sse.Splitter()
        self._blocks: dict[Any, _Block] = {}
        self._calls = 0
        self._usage: JsonObject = {}
        self._ended = False
        self._over = False

    def feed(self, data: bytes) -> bytes:
        """What some more of the upstream's stream means; raises `BadReply` for events of an odd shape."""
        block = self._splitter.feed(data)
        return b"".join([self._event(event) for event in sse.split(block)]) if block else b""

    def finish(self) -> bytes:
        """What an end without a blank line has left; `[DONE]` where the message was stopped as it should be."""
        rest, self._splitter.rest = self._splitter.rest, b""
        out = b"".join([self._event(event) for event in sse.split(rest)])
        if self._over or not self._ended:
            return out
        return out + self._usage_chunk()

    # -- events ---------------------------------------------------------------------------------------------------

    def _event(self, event: sse.Event) -> bytes:
        if self._over:
            return b""
        try:
            body = orjson.loads(event.data or b"")
        except orjson.JSONDecodeError:
            return b""
        if not isinstance(body, dict):
            return b""
        try:
            return self._read(str(body.get("type") or event.event.decode("utf-8", "replace")), body)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BadReply(f"an event of an odd shape: {error!r}"[:200], outcome="odd_chunk") from error

    def _read(self, kind: str, body: JsonObject) -> bytes:
        if kind == "content_block_delta":
            return self._delta(self._blocks[body["index"]], body["delta"])
        if kind == "content_block_start":
            return self._begin(body["index"], dict(body["content_block"]))
        if kind == "content_block_stop":
            return self._end(self._blocks.pop(body["index"], None))
        if kind == "message_start":
            message = body["message"]
            self._id = str(message.get("id") or "")
            self._count(message.get("usage"))
            return self._chunk({"role": "assistant", "content": ""})
        if kind == "message_delta":
            return self._close(body.get("delta") or {}, body.get("usage"))
        if kind == "message_stop":
            self._over = True
            return self._usage_chunk() + sse.DONE
        return self._fail(body.get("error")) if kind == "error" or "error" in body else b""

    def _begin(self, index: Any, given: JsonObject) -> bytes:
        block = self._blocks[index] = _Block(given, self._calls)
        _checked(given["type"])
        if block.kind == "text":
            return self._text(str(given.get("text") or ""))
        if block.kind == "thinking":
            return self._thought(block, str(given.get("thinking") or ""))
        if block.kind != "tool_use":
            return b""
        if given.get("name") not in (ANSWER, VALUE):
            self._calls += 1
            call = {"index": block.index, **call_of(given, "")}
            begun = self._chunk({"tool_calls": [call]})
        else:
            begun = b""
        # Some that speak this format send the whole input at once, instead of pieces of it.
        return begun + (self._arguments(block, orjson.dumps(given["input"]).decode()) if given.get("input") else b"")

    def _delta(self, block: _Block, delta: JsonObject) -> bytes:
        kind = delta.get("type")
        if kind == "text_delta":
            return self._text(delta["text"])
        if kind == "thinking_delta":
            return self._thought(block, delta["thinking"])
        if kind == "signature_delta":
            block.given["signature"] = delta["signature"]
            return b""
        if kind == "input_json_delta":
            return self._arguments(block, delta["partial_json"])
        return self._chunk({ANTHROPIC: [delta]}) if kind == "citations_delta" else b""

    def _end(self, block: _Block | None) -> bytes:
        if block is None:
            return b""
        if block.kind in ("thinking", "redacted_thinking"):
            whole = {**block.given, "thinking": block.text} if block.kind == "thinking" else block.given
            return self._chunk({"thinking_blocks": [whole]}) if is_signed(whole) else b""
        if block.kind == "text":
            return b""
        if block.kind != "tool_use":
            whole = {**block.given, "input": tool_input(block.text)} if block.parts else block.given
            return self._chunk({ANTHROPIC: [whole]})
        if block.given.get("name") == VALUE:
            return self._text(answer_of(VALUE, block.text or "{}"))
        return b"" if block.parts else self._arguments(block, "{}")

    def _close(self, delta: JsonObject, usage: Any) -> bytes:
        self._count(usage)
        reason = delta.get("stop_reason")
        if reason is None or self._ended:
            return b""
        self._ended = True
        ended = finish_of(reason, delta.get("stop_sequence"))
        if ended["finish_reason"] == "tool_calls" and not self._calls:
            ended["finish_reason"] = "stop"
        refused = explanation_of(delta.get("stop_details"))
        return self._chunk({"refusal": refused} if isinstance(refused, str) else {}, ended)

    def _fail(self, error: Any) -> bytes:
        """Their error event as the canonical one; the status is what it would have been before the stream began."""
        given = error_of(error)
        kind = str(given.get("type") or "api_error")
        self._over = True
        told = {"message": str(given.get("message") or kind), "type": kind, "param": None, "code": kind}
        return sse.event(orjson.dumps({"error": {**told, "status": _STATUSES.get(kind, 500)}}))

    # -- what goes out --------------------------------------------------------------------------------------------

    def _text(self, text: str) -> bytes:
        return self._chunk({"content": _checked(text)}) if text else b""

    def _thought(self, block: _Block, text: str) -> bytes:
        if not text:
            return b""
        block.parts.append(_checked(text))
        return self._chunk({"reasoning_content": text})

    def _arguments(self, block: _Block, text: str) -> bytes:
        if not text:
            return b""
        block.parts.append(_checked(text))
        if block.kind != "tool_use" or block.given.get("name") == VALUE:
            return b""
        if block.given.get("name") == ANSWER:
            return self._text(text)
        return self._chunk({"tool_calls": [{"index": block.index, "function": {"arguments": text}}]})

    def _count(self, usage: Any) -> None:
        """Counts are cumulative: a later one replaces an earlier one."""
        if isinstance(usage, dict):
            self._usage |= {key: value for key, value in usage.items() if value is not None}

    def _usage_chunk(self) -> bytes:
        return self._render([], {"usage": usage_of(self._usage)}) if self._usage else b""

    def _chunk(self, delta: JsonObject, ended: JsonObject | None = None) -> bytes:
        return self._render([{"index": 0, "delta": delta, **(ended or {"finish_reason": None})}], {})

    def _render(self, choices: list[JsonObject], more: JsonObject) -> bytes:
        head = {"id": self._id, "object": "chat.completion.chunk", "created": 0, "model": self._model}
        return sse.event(orjson.dumps({**head, "choices": choices, **more}))
