"""Which dialect a path speaks: its errors are written in it, whoever raises them."""

from __future__ import annotations

import re

from aiohttp import web

from llmproxy.core.errors import LlmproxyError
from llmproxy.core.types import JsonObject
from llmproxy.dialects import llamacpp, rerank
from llmproxy.dialects.anthropic import AnthropicMessages
from llmproxy.dialects.base import Inbound
from llmproxy.dialects.gemini import Gemini
from llmproxy.dialects.ollama import OllamaChat

_GEMINI_METHOD = re.compile(r"/v1/models/.+:[a-zA-Z]+$")
_LLAMA_CPP = frozenset({"/embedding", "/embeddings"})
_RERANK = frozenset({"/v1/rerank", "/v2/rerank", "/v1/reranking", "/rerank", "/reranking"})
_OLLAMA = re.compile(r"/api/(chat|generate|embed|embeddings|tags|show|ps|version)$")


def dialect_of(request: web.Request) -> Inbound | None:
    """The dialect that a request's path (and for model lists its headers) speaks; None for OpenAI's."""
    if _is_anthropic(request):
        return AnthropicMessages()
    if _is_gemini(request):
        return Gemini()
    return OllamaChat() if _OLLAMA.match(request.path) else None


def key_in_query(request: web.Request) -> str:
    """The API key where Gemini's clients may put it; empty for every other path."""
    return request.query.get("key", "") if _is_gemini(request) else ""


def id_headers(request: web.Request, request_id: str) -> dict[str, str]:
    """The headers that tell a request's id, under each name by which its client's SDK reads it."""
    told = {"x-request-id": request_id}
    if _is_anthropic(request):
        told["request-id"] = request_id
    return told


def native_error(request: web.Request, error: LlmproxyError, status: int, request_id: str) -> JsonObject | None:
    """The error as the dialect of the path writes it; None for OpenAI's."""
    if request.path in _LLAMA_CPP:
        return llamacpp.error_body(error, status)
    if request.path in _RERANK:
        return rerank.error_body(error)
    dialect = dialect_of(request)
    return dialect.error(error, status, request_id) if dialect is not None else None


def _is_anthropic(request: web.Request) -> bool:
    path = request.path
    return path.startswith("/v1/m") and (
        path.startswith("/v1/messages") or (path.startswith("/v1/models") and "anthropic-version" in request.headers)
    )


def _is_gemini(request: web.Request) -> bool:
    """Under `/v1` the list of models stands where OpenAI has its own: the client is known by where it puts its key."""
    path = request.path
    if path.startswith("/v1beta/") or (request.method == "POST" and _GEMINI_METHOD.match(path)):
        return True
    if request.method != "GET" or not path.startswith("/v1/models"):
        return False
    return "x-goog-api-key" in request.headers or "key" in request.query
