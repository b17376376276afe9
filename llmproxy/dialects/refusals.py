"""What an upstream means when it says no: status, headers and body → a classified `Refused`.

Shapes seen in the field: `{"error": {message, type, param, code}}` (OpenAI), `[{"error": …}]` (Google's compatibility
endpoint), `{"error": "text"}`, `{"detail": …}` (Mistral), `{"message": …}` (Cohere, Cerebras), `{"title", "status"}`
(NVIDIA), HTML pages of proxies in between. Structured codes outrank statuses, which outrank prose.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from llmproxy.core.errors import RefusalKind, Refused
from llmproxy.core.text import scrub
from llmproxy.dialects import quotas
from llmproxy.dialects.waits import number, parse_wait_s, wait_in_prose_s

_BY_STATUS: dict[int, RefusalKind] = {
    400: "invalid",
    401: "auth",
    402: "credit",
    403: "forbidden",
    404: "not_found",
    408: "timeout",
    409: "conflict",
    410: "not_found",
    413: "too_large",
    422: "invalid",
    425: "conflict",
    429: "rate_limit",
    498: "server",
    529: "server",
}

_BY_CODE: dict[str, RefusalKind] = {
    "context_length_exceeded": "context_length",
    "string_above_max_length": "context_length",
    "content_filter": "content_filter",
    "content_policy_violation": "content_filter",
    "invalid_api_key": "auth",
    "api_key_invalid": "auth",
    "insufficient_quota": "credit",
    "payment_required": "credit",
    "unsupported_parameter": "unsupported",
    "unsupported_value": "unsupported",
    "model_not_found": "not_found",
    "model_decommissioned": "not_found",
    "model_archived": "not_found",
    "model_terms_required": "forbidden",
    "rate_limit_exceeded": "rate_limit",
    "tool_use_failed": "server",
    "json_validate_failed": "server",
}

# Prose is the weakest signal: it is asked only about a 400 or 422 that no code explains.
_PROSE_KINDS: tuple[tuple[str, RefusalKind], ...] = (
    (r"credit balance is too low|reached your specified api usage limits", "credit"),
    (r"api key not valid|invalid api key|incorrect api key|api key expired|invalid token", "auth"),
    (
        r"context (length|window)|maximum context|too many (input )?tokens|prompt is too long|"
        r"input token count.*exceeds|reduce the length",
        "context_length",
    ),
    (r"content (filter|management)|safety (system|settings)|responsible ?ai|flagged", "content_filter"),
    (
        r"model .{0,80}(does not exist|not found|is not available|has been (retired|decommissioned))|"
        r"is not a valid model|invalid model|unknown model|model_not_found",
        "not_found",
    ),
    (r"degraded|temporarily|capacity exceeded|overloaded", "server"),
    (
        r"(not|isn't|is not|are not|aren't) (yet )?(supported|available|enabled|allowed|implemented|permitted)|"
        r"(does not|doesn't|do not) support|unsupported|unrecognized (request )?(argument|field|parameter)|"
        r"unknown (field|parameter|argument|name)|extra (inputs|fields)|no endpoints found that support|"
        r"only .{0,40} (is|are) supported",
        "unsupported",
    ),
)
_PROSE = tuple((re.compile(pattern, re.IGNORECASE), kind) for pattern, kind in _PROSE_KINDS)

# OpenRouter has the model, but no endpoint of it that honours a field of the request.
_NO_ENDPOINTS = re.compile(r"no endpoints found that (can handle|support)", re.IGNORECASE)

_QUOTED_PARAM = re.compile(r"['\"`]([a-z][a-z0-9_.]{2,40})['\"`]")
_DAY_S = 86_400.0

# Fields that providers name when they refuse one; a quoted one of these says what the refusal is about.
_FIELD_NAMES = frozenset(
    {
        "parallel_tool_calls", "tool_choice", "tools", "response_format", "logit_bias", "logprobs", "top_logprobs", "n",
        "stop", "seed", "user", "store", "metadata", "frequency_penalty", "presence_penalty", "reasoning_effort",
        "stream_options", "service_tier", "temperature", "top_p", "max_tokens", "max_completion_tokens", "prediction",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """The four fields of an error, whatever shape it came in; `details` is the whole decoded error object."""

    message: str
    type: str | None = None
    param: str | None = None
    code: str | None = None
    details: Mapping[str, Any] | None = None


def read_error(body: Any, fallback: str) -> ErrorBody:
    """The error inside a decoded body, keys in its text scrubbed; `fallback` is the message when it has none."""
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict):
        return ErrorBody(scrub(str(body)[:300] if body else fallback))
    inner = next((body[key] for key in ("error", "errors") if body.get(key) is not None), body)
    if isinstance(inner, list) and inner:
        inner = inner[0]
    if not isinstance(inner, dict):
        return ErrorBody(scrub(str(inner)[:2000] or fallback), details=body)
    message = inner.get("message") or inner.get("detail") or inner.get("title") or body.get("message") or fallback
    if not isinstance(message, str):
        message = orjson.dumps(message).decode()[:2000]
    return ErrorBody(
        scrub(message),
        _text(inner.get("type") or inner.get("status")),
        _text(inner.get("param")),
        _text(inner.get("code")),
        inner,
    )


def refusal(status: int, headers: Mapping[str, str], raw: bytes, *, now: float) -> Refused:
    """Classify an error reply. `now` is a Unix time, for dates in `Retry-After`."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = None
    return classify(status, headers, read_error(body, _prose(raw) or f"HTTP {status}"), now=now)


