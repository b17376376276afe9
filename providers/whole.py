"""A whole answer delivered as a stream, for providers that cannot stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

import orjson

from llmproxy.core import sse
from llmproxy.core.errors import BadReply
from llmproxy.core.types import JsonObject, Reply
from providers.http import Request


class WholeStream:
    """An answer that comes in one piece; implements `core.contract.Stream`. Entering sends the request."""

    def __init__(self, request: Request, read: Callable[[Request], Awaitable[Reply]]) -> None:
        self._request = request
        self._read = read

    @property
    def status(self) -> int:
        return self._request.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._request.headers

    async def __aenter__(self) -> WholeStream:
        await self._request.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._request.__aexit__(kind, error, trace)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield as_stream((await self._read(self._request)).body)


def as_stream(body: Any) -> bytes:
    """The events of the stream that would have been the same answer, usage and `[DONE]` among them.

    Raises `BadReply` for what is no answer.
    """
    if not isinstance(body, dict) or not isinstance(body.get("choices"), list):
        raise BadReply("the reply has no choices", outcome="no_choices")
    chunks = [*_chunks(body)]
    return b"".join(sse.event(orjson.dumps(chunk)) for chunk in chunks) + sse.DONE


def _chunks(body: JsonObject) -> Iterator[JsonObject]:
    is_chat = body.get("object") != "text_completion"
    head: JsonObject = {name: body[name] for name in ("id", "created", "model", "system_fingerprint") if name in body}
    head["object"] = "chat.completion.chunk" if is_chat else "text_completion"
    choices = [choice for choice in body["choices"] if isinstance(choice, dict)]
    for place, choice in enumerate(choices):
        said = {"delta": _delta(choice.get("message"))} if is_chat else {"text": choice.get("text") or ""}
        index, logprobs = choice.get("index", place), choice.get("logprobs")
        yield {**head, "choices": [{"index": index, **said, "logprobs": logprobs, "finish_reason": None}]}
        ended: JsonObject = {"delta": {}} if is_chat else {"text": ""}
        yield {**head, "choices": [{"index": index, **ended, "finish_reason": choice.get("finish_reason") or "stop"}]}
    if isinstance(body.get("usage"), dict):
        yield {**head, "choices": [], "usage": body["usage"]}


def _delta(message: Any) -> JsonObject:
    """A message as one delta: its tool calls are numbered."""
    delta = dict(message) if isinstance(message, dict) else {}
    if isinstance(delta.get("tool_calls"), list):
        delta["tool_calls"] = [{"index": place, **call} for place, call in enumerate(delta["tool_calls"])]
    return delta
