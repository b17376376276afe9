"""The canonical stream and its errors as renderers read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from llmproxy.core import sse
from llmproxy.core.errors import ClientError, ProxyError
from llmproxy.core.types import JsonObject

# What a client is told when the canonical stream stops without its end.
CUT_OFF: JsonObject = {
    "message": "the stream ended before the answer was complete",
    "type": "api_error",
    "param": None,
    "code": "truncated",
}

_STATUS_OF_CODE = {
    kind.code: kind.status
    for base in (ClientError, ProxyError)
    for kind in base.__subclasses__()
    if "code" in vars(kind)
}
_STATUS_OF_TYPE = {"invalid_request_error": 400, "authentication_error": 401, "rate_limit_error": 429}


class Reader:
    """Bytes in any cutting → the chunks that are whole by now; `done` once `[DONE]` was read."""

    __slots__ = ("_splitter", "done")

    def __init__(self) -> None:
        self._splitter = sse.Splitter()
        self.done = False

    def feed(self, data: bytes) -> list[JsonObject | None]:
        """The chunks in their order, None for a comment; nothing that comes after `[DONE]`."""
        found: list[JsonObject | None] = []
        block = self._splitter.feed(data)
        for part in block.split(b"\n\n") if block and not self.done else ():
            if not part:
                continue
            event = sse.parse_event(part)
            if event.done:
                self.done = True
                break
            found.append(None if event.data is None else orjson.loads(event.data))
        return found


def status_of(error: Mapping[str, Any]) -> int:
    """The HTTP status that an error object of the stream would have had as a response of its own."""
    code = str(error.get("code") or "")
    if code.isdecimal() and 400 <= int(code) < 600:
        return int(code)
    return _STATUS_OF_CODE.get(code) or _STATUS_OF_TYPE.get(str(error.get("type")), 502)


def error_of(error: Any) -> JsonObject:
    """An error of a stream as an object, where it is only a sentence."""
    return error if isinstance(error, dict) else {"message": str(error)}


def vectors(body: Mapping[str, Any]) -> list[Any]:
    """The vectors of a canonical embeddings reply, in the order of the inputs."""
    entries: list[JsonObject] = sorted(body.get("data") or (), key=lambda entry: entry.get("index") or 0)
    return [entry.get("embedding") for entry in entries]


def only_choice(chunk: Mapping[str, Any]) -> JsonObject | None:
    """The first choice of a chunk, for dialects that know no other; None when the chunk is not about it."""
    for choice in chunk.get("choices") or ():
        if isinstance(choice, dict) and not choice.get("index"):
            return choice
    return None


def reported_usage(usage: Any) -> tuple[int, int, int, int]:
    """(prompt tokens, of these cached, completion tokens, of these reasoning); what is missing counts as 0."""
    if not isinstance(usage, dict):
        return 0, 0, 0, 0
    prompt, completion = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    return (
        _count(usage.get("prompt_tokens")),
        _count(prompt.get("cached_tokens")) if isinstance(prompt, dict) else 0,
        _count(usage.get("completion_tokens")),
        _count(completion.get("reasoning_tokens")) if isinstance(completion, dict) else 0,
    )


def _count(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and value > 0 else 0