def error_in_body(body: Any, *, now: float, status: int = 200) -> Refused:
    """Classify an `error` that came under a 2xx, or as an event in a stream."""
    error = read_error(body, "the upstream reported an error")
    codes = (error.code, str((error.details or {}).get("status")))
    said = next((int(code) for code in codes if code and re.fullmatch(r"[45][0-9]{2}", code)), 502)
    found = classify(said, {}, error, now=now)
    found.http_status = status
    found.outcome = f"error_in_{status}"
    return found


def classify(status: int, headers: Mapping[str, str], error: ErrorBody, *, now: float) -> Refused:
    kind = _kind(status, headers, error)
    param = error.param
    if kind == "unsupported" and param is None:
        param = _feature(error.message)
    waits = [retry_after_s(headers, error, now=now)]
    news = quotas.News()
    if kind in ("rate_limit", "credit", "server", "too_large"):
        code, words = error.code or "", error.type or ""
        news = quotas.read(
            quotas.Refusal(status, headers, error.message, code, words, param or "", error.details or {}, now)
        )
        kind = news.kind or kind
        waits.append(news.wait_s)
    stated = [wait_s for wait_s in waits if wait_s is not None]
    return Refused(
        error.message,
        kind=kind,
        http_status=status,
        code=error.code or error.type,
        param=param,
        retry_after_s=min(max(stated), _DAY_S) if stated and kind in ("rate_limit", "credit", "server") else None,
        readings=news.readings,
    )


def retry_after_s(headers: Mapping[str, str], error: ErrorBody | None, *, now: float) -> float | None:
    """Seconds to wait as stated by `retry-after-ms`, `Retry-After` (seconds or date), RetryInfo, or prose; ≤ a day."""
    found: float | None = None
    if (text := headers.get("retry-after-ms")) and (number(text) or 0.0) > 0:
        found = float(text) / 1000.0
    elif text := headers.get("retry-after"):
        found = parse_wait_s(text, now=now)
    if found is None and error is not None:
        found = _stated_in_body(error, now=now)
    return None if found is None else min(max(found, 0.0), _DAY_S)


def _stated_in_body(error: ErrorBody, *, now: float) -> float | None:
    metadata = (error.details or {}).get("metadata")
    inner = metadata.get("headers") if isinstance(metadata, dict) else None
    if isinstance(inner, dict) and (reset := inner.get("X-RateLimit-Reset")):  # OpenRouter
        wait_s = parse_wait_s(str(reset), now=now)
        if wait_s is not None and wait_s > 0:
            return wait_s
    details = (error.details or {}).get("details")
    for entry in details if isinstance(details, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("retryDelay"), str):
            return parse_wait_s(entry["retryDelay"], now=0.0)
    return wait_in_prose_s(error.message)


def _kind(status: int, headers: Mapping[str, str], error: ErrorBody) -> RefusalKind:
    for word in (error.code, error.type):
        found = _BY_CODE.get((word or "").lower())
        # A 413 with a rate-limit code means that this one request is over the whole window: waiting never helps.
        if found is not None and not (status == 413 and found == "rate_limit"):
            return found
    if status in (400, 422, 403, 404):
        for pattern, kind in _PROSE:
            if pattern.search(error.message) and (status in (400, 422) or kind == "auth"):
                return kind
        if status == 404 and _NO_ENDPOINTS.search(error.message):
            return "unsupported"
    if status >= 500:
        return "server"
    return _BY_STATUS.get(status, "conflict" if 400 <= status < 500 else "server")


def _feature(message: str) -> str | None:
    """Which field or capability a "not supported" is about, when the text tells."""
    for name in re.findall(r"['\"`]([a-z_]+)['\"`]", message):
        if name in _FIELD_NAMES:
            return str(name)
    lowered = message.lower()
    for word, feature in (
        ("response_format", "response_format"),
        ("json", "response_format"),
        ("tool", "tools"),
        ("function call", "tools"),
        ("image", "vision"),
        ("vision", "vision"),
        ("audio", "audio"),
        ("logprobs", "logprobs"),
    ):
        if word in lowered:
            return feature
    match = _QUOTED_PARAM.search(message)
    return match[1] if match else None


def _prose(raw: bytes) -> str:
    text = raw[:4000].decode("utf-8", "replace")
    if "<" in text:
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        text = title[1] if title else re.sub(r"<[^>]*>", " ", text)
    return " ".join(text.split())[:300]


def _text(value: Any) -> str | None:
    return None if value is None or isinstance(value, dict | list) else str(value)
