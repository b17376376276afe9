"""The canonical stream as Anthropic's events (https://platform.claude.com/docs/en/build-with-claude/streaming).

One `message_start`, blocks of one type each with indices without a gap, one `message_delta` with the real usage, one
`message_stop`; every event is named, as SDKs go by the name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from llmproxy.core import sse
from llmproxy.core.text import CHARACTERS_PER_TOKEN
from llmproxy.core.types import JsonObject
from llmproxy.dialects.anthropic_replies import FINISH_REASONS
from llmproxy.dialects.canonical import CUT_OFF, Reader, error_of, only_choice, reported_usage, status_of
from llmproxy.dialects.extras import ANTHROPIC

_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_STOPS: Mapping[str, str] = {
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_EMPTY: Mapping[str, JsonObject] = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}}
_PING = sse.event(b'{"type":"ping"}', "ping")


def error_type(status: int) -> str:
    """The type of an error by its HTTP status."""
    return _TYPES.get(status) or ("invalid_request_error" if status < 500 else "api_error")


def message_id(given: Any) -> str:
    """The id of a message, from that of a canonical reply."""
    return "msg_" + str(given or "").removeprefix("chatcmpl-").removeprefix("msg_")


def stop_of(choice: Mapping[str, Any]) -> tuple[str, str | None]:
    """(stop_reason, stop_sequence) of a canonical choice; their own word stands where it means the same."""
    finish, native, sequence = (choice.get(key) for key in ("finish_reason", "native_finish_reason", "stop_sequence"))
    if isinstance(native, str) and FINISH_REASONS.get(native) == finish:
        return native, sequence if isinstance(sequence, str) else None
    return _STOPS.get(str(finish), "end_turn"), None


def refused(explanation: str) -> JsonObject:
    """The fields of a message that its model refused to give, and why."""
    details = {"type": "refusal", "category": None, "explanation": explanation}
    return {"stop_reason": "refusal", "stop_details": details}


def usage_body(given: Any) -> JsonObject:
    """OpenAI's usage as Anthropic counts: the input is what was neither read from a cache nor written to one."""
    prompt, read, completion, thoughts = reported_usage(given)
    details = given.get("prompt_tokens_details") if isinstance(given, dict) else None
    written = details.get("cache_write_tokens") if isinstance(details, dict) else None
    written = written if isinstance(written, int) and written > 0 else 0
    made: JsonObject = {
        "input_tokens": max(prompt - read - written, 0),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": completion,
    }
    return {**made, "output_tokens_details": {"thinking_tokens": thoughts}} if thoughts else made


