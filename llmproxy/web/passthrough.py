"""Every other `/v1/*`: sent as it is to the provider of the model that it names, JSON and multipart alike."""

from __future__ import annotations

import re

import orjson
from aiohttp import web

from llmproxy.core.errors import InvalidRequest
from llmproxy.core.types import Call, JsonObject
from llmproxy.dialects.audio import seconds_of
from llmproxy.web.inference import answer, check_depth, decoded
from llmproxy.web.state import TRACE

_MULTIPART_MODEL = re.compile(
    rb'content-disposition:[^\r\n]*\bname="?model"?[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n(?P<model>[^\r\n]*)\r\n',
    re.IGNORECASE,
)
_PASSED_HEADERS = ("content-type", "accept", "openai-beta", "idempotency-key")
_PLACE = "\x00llmproxy\x00"


async def passthrough(request: web.Request) -> web.StreamResponse:
    """Any method on /v1/{tail}."""
    raw = await request.read()
    model, pieces = _split(request, raw)
    if not model:
        raise InvalidRequest(
            "name the model (in the body, the query, or the header x-llmproxy-model), so that its provider is known",
            param="model",
        )
    query = "&".join(
        part for part in request.rel_url.raw_query_string.split("&") if part and not part.startswith(("model=", "key="))
    )
    path = request.rel_url.raw_path.removeprefix("/v1")
    call = Call(
        id=request[TRACE].id,
        endpoint="passthrough",
        model=model,
        body={},
        method=request.method,
        path=f"{path}?{query}" if query else path,
        raw=pieces,
        audio_seconds=seconds_of(raw) if path.startswith("/audio/") else 0.0,
        raw_headers={name: request.headers[name] for name in _PASSED_HEADERS if name in request.headers},
    )
    return await answer(request, call)


def around_model(body: JsonObject) -> tuple[bytes, ...]:
    """The JSON of `body`, cut where the model's own id belongs."""
    marked = orjson.dumps({**body, "model": _PLACE})
    return tuple(marked.split(orjson.dumps(_PLACE)[1:-1], 1))


def _split(request: web.Request, raw: bytes) -> tuple[str, tuple[bytes, ...]]:
    """The model that is asked for, and the body cut at its name."""
    outside: str = request.query.get("model") or request.headers.get("x-llmproxy-model") or ""
    if request.content_type == "application/json" and raw:
        body = decoded(raw)
        if isinstance(body, dict) and isinstance(body.get("model"), str):
            check_depth(raw, body)
            return body["model"], around_model(body)
    elif request.content_type == "multipart/form-data" and (match := _MULTIPART_MODEL.search(raw)):
        named = match["model"].decode("utf-8", "replace")
        return named, (raw[: match.start("model")], raw[match.end("model") :])
    return outside, (raw,) if raw else ()
