"""What is wrong with a request is said in OpenAI's shape, with the field's path, before any candidate is asked."""

from __future__ import annotations

import asyncio
import contextlib
import io
from typing import Any

import pytest
from yarl import URL

from tests.fakes.upstream import UpstreamThread
from tests.servers import Answer, Client, Json

JSON_HEADERS = {"Content-Type": "application/json"}
MESSAGES: list[Json] = [{"role": "user", "content": "hello there"}]
TOOL: Json = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
LOCAL_REFERENCE: Json = {"$ref": "file:///etc/hostname"}


def assert_refused(answer: Answer, status: int, code: str, param: str | None = None) -> None:
    """An error with all four keys, the request's id, and no attempts."""
    assert (answer.status, answer.error["code"], answer.error["param"]) == (status, code, param)
    assert answer.error["type"] == ("api_error" if status >= 500 else "invalid_request_error")
    assert answer.error["message"]
    assert "attempts" not in answer.error
    assert answer.headers["x-request-id"]


def nested(levels: int) -> bytes:
    """A chat request with so many lists inside each other."""
    lists = b"[" * levels + b"]" * levels
    return b'{"model":"a/ok","messages":[{"role":"user","content":"x"}],"metadata":' + lists + b"}"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"hello", "invalid_json"),
        (b'{"model": "a/ok", "temperature": NaN}', "invalid_json"),
        (b'{"model": "a/ok", "messages": [{"role": "user", "content": "\xff\xfe"}]}', "invalid_json"),
        (b'{"model": "a/ok", "messages": [{"role": "user", "content": "\\ud800"}]}', "invalid_json"),
        (b"[]", "invalid_request"),
        (b'"text"', "invalid_request"),
        (b"null", "invalid_request"),
        (nested(300), "invalid_request"),
        (nested(2000), "invalid_json"),
        (nested(100_000), "invalid_json"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
async def test_a_body_that_is_no_json_object(http: Client, path: str, body: bytes, code: str) -> None:
    """Not JSON, not UTF-8, not an object, or nested without end: 400, and the server lives on."""
    assert_refused(await http.post(path, body, headers=JSON_HEADERS), 400, code)


async def test_deep_but_bearable_nesting_is_sent_on(http: Client) -> None:
    """What the upstream could read is not refused."""
    assert (await http.post("/v1/chat/completions", nested(150), headers=JSON_HEADERS)).status == 200


WRONG: list[tuple[str, Any]] = [
    *((name, "hot") for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty")),
    *((name, value) for name in ("max_tokens", "max_completion_tokens", "n") for value in (0, -1, 1.5, "5", True)),
    ("temperature", True),
    ("seed", 1.5),
    ("seed", 10**25),
    ("stop", 5),
    ("stop", ["a", 5]),
    ("stream", "yes"),
    ("stream_options", []),
    ("parallel_tool_calls", "no"),
    ("logit_bias", [1]),
    ("response_format", "json"),
    ("tools", {"type": "function"}),
    ("tool_choice", 5),
    ("tool_choice", "sometimes"),
    ("model", ""),
    ("model", ["a/ok"]),
    ("models", "a/ok"),
    ("models", [5]),
    ("messages", None),
    ("messages", []),
    ("messages", "hello"),
    ("messages", {"role": "user", "content": "x"}),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
async def test_a_field_of_the_wrong_type_is_named(http: Client, name: str, value: Any) -> None:
    """`param` is the field that is wrong."""
    answer = await http.post("/v1/chat/completions", {"model": "a/ok", "messages": MESSAGES, name: value})
    assert_refused(answer, 400, "invalid_request", name)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": ["hello"]}, "messages.0"),
        ({"messages": [*MESSAGES, {"role": "robot", "content": "x"}]}, "messages.1.role"),
        ({"messages": [{"content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": [{"role": "assistant", "content": 5}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages.0.content.0"),
        ({"tools": ["f"]}, "tools.0"),
        ({"tools": [TOOL, {"type": "function"}]}, "tools.1.function.name"),
        ({"tools": [{"function": {"name": ""}}]}, "tools.0.function.name"),
        ({"tools": [{"function": {"name": "f", "parameters": []}}]}, "tools.0.function.parameters"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {}}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "nothing"}}}},
            "response_format.json_schema.schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": LOCAL_REFERENCE}}},
            "response_format.json_schema.schema",
        ),
        pytest.param({"messages": [{"role": ["user"], "content": "x"}]}, "messages.0.role"),
        pytest.param(
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": ["f"]}}}, "tool_choice"
        ),
        pytest.param(
            {"tools": [TOOL], "tool_choice": {"allowed_tools": {"mode": "required", "tools": ["f"]}}}, "tool_choice"
        ),
        pytest.param({"tools": [{"type": "custom", "function": {}}], "tool_choice": "required"}, "tool_choice"),
    ],
)
async def test_a_wrong_part_is_named_by_its_path(http: Client, fields: Json, param: str) -> None:
    """`param` leads to the wrong place inside messages, tools and formats."""
    answer = await http.post("/v1/chat/completions", {"model": "a/ok", "messages": MESSAGES, **fields})
    assert_refused(answer, 400, "invalid_request", param)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/completions", {"model": "a/ok"}, "prompt"),
        ("/v1/completions", {"model": "a/ok", "prompt": 5}, "prompt"),
        ("/v1/completions", {"model": "a/ok", "prompt": []}, "prompt"),
        ("/v1/embeddings", {"input": "x"}, "model"),
        ("/v1/embeddings", {"model": "a/embed"}, "input"),
        ("/v1/embeddings", {"model": "a/embed", "input": ""}, "input"),
        ("/v1/embeddings", {"model": "a/embed", "input": "x", "stream": True}, "stream"),
        ("/v1/route/explain", {"model": "a/ok", "needs": "tools"}, "needs"),
        ("/v1/images/generations", {"prompt": "a cat"}, "model"),
    ],
)
async def test_what_an_endpoint_needs_is_asked_for(http: Client, path: str, body: Json, param: str) -> None:
    """Each endpoint says which of its own fields is missing or wrong."""
    assert_refused(await http.post(path, body), 400, "invalid_request", param)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["acme/ok-large", "helexa/smal", "lmproxy/auto"])