class AnthropicRenderer:
    """Implements `base.Renderer`. `prompt_tokens` is an estimate, for the beginning."""

    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, prompt_tokens: int = 0) -> None:
        self._prompt_tokens = prompt_tokens
        self._reader = Reader()
        self._out: list[bytes] = []
        self._started = False
        self._over = False
        self._index = 0
        self._open = ""
        self._thought = ""
        self._characters = 0
        self._refusal = ""
        self._choice: JsonObject = {}
        self._usage: Any = None

    def feed(self, data: bytes) -> bytes:
        """The events for some more of the canonical stream; its comments become pings."""
        for chunk in self._reader.feed(data):
            if self._over:
                break
            if chunk is None:
                # Before the message has begun an event of its own would be the first one, which it must not be.
                self._out.append(_PING if self._started else sse.comment("waiting"))
            elif chunk.get("error"):
                self._fail(chunk["error"])
            else:
                self._chunk(chunk)
        if self._reader.done and not self._over:
            self._end()
        return self._taken()

    def finish(self) -> bytes:
        """What is left; an end that nothing announced is told as an error."""
        if not self._over:
            self._fail(CUT_OFF)
        return self._taken()

    # -- what comes in --------------------------------------------------------------------------------------------

    def _chunk(self, chunk: JsonObject) -> None:
        if not self._started:
            self._start(chunk)
        if chunk.get("usage"):
            self._usage = chunk["usage"]
        choice = only_choice(chunk)
        if choice is not None:
            self._delta(choice.get("delta") or {})
            if choice.get("finish_reason"):
                self._choice = choice

    def _delta(self, delta: JsonObject) -> None:
        if thought := delta.get("reasoning_content"):
            self._thought += thought
            self._say("thinking", "thinking_delta", thought)
        for block in delta.get("thinking_blocks") or ():
            self._sign(block)
        if text := delta.get("content"):
            self._say("text", "text_delta", text)
        self._refusal += delta.get("refusal") or ""
        for block in delta.get(ANTHROPIC) or ():
            self._own(block)
        for call in delta.get("tool_calls") or ():
            self._call(call)

    # -- what goes out --------------------------------------------------------------------------------------------

    def _start(self, chunk: JsonObject) -> None:
        self._started = True
        message: JsonObject = {
            "id": message_id(chunk.get("id")),
            "type": "message",
            "role": "assistant",
            "model": str(chunk.get("model") or ""),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_body({"prompt_tokens": self._prompt_tokens}),
        }
        self._emit("message_start", message=message)

    def _say(self, kind: str, delta: str, text: str) -> None:
        """More of a block of text or of thoughts; a new one where another is open."""
        if self._open != kind:
            self._begin({"type": kind, **_EMPTY[kind]})
        self._characters += len(text)
        self._more(delta, kind, text)

    def _sign(self, block: JsonObject) -> None:
        """A whole block of signed thoughts: its text has been told already, unless it is not meant to be read."""
        if block.get("type") != "thinking":
            self._begin(block)
            self._close()
            return
        text = str(block.get("thinking") or "")
        if self._open != "thinking":
            if text and self._thought.endswith(text):
                return  # the block that it belongs to is closed
            self._begin({"type": "thinking", **_EMPTY["thinking"]})
            if text:
                self._more("thinking_delta", "thinking", text)
        self._more("signature_delta", "signature", str(block.get("signature") or ""))
        self._close()

    def _own(self, block: JsonObject) -> None:
        """A block, or a delta of one, that only this dialect knows."""
        if block.get("type") == "citations_delta":
            if self._open == "text":
                self._emit("content_block_delta", index=self._index, delta=block)
            return
        arguments = block.get("input")
        self._begin({**block, "input": {}} if arguments else block)
        if arguments:
            self._more("input_json_delta", "partial_json", orjson.dumps(arguments).decode())
        self._close()

    def _call(self, call: JsonObject) -> None:
        function = call.get("function") or {}
        if call.get("id") or self._open != "tool_use":
            self._begin({"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": {}})
        if arguments := function.get("arguments"):
            self._characters += len(arguments)
            self._more("input_json_delta", "partial_json", arguments)

    def _begin(self, block: JsonObject) -> None:
        self._close()
        self._open = str(block["type"])
        self._emit("content_block_start", index=self._index, content_block=block)

    def _more(self, kind: str, field: str, text: str) -> None:
        self._emit("content_block_delta", index=self._index, delta={"type": kind, field: text})

    def _close(self) -> None:
        if self._open:
            self._emit("content_block_stop", index=self._index)
            self._open = ""
            self._index += 1

    def _end(self) -> None:
        if not self._started:
            self._start({})
        if self._refusal and not self._index and not self._open:
            self._say("text", "text_delta", self._refusal)
        self._close()
        reason, sequence = stop_of(self._choice)
        delta: JsonObject = {"stop_reason": reason, "stop_sequence": sequence}
        if self._refusal:
            delta |= refused(self._refusal)
        estimated = {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": self._characters // CHARACTERS_PER_TOKEN,
        }
        self._emit("message_delta", delta=delta, usage=usage_body(self._usage or estimated))
        self._emit("message_stop")
        self._over = True

    def _fail(self, error: Any) -> None:
        given = error_of(error)
        kind = error_type(status_of(given))
        self._emit("error", error={"type": kind, "message": str(given.get("message") or "")})
        self._over = True

    def _emit(self, kind: str, **fields: Any) -> None:
        self._out.append(sse.event(orjson.dumps({"type": kind, **fields}), kind))

    def _taken(self) -> bytes:
        out = b"".join(self._out)
        self._out.clear()
        return out
