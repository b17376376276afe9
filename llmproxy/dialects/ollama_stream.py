"""Answers as Ollama gives them: one object, or a line of JSON for each piece (https://docs.ollama.com/api/chat)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from llmproxy.core.types import JsonObject
from llmproxy.dialects.canonical import CUT_OFF, Reader, only_choice, reported_usage

_REASONS: Mapping[str, str] = {"tool_calls": "stop", "function_call": "stop"}


def created_at(created_s: Any) -> str:
    """A Unix time as they write it."""
    seconds = created_s if isinstance(created_s, int | float) else 0
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def chat_message(message: Mapping[str, Any]) -> JsonObject:
    """A canonical message, or a delta, as a message of theirs; arguments of tool calls are objects."""
    made: JsonObject = {"role": "assistant", "content": message.get("content") or message.get("refusal") or ""}
    if message.get("reasoning_content"):
        made["thinking"] = message["reasoning_content"]
    if calls := [_call(call, place) for place, call in enumerate(message.get("tool_calls") or ())]:
        made["tool_calls"] = calls
    return made


def response_of(said: JsonObject) -> JsonObject:
    """A message of theirs as the fields of a generate response."""
    return {"response": said["content"], **{key: said[key] for key in said if key not in ("role", "content")}}


def answered(head: JsonObject, choice: JsonObject, told: JsonObject, elapsed_ns: int, first_ns: int = 0) -> JsonObject:
    """The object that ends an answer. `head` has model, created and usage, `told` what it says.

    `first_ns` is how long the first piece took, where that is known.
    """
    finish = str(choice.get("finish_reason") or "stop")
    made = {
        "model": str(head.get("model") or ""),
        "created_at": created_at(head.get("created")),
        **told,
        "done_reason": _REASONS.get(finish, finish),
        "done": True,
        **durations(elapsed_ns, first_ns, head.get("usage")),
    }
    return {**made, **_logprobs(choice)}


def durations(elapsed_ns: int, first_ns: int, usage: Any = None) -> JsonObject:
    """Their figures of an answer, in nanoseconds and tokens; generating takes 1 ns at least: clients divide by it."""
    prompt, cached, completion, _ = reported_usage(usage)
    return {
        "total_duration": elapsed_ns,
        "load_duration": 0,
        "prompt_eval_count": prompt,
        **({"prompt_eval_cached_count": cached} if cached else {}),
        "prompt_eval_duration": first_ns,
        "eval_count": completion,
        "eval_duration": max(elapsed_ns - first_ns, 1),
    }


def _call(call: Mapping[str, Any], place: int) -> JsonObject:
    function = call.get("function") or {}
    index = call.get("index")
    told = {
        "index": index if isinstance(index, int) else place,
        "name": function.get("name"),
        "arguments": _arguments(function.get("arguments")),
    }
    return {"id": call["id"], "function": told} if call.get("id") else {"function": told}


def _arguments(given: Any) -> JsonObject:
    """Arguments as an object; what is none is wrapped, so that nothing is lost."""
    try:
        value = orjson.loads(given or "{}") if isinstance(given, str | None) else given
    except orjson.JSONDecodeError:
        value = None
    return value if isinstance(value, dict) else {"arguments": given}


def _logprobs(choice: Mapping[str, Any]) -> JsonObject:
    holder = choice.get("logprobs")
    found = holder.get("content") if isinstance(holder, dict) else None
    return {"logprobs": found} if found else {}


class OllamaRenderer:
    """Implements `base.Renderer`: newline-delimited JSON. An error is a line of its own, the last one.

    A life sign is a line without text: readers take every line for JSON.
    """

    content_type = "application/x-ndjson"

    def __init__(self, model: str, elapsed_ns: Callable[[], int], *, generates: bool) -> None:
        self._elapsed_ns = elapsed_ns
        self._generates = generates
        self._reader = Reader()
        self._out: list[JsonObject] = []
        self._head: JsonObject = {"model": model}
        self._choice: JsonObject = {}
        self._first_ns: int | None = None
        self._over = False

    def feed(self, data: bytes) -> bytes:
        """The lines for some more of the canonical stream."""
        for chunk in self._reader.feed(data):
            if self._over:
                break
            if chunk is None:
                self._line({})
            elif chunk.get("error"):
                self._fail(chunk["error"])
            else:
                self._chunk(chunk)
        if self._reader.done and not self._over:
            self._over = True
            first = self._first_ns or 0
            self._out.append(answered(self._head, self._choice, self._told({}), self._elapsed_ns(), first))
        return self._taken()

    def finish(self) -> bytes:
        """What is left; an end that nothing announced is told as an error."""
        if not self._over:
            self._fail(CUT_OFF)
        return self._taken()

    def _chunk(self, chunk: JsonObject) -> None:
        for name in ("model", "created", "usage"):
            if chunk.get(name):
                self._head[name] = chunk[name]
        choice = only_choice(chunk)
        if choice is None:
            return
        if choice.get("finish_reason"):
            self._choice = {"finish_reason": choice["finish_reason"]}
        delta = choice.get("delta") or {}
        if any(delta.get(name) for name in ("content", "refusal", "reasoning_content", "tool_calls")):
            if self._first_ns is None:
                self._first_ns = self._elapsed_ns()
            self._line(delta, _logprobs(choice))

    def _line(self, delta: JsonObject, more: JsonObject | None = None) -> None:
        head = {"model": self._head["model"]}
        if "created" in self._head:
            head["created_at"] = created_at(self._head["created"])
        self._out.append({**head, **self._told(delta), "done": False, **(more or {})})

    def _told(self, delta: JsonObject) -> JsonObject:
        said = chat_message(delta)
        return response_of(said) if self._generates else {"message": said}

    def _fail(self, error: Any) -> None:
        told = error.get("message") if isinstance(error, dict) else error
        self._out.append({"error": str(told or "the answer broke off")})
        self._over = True

    def _taken(self) -> bytes:
        out = b"".join([orjson.dumps(line) + b"\n" for line in self._out])
        self._out.clear()
        return out
