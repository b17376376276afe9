"""The scripted upstream does what each model name says."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import signal
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema_rs
import pytest
import uvloop

from tests.fakes.refusals import PROVIDER_REFUSALS
from tests.fakes.schema import satisfy, violate
from tests.fakes.upstream import Shape, Upstream, UpstreamThread, eventually

ROOT = Path(__file__).parents[2]
SENTENCE = "word0 word1 word2 word3 word4 word5 word6 word7"
Json = dict[str, Any]
SCHEMA: Json = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 7},
        "unit": {"enum": ["celsius", "fahrenheit"]},
        "days": {"type": "integer", "minimum": 3, "maximum": 9},
        "share": {"type": "number", "minimum": 0, "maximum": 1},
        "dry": {"type": "boolean"},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "minItems": 2},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
    "required": ["city", "unit", "days", "share", "dry", "tags", "note"],
    "additionalProperties": False,
    "$defs": {"tag": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
}
TOOLS: list[Json] = [
    {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}},
]
FORCED: Json = {"tools": TOOLS, "tool_choice": "required"}
JSON_FORMAT: Json = {"response_format": {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA}}}


class Client:
    """An aiohttp client of one upstream."""

    def __init__(self, session: aiohttp.ClientSession, upstream: Upstream) -> None:
        self.session = session
        self.upstream = upstream

    def post(self, model: str, path: str = "/chat/completions", **body: Any) -> Any:
        """Send a request; chat requests get a user message unless they bring their own."""
        if path == "/chat/completions":
            body = {"messages": [{"role": "user", "content": "hello there"}]} | body
        return self.session.post(self.upstream.url + path, json={"model": model, **body})

    async def whole(self, model: str, path: str = "/chat/completions", **body: Any) -> Any:
        """The JSON of a 200 answer."""
        async with self.post(model, path, **body) as response:
            assert response.status == 200
            return await response.json()

    async def message(self, model: str, **body: Any) -> Any:
        """The first choice's message."""
        return (await self.whole(model, **body))["choices"][0]["message"]

    async def raw(self, model: str, path: str = "/chat/completions", **body: Any) -> bytes:
        """The bytes of a streamed answer."""
        async with self.post(model, path, stream=True, **body) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            return bytes(await response.read())

    async def events(self, model: str, path: str = "/chat/completions", **body: Any) -> list[Any]:
        """The data of a streamed answer's events, parsed where it is JSON."""
        return parsed(await self.raw(model, path, **body))


