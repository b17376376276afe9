"""What providers say of their limits: in the headers of answers, and when they refuse."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest

from llmproxy.core.errors import Refused
from llmproxy.core.types import Reading
from llmproxy.dialects.ratelimits import read_headers
from llmproxy.dialects.refusals import refusal

NOW = datetime(2026, 11, 21, 15, 20, 10, tzinfo=ZoneInfo("UTC")).timestamp()
DAY, MINUTE, MONTH = 86_400.0, 60.0, 2_678_400.0
TO_UTC_MIDNIGHT = (8 * 60 + 40) * 60 - 10
TO_PACIFIC_MIDNIGHT = TO_UTC_MIDNIGHT + 8 * 3600
TO_NEXT_MONTH = 9 * DAY + TO_UTC_MIDNIGHT


def said(status: int, body: Any, **headers: str) -> Refused:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return refusal(status, named, orjson.dumps(body), now=NOW)


@pytest.mark.parametrize(
    ("headers", "windows", "readings"),
    [
        pytest.param(
            {
                "x-ratelimit-limit-requests": "14400", "x-ratelimit-limit-tokens": "18000",
                "x-ratelimit-remaining-requests": "14370", "x-ratelimit-remaining-tokens": "17997",
                "x-ratelimit-reset-requests": "2m59.56s", "x-ratelimit-reset-tokens": "7.66s",
            },
            {"requests": DAY, "tokens": MINUTE},
            {Reading("requests", DAY, 14400, 14370, 179.56), Reading("tokens", MINUTE, 18000, 17997, 7.66)},
            id="Groq",
        ),
        pytest.param(
            {
                "X-RateLimit-Limit-Requests-Day": "2400", "X-RateLimit-Remaining-Requests-Day": "2399",
                "X-RateLimit-Reset-Requests-Day": "33011.382867", "x-ratelimit-limit-tokens-minute": "30000",
                "x-ratelimit-remaining-tokens-minute": "0",
            },
            {},
            {Reading("requests", DAY, 2400, 2399, 33011.382867), Reading("tokens", MINUTE, 30000, 0)},
            id="Cerebras",
        ),
        pytest.param(
            {"x-ratelimit-limit-requests-day": "1000000000", "x-ratelimit-remaining-requests-day": "999997455"},
            {},
            set(),
            id="a thousand million is no limit",
        ),
        pytest.param(
            {
                "x-ratelimit-limit-req-minute": "50", "x-ratelimit-remaining-req-minute": "49",
                "x-ratelimit-limit-tokens-minute": "50000", "x-ratelimit-remaining-tokens-minute": "49979",
                "x-ratelimit-tokens-query-cost": "21",
            },
            {},
            {Reading("requests", MINUTE, 50, 49), Reading("tokens", MINUTE, 50000, 49979)},
            id="Mistral",
        ),
        pytest.param(
            {"x-endpoint-monthly-call-limit": "1000", "x-trial-endpoint-call-limit": "20",
             "x-trial-endpoint-call-remaining": "18"},
            {},
            {Reading("requests", MONTH, 1000), Reading("requests", MINUTE, 20, 18)},
            id="Cohere",
        ),
        pytest.param(
            {"x-ratelimit-limit-requests": "20", "x-ratelimit-remaining-requests": "19",
             "x-ratelimit-limit-requests-day": "20", "x-ratelimit-remaining-requests-day": "3"},
            {},
            {Reading("requests", None, 20, 19), Reading("requests", DAY, 20, 3)},
            id="SambaNova",
        ),
        pytest.param(
            {"x-ratelimit-limit-tokens-prompt": "60000", "x-ratelimit-remaining-tokens-prompt": "59000",
             "x-ratelimit-reset-tokens-prompt": str(int(NOW) + 30)},
            {"prompt_tokens": MINUTE},
            {Reading("prompt_tokens", MINUTE, 60000, 59000, 30.0)},
            id="Fireworks",
        ),
        pytest.param(
            {"anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-requests-remaining": "49",
             "anthropic-ratelimit-requests-reset": "2026-11-21T15:21:10Z",
             "anthropic-ratelimit-input-tokens-limit": "30000", "anthropic-ratelimit-input-tokens-remaining": "0"},
            {},
            {Reading("requests", None, 50, 49, 60.0), Reading("prompt_tokens", None, 30000, 0)},
            id="Anthropic",
        ),
        pytest.param(
            {"RateLimit": '"api";r=998;t=270', "RateLimit-Policy": '"fixed window";"api";q=1000;w=300'},
            {},
            {Reading("requests", 300.0, 1000, 998, 270.0)},
            id="Hugging Face",
        ),
        pytest.param({"x-ratelimit-limit": "none", "x-ratelimit-remaining-bananas": "3"}, {}, set(), id="nonsense"),
        pytest.param({"content-type": "application/json", "x-request-id": "1"}, {}, set(), id="none"),
    ],
)  # fmt: skip
def test_headers(headers: dict[str, str], windows: dict[str, float], readings: set[Reading]) -> None:
    """Every spelling, in any case; two windows of one unit are two readings."""
    found = read_headers(headers, now=NOW, windows=windows)
    rounded = {one._replace(reset_s=None if one.reset_s is None else round(one.reset_s, 6)) for one in found}
    assert rounded == readings


def groq(rest: str) -> dict[str, Any]:
    text = f"Rate limit reached for model `m` in organization `o` service tier `on_demand` {rest}"
    return {"error": {"message": text, "type": "tokens", "code": "rate_limit_exceeded"}}


def gemini(quota: str, value: str = "", delay: str = "0.99s") -> list[Any]:
    violation = {"quotaId": quota, "quotaMetric": "generate_content_free_tier_requests", "quotaValue": value}
    details = [{"@type": "QuotaFailure", "violations": [violation]}, {"@type": "RetryInfo", "retryDelay": delay}]
    error = {"code": 429, "message": "You exceeded your current quota.", "status": "RESOURCE_EXHAUSTED"}
    return [{"error": {**error, "details": details}}]


@pytest.mark.parametrize(
    ("found", "kind", "wait_s", "readings"),
    [
        pytest.param(
            said(429, groq("on tokens per day (TPD): Limit 100000, Used 97050, Requested 3619. try again in 9m38s")),
            "rate_limit", 578.0, (Reading("tokens", DAY, 100000, 2950),), id="Groq, day",
        ),
        pytest.param(
            said(429, groq("on requests per minute (RPM): Limit 30, Used 30, Requested 1. Please try again in 2s.")),
            "rate_limit", 2.0, (Reading("requests", MINUTE, 30, 0),), id="Groq, minute",
        ),
        pytest.param(
            said(413, groq("on tokens per minute (TPM): Limit 6000, Requested 12328, please reduce"), retry_after="65"),
            "too_large", None, (Reading("tokens", None, 6000, kind="request"),), id="Groq, a wall",
        ),
        pytest.param(
            said(429, groq("on tokens per minute (TPM): Limit 7000, Used 0, Requested ~12903. try again in 51s")),
            "too_large", None, (Reading("tokens", None, 7000, kind="request"),), id="Groq, a wall as 429",
        ),
        pytest.param(
            said(429, gemini("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "20")),
            "rate_limit", TO_PACIFIC_MIDNIGHT, (Reading("requests", DAY, 20, 0, TO_PACIFIC_MIDNIGHT),),
            id="Gemini, day, whose retryDelay is wrong",
        ),
        pytest.param(
            said(429, gemini("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "5", "21s")),
            "rate_limit", 21.0, (Reading("requests", MINUTE, 5, 0, 21.0),), id="Gemini, minute",
        ),
        pytest.param(
            said(429, gemini("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "0")), "forbidden", None, (),
            id="Gemini, never entitled",
        ),
        pytest.param(
            said(429, {"message": "Requests per minute limit exceeded", "param": "quota",
                       "code": "request_quota_exceeded"}, retry_after="57"),
            "rate_limit", 57.0, (Reading("requests", MINUTE, None, 0.0, 57.0),), id="Cerebras, requests",
        ),
        pytest.param(
            said(429, {"message": "Tokens per minute limit exceeded - too many tokens processed.", "param": "quota",
                       "code": "token_quota_exceeded"}, retry_after="57"),
            "rate_limit", 57.0, (Reading("tokens", MINUTE, None, 0.0, 57.0),), id="Cerebras, tokens",
        ),
        pytest.param(
            said(429, {"message": "busy", "param": "queue", "code": "queue_exceeded"}), "server", None, (),
            id="Cerebras, the shared queue",
        ),
        pytest.param(
            said(429, {"error": {"message": "Rate limit exceeded: free-models-per-day. x", "code": 429, "metadata": {
                "headers": {"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0"}}}}),
            "rate_limit", TO_UTC_MIDNIGHT, (Reading("requests", DAY, 50, 0, TO_UTC_MIDNIGHT),), id="OpenRouter, day",
        ),
        pytest.param(
            said(429, {"error": {"message": "Rate limit exceeded: free-models-per-min. ", "code": 429, "metadata": {
                "headers": {"X-RateLimit-Limit": "16", "X-RateLimit-Reset": str(int((NOW + 20) * 1000))}}}}),
            "rate_limit", 20.0, (Reading("requests", MINUTE, 16, 0, 20.0),), id="OpenRouter, minute",
        ),
        pytest.param(
            said(429, {"error": {"code": "RateLimitReached", "message":
                "Rate limit of 50 per 86400s exceeded for UserByModelByDay. Please wait 5631 seconds."}},
                x_ratelimit_type="UserByModelByDay", retry_after="5631"),
            "rate_limit", 5631.0, (Reading("requests", DAY, 50, 0, 5631.0),), id="GitHub, day",
        ),
        pytest.param(
            said(429, {"error": {"code": "RateLimitReached", "message":
                "Rate limit of 2 per 0s exceeded for UserConcurrentRequests. Please wait 0 seconds before retrying."}},
                x_ratelimit_type="UserConcurrentRequests"),
            "rate_limit", 1.0, (Reading("requests", None, 2, kind="concurrent"),), id="GitHub, concurrency",
        ),
        pytest.param(
            said(429, {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited", "code": "1300"}),
            "rate_limit", 50.0, (), id="Mistral, the next minute of the clock",
        ),
        pytest.param(
            said(429, {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited", "code": "1300"},
                 x_ratelimit_limit_req_minute="0", x_ratelimit_remaining_req_minute="0"),
            "forbidden", None, (), id="Mistral, never entitled",
        ),
        pytest.param(
            said(429, {"message": "You are using a Trial key, which is limited to 1000 API calls / month."}),
            "rate_limit", DAY, (Reading("requests", MONTH, 1000, 0, TO_NEXT_MONTH),), id="Cohere, month",
        ),
        pytest.param(
            said(429, {"message": "You are using a Trial key, which is limited to 20 API calls / minute."}),
            "rate_limit", None, (Reading("requests", MINUTE, 20, 0),), id="Cohere, minute",
        ),
        pytest.param(
            said(429, {"success": False, "errors": [{"code": 4006, "message": "daily free allocation"}]}),
            "rate_limit", TO_UTC_MIDNIGHT, (Reading("neurons", DAY, None, 0, TO_UTC_MIDNIGHT),), id="Cloudflare",
        ),
        pytest.param(
            said(402, {"error": "You have exceeded your monthly included credits for Inference Providers."}),
            "credit", DAY, (), id="Hugging Face",
        ),
        pytest.param(
            said(429, {"status": 429, "title": "Too Many Requests"}),
            "rate_limit", 60.0, (Reading("requests", MINUTE, None, 0),), id="NVIDIA",
        ),
        pytest.param(said(429, {"error": {"code": "1302"}}), "rate_limit", 1.0, (), id="Z.ai, concurrency"),
        pytest.param(said(429, {"error": {"code": "1305"}}), "server", None, (), id="Z.ai, overload"),
        pytest.param(said(429, {"error": {"code": "1113"}}), "credit", None, (), id="Z.ai, out of credit"),
        pytest.param(said(429, {"error": {"code": "1311"}}), "forbidden", None, (), id="Z.ai, not in the plan"),
        pytest.param(said(429, {"type": "dynamic_request_limited"}), "server", None, (), id="Together"),
        pytest.param(
            said(429, {"error": {"type": "rate_limit_error", "message": "The engine is currently overloaded"}}),
            "server", None, (), id="Moonshot",
        ),
        pytest.param(
            said(429, {"error": {"message": "Limit of requests per day reached"}}, retry_after="90"),
            "rate_limit", 90.0, (Reading("requests", DAY, None, 0.0, 90.0),), id="any other sentence",
        ),
        pytest.param(said(429, {"message": "slow"}, retry_after="9e9"), "rate_limit", DAY, (), id="cap"),
    ],
)  # fmt: skip
def test_refusals(found: Refused, kind: str, wait_s: float | None, readings: tuple[Reading, ...]) -> None:
    """Which limit is meant, how long it lasts, and what is no limit at all."""
    assert found.kind == kind
    assert found.retry_after_s == (None if wait_s is None else pytest.approx(wait_s, abs=0.01))
    rounded = tuple(
        one._replace(reset_s=None if one.reset_s is None else round(one.reset_s, 3)) for one in found.readings
    )
    assert rounded == readings
