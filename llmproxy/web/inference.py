"""Chat completions, completions, embeddings: parse, dispatch, render."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from llmproxy.core.errors import ClientGone, InvalidJson, InvalidRequest, LlmproxyError
from llmproxy.core.types import Call, JsonObject
from llmproxy.dialects.base import Renderer
from llmproxy.dialects.openai import parse_chat, parse_completion, parse_embeddings
from llmproxy.web.envelope import json_response
from llmproxy.web.state import SERVICES, TRACE
from llmproxy.web.streams import StreamClient, answer_headers

# orjson reads 1024 levels but writes 254: what cannot be sent on is refused at the door.
_DEEPEST = 200


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """POST /v1/chat/completions."""
    return await _infer(request, parse_chat)


async def completions(request: web.Request) -> web.StreamResponse:
    """POST /v1/completions."""
    return await _infer(request, parse_completion)


async def embeddings(request: web.Request) -> web.StreamResponse:
    """POST /v1/embeddings."""
    return await _infer(request, parse_embeddings)


async def read_json(request: web.Request) -> JsonObject:
    """The body as a JSON object; raises `InvalidJson` or `InvalidRequest`."""
    raw = await request.read()
    body = decoded(raw)
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object")
    check_depth(raw, body)
    return body


def decoded(raw: bytes) -> Any:
    """A body as JSON; raises `InvalidJson`."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidJson(f"the body is not JSON: {error}") from error


def check_depth(raw: bytes, body: JsonObject) -> None:
    """Raise `InvalidRequest` for a body that could be read but not be written again."""
    if raw.count(b"[") + raw.count(b"{") > _DEEPEST and _depth(body) > _DEEPEST:
        raise InvalidRequest(f"the body is nested deeper than {_DEEPEST} levels")


async def answer(
    request: web.Request,
    call: Call,
    reply: Callable[[JsonObject], Any] | None = None,
    *,
    renderer: Renderer | None = None,
) -> web.StreamResponse:
    """Find an answer to `call` and send it to the client of `request`.

    `reply` and `renderer` write a whole answer and a stream in the client's dialect; without them it is OpenAI's.
    """
    current = request[TRACE]
    current.call = call
    client = StreamClient(request, current.id, renderer, call.unheard)
    try:
        found = await request.app[SERVICES].dispatcher.answer(call, client)
    except LlmproxyError as error:
        if client.response is None or isinstance(error, ClientGone):
            raise
        # It failed after the client had begun to read, and was told so in the stream.
        current.attempts = tuple(error.attempts)
        if call.endpoint == "passthrough":
            client.abort()
        return client.response
    current.answer = found
    if client.response is not None:
        return client.response
    assert found.reply is not None
    headers = answer_headers(found.candidate, found.reason, found.attempts, call.unheard, found.reply.headers)
    body = found.reply.body
    return json_response(reply(body) if reply is not None else body, headers=headers)


def delivered(request: web.Request, call: Call) -> Call:
    """`call`, whose stream goes out as the client or the configuration wants it."""
    if call.stream:
        wanted = request.headers.get("x-llmproxy-delivery")
        if wanted not in (None, "stream", "whole"):
            raise InvalidRequest("x-llmproxy-delivery must be stream or whole", param="x-llmproxy-delivery")
        call.hold = (wanted or request.app[SERVICES].config().routing.delivery) == "whole"
        call.early = wanted == "stream"
    return call


async def _infer(request: web.Request, parse: Callable[[JsonObject, str], Call]) -> web.StreamResponse:
    return await answer(request, delivered(request, parse(await read_json(request), request[TRACE].id)))


def _depth(value: Any) -> int:
    """How many levels of lists and objects `value` has."""
    deepest, level = 0, [value]
    while level:
        deepest += 1
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        level = [item for item in inner if isinstance(item, dict | list)]
    return deepest
