"""A whole answer delivered as a stream, for providers that cannot stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson

from llmproxy.core import sse
from llmproxy.core.errors import BadReply
from llmproxy.core.types import JsonObject
from providers.calls import read_reply
from providers.http import Request


async def in_one_piece(request: Request) -> AsyncIterator[bytes]:
    """The stream of a request that was entered, all of it when the answer is there."""
    yield as_stream((await read_reply(request)).body)


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