async def test_an_unknown_model_comes_with_a_suggestion(http: Client, model: str, stream: bool) -> None:
    """404 with the names that are meant, for a stream too."""
    answer = await http.chat(model, stream=stream)
    assert_refused(answer, 404, "model_not_found", "model")
    assert "did you mean" in answer.error["message"]


async def test_an_unknown_fallback_is_the_clients_error(http: Client) -> None:
    """A wrong name in `models` is told, not skipped."""
    answer = await http.chat("a/ok", models=["nobody/knows"])
    assert_refused(answer, 404, "model_not_found", "model")
    assert "nobody/knows" in answer.error["message"]


async def test_a_body_over_the_limit(http: Client) -> None:
    """413 with the key that sets the limit."""
    body = io.BytesIO(b" " * (33 * 2**20))
    answer = await http.request("POST", "/v1/chat/completions", data=body, headers=JSON_HEADERS)
    assert_refused(answer, 413, "request_too_large")
    assert "server.body_limit_mb" in answer.error["message"]


async def test_an_upload_without_an_end(http: Client) -> None:
    """A stream of audio that never ends is read as it comes, and refused as soon as it is over the limit."""
    url = URL(http.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    )
    answer, sent = asyncio.ensure_future(reader.readline()), 0
    with contextlib.suppress(ConnectionError):
        while not answer.done():
            writer.write(b"40000\r\n" + bytes(0x40000) + b"\r\n")
            await writer.drain()
            sent += 0x40000
    assert (await answer).startswith(b"HTTP/1.1 413 ")
    assert 31 * 2**20 < sent < 64 * 2**20
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def test_a_body_that_cannot_be_decompressed(http: Client) -> None:
    """A wrong Content-Encoding is the client's error."""
    headers = {**JSON_HEADERS, "Content-Encoding": "gzip", "Connection": "close"}
    assert (await http.post("/v1/chat/completions", b"this is not gzip", headers=headers)).status == 400


async def test_a_nested_pass_through_body(http: Client) -> None:
    """What cannot be sent on is refused as on every other endpoint."""
    answer = await http.post("/v1/images/generations", nested(500), headers=JSON_HEADERS)
    assert_refused(answer, 400, "invalid_request")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/"), ("GET", "/nothing"), ("POST", "/admin/nothing"), ("GET", "/favicon.ico")]
)
async def test_an_unknown_path(http: Client, method: str, path: str) -> None:
    """404 in the same shape."""
    assert_refused(await http.request(method, path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("PUT", "/v1/embeddings", "POST"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/health", "GET"),
    ],
)
async def test_a_wrong_method(http: Client, method: str, path: str, allowed: str) -> None:
    """405 that says which method is right; nothing is passed through."""
    answer = await http.request(method, path)
    assert_refused(answer, 405, "method_not_allowed")
    assert allowed in answer.headers["Allow"].split(", ")


async def test_a_name_cannot_write_headers(http: Client, upstream: UpstreamThread) -> None:
    """Line ends and other signs in a model's name stay out of the response's header lines."""
    answer = await http.chat("a/ok\r\nx-evil: 1 é")
    assert answer.status == 200
    assert "x-evil" not in answer.headers
    assert answer.headers["x-llmproxy-selected-model"] == "a/ok??x-evil: 1 ?"
    assert upstream.requests[-1].json["model"] == "ok\r\nx-evil: 1 é"
