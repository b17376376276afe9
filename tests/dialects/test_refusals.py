"""What providers mean when they say no: kinds and waits, from the bodies and headers they really send."""

from __future__ import annotations

from email.utils import formatdate
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core.errors import Refused
from llmproxy.dialects.refusals import (
    ErrorBody,
    classify,
    error_in_body,
    read_error,
    refusal,
    retry_after_s,
)
from llmproxy.dialects.waits import parse_wait_s
from tests.core.properties import quick
from tests.fakes.refusals import PROVIDER_REFUSALS

NOW = 1_763_700_000.0  # 2025-11-21 04:40 UTC, an hour of the Pacific day 2025-11-20 (20:40)


def read(status: int, body: Any, headers: dict[str, str] | None = None) -> Refused:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return refusal(status, headers or {}, raw, now=NOW)


def seen(name: str) -> Refused:
    """The refusal of a provider as the scripted upstream sends it."""
    found = PROVIDER_REFUSALS[name]
    body = found.body.encode() if isinstance(found.body, str) else found.body
    headers = {key.lower(): value for key, value in found.headers.items()}
    return read(found.status, body, headers)


@pytest.mark.parametrize(
    ("name", "kind", "wait_s"),
    [
        ("groq-429-rpm", "rate_limit", 2.0),
        ("groq-429-tpm", "rate_limit", 5.0),
        ("groq-429-rpd", "rate_limit", 87.0),
        ("groq-429-tpd", "rate_limit", 432.0),
        ("groq-413-tpm", "too_large", None),
        ("cerebras-429-quota", "rate_limit", 58.0),
        ("cerebras-429-queue", "server", None),
        ("cerebras-404-archived", "not_found", None),
        ("gemini-429-minute", "rate_limit", 44.0),
        ("github-429-concurrent", "rate_limit", 1.0),
        ("github-429-minute", "rate_limit", 55.0),
        ("github-429-day", "rate_limit", 5631.0),
        ("cohere-429-minute", "rate_limit", None),
        ("zai-429-1302", "rate_limit", 1.0),
        ("cloudflare-429-capacity", "server", None),
        ("openrouter-429-upstream", "rate_limit", None),
        ("openrouter-402", "credit", None),
        ("openrouter-404-retired", "not_found", None),
        ("nvidia-429", "rate_limit", 60.0),
        ("nvidia-400-degraded", "server", None),
        ("hf-402", "credit", 86_400.0),
        ("llm7-429", "rate_limit", 1.0),
        ("openai-429-quota", "credit", None),
        ("cloudflare-403-1010", "forbidden", None),
    ],
)
def test_refusals_of_providers(name: str, kind: str, wait_s: float | None) -> None:
    """Each provider's refusal gets its kind, and the wait that it states."""
    found = seen(name)
    assert (found.kind, found.retry_after_s) == (kind, wait_s)


