"""How upstreams refuse: OpenAI's error body, and the spellings of single providers, as data."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

from tests.fakes.script import Script

BAD_GATEWAY_HTML = (
    "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n"
    "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A whole answer that is not a completion; a `str` body is HTML, all else is JSON."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


def error_body(message: str, kind: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """OpenAI's error envelope with all four keys."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


STATUS_ERRORS: dict[int, tuple[str, str, str | None]] = {
    400: ("The request is not valid.", "invalid_request_error", None),
    401: ("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    402: ("Insufficient credits.", "insufficient_quota", "insufficient_quota"),
    403: ("You are not allowed to use this model.", "permission_error", "permission_denied"),
    404: ("The model does not exist or you do not have access to it.", "invalid_request_error", "model_not_found"),
    408: ("The request timed out.", "timeout_error", "request_timeout"),
    409: ("The request conflicts with another.", "conflict_error", "conflict"),
    413: ("The request is too large.", "invalid_request_error", "request_too_large"),
    422: ("The request could not be processed.", "invalid_request_error", "unprocessable_entity"),
    429: ("Rate limit reached for requests.", "requests", "rate_limit_exceeded"),
    500: ("The server had an error while processing your request.", "server_error", None),
    503: ("The service is unavailable.", "server_error", "service_unavailable"),
    529: ("Overloaded.", "overloaded_error", "overloaded"),
}


def gemini(quota_id: str, limit: int, retry_delay: str) -> list[dict[str, Any]]:
    message = (
        "You exceeded your current quota, please check your plan and billing details.\n"
        "* Quota exceeded for metric: generativelanguage.googleapis.com/generate_content_free_tier_requests, "
        f"limit: {limit}\nPlease retry in {retry_delay}."
    )
    violation = {
        "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
        "quotaId": quota_id,
        "quotaDimensions": {"model": "gemini-2.5-flash", "location": "global"},
        "quotaValue": str(limit),
    }
    details = [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": retry_delay},
    ]
    return [{"error": {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED", "details": details}}]


def groq(status: int, unit: str, limit: int, used: int, asked: int, wait: str, retry_after: str) -> Refusal:
    kind = "requests" if unit.startswith("requests") else "tokens"
    message = (
        "Rate limit reached for model `llama-3.3-70b-versatile` in organization `org_1` service tier `on_demand` "
        f"on {unit}: Limit {limit}, Used {used}, Requested {asked}. Please try again in {wait}."
    )
    if status == 413:
        message = (
            "Request too large for model `llama-3.3-70b-versatile` in organization `org_1` service tier `on_demand` "
            f"on {unit}: Limit {limit}, Requested {asked}, please reduce your message size and try again."
        )
    return Refusal(status, error_body(message, kind, "rate_limit_exceeded"), {"retry-after": retry_after})


def github(kind: str, message: str, wait_s: int) -> Refusal:
    headers = {
        "x-ratelimit-type": kind,
        "x-ratelimit-timeremaining": str(wait_s),
        "retry-after": str(wait_s),
        "x-ms-error-code": "RateLimitReached",
    }
    return Refusal(429, {"error": {"code": "RateLimitReached", "message": message, "details": message}}, headers)


def _zai(code: str, message: str) -> Refusal:
    return Refusal(429, {"error": {"code": code, "message": message}})


def openrouter(status: int, message: str, metadata: dict[str, Any], headers: dict[str, str] | None = None) -> Refusal:
    return Refusal(status, {"error": {"message": message, "code": status, "metadata": metadata}}, headers or {})


def cloudflare(code: int, message: str) -> Refusal:
    body = {"errors": [{"message": message, "code": code}], "success": False, "result": {}, "messages": []}
    return Refusal(429, body)


PROVIDER_REFUSALS: dict[str, Refusal] = {
    "groq-429-rpm": groq(429, "requests per minute (RPM)", 30, 30, 1, "2s", "2"),
    "groq-429-tpm": groq(429, "tokens per minute (TPM)", 12_000, 11_000, 2_000, "5s", "5"),
    "groq-429-rpd": groq(429, "requests per day (RPD)", 1_000, 1_000, 1, "1m26.4s", "87"),
    "groq-429-tpd": groq(429, "tokens per day (TPD)", 100_000, 99_500, 1_000, "7m12s", "432"),
    "groq-413-tpm": groq(413, "tokens per minute (TPM)", 8_000, 0, 11_088, "", "65"),
    "cerebras-429-quota": Refusal(
        429,
        {
            "message": "Requests per minute limit exceeded - too many requests sent.",
            "type": "too_many_requests_error",
            "param": "quota",
            "code": "request_quota_exceeded",
        },
        {"retry-after": "58"},
    ),
    "cerebras-429-queue": Refusal(
        429,
        {
            "message": "We're experiencing high traffic right now! Please try again soon.",
            "type": "too_many_requests_error",
            "param": "queue",
            "code": "queue_exceeded",
        },
        {"x-should-retry": "false"},
    ),
    "cerebras-404-archived": Refusal(
        404,
        {"message": "Model is archived.", "type": "not_found_error", "param": "model", "code": "model_archived"},
    ),
    "gemini-429-minute": Refusal(429, gemini("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", 5, "44s")),
    "gemini-429-day": Refusal(429, gemini("GenerateRequestsPerDayPerProjectPerModel-FreeTier", 20, "0.997965142s")),
    "gemini-429-zero": Refusal(429, gemini("GenerateRequestsPerDayPerProjectPerModel-FreeTier", 0, "35s")),
    "github-429-concurrent": github(
        "UserConcurrentRequests",
        "Rate limit of 2 per 0s exceeded for UserConcurrentRequests. Please wait 0 seconds before retrying.",
        0,
    ),
    "github-429-minute": github(
        "UserByMinute",
        "Rate limit of 10 per 60s exceeded for UserByMinute. Please wait 55 seconds before retrying.",
        55,
    ),
    "github-429-day": github(
        "UserByModelByDay",
        "Rate limit of 50 per 86400s exceeded for UserByModelByDay. Please wait 5631 seconds before retrying.",
        5631,
    ),
    "mistral-429": Refusal(
        429,
        {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited", "param": None, "code": "1300"},
        {"x-ratelimit-limit-req-minute": "50", "x-ratelimit-remaining-req-minute": "0"},
    ),
    "mistral-429-zero": Refusal(
        429,
        {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited", "param": None, "code": "1300"},
        {"x-ratelimit-limit-req-minute": "0", "x-ratelimit-remaining-req-minute": "0"},
    ),
    "cohere-429-minute": Refusal(
        429,
        {"message": "You are using a Trial key, which is limited to 20 API calls / minute. You can continue later."},
    ),
    "cohere-429-month": Refusal(
        429,
        {"message": "You are using a Trial key, which is limited to 1000 API calls / month. You can upgrade your key."},
    ),
    "zai-429-1302": _zai(
        "1302", "High concurrency usage of this API, please reduce concurrency or contact customer service."
    ),
    "zai-429-1305": _zai("1305", "The model is currently overloaded, please try again later."),
    "zai-429-1308": _zai("1308", "Usage limit reached for 5 hour. Your limit will reset at 2026-11-21 08:00:00"),
    "zai-429-1311": _zai("1311", "The current plan does not include access to this model."),
    "zai-429-1313": _zai("1313", "Your account is limited under the fair use policy."),
    "cloudflare-429-day": cloudflare(
        4006,
        "you have used up your daily free allocation of 10,000 neurons, "
        "please upgrade to Cloudflare's Workers Paid plan",
    ),
    "cloudflare-429-capacity": cloudflare(3040, "Capacity temporarily exceeded, please try again."),
    "openrouter-429-minute": openrouter(
        429,
        "Rate limit exceeded: free-models-per-min. ",
        {"headers": {"X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "0"}},
        {"X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "0"},
    ),
    "openrouter-429-day": openrouter(
        429,
        "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day",
        {"headers": {"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0"}},
        {"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0"},
    ),
    "openrouter-429-upstream": openrouter(
        429,
        "Provider returned error",
        {
            "raw": "model is temporarily rate-limited upstream. Please retry shortly.",
            "provider_name": "Chutes",
            "provider_code": "429",
        },
    ),
    "openrouter-402": openrouter(402, "Insufficient credits. Add more using https://openrouter.ai/credits", {}),
    "openrouter-404-retired": openrouter(
        404,
        "No endpoints found: the free variant has ended, the paid version is available now",
        {"error_type": "free_variant_ended"},
    ),
    "nvidia-429": Refusal(429, {"status": 429, "title": "Too Many Requests"}),
    "nvidia-400-degraded": Refusal(
        400, {"status": 400, "title": "Bad Request", "detail": "Function id 'f-1': DEGRADED function cannot be invoked"}
    ),
    "hf-402": Refusal(
        402,
        {"error": "You have exceeded your monthly included credits for Inference Providers."},
        {"x-error-message": "You have exceeded your monthly included credits for Inference Providers."},
    ),
    "llm7-429": Refusal(
        429, {"detail": "Rate limit exceeded. Retry after 1 seconds", "retry_after": 1}, {"retry-after": "1"}
    ),
    "openai-429-quota": Refusal(
        429,
        error_body(
            "You exceeded your current quota, please check your plan and billing details.",
            "insufficient_quota",
            "insufficient_quota",
        ),
    ),
    "cloudflare-403-1010": Refusal(
        403, "<html><head><title>Access denied</title></head><body>error code: 1010</body></html>"
    ),
}

RATE_HEADERS: dict[str, dict[str, str]] = {
    "groq": {
        "x-ratelimit-limit-requests": "1000",
        "x-ratelimit-limit-tokens": "12000",
        "x-ratelimit-remaining-requests": "998",
        "x-ratelimit-remaining-tokens": "11470",
        "x-ratelimit-reset-requests": "2m59.56s",
        "x-ratelimit-reset-tokens": "7.66s",
    },
    "cerebras": {
        "x-ratelimit-limit-requests-day": "2400",
        "x-ratelimit-remaining-requests-day": "2399",
        "x-ratelimit-reset-requests-day": "33011.382867",
        "x-ratelimit-limit-tokens-minute": "30000",
        "x-ratelimit-remaining-tokens-minute": "29500",
        "x-ratelimit-reset-tokens-minute": "11.382867",
    },
    "github": {
        "x-ratelimit-limit-requests": "20000",
        "x-ratelimit-remaining-requests": "19999",
        "x-ratelimit-limit-tokens": "2000000",
        "x-ratelimit-remaining-tokens": "1999000",
        "x-ratelimit-renewalperiod-requests": "60",
        "x-ratelimit-reset-requests": "0",
        "x-ratelimit-reset-tokens": "0",
    },
    "mistral": {
        "x-ratelimit-limit-req-minute": "50",
        "x-ratelimit-remaining-req-minute": "49",
        "x-ratelimit-limit-tokens-minute": "25000",
        "x-ratelimit-remaining-tokens-minute": "24000",
        "x-ratelimit-tokens-query-cost": "16",
    },
    "cohere": {"x-trial-endpoint-call-remaining": "19"},
    "sambanova": {
        "x-ratelimit-limit-requests": "20",
        "x-ratelimit-remaining-requests": "19",
        "x-ratelimit-reset-requests": "1763700000",
        "x-ratelimit-limit-requests-day": "400",
        "x-ratelimit-remaining-requests-day": "399",
        "x-ratelimit-reset-requests-day": "1763769600",
    },
    "fireworks": {
        "x-ratelimit-limit-tokens-prompt": "60000",
        "x-ratelimit-remaining-tokens-prompt": "59000",
        "x-ratelimit-reset-tokens-prompt": "1763700000",
    },
}


def refusal(script: Script, body: Mapping[str, Any], prompt_words: int) -> Refusal | None:
    """The refusal that the script asks for, or None when the request is to be answered."""
    for name in sorted(script.names):
        if name in PROVIDER_REFUSALS:
            return PROVIDER_REFUSALS[name]
        if name.startswith("status-") and name[7:].isdigit():
            return _status(int(name[7:]), script)
    return _client_error(script, body, prompt_words)


def _status(status: int, script: Script) -> Refusal:
    headers = _retry_headers(status, script)
    if status == 502:
        return Refusal(status, BAD_GATEWAY_HTML, headers)
    message, kind, code = STATUS_ERRORS.get(status, (f"Status {status}.", "api_error", None))
    message, kind = script.text("message", message), script.text("type", kind)
    return Refusal(status, error_body(message, kind, script.text("code", code or "") or None), headers)


def _retry_headers(status: int, script: Script) -> dict[str, str]:
    headers = {}
    wait = script.text("retry-after", "1" if status == 429 else "none")
    if wait == "date":
        headers["retry-after"] = formatdate(time.time() + script.seconds("in", 2.0), usegmt=True)
    elif wait != "none":
        headers["retry-after"] = wait
    if "retry-after-ms" in script.options:
        headers["retry-after-ms"] = script.text("retry-after-ms")
    return headers


def _client_error(script: Script, body: Mapping[str, Any], prompt_words: int) -> Refusal | None:
    if script.has("context-length") and prompt_words > script.number("limit", -1):
        message = (
            "This model's maximum context length is 128 tokens. "
            f"However, your messages resulted in {prompt_words} tokens."
        )
        return Refusal(400, error_body(message, "invalid_request_error", "context_length_exceeded", "messages"))
    if script.has("invalid-request"):
        return Refusal(400, error_body("Invalid value for 'messages'.", "invalid_request_error", None, "messages"))
    if script.has("unsupported-tools") and body.get("tools"):
        return Refusal(
            400, error_body("tools is not supported with this model", "invalid_request_error", None, "tools")
        )
    param = script.text("param", "temperature")
    if script.has("unsupported-param") and param in body:
        message = f"Unsupported parameter: '{param}' is not supported with this model."
        return Refusal(400, error_body(message, "invalid_request_error", "unsupported_parameter", param))
    return _shape_error(script, body)


def _shape_error(script: Script, body: Mapping[str, Any]) -> Refusal | None:
    messages = body.get("messages") or [{}]
    if script.has("rejects-prefill") and messages[-1].get("role") == "assistant":
        return Refusal(
            400, error_body("The last message must come from the user.", "invalid_request_error", None, "messages")
        )
    if script.has("error-array-400"):
        message = 'Invalid JSON payload received. Unknown name "store": Cannot find field.'
        return Refusal(400, [{"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}])
    return None
