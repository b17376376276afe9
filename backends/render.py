"""What a worker sends up: OpenAI chunks as server-sent events, or one whole reply. Pure.

Sources: https://platform.openai.com/docs/api-reference/chat-streaming, …/chat/object, …/completions/object.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import orjson

from backends.toolcalls import ToolCall
from llmproxy.core import sse
from llmproxy.core.types import JsonObject

# (token text, log probability, alternatives)
TokenLogprob = tuple[str, float, Sequence[tuple[str, float]]]


class Renderer(Protocol):
    """Receives one answer choice by choice; each method gives bytes to send now, empty when there are none yet."""

    def say(self, index: int, said: str | ToolCall, logprobs: Sequence[TokenLogprob]) -> bytes: ...

    def finish(self, index: int, reason: str) -> bytes: ...

    def end(self, prompt_tokens: int, completion_tokens: int) -> bytes: ...


class ChatStream:
    """Chat completion chunks."""

    def __init__(self, call_id: str, model: str) -> None:
        self._head = {"id": f"chatcmpl-{call_id}", "object": "chat.completion.chunk", "created": int(time.time())}
        self._head["model"] = model
        self._calls: dict[int, int] = {}
        self._begun: set[int] = set()

    def say(self, index: int, said: str | ToolCall, logprobs: Sequence[TokenLogprob]) -> bytes:
        delta: JsonObject = {}
        if index not in self._begun:
            self._begun.add(index)
            delta["role"] = "assistant"
        if isinstance(said, str):
            delta["content"] = said
        else:
            place = self._calls.get(index, 0)
            self._calls[index] = place + 1
            delta["tool_calls"] = [{"index": place, **tool_call_body(said, self._head["id"], index, place)}]
        return self._chunk(index, delta, None, logprobs)

    def finish(self, index: int, reason: str) -> bytes:
        return self._chunk(index, {}, "tool_calls" if self._calls.get(index) and reason == "stop" else reason, ())

    def end(self, prompt_tokens: int, completion_tokens: int) -> bytes:
        usage = usage_body(prompt_tokens, completion_tokens)
        return sse.event(orjson.dumps({**self._head, "choices": [], "usage": usage})) + sse.DONE

    def _chunk(self, index: int, delta: JsonObject, reason: str | None, logprobs: Sequence[TokenLogprob]) -> bytes:
        choice: JsonObject = {"index": index, "delta": delta, "finish_reason": reason}
        if logprobs:
            choice["logprobs"] = {"content": [chat_logprob(entry) for entry in logprobs]}
        return sse.event(orjson.dumps({**self._head, "choices": [choice]}))


class ChatWhole:
    """One chat completion."""

    def __init__(self, call_id: str, model: str) -> None:
        self._id, self._model = f"chatcmpl-{call_id}", model
        self._content: dict[int, list[str]] = {}
        self._calls: dict[int, list[JsonObject]] = {}
        self._logprobs: dict[int, list[JsonObject]] = {}
        self._reasons: dict[int, str] = {}

    def say(self, index: int, said: str | ToolCall, logprobs: Sequence[TokenLogprob]) -> bytes:
        if isinstance(said, str):
            self._content.setdefault(index, []).append(said)
        else:
            calls = self._calls.setdefault(index, [])
            calls.append(tool_call_body(said, self._id, index, len(calls)))
        self._logprobs.setdefault(index, []).extend(map(chat_logprob, logprobs))
        return b""

    def finish(self, index: int, reason: str) -> bytes:
        self._reasons[index] = "tool_calls" if self._calls.get(index) and reason == "stop" else reason
        return b""

    def end(self, prompt_tokens: int, completion_tokens: int) -> bytes:
        return orjson.dumps(
            {
                "id": self._id,
                "object": "chat.completion",
                "created": int(time.time()),
                "model": self._model,
                "choices": [self._choice(index) for index in sorted(self._reasons)],
                "usage": usage_body(prompt_tokens, completion_tokens),
            }
        )

    def _choice(self, index: int) -> JsonObject:
        text = "".join(self._content.get(index, ()))
        calls = self._calls.get(index)
        message: JsonObject = {"role": "assistant", "content": text or (None if calls else ""), "refusal": None}
        if calls:
            message["tool_calls"] = calls
        logprobs = self._logprobs.get(index)
        return {
            "index": index,
            "message": message,
            "finish_reason": self._reasons[index],
            "logprobs": {"content": logprobs} if logprobs else None,
        }


class TextStream:
    """Text completion chunks."""

    def __init__(self, call_id: str, model: str) -> None:
        self._head = {"id": f"cmpl-{call_id}", "object": "text_completion", "created": int(time.time()), "model": model}

    def say(self, index: int, said: str | ToolCall, logprobs: Sequence[TokenLogprob]) -> bytes:
        assert isinstance(said, str)
        return self._chunk(index, said, None, logprobs)

    def finish(self, index: int, reason: str) -> bytes:
        return self._chunk(index, "", reason, ())

    def end(self, prompt_tokens: int, completion_tokens: int) -> bytes:
        usage = usage_body(prompt_tokens, completion_tokens)
        return sse.event(orjson.dumps({**self._head, "choices": [], "usage": usage})) + sse.DONE

    def _chunk(self, index: int, text: str, reason: str | None, logprobs: Sequence[TokenLogprob]) -> bytes:
        choice = {"index": index, "text": text, "finish_reason": reason, "logprobs": text_logprobs(logprobs)}
        return sse.event(orjson.dumps({**self._head, "choices": [choice]}))


class TextWhole:
    """One text completion."""

    def __init__(self, call_id: str, model: str) -> None:
        self._id, self._model = f"cmpl-{call_id}", model
        self._texts: dict[int, list[str]] = {}
        self._logprobs: dict[int, list[TokenLogprob]] = {}
        self._reasons: dict[int, str] = {}

    def say(self, index: int, said: str | ToolCall, logprobs: Sequence[TokenLogprob]) -> bytes:
        assert isinstance(said, str)
        self._texts.setdefault(index, []).append(said)
        self._logprobs.setdefault(index, []).extend(logprobs)
        return b""

    def finish(self, index: int, reason: str) -> bytes:
        self._reasons[index] = reason
        return b""

    def end(self, prompt_tokens: int, completion_tokens: int) -> bytes:
        choices = [
            {
                "index": index,
                "text": "".join(self._texts.get(index, ())),
                "finish_reason": reason,
                "logprobs": text_logprobs(self._logprobs.get(index, ())),
            }
            for index, reason in sorted(self._reasons.items())
        ]
        head = {"id": self._id, "object": "text_completion", "created": int(time.time()), "model": self._model}
        return orjson.dumps({**head, "choices": choices, "usage": usage_body(prompt_tokens, completion_tokens)})


def renderer(endpoint: str, *, stream: bool, call_id: str, model: str) -> Renderer:
    """The renderer of an endpoint."""
    if endpoint == "completions":
        return TextStream(call_id, model) if stream else TextWhole(call_id, model)
    return ChatStream(call_id, model) if stream else ChatWhole(call_id, model)


def tool_call_body(call: ToolCall, call_id: object, index: int, place: int) -> JsonObject:
    """A tool call with an id that no other call of this or any other answer has."""
    tail = str(call_id).rpartition("_")[2]
    return {
        "id": f"call_{tail}{index:x}{place:02x}",
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def usage_body(prompt_tokens: int, completion_tokens: int) -> JsonObject:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def chat_logprob(entry: TokenLogprob) -> JsonObject:
    text, logprob, top = entry
    alternatives = [{"token": token, "logprob": value, "bytes": list(token.encode())} for token, value in top]
    return {"token": text, "logprob": logprob, "bytes": list(text.encode()), "top_logprobs": alternatives}


def text_logprobs(entries: Sequence[TokenLogprob]) -> JsonObject | None:
    if not entries:
        return None
    return {
        "tokens": [text for text, _, _ in entries],
        "token_logprobs": [logprob for _, logprob, _ in entries],
        "top_logprobs": [dict(top) for _, _, top in entries],
        "text_offset": [],
    }