def openai(message: str, kind: str | None = None, code: Any = None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def google(code: int, status: str, message: str) -> list[dict[str, Any]]:
    return [{"error": {"code": code, "message": message, "status": status}}]


EXTRA_INPUT = {
    "object": "error",
    "message": {
        "detail": [{"type": "extra_forbidden", "loc": ["body", "logit_bias"], "msg": "Extra inputs are not permitted"}]
    },
    "type": "invalid_request_error",
    "code": None,
}
NGINX_413 = b"<html><head><title>413 Request Entity Too Large</title></head><body><h1>413</h1></body></html>"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (
            400,
            openai("maximum context length is 128 tokens", "invalid_request_error", "context_length_exceeded"),
            "context_length",
        ),
        (400, openai("Please reduce the length of the messages or completion."), "context_length"),
        (400, openai("This model's maximum context length is 8192 tokens"), "context_length"),
        (
            400,
            google(400, "INVALID_ARGUMENT", "The input token count (12) exceeds the maximum number of tokens (8)."),
            "context_length",
        ),
        (400, {"message": "too many tokens: size limit exceeded by 100 tokens"}, "context_length"),
        (
            400,
            {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"}},
            "context_length",
        ),
        (413, NGINX_413, "too_large"),
        (413, openai("Request too large", "tokens", "rate_limit_exceeded"), "too_large"),
        (413, {"type": "error", "error": {"type": "request_too_large", "message": "Request too large"}}, "too_large"),
        (
            402,
            {"error": {"message": "Insufficient Balance", "type": "unknown_error", "code": "invalid_request_error"}},
            "credit",
        ),
        (429, openai("You exceeded your current quota", "insufficient_quota", "insufficient_quota"), "credit"),
        (401, openai("Incorrect API key provided", "invalid_request_error", "invalid_api_key"), "auth"),
        (401, b"", "auth"),
        (401, {"message": "invalid api token"}, "auth"),
        (401, {"detail": "Unauthorized"}, "auth"),
        (400, google(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."), "auth"),
        (403, openai("Invalid API key"), "auth"),
        (
            404,
            openai(
                "The model `x` does not exist or you do not have access", "invalid_request_error", "model_not_found"
            ),
            "not_found",
        ),
        (404, {"detail": "Not Found"}, "not_found"),
        (410, {"error": "gone"}, "not_found"),
        (
            400,
            openai("The model `x` has been decommissioned", "invalid_request_error", "model_decommissioned"),
            "not_found",
        ),
        (400, openai("The model `x` has been decommissioned and is no longer supported"), "not_found"),
        (400, {"object": "error", "message": "Invalid model: x", "type": "invalid_model", "code": "1500"}, "not_found"),
        (400, openai("The model `x` requires terms acceptance", None, "model_terms_required"), "forbidden"),
        (403, {"error": {"message": "Access denied", "code": 403}}, "forbidden"),
        (400, openai("filtered", None, "content_filter"), "content_filter"),
        (400, openai("Your request was rejected by our safety system"), "content_filter"),
        (400, openai("x", "invalid_request_error", "content_policy_violation"), "content_filter"),
        (
            400,
            openai(
                "Unsupported parameter: 'logit_bias'", "invalid_request_error", "unsupported_parameter", "logit_bias"
            ),
            "unsupported",
        ),
        (404, openai("No endpoints found that support tool use.", None, 404), "unsupported"),
        (422, EXTRA_INPUT, "unsupported"),
        (400, openai("`tool calling` is not supported with this model"), "unsupported"),
        (
            422,
            {"detail": [{"loc": ["body", "messages"], "msg": "field required", "type": "value_error.missing"}]},
            "invalid",
        ),
        (400, openai("Invalid value for 'messages'", "invalid_request_error"), "invalid"),
        (405, b"", "conflict"),
        (408, b"", "timeout"),
        (409, openai("conflict"), "conflict"),
        (400, openai("Failed to call a function", "invalid_request_error", "tool_use_failed"), "server"),
        (400, openai("Failed to generate JSON", "invalid_request_error", "json_validate_failed"), "server"),
        (500, openai("boom", "server_error"), "server"),
        (500, openai("the parameter is not supported"), "server"),
        (502, b"<html><title>502 Bad Gateway</title></html>", "server"),
        (503, google(503, "UNAVAILABLE", "The model is overloaded."), "server"),
        (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "server"),
        (498, openai("capacity exceeded", None, "capacity_exceeded"), "server"),
        (429, b"", "rate_limit"),
        (429, google(429, "RESOURCE_EXHAUSTED", "Quota exceeded"), "rate_limit"),
        (400, openai("slow", None, "rate_limit_exceeded"), "rate_limit"),
        (302, b"", "server"),
    ],
)
def test_kinds(status: int, body: Any, kind: str) -> None:
    """Codes outrank statuses, which outrank prose."""
    found = read(status, body)
    assert found.kind == kind
    assert found.http_status == status
    assert found.message


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, openai("The model `x` is not available"), "not_found"),
        (404, openai("Model x is not supported any more"), "not_found"),
        (403, openai("You are not allowed to use this model."), "forbidden"),
        (403, openai("This model is not enabled for your account"), "forbidden"),
        (400, openai("foo/bar is not a valid model ID", None, 400), "not_found"),
    ],
)
def test_kinds_from_prose(status: int, body: Any, kind: str) -> None:
    """A 404 about a model is no unsupported field, nor is a 403; OpenRouter's 400 for an unknown model is a 404."""
    assert read(status, body).kind == kind


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (openai("Unsupported parameter: 'logit_bias'", None, "unsupported_parameter", "logit_bias"), "logit_bias"),
        (openai("`logit_bias` is not supported by this model"), "logit_bias"),
        (openai("this model does not support tools"), "tools"),
        (openai("Function calling is not enabled: function call"), "tools"),
        (openai("This model does not support image input"), "vision"),
        (openai("audio input is not supported"), "audio"),
        (openai("response_format is not supported"), "response_format"),
        (openai("JSON mode is not supported"), "response_format"),
        (openai("logprobs are not supported"), "logprobs"),
        (openai("that is not supported"), None),
        pytest.param(
            openai("'parallel_tool_calls' is not supported by this model"),
            "parallel_tool_calls",
        ),
        pytest.param(
            EXTRA_INPUT,
            "logit_bias",
        ),
    ],
)
def test_what_is_not_supported(body: Any, param: str | None) -> None:
    """The field that is not supported is named, so that it can be learned."""
    found = read(400, body)
    assert (found.kind, found.param) == ("unsupported", param)


