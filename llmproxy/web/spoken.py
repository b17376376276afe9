"""Which dialect a path speaks: its errors are written in it, whoever raises them."""

from __future__ import annotations

import re

from aiohttp import web

from llmproxy.core.errors import LlmproxyError
from llmproxy.core.types import JsonObject
from llmproxy.dialects.anthropic import AnthropicMessages
from llmproxy.dialects.base import Inbound
from llmproxy.dialects.gemini import Gemini
from llmproxy.dialects.ollama import OllamaChat

_GEMINI = re.compile(r"/v1beta/|/v1/models/.+:[a-zA-Z]+$")
_OLLAMA = re.compile(r"/api/(chat|generate|embed|embeddings|tags|show|ps|version)$")


def dialect_of(request: web.Request) -> Inbound | None:
    """The dialect that a request's path (and for model lists its headers) speaks; None for OpenAI's."""
    path = request.path
    if path.startswith("/v1/messages") or (path.startswith("/v1/models") and "anthropic-version" in request.headers):
        return AnthropicMessages()
    if _GEMINI.match(path) or (path == "/v1/models" and "x-goog-api-key" in request.headers):
        return Gemini()
    return OllamaChat() if _OLLAMA.match(path) else None


def key_in_query(request: web.Request) -> str:
    """The API key where Gemini's clients may put it; empty for every other path."""
    return request.query.get("key", "") if _GEMINI.match(request.path) else ""


def native_error(request: web.Request, error: LlmproxyError, status: int, request_id: str) -> JsonObject | None:
    """The error as the dialect of the path writes it; None for OpenAI's."""
    dialect = dialect_of(request)
    return dialect.error(error, status, request_id) if dialect is not None else None
