"""Errors as the client's dialect writes them; the only place that turns an exception into a response."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from llmproxy.core.errors import LlmproxyError, SameRefusal
from llmproxy.core.types import trail


def status_of(error: LlmproxyError) -> int:
    """The HTTP status of an error."""
    return error.refusal_status if isinstance(error, SameRefusal) else error.status


def body_of(error: LlmproxyError) -> dict[str, Any]:
    """The OpenAI error object: message, type, param, code, and the attempts when candidates were tried."""
    fields: dict[str, Any] = {
        "message": error.message,
        "type": error.type,
        "param": error.param,
        "code": error.code,
    }
    if error.attempts:
        fields["attempts"] = [
            {
                "model": attempt.model,
                "outcome": attempt.outcome,
                "status": attempt.status,
                "ms": round(attempt.elapsed_s * 1000),
                "reason": attempt.reason,
            }
            for attempt in error.attempts
        ]
    return {"error": fields}


def response_of(error: LlmproxyError) -> web.Response:
    """The whole response, with `Retry-After` where it is known and the trail where there is one."""
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    if error.attempts:
        headers["x-llmproxy-attempts"] = str(len(error.attempts))
        headers["x-llmproxy-trail"] = header_text(trail(list(error.attempts)))
    return json_response(body_of(error), status_of(error), headers)


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """`body` as JSON."""
    return web.Response(body=orjson.dumps(body), status=status, headers=headers, content_type="application/json")


def header_text(text: str) -> str:
    """`text` with what a header field cannot hold (RFC 9110 §5.5) left out."""
    return text if text.isascii() and text.isprintable() else "".join(c if " " <= c <= "~" else "?" for c in text)