@pytest.mark.parametrize(
    ("body", "message", "kind", "code", "param"),
    [
        (openai("m", "t", "c", "p"), "m", "t", "c", "p"),
        (google(429, "RESOURCE_EXHAUSTED", "m"), "m", "RESOURCE_EXHAUSTED", "429", None),
        ({"error": "text"}, "text", None, None, None),
        ({"error": ""}, "fallback", None, None, None),
        ({"error": {}}, "fallback", None, None, None),
        ({"error": {"message": None}, "message": "outer"}, "outer", None, None, None),
        ({"message": "m", "type": "t", "param": "p", "code": "c"}, "m", "t", "c", "p"),
        ({"detail": "d"}, "d", None, None, None),
        ({"title": "Too Many Requests", "status": 429}, "Too Many Requests", "429", None, None),
        ({"errors": [{"message": "m", "code": 4006}], "success": False}, "m", None, "4006", None),
        ({"error": [{"message": "m"}]}, "m", None, None, None),
        (["text"], "text", None, None, None),
        ([], "fallback", None, None, None),
        ({}, "fallback", None, None, None),
        (None, "fallback", None, None, None),
        ("text", "text", None, None, None),
        ({"error": {"message": {"a": 1}, "code": {"b": 2}}}, '{"a":1}', None, None, None),
        pytest.param(
            {"error": None, "message": "m"}, "m", None, None, None,
            ),
    ],
)  # fmt: skip
def test_shapes(body: Any, message: str, kind: str | None, code: str | None, param: str | None) -> None:
    """The four fields are found in every shape."""
    found = read_error(body, "fallback")
    assert (found.message, found.type, found.code, found.param) == (message, kind, code, param)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"<html><head><title>502 Bad Gateway</title></head><body>x</body></html>", "502 Bad Gateway"),
        (b"<p>No <b>title</b></p>", "No title"),
        (b"upstream connect error", "upstream connect error"),
        (b"", "HTTP 502"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_what_is_no_json(raw: bytes, message: str) -> None:
    """Of a page its title is told, of a text its beginning, of nothing the status."""
    assert read(502, raw).message == message


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [
        ("7.66s", 7.66),
        ("2m59.56s", 179.56),
        ("1h30m", 5400.0),
        ("370ms", 0.37),
        ("116ms", 0.116),
        ("4h17m", 15420.0),
        ("1d2h", 93600.0),
        ("6m0s", 360.0),
        ("1m26.4s", 86.4),
        ("0s", 0.0),
        ("2", 2.0),
        (" 2 ", 2.0),
        ("33011.382867", 33011.382867),
        (str(int(NOW) + 90), 90.0),
        (str((int(NOW) + 90) * 1000), 90.0),
        ("2025-11-21T04:41:30Z", 90.0),
        ("2025-11-21T05:41:30+01:00", 90.0),
        ("2025-11-21T04:41:30", 90.0),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        ("31167s", 31167.0),
        ("0.997965142s", 0.997965142),
        ("soon", None),
        ("", None),
        ("5 bananas", None),
    ],
)
def test_forms_of_waits(text: str, wait_s: float | None) -> None:
    """Every form in which providers write a time is read."""
    found = parse_wait_s(text, now=NOW)
    assert found == (None if wait_s is None else pytest.approx(wait_s))


