"""Endpoints of the other dialects: read, answer as any call, write in the client's own words."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from aiohttp import web

from llmproxy import __version__
from llmproxy.core.errors import InvalidRequest, NotFound
from llmproxy.core.types import Call, JsonObject
from llmproxy.dialects import anthropic, gemini_other, ollama, ollama_models
from llmproxy.dialects.anthropic import AnthropicMessages
from llmproxy.dialects.base import Inbound
from llmproxy.dialects.gemini import Gemini
from llmproxy.dialects.ollama import OllamaChat, OllamaGenerate
from llmproxy.dialects.openai import parse_chat, parse_embeddings
from llmproxy.dialects.responses import Responses
from llmproxy.dialects.responses_history import continued, stored
from llmproxy.dialects.responses_stream import ResponsesRenderer
from llmproxy.web.envelope import json_response
from llmproxy.web.inference import answer, delivered, read_json
from llmproxy.web.models import entries, entry_of
from llmproxy.web.state import SERVICES, TRACE


async def messages(request: web.Request) -> web.StreamResponse:
    """POST /v1/messages."""
    return await _chat(request, AnthropicMessages(), await read_json(request), "anthropic")


async def count_message_tokens(request: web.Request) -> web.StreamResponse:
    """POST /v1/messages/count_tokens: about how many there are."""
    body = await read_json(request)
    AnthropicMessages().request({"max_tokens": 1, **body}, request.headers)
    return json_response({"input_tokens": anthropic.count_tokens(body)})


async def gemini(request: web.Request) -> web.StreamResponse:
    """POST /v1beta/models/{model}:{method}, and the same under /v1."""
    model, method = request.match_info["model"], request.match_info["method"]
    body = await read_json(request)
    match method:
        case "generateContent":
            return await _chat(request, Gemini(model), body, "gemini")
        case "streamGenerateContent":
            dialect = Gemini(model, stream=True, sse=request.query.get("alt") == "sse")
            return await _chat(request, dialect, body, "gemini")
        case "countTokens":
            counted = gemini_other.counted_request(body)
            call = parse_chat(Gemini(model).request(counted, request.headers), request[TRACE].id)
            return json_response(gemini_other.token_count(call.prompt_tokens))
        case "embedContent":
            return await _embed(request, gemini_other.embed_request(body, model), gemini_other.embed_reply)
        case "batchEmbedContents":
            made = gemini_other.batch_embed_request(body, model)
            return await _embed(request, made, gemini_other.batch_embed_reply)
    raise NotFound(f"the method {method!r} is not known here")


async def ollama_chat(request: web.Request) -> web.StreamResponse:
    """POST /api/chat."""
    return await _ollama(request, OllamaChat(_stopwatch()))


async def ollama_generate(request: web.Request) -> web.StreamResponse:
    """POST /api/generate."""
    return await _ollama(request, OllamaGenerate(_stopwatch()))


async def ollama_embed(request: web.Request) -> web.StreamResponse:
    """POST /api/embed."""
    elapsed_ns, body = _stopwatch(), await read_json(request)
    unheard = ollama.embed_unheard(body)
    made = ollama.embed_request(body)
    return await _embed(request, made, lambda reply: ollama.embed_reply(reply, elapsed_ns()), unheard)


async def ollama_embeddings(request: web.Request) -> web.StreamResponse:
    """POST /api/embeddings, the older form."""
    return await _embed(request, ollama.embed_request(await read_json(request)), ollama.embeddings_reply)


async def ollama_tags(request: web.Request) -> web.Response:
    """GET /api/tags."""
    return json_response(ollama_models.tags(entries(request.app[SERVICES])))


async def ollama_show(request: web.Request) -> web.Response:
    """POST /api/show."""
    body = await read_json(request)
    name = body.get("model") or body.get("name")
    if not isinstance(name, str):
        raise InvalidRequest("model must be a name", param="model")
    return json_response(ollama_models.show(entry_of(request.app[SERVICES], name)))


async def ollama_ps(request: web.Request) -> web.Response:
    """GET /api/ps: local models that are loaded."""
    services = request.app[SERVICES]
    local = services.local()
    ready = {f"local/{one.name}" for one in local.status() if one.state == "loaded"} if local is not None else set()
    return json_response(ollama_models.running(entry_of(services, name) for name in sorted(ready)))


async def ollama_version(_: web.Request) -> web.Response:
    """GET /api/version."""
    return json_response(ollama_models.version(__version__))


async def responses(request: web.Request) -> web.StreamResponse:
    """POST /v1/responses."""
    given, kept = await read_json(request), request.app[SERVICES].responses
    wanted = given.get("previous_response_id")
    earlier = kept.get(wanted) if isinstance(wanted, str) else None
    body = continued(given, earlier, kept.item)
    # Who knows an id may read the response, so nobody can guess one, or choose it as the id of a request.
    dialect = Responses(secrets.token_hex(12))
    call = _call(request, dialect.request(body, request.headers), "responses")
    if not call.stream:
        return await answer(request, call, lambda reply: _keep(request, body, dialect.reply(reply, given)))
    return await answer(request, call, renderer=_Keeping(request, body, dialect.renderer(given)))


async def show_response(request: web.Request) -> web.Response:
    """GET /v1/responses/{id}: one that is kept."""
    wanted = request.match_info["id"]
    found = request.app[SERVICES].responses.get(wanted)
    if found is None:
        raise NotFound(f"Response with id {wanted!r} not found.")
    if request.query.get("stream") == "true":
        raise InvalidRequest("a response that is kept is given whole, not streamed again", param="stream")
    return json_response(found.response)


async def delete_response(request: web.Request) -> web.Response:
    """DELETE /v1/responses/{id}."""
    wanted = request.match_info["id"]
    if not request.app[SERVICES].responses.forget(wanted):
        raise NotFound(f"Response with id {wanted!r} not found.")
    return json_response({"id": wanted, "object": "response", "deleted": True})


def _keep(request: web.Request, body: JsonObject, response: JsonObject) -> JsonObject:
    if (kept := stored(body, response)) is not None:
        request.app[SERVICES].responses.keep(kept)
    return response


class _Keeping:
    """A renderer whose response is kept before its last bytes go out: the client may refer to it right after them."""

    content_type = ResponsesRenderer.content_type

    def __init__(self, request: web.Request, body: JsonObject, inner: ResponsesRenderer) -> None:
        self._request = request
        self._body = body
        self._inner = inner
        self._kept = False

    def feed(self, data: bytes) -> bytes:
        return self._seen(self._inner.feed(data))

    def finish(self) -> bytes:
        return self._seen(self._inner.finish())

    def _seen(self, out: bytes) -> bytes:
        if self._inner.response is not None and not self._kept:
            self._kept = True
            _keep(self._request, self._body, self._inner.response)
        return out


async def _ollama(request: web.Request, dialect: OllamaChat | OllamaGenerate) -> web.StreamResponse:
    body = await read_json(request)
    if (loaded := dialect.preloaded(body, int(time.time()))) is not None:
        return json_response(loaded)
    return await _chat(request, dialect, body, "ollama", dialect.unheard(body))


async def _chat(
    request: web.Request, dialect: Inbound, body: JsonObject, name: str, unheard: tuple[str, ...] = ()
) -> web.StreamResponse:
    """A chat request of another dialect, answered in it."""
    call = _call(request, dialect.request(body, request.headers), name)
    call.unheard = unheard
    if call.stream:
        return await answer(request, call, renderer=dialect.renderer(body))
    return await answer(request, call, lambda reply: dialect.reply(reply, body))


def _call(request: web.Request, canonical: JsonObject, name: str) -> Call:
    call = delivered(request, parse_chat(canonical, request[TRACE].id))
    call.dialect = name
    return call


async def _embed(
    request: web.Request,
    canonical: JsonObject,
    reply: Callable[[JsonObject], JsonObject],
    unheard: tuple[str, ...] = (),
) -> web.StreamResponse:
    call = parse_embeddings(canonical, request[TRACE].id)
    call.unheard = unheard
    return await answer(request, call, reply)


def _stopwatch() -> Callable[[], int]:
    """Nanoseconds since now."""
    begun_ns = time.perf_counter_ns()
    return lambda: time.perf_counter_ns() - begun_ns