def parsed(raw: bytes) -> list[Any]:
    """The data of each event, parsed where it is JSON."""
    lines = raw.decode().splitlines()
    return [_json_or_text(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def _json_or_text(text: str) -> Any:
    with contextlib.suppress(ValueError):
        return json.loads(text)
    return text


def content(events: list[Any]) -> str:
    """The text that the stream's deltas add up to."""
    choices = [choice for event in events if isinstance(event, dict) for choice in event.get("choices", [])]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def finish_reasons(events: list[Any]) -> list[str]:
    """Every finish reason of the stream."""
    choices = [choice for event in events if isinstance(event, dict) for choice in event.get("choices", [])]
    return [choice["finish_reason"] for choice in choices if choice["finish_reason"]]


@contextlib.asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[Client]:
    """A client of an upstream with these options."""
    async with Upstream(**options) as upstream, aiohttp.ClientSession() as session:
        yield Client(session, upstream)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with connected() as client:
        yield client


async def read_until_break(response: aiohttp.ClientResponse) -> tuple[bytes, Exception | None]:
    """What arrives before the connection breaks, and how it breaks."""
    received = b""
    try:
        async for data in response.content.iter_any():
            received += data
    except aiohttp.ClientError as error:
        return received, error
    return received, None


async def read_for(duration_s: float, client: Client, model: str) -> bytes:
    """What a stream without an end sends within `duration_s`."""
    received = b""
    with pytest.raises(asyncio.TimeoutError):  # noqa: PT012 - the timeout may strike anywhere in the exchange
        async with asyncio.timeout(duration_s), client.post(model, stream=True) as response:
            async for data in response.content.iter_any():
                received += data
    return received


async def test_a_whole_answer_is_a_chat_completion(client: Client) -> None:
    """A healthy model answers the fixed sentence with usage."""
    reply = await client.whole("anything-unknown")
    assert reply["object"] == "chat.completion"
    assert reply["model"] == "anything-unknown"
    assert reply["choices"][0]["message"] == {"role": "assistant", "content": SENTENCE, "refusal": None}
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["usage"] == {"prompt_tokens": 2, "completion_tokens": 8, "total_tokens": 10}


async def test_a_stream_has_a_role_then_words_then_a_finish_reason_then_done(client: Client) -> None:
    """Chunks share id and created; there is one chunk a word; no usage unless asked for."""
    events = await client.events("ok")
    assert events[-1] == "[DONE]"
    assert len({(event["id"], event["created"]) for event in events[:-1]}) == 1
    assert [event["choices"][0]["delta"] for event in events[:3]] == [
        {"role": "assistant", "content": ""},
        {"content": "word0"},
        {"content": " word1"},
    ]
    assert content(events) == SENTENCE
    assert finish_reasons(events) == ["stop"]
    assert not any("usage" in event for event in events[:-1])


async def test_usage_is_streamed_when_asked_for(client: Client) -> None:
    """Usage comes in a last chunk without choices; the others carry null; `usage-none` sends none."""
    options: Json = {"stream_options": {"include_usage": True}}
    *others, last, done = await client.events("ok", **options)
    assert (last["choices"], last["usage"]["total_tokens"], done) == ([], 10, "[DONE]")
    assert all(event["usage"] is None for event in others)
    assert not any("usage" in event for event in (await client.events("usage-none", **options))[:-1])
    assert "usage" not in await client.whole("usage-none")


async def test_text_comes_from_the_prompt_or_the_options(client: Client) -> None:
    """`Repeat: ` is answered with the rest, also when the content is a list of parts; `tokens` sets the length."""
    parts = [{"type": "text", "text": "Repeat:  two  spaces\n"}]
    assert (await client.message("ok", messages=[{"role": "user", "content": parts}]))["content"] == " two  spaces\n"
    assert len((await client.message("acme/ok+tokens=200:free"))["content"].split()) == 200


async def test_limits_choices_and_logprobs_are_honoured(client: Client) -> None:
    """`max_tokens` ends with `length`; `n` gives that many choices; logprobs name the tokens."""
    reply = await client.whole("ok", max_tokens=3, n=2, logprobs=True)
    assert [choice["index"] for choice in reply["choices"]] == [0, 1]
    assert {choice["finish_reason"] for choice in reply["choices"]} == {"length"}
    assert [token["token"] for token in reply["choices"][0]["logprobs"]["content"]] == ["word0", " word1", " word2"]
    assert finish_reasons(await client.events("ok", max_tokens=3, n=2)) == ["length", "length"]


async def test_legacy_completions(client: Client) -> None:
    """A prompt, or each of several, is answered whole and as a stream."""
    reply = await client.whole("ok", "/completions", prompt=["Repeat: a b", "Repeat: c"])
    assert [(choice["index"], choice["text"]) for choice in reply["choices"]] == [(0, "a b"), (1, "c")]
    events = await client.events("ok", "/completions", prompt="Repeat: a b")
    assert [event["choices"][0]["text"] for event in events[:-1]] == ["a", " b", ""]


async def test_embeddings_are_the_same_as_floats_and_base64(client: Client) -> None:
    """Vectors are unit vectors that depend on the input only."""
    floats = await client.whole("embed", "/embeddings", input=["a", "b"], dimensions=4)
    packed = await client.whole("embed", "/embeddings", input=["a", "b"], dimensions=4, encoding_format="base64")
    vectors = [item["embedding"] for item in floats["data"]]
    assert [list(struct.unpack("<4f", base64.b64decode(item["embedding"]))) for item in packed["data"]] == vectors
    assert vectors[0] != vectors[1]
    assert sum(value * value for value in vectors[0]) == pytest.approx(1)


async def test_an_upload_is_echoed(client: Client) -> None:
    """A transcription names the file, its size and the fields; its model may be a script too."""
    form = aiohttp.FormData({"model": "ok", "language": "en"})
    form.add_field("file", b"RIFF1234", filename="a.wav", content_type="audio/wav")
    async with client.session.post(client.upstream.url + "/audio/transcriptions", data=form) as response:
        reply = await response.json()
    assert reply["file"] == {"name": "a.wav", "size_bytes": 8, "content_type": "audio/wav", "field": "file"}
    assert reply["fields"] == {"model": "ok", "language": "en"}
    assert client.upstream.count("ok") == 1


async def test_any_other_path_is_echoed(client: Client) -> None:
    """Method, path, query, content type and body length come back."""
    url = client.upstream.url + "/files/f-1?purpose=x"
    async with client.session.put(url, data=b"12345", headers={"Content-Type": "text/x"}) as response:
        reply = await response.json()
    assert reply["method"] == "PUT"
    assert (reply["path"], reply["query"]) == ("/v1/files/f-1", "purpose=x")
    assert (reply["content_type"], reply["body_bytes"]) == ("text/x", 5)


async def test_models_are_listed_in_each_shape(client: Client) -> None:
    """The list is under `data`, bare, or under `models`; entries may be whole objects."""
    up = client.upstream
    up.models = ["a", {"id": "b", "context_length": 5}]
    shapes: tuple[Shape, ...] = ("data", "array", "models")
    for up.models_shape in shapes:
        async with client.session.get(up.url + "/models") as response:
            reply = await response.json()
        entries = reply if up.models_shape == "array" else reply[up.models_shape]
        assert [entry["id"] for entry in entries] == ["a", "b"]


async def test_the_model_list_can_be_down(client: Client) -> None:
    """The list fails with a status, with HTML, or by hanging."""
    up = client.upstream
    for fault, status, content_type in (("500", 500, "application/json"), ("html", 200, "text/html")):
        up.models_fault = fault
        async with client.session.get(up.url + "/models") as response:
            assert (response.status, response.content_type) == (status, content_type)
    up.models_fault = "hang"
    with pytest.raises(asyncio.TimeoutError):
        await client.session.get(up.url + "/models", timeout=aiohttp.ClientTimeout(0.05))


@pytest.mark.parametrize("status", [401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 503, 529])
async def test_a_status_comes_with_the_error_envelope(client: Client, status: int) -> None:
    """The error has all four keys, streamed or not."""
    async with client.post(f"status-{status}", stream=True) as response:
        assert response.status == status
        assert set((await response.json())["error"]) == {"message", "type", "param", "code"}


async def test_502_is_html(client: Client) -> None:
    """A bad gateway answers with a page."""
    async with client.post("status-502") as response:
        assert (response.status, response.content_type) == (502, "text/html")


async def test_retry_after_has_three_spellings(client: Client) -> None:
    """Seconds, an HTTP date, or no header."""
    spellings = {}
    for wait in ("2", "date", "none"):
        async with client.post(f"status-429+retry-after={wait}") as response:
            spellings[wait] = response.headers.get("retry-after")
    assert (spellings["2"], spellings["none"]) == ("2", None)
    assert 0 <= parsedate_to_datetime(spellings["date"] or "").timestamp() - time.time() <= 2


@pytest.mark.parametrize("name", sorted(PROVIDER_REFUSALS))
async def test_each_provider_refuses_in_its_own_words(client: Client, name: str) -> None:
    """The status and body are those of the table."""
    async with client.post(f"acme/{name}") as response:
        assert response.status == PROVIDER_REFUSALS[name].status
        if response.content_type == "application/json":
            assert await response.json() == PROVIDER_REFUSALS[name].body


@pytest.mark.parametrize(
    ("model", "code", "body"),
    [
        ("context-length", "context_length_exceeded", {}),
        ("invalid-request", None, {}),
        ("unsupported-tools", None, {"tools": TOOLS}),
        ("unsupported-param+param=top_k", "unsupported_parameter", {"top_k": 1}),
        ("rejects-prefill", None, {"messages": [{"role": "assistant", "content": "word0"}]}),
    ],
)
async def test_a_400_says_why(client: Client, model: str, code: str | None, body: dict[str, Any]) -> None:
    """The client's errors carry OpenAI's codes, and come only when the request gives cause."""
    async with client.post(model, **body) as response:
        assert response.status == 400
        error = (await response.json())["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    if body:
        assert (await client.message(model))["content"] == SENTENCE


async def test_a_400_may_be_an_array(client: Client) -> None:
    """Google's endpoint puts the error in a list."""
    async with client.post("error-array-400") as response:
        assert (response.status, (await response.json())[0]["error"]["code"]) == (400, 400)


async def test_once_and_flap_count_requests_per_model(client: Client) -> None:
    """The first request of `once-` fails, every other one of `flap`; a reset starts over."""

    async def statuses(model: str) -> list[int]:
        seen = []
        for _ in range(4):
            async with client.post(model) as response:
                seen.append(response.status)
        return seen

    assert await statuses("once-503") == [503, 200, 200, 200]
    assert await statuses("once-503+id=2+times=2") == [503, 503, 200, 200]
    assert await statuses("flap") == [500, 200, 500, 200]
    assert client.upstream.count("flap") == 4
    client.upstream.reset()
    assert (client.upstream.count(), await statuses("once-503")) == (0, [503, 200, 200, 200])


async def test_scripts_and_keys_override_the_model(client: Client) -> None:
    """A test can break and mend a model, or one key, under the same name."""
    client.upstream.scripts["llama"] = "status-500"
    client.upstream.keys["spent"] = "groq-429-tpd"
    async with client.post("llama") as response:
        assert response.status == 500
    client.upstream.scripts.clear()
    url, body = client.upstream.url + "/chat/completions", {"model": "llama", "messages": []}
    for key, status in (("spent", 429), ("fresh", 200)):
        async with client.session.post(url, json=body, headers={"Authorization": f"Bearer {key}"}) as response:
            assert response.status == status


@pytest.mark.parametrize("model", ["reset", "reset-headers"])
async def test_a_reset_is_a_reset(client: Client, model: str) -> None:
    """The connection ends by RST, before or within the headers."""
    address = client.upstream.url.removeprefix("http://").removesuffix("/v1").split(":")
    reader, writer = await asyncio.open_connection(address[0], int(address[1]))
    body = json.dumps({"model": model, "messages": []}).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    received = b""
    with pytest.raises(ConnectionResetError):  # noqa: PT012 - what came before the reset counts too
        while data := await reader.read(100):
            received += data
    assert received == (b"HTTP/1.1 200 OK\r\nContent-Ty" if model == "reset-headers" else b"")
    writer.close()
    with contextlib.suppress(ConnectionResetError):
        await writer.wait_closed()
    with pytest.raises(aiohttp.ClientError):
        await client.whole(model)
    assert not any(request.disconnected for request in client.upstream.requests)


async def test_silence_notes_that_the_client_left(client: Client) -> None:
    """Nothing is answered, and the client's leaving is recorded."""
    with pytest.raises(asyncio.TimeoutError):
        await client.session.post(
            client.upstream.url + "/chat/completions", json={"model": "silence"}, timeout=aiohttp.ClientTimeout(0.05)
        )
    assert await eventually(lambda: client.upstream.requests[0].disconnected)


async def test_slow_headers_and_slow_first_token(client: Client) -> None:
    """`slow-headers` delays the status line; `slow-first` sends it at once and delays the first event."""
    began_s = time.monotonic()
    async with client.post("slow-headers+delay=0.1", stream=True) as response:
        assert time.monotonic() - began_s >= 0.1
        await response.read()
    began_s = time.monotonic()
    async with client.post("slow-first+delay=0.2", stream=True) as response:
        assert time.monotonic() - began_s < 0.2
        first = await response.content.readany()
        assert time.monotonic() - began_s >= 0.2
        assert content(parsed(first + await response.read())) == SENTENCE


@pytest.mark.parametrize("model", ["cut+after=2", "cut+after=2+rst"])
async def test_a_cut_stream_ends_without_a_finish_reason(client: Client, model: str) -> None:
    """After k content chunks the connection is gone, which the client sees as an error."""
    async with client.post(model, stream=True) as response:
        received, error = await read_until_break(response)
    assert isinstance(error, aiohttp.ClientError)
    assert (content(parsed(received)), finish_reasons(parsed(received))) == ("word0 word1", [])
    assert not client.upstream.requests[0].disconnected


async def test_a_clean_cut_ends_the_body_properly(client: Client) -> None:
    """No error for the HTTP client, but neither finish reason nor [DONE]."""
    events = await client.events("cut-clean+after=0")
    assert [event["choices"][0]["delta"] for event in events] == [{"role": "assistant", "content": ""}]


async def test_a_whole_body_is_cut_half_way(client: Client) -> None:
    """The announced length is not reached."""
    with pytest.raises(aiohttp.ClientPayloadError):
        await client.whole("cut")


async def test_a_stall_falls_silent_until_the_client_leaves(client: Client) -> None:
    """k content chunks arrive and then nothing, with or without comments."""
    for model in ("stall+after=2", "stall+after=2+comments"):
        received = await read_for(0.1, client, model)
        assert content(parsed(received)) == "word0 word1"
        assert (received.count(b": PROCESSING") > 2) == model.endswith("comments")
    assert await eventually(lambda: all(request.disconnected for request in client.upstream.requests))


async def test_trickle_waits_between_chunks(client: Client) -> None:
    """The stream takes as long as its pauses."""
    began_s = time.monotonic()
    assert content(await client.events("trickle+delay=0.01")) == SENTENCE
    assert time.monotonic() - began_s >= 0.1
    assert (await client.message("trickle+delay=0.01"))["content"] == SENTENCE


async def test_one_malformed_event_leaves_the_rest_whole(client: Client) -> None:
    """The bad event is in the middle; a whole body is simply not JSON."""
    events = await client.events("malformed")
    assert [event for event in events if isinstance(event, str)] == ['{"id":"chatcmpl-fake","choices":[{"ind', "[DONE]"]
    assert content(events) == SENTENCE
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        await client.whole("malformed")


async def test_done_may_be_missing_or_not_the_end(client: Client) -> None:
    """`no-done` ends after the finish reason; `open-after-done` does not end."""
    events = await client.events("no-done")
    assert finish_reasons(events[-1:]) == ["stop"]
    assert parsed(await read_for(0.05, client, "open-after-done"))[-1] == "[DONE]"


async def test_a_200_need_not_be_an_answer(client: Client) -> None:
    """HTML, text and errors come with status 200, also when a stream was asked for."""
    async with client.post("html-200", stream=True) as response:
        assert (response.status, response.content_type) == (200, "text/html")
    async with client.post("not-json") as response:
        assert (response.status, await response.read()) == (200, b"this is not JSON")
    assert "error" in await client.whole("error-200", stream=True)
    [inner] = await client.whole("error-array-200", stream=True)
    assert inner.keys() == {"error"}


async def test_an_answer_may_be_empty(client: Client) -> None:
    """`empty` has no content and `no-choices` no choice."""
    assert (await client.message("empty"))["content"] == ""
    assert content(await client.events("empty")) == ""
    assert (await client.whole("no-choices"))["choices"] == []
    assert [event["choices"] for event in (await client.events("no-choices"))[:-1]] == [[]]


async def test_answers_may_be_compressed(client: Client) -> None:
    """`gzip` decodes to the usual answer, event by event; `gzip-garbage` does not decode."""
    assert (await client.message("gzip"))["content"] == SENTENCE
    assert content(await client.events("gzip")) == SENTENCE
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        raw = Client(session, client.upstream)
        assert content(parsed(gzip.decompress(await raw.raw("gzip")))) == SENTENCE
    for stream in (False, True):
        async with client.post("gzip-garbage", stream=stream) as response:
            with pytest.raises(aiohttp.ClientError):
                await response.read()


async def test_an_error_may_come_in_band(client: Client) -> None:
    """After k content chunks one event is an error; with `no-role` it can be the first event."""
    events = await client.events("in-band-error+after=1+code=overloaded")
    assert (content(events), events[-1]["error"]["code"]) == ("word0", "overloaded")
    assert list((await client.events("in-band-error+after=0+no-role"))[0]) == ["error"]


async def test_finish_reasons_other_than_stop(client: Client) -> None:
    """A filter and a limit stop half-way; a refusal has its own field."""
    for model, reason in (("content-filter", "content_filter"), ("length", "length")):
        choice = (await client.whole(model))["choices"][0]
        assert (choice["finish_reason"], choice["message"]["content"]) == (reason, "word0 word1 word2 word3")
        assert finish_reasons(await client.events(model)) == [reason]
    assert (await client.message("refusal"))["refusal"] == "I cannot help with that."


async def test_thoughts_come_in_tags_or_in_their_own_field(client: Client) -> None:
    """`think` puts them into the content, in tags split over chunks; `reasoning` into `reasoning_content`."""
    assert (await client.message("think"))["content"] == f"<think>let me see</think>\n\n{SENTENCE}"
    assert (await client.message("reasoning"))["reasoning_content"] == "let me see"
    deltas = [event["choices"][0]["delta"] for event in (await client.events("reasoning"))[1:4]]
    assert deltas == [{"reasoning_content": piece} for piece in ("let", " me", " see")]


async def test_prefill_is_continued(client: Client) -> None:
    """`prefill` answers only the rest of its text; any other model starts anew."""
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "word0 word1 wo"}]
    assert (await client.message("prefill", messages=messages))["content"] == "rd2 word3 word4 word5 word6 word7"
    assert (await client.message("ok", messages=messages))["content"] == SENTENCE


async def test_a_forced_tool_is_called_with_valid_arguments(client: Client) -> None:
    """Required, named and asked-for tools are called, whole and streamed; otherwise there is prose."""
    named: Json = {"type": "function", "function": {"name": "get_time"}}
    asked = [{"role": "user", "content": "please call get_time"}]
    bodies: list[tuple[str, Json]] = [
        ("get_weather", FORCED),
        ("get_time", {**FORCED, "tool_choice": named}),
        ("get_time", {"tools": TOOLS, "messages": asked}),
    ]
    for name, body in bodies:
        message = await client.message("ok", **body)
        assert (message["content"], message["tool_calls"][0]["function"]["name"]) == (None, name)
    call = (await client.message("ok", **FORCED))["tool_calls"][0]
    jsonschema_rs.validate(SCHEMA, json.loads(call["function"]["arguments"]))
    events = await client.events("ok", **FORCED)
    fragments = [event["choices"][0]["delta"]["tool_calls"][0] for event in events[1:-2]]
    assert (fragments[0]["id"], fragments[0]["index"]) == ("call_0", 0)
    assert "".join(part["function"]["arguments"] for part in fragments) == call["function"]["arguments"]
    assert finish_reasons(events) == ["tool_calls"]
    for body in ({"tools": TOOLS}, {"tools": TOOLS, "tool_choice": "none", "messages": asked}):
        assert (await client.message("ok", **body))["content"] == SENTENCE


async def test_tools_are_called_wrongly(client: Client) -> None:
    """Each fault breaks one part of the contract."""
    calls = {
        model: (await client.message(model, **FORCED))["tool_calls"]
        for model in ("wrong-tool", "bad-args", "schema-args", "two-tools")
    }
    assert calls["wrong-tool"][0]["function"]["name"] == "not_offered"
    with pytest.raises(ValueError, match=r"Unterminated|Expecting|Invalid"):
        json.loads(calls["bad-args"][0]["function"]["arguments"])
    assert not jsonschema_rs.is_valid(SCHEMA, json.loads(calls["schema-args"][0]["function"]["arguments"]))
    assert [call["function"]["name"] for call in calls["two-tools"]] == ["get_weather", "get_time"]
    assert (await client.message("prose", **FORCED))["content"] == SENTENCE
    hermes = (await client.message("hermes", **FORCED))["content"]
    assert hermes.startswith("<tool_call>\n{")
    assert json.loads(hermes.removeprefix("<tool_call>").removesuffix("</tool_call>"))["name"] == "get_weather"


@pytest.mark.parametrize(("model", "index"), [("dup-tool-index", 0), ("dup-tool-index+index=missing", None)])
async def test_two_calls_may_share_an_index(client: Client, model: str, index: int | None) -> None:
    """Both calls' fragments carry the same index, or none."""
    events = await client.events(model, **FORCED)
    fragments = [event["choices"][0]["delta"]["tool_calls"][0] for event in events[1:-2]]
    assert {fragment.get("index") for fragment in fragments} == {index}
    assert [fragment["id"] for fragment in fragments if "id" in fragment] == ["call_0", "call_1"]


async def test_json_is_answered_when_asked_for(client: Client) -> None:
    """The answer satisfies the schema, or breaks it as the fault says."""
    jsonschema_rs.validate(SCHEMA, json.loads((await client.message("ok", **JSON_FORMAT))["content"]))
    jsonschema_rs.validate(SCHEMA, json.loads(content(await client.events("ok", **JSON_FORMAT))))
    anything = {"response_format": {"type": "json_object"}}
    assert json.loads((await client.message("ok", **anything))["content"]) == {"answer": SENTENCE}
    assert not jsonschema_rs.is_valid(
        SCHEMA, json.loads((await client.message("wrong-json", **JSON_FORMAT))["content"])
    )
    assert (await client.message("prose", **JSON_FORMAT))["content"] == SENTENCE
    fenced = (await client.message("fenced-json", **JSON_FORMAT))["content"]
    jsonschema_rs.validate(SCHEMA, json.loads(fenced.removeprefix("```json").removesuffix("```")))
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads((await client.message("truncated-json", **JSON_FORMAT))["content"])


@pytest.mark.parametrize(
    "schema",
    [
        SCHEMA,
        {"type": "object", "properties": {"a": {"const": 4}, "b": {"type": ["integer", "null"]}}, "required": ["a"]},
        {"allOf": [{"properties": {"a": {"type": "string", "format": "date"}}}, {"required": ["a", "z"]}]},
        {"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}}}}},
        {"type": "object", "properties": {"m": {"type": "integer", "minimum": 5, "multipleOf": 4}}},
        {"type": "object", "properties": {"s": {"type": "string", "maxLength": 2}, "x": {"exclusiveMinimum": 2}}},
    ],
)
def test_schemas_are_satisfied_and_violated(schema: dict[str, Any]) -> None:
    """The generated value is valid, and the broken one is not."""
    jsonschema_rs.validate(schema, satisfy(schema))
    assert not jsonschema_rs.is_valid(schema, violate(schema))


async def test_the_wire_format_can_be_awkward() -> None:
    """Streams split anywhere, CRLF and spaced JSON carry the same events, as do the same wishes in the model name."""
    options: Json = {"chunk_bytes": 7, "crlf": True, "json_spaces": True, "headers": {"x-extra": "1"}}
    async with connected(**options) as client, client.post("ok", stream=True) as response:
        pieces = [data async for data in response.content.iter_any()]
        assert response.headers["x-extra"] == "1"
    raw = b"".join(pieces)
    assert len(pieces) > 20
    assert content(parsed(raw)) == SENTENCE
    assert b'"delta": {' in raw
    assert raw.endswith(b"data: [DONE]\r\n\r\n")


async def test_the_model_name_can_ask_for_an_awkward_wire_format(client: Client) -> None:
    """`split`, `crlf`, `spaces` and `rates` are the same wishes for one model."""
    async with client.post("ok+split=5+crlf+spaces+rates=groq", stream=True) as response:
        assert response.headers["x-ratelimit-reset-requests"] == "2m59.56s"
        raw = await response.read()
    assert raw.endswith(b"data: [DONE]\r\n\r\n")
    assert content(parsed(raw)) == SENTENCE


async def test_headers_may_depend_on_the_request() -> None:
    """A function of the request gives each answer its own headers."""
    async with (
        connected(headers=lambda request: {"x-model": request.model or ""}) as client,
        client.post("status-503") as response,
    ):
        assert response.headers["x-model"] == "status-503"


async def test_a_stop_does_not_wait_for_silent_answers() -> None:
    """The upstream closes at once though a client still waits."""
    async with aiohttp.ClientSession() as session:
        async with Upstream() as upstream:
            waiting = asyncio.create_task(Client(session, upstream).whole("silence"))
            assert await eventually(lambda: upstream.count() == 1)
            began_s = time.monotonic()
        assert time.monotonic() - began_s < 0.3
        with pytest.raises(aiohttp.ClientError):
            await waiting
    assert not upstream.requests[0].disconnected


def test_connections_break_the_same_under_uvloop() -> None:
    """The loop that the server runs on resets and cuts as asyncio's own does."""

    async def broken() -> list[type[Exception]]:
        seen: list[type[Exception]] = []
        async with connected() as client:
            for model in ("reset", "reset-headers", "cut", "cut+rst"):
                try:
                    await client.raw(model)
                except aiohttp.ClientError as error:
                    seen.append(type(error))
        return seen

    resets: list[type[Exception]] = [aiohttp.ClientOSError] * 2
    cuts: list[type[Exception]] = [aiohttp.ClientPayloadError] * 2
    assert uvloop.run(broken()) == resets + cuts


def test_the_thread_serves_a_sync_test() -> None:
    """A blocking client gets its answer, and its request is recorded."""
    with UpstreamThread(models=["only"]) as upstream:
        with urllib.request.urlopen(upstream.url + "/models", timeout=2) as response:
            assert [entry["id"] for entry in json.load(response)["data"]] == ["only"]
        assert [request.path for request in upstream.requests] == ["/v1/models"]


def test_the_process_prints_its_url_and_stops_on_sigterm() -> None:
    """`python -m tests.fakes.upstream` serves until it is told to stop."""
    command = [sys.executable, "-m", "tests.fakes.upstream", "--port", "0", "--models", "only"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        with urllib.request.urlopen(url + "/models", timeout=2) as response:
            assert b'"only"' in response.read()
        process.send_signal(signal.SIGTERM)
        assert process.wait(2) == 0