@pytest.mark.parametrize(
    ("headers", "message", "wait_s"),
    [
        ({"retry-after": "2"}, "", 2.0),
        ({"retry-after": "2.5"}, "", 2.5),
        ({"retry-after-ms": "1500"}, "", 1.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, "", 1.5),
        ({"retry-after-ms": "x", "retry-after": "9"}, "", 9.0),
        ({"retry-after": formatdate(NOW + 30, usegmt=True)}, "", 30.0),
        ({"retry-after": formatdate(NOW - 30, usegmt=True)}, "", 0.0),
        ({"retry-after": "-3"}, "", 0.0),
        ({"retry-after": "9999999"}, "", 86_400.0),
        ({"retry-after": "inf"}, "", 86_400.0),
        ({"retry-after": "later"}, "Please try again in 7m12s.", 432.0),
        ({}, "Please try again in 7m12s. Visit example.com", 432.0),
        ({}, "Please try again in 577ms.", 0.577),
        ({}, "Please wait 5631 seconds before retrying.", 5631.0),
        ({}, "Please retry in 44.2s.", 44.2),
        ({}, "Rate limit exceeded. Retry after 1 seconds", 1.0),
        ({}, "Please retry after 2 minutes", 120.0),
        ({}, "try again in 1h30m5s", 5405.0),
        ({}, "please try again later", None),
        ({}, "Limit 30, Used 30", None),
        pytest.param(
            {"retry-after": "nan"}, "", None,
            ),
        pytest.param(
            {}, "try again in 500 milliseconds", 0.5,
            ),
        pytest.param(
            {}, "TRY AGAIN IN 7M12S", 432.0,
            ),
    ],
)  # fmt: skip
def test_stated_waits(headers: dict[str, str], message: str, wait_s: float | None) -> None:
    """Headers outrank prose; a wait is from 0 s to a day."""
    found = retry_after_s(headers, ErrorBody(message), now=NOW)
    assert found == (None if wait_s is None else pytest.approx(wait_s))


def test_only_some_refusals_state_a_wait() -> None:
    """A wait beside a refusal that waiting does not help is not passed on."""
    for status, waits in (
        (429, True),
        (503, True),
        (402, True),
        (413, False),
        (400, False),
        (404, False),
        (401, False),
    ):
        found = classify(status, {"retry-after": "65"}, ErrorBody("x"), now=NOW)
        assert (found.retry_after_s is not None) is waits, status


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (openai("The model failed", "server_error"), "server"),
        (openai("Provider returned error", None, 429), "rate_limit"),
        (openai("Provider returned error", None, "429"), "rate_limit"),
        ({"error": {"message": "x", "code": 502}}, "server"),
        ({"error": "it broke"}, "server"),
        ({"error": {"message": "x", "type": "overloaded_error"}}, "server"),
        (openai("maximum context length", None, "context_length_exceeded"), "context_length"),
        (openai("bad key", None, 401), "auth"),
        ({"status": 429, "title": "Too Many Requests"}, "rate_limit"),
        (openai("x", None, "999999"), "server"),
    ],
)
def test_errors_under_200(body: Any, kind: str) -> None:
    """An error in the body of a 200 is classified by its code, and its outcome tells where it came."""
    found = error_in_body(body, now=NOW)
    assert (found.kind, found.http_status, found.outcome) == (kind, 200, "error_in_200")


ERROR_KEYS = ["error", "errors", "message", "detail", "details", "code", "type", "status", "title", "retryDelay"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["error", "errors", "message", "detail", "details", "code", "type", "status", "title", "retryDelay"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
HEADERS = [b"[" * 5000, b"<"]
header_values = st.text(st.characters(max_codepoint=255), max_size=12) | st.sampled_from(
    ["1e999", "99999999999999", "1s1s"]
)


@quick
@given(
    st.integers(300, 599),
    st.binary(max_size=60) | json_values.map(lambda value: repr(value).encode()) | st.sampled_from(HEADERS),
    st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms"]), header_values),
)
def test_any_bytes_are_read(status: int, raw: bytes, headers: dict[str, str]) -> None:
    """Whatever an upstream sends with an error status becomes a refusal."""
    found = refusal(status, headers, raw, now=NOW)
    assert isinstance(found, Refused)
    assert found.message


@quick
@given(st.integers(300, 599), json_values)
def test_any_json_is_read(status: int, body: Any) -> None:
    """Whatever JSON comes with an error status, or as an error under 200, becomes a refusal."""
    try:
        raw = orjson.dumps(body)
    except TypeError:
        return  # an integer over 64 bits, which no upstream's JSON gives orjson either
    assert isinstance(refusal(status, {}, raw, now=NOW), Refused)
    assert isinstance(error_in_body(body, now=NOW), Refused)


@quick
@given(st.text(max_size=30) | st.from_regex(r"\d{1,5}-\d\d-\d\dT\d\d:\d\d", fullmatch=True))
def test_any_text_may_be_a_wait(text: str) -> None:
    """Reading a wait never raises."""
    parse_wait_s(text, now=NOW)


@pytest.mark.parametrize("code", ["²", "9" * 5000])
def test_odd_digits(code: str) -> None:
    """A code that only looks like a number is no status."""
    try:
        found = error_in_body({"error": {"message": "x", "code": code}}, now=NOW)
    except ValueError as error:
        pytest.fail(repr(error)[:80])
    assert found.kind == "server"
