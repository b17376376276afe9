"""Errors as the client's dialect writes them; the only place that turns an exception into a response."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from llmproxy.core.errors import LlmproxyError, SameRefusal
from llmproxy.core.types import JsonObject, trail
from llmproxy.dialects.openai import error_body


def status_of(error: LlmproxyError) -> int:
    """The HTTP status of an error."""
    return error.refusal_status if isinstance(error, SameRefusal) else error.status


def response_of(error: LlmproxyError, body: JsonObject | None = None) -> web.Response:
    """The whole response, with `Retry-After` where it is known and the trail where there is one.

    `body` is the error as another dialect than OpenAI's writes it.
    """
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    if error.attempts:
        headers["x-llmproxy-attempts"] = str(len(error.attempts))
        headers["x-llmproxy-trail"] = header_text(trail(list(error.attempts)))
    return json_response(error_body(error) if body is None else body, status_of(error), headers)


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """`body` as JSON."""
    return web.Response(body=orjson.dumps(body), status=status, headers=headers, content_type="application/json")


def header_text(text: str) -> str:
    """`text` with what a header field cannot hold (RFC 9110 §5.5) left out."""
    return text if text.isascii() and text.isprintable() else "".join(c if " " <= c <= "~" else "?" for c in text)
