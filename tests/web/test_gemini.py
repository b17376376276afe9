"""Gemini's endpoints as plain HTTP: paths and methods, keys, errors in Google's shape, both forms of a stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import pytest
from yarl import URL

from tests.fakes.upstream import UpstreamThread
from tests.servers import Answer, Client, Json, Server, client_of, provider, serving, wait_until

KEY = "sk-client-0123456789"
SENTENCE = "word0 word1 word2 word3 word4 word5 word6 word7"
HELLO: Json = {"contents": [{"role": "user", "parts": [{"text": "hello there"}]}]}
versions = pytest.mark.parametrize("version", ["v1", "v1beta"])


def url(client: Client, path: str) -> URL:
    """A URL whose escapes stay as they are written."""
    return URL(client.url + path, encoded=True)


async def generate(client: Client, model: str, method: str = "generateContent", **body: Any) -> Answer:
    return await client.request("POST", url(client, f"/v1beta/models/{model}:{method}"), json={**HELLO, **body})


def text_of(frames: list[Json]) -> str:
    parts = [part for frame in frames for one in frame.get("candidates", ()) for part in one["content"]["parts"]]
    return "".join(part["text"] for part in parts)


def frames_of(answer: Answer) -> list[Json]:
    """The data of each event of a stream with `alt=sse`."""
    return [json.loads(block.removeprefix("data: ")) for block in answer.body.decode().split("\r\n\r\n") if block]


def status_of(answer: Answer) -> Json:
    """The error of an answer: a `google.rpc.Status`, whose code is that of HTTP."""
    error: Json = answer.json["error"]
    assert error.keys() == {"code", "message", "status", "details"}
    assert error["code"] == answer.status
    return error


def detail(error: Json, kind: str) -> Json:
    """The one detail of its kind."""
    (found,) = [one for one in error["details"] if one["@type"] == f"type.googleapis.com/google.rpc.{kind}"]
    return dict(found)


class TestAnswers:
    """generateContent and streamGenerateContent."""

    @versions
    @pytest.mark.parametrize("model", ["a/ok", "a__ok", "a%2Fok", "models/a/ok", "helexa/small", "a/acme/ok-large"])
    async def test_names(self, http: Client, model: str, version: str) -> None:
        """A model by any of its names, with slashes or their escapes, under both versions."""
        answer = await http.request("POST", url(http, f"/{version}/models/{model}:generateContent"), json=HELLO)
        assert (answer.status, text_of([answer.json])) == (200, SENTENCE)
        large = "large" in model
        assert answer.json["modelVersion"] == ("a/acme/ok-large" if large else "a/ok")

    async def test_a_colon_in_a_name(self, http: Client) -> None:
        """The method is what follows the last one."""
        assert (await generate(http, "a/ok:free")).json["modelVersion"] == "a/ok:free"

    async def test_a_whole_answer(self, http: Client) -> None:
        """Candidates, usage, model and id, and the headers that tell who answered."""
        answer = await generate(http, "a/ok")
        assert answer.json["candidates"] == [
            {"content": {"parts": [{"text": SENTENCE}], "role": "model"}, "finishReason": "STOP", "index": 0}
        ]
        usage = {"promptTokenCount": 2, "candidatesTokenCount": 8, "totalTokenCount": 10}
        assert answer.json["usageMetadata"] == usage
        assert answer.headers["Content-Type"].startswith("application/json")
        assert answer.headers["x-llmproxy-selected-model"] == "a/ok"
        assert answer.headers["x-request-id"].startswith("req_")

    async def test_events(self, http: Client) -> None:
        """With `alt=sse` each frame is an event; the last one has the reason of the end and the usage."""
        answer = await generate(http, "a/ok", "streamGenerateContent?alt=sse")
        frames = frames_of(answer)
        assert answer.streamed
        assert text_of(frames) == SENTENCE
        assert len(frames) > 3
        assert frames[-1]["candidates"][0]["finishReason"] == "STOP"
        assert frames[-1]["usageMetadata"]["totalTokenCount"] == 10
        assert not any("finishReason" in one for frame in frames[:-1] for one in frame["candidates"])

    async def test_an_array(self, http: Client) -> None:
        """Without it the body is one JSON array, which comes piece by piece."""
        answer = await generate(http, "a/trickle", "streamGenerateContent")
        assert answer.headers["Content-Type"].startswith("application/json")
        assert text_of(answer.json) == SENTENCE
        assert len(answer.pieces) > 3

    @pytest.mark.parametrize("alt", ["?alt=sse", ""])
    async def test_an_error_in_a_stream(self, http: Client, alt: str) -> None:
        """What breaks off ends with a status object, and the whole is still what it says it is."""
        answer = await generate(http, "a/cut", f"streamGenerateContent{alt}")
        frames = frames_of(answer) if alt else answer.json
        assert answer.status == 200
        assert text_of(frames[:-1]) == "word0 word1 word2"
        assert frames[-1]["error"]["code"] == 502
        assert frames[-1]["error"]["status"] == "UNAVAILABLE"
        assert frames[-1]["error"]["message"]

    async def test_a_stream_may_be_held_until_it_is_whole(self, http: Client) -> None:
        """The header that asks for it works here too: what breaks off is an error of its own."""
        path = "/v1beta/models/a/cut:streamGenerateContent?alt=sse"
        answer = await http.post(path, HELLO, headers={"x-llmproxy-delivery": "whole"})
        assert (answer.status, status_of(answer)["status"]) == (502, "UNAVAILABLE")

    async def test_tokens_are_counted(self, http: Client) -> None:
        """For contents, or for a whole request around them; nobody is asked."""
        plain = await generate(http, "a/ok", "countTokens")
        inner = {"generateContentRequest": {"model": "models/a/ok", **HELLO}}
        wrapped = await http.post("/v1beta/models/a/ok:countTokens", inner)
        assert plain.json["totalTokens"] == wrapped.json["totalTokens"] > 0

    async def test_vectors(self, http: Client) -> None:
        """One, or one for each request."""
        content = {"content": {"parts": [{"text": "a cat"}]}}
        one = await http.post("/v1beta/models/a/embed:embedContent", content)
        both = await http.post("/v1beta/models/a/embed:batchEmbedContents", {"requests": [content, content]})
        assert len(one.json["embedding"]["values"]) == 8
        assert both.json["embeddings"] == [one.json["embedding"]] * 2


class TestErrors:
    """Each in Google's shape, whoever raises it."""

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"contents": []}, "contents"),
            ({"contents": [{"parts": [{"texts": "x"}]}]}, "contents.0.parts.0"),
            ({"generationConfig": {"temperature": "hot"}}, "generationConfig.temperature"),
            ({"generation_config": {"top_k": "many"}}, "generation_config.top_k"),
            ({"tools": [{"googleSearch": {}}]}, "tools.0.googleSearch"),
            ({"cachedContent": "cachedContents/1"}, "cachedContent"),
        ],
    )
    @pytest.mark.parametrize("method", ["generateContent", "streamGenerateContent", "streamGenerateContent?alt=sse"])
    async def test_a_wrong_field(self, http: Client, body: Json, field: str, method: str) -> None:
        """400 INVALID_ARGUMENT with the client's own path of it."""
        answer = await generate(http, "a/ok", method, **body)
        error = status_of(answer)
        assert (answer.status, error["status"]) == (400, "INVALID_ARGUMENT")
        assert detail(error, "BadRequest")["fieldViolations"][0]["field"] == field
        assert detail(error, "RequestInfo")["requestId"] == answer.headers["x-request-id"]

    @versions
    async def test_no_json(self, http: Client, version: str) -> None:
        """400, under both versions."""
        answer = await http.post(f"/{version}/models/a/ok:generateContent", b"{")
        assert (answer.status, status_of(answer)["status"]) == (400, "INVALID_ARGUMENT")

    @versions
    @pytest.mark.parametrize("method", ["predict", "batchGenerateContent", "x"])
    async def test_an_unknown_method(self, http: Client, version: str, method: str) -> None:
        """404 NOT_FOUND."""
        answer = await http.post(f"/{version}/models/a/ok:{method}", HELLO)
        assert (answer.status, status_of(answer)["status"]) == (404, "NOT_FOUND")

    @versions
    async def test_an_unknown_model(self, http: Client, version: str) -> None:
        """404 NOT_FOUND with the reason."""
        answer = await http.post(f"/{version}/models/nobody/knows:generateContent", HELLO)
        error = status_of(answer)
        assert (answer.status, error["status"]) == (404, "NOT_FOUND")
        assert detail(error, "ErrorInfo")["reason"] == "MODEL_NOT_FOUND"

    async def test_nothing_is_there(self, http: Client) -> None:
        """404 in Google's shape under its path, in OpenAI's elsewhere."""
        answer = await http.get("/v1beta/nothing")
        assert (answer.status, status_of(answer)["status"]) == (404, "NOT_FOUND")
        assert (await http.get("/nothing")).error["code"] == "not_found"

    @pytest.mark.parametrize(
        ("model", "status", "word"),
        [
            ("status-400", 400, "INVALID_ARGUMENT"),
            ("status-401", 502, "UNAVAILABLE"),
            ("status-500", 502, "UNAVAILABLE"),
        ],
    )
    async def test_of_an_upstream(self, http: Client, model: str, status: int, word: str) -> None:
        """An upstream's refusal with Google's word for it, and what was tried."""
        answer = await generate(http, f"a/{model}+gemini=1")
        error = status_of(answer)
        assert (answer.status, error["status"]) == (status, word)
        assert f"a/{model}" in detail(error, "DebugInfo")["detail"]

    async def test_a_wait_is_told_twice(self, http: Client) -> None:
        """In the header, and in the details, where Google has it."""
        answer = await generate(http, "a/status-429+retry-after=7+gemini=1")
        error = status_of(answer)
        assert (answer.status, error["status"], answer.headers["Retry-After"]) == (429, "RESOURCE_EXHAUSTED", "7")
        assert 0 < float(detail(error, "RetryInfo")["retryDelay"].removesuffix("s")) <= 7


class TestModels:
    """The list in Google's shape, and in whose shape `/v1/models` is."""

    async def test_the_list(self, http: Client) -> None:
        """Every name that `/v1/models` has, with what it can be asked for."""
        ours = {entry["id"] for entry in (await http.get("/v1/models")).json["data"]}
        listed = {entry["name"]: entry for entry in (await http.get("/v1beta/models")).json["models"]}
        assert listed.keys() == {f"models/{name}" for name in ours}
        assert "generateContent" in listed["models/a__ok"]["supportedGenerationMethods"]
        assert "embedContent" in listed["models/a__embed"]["supportedGenerationMethods"]

    async def test_pages(self, http: Client) -> None:
        """Pages add up to the whole list."""
        whole = (await http.get("/v1beta/models")).json["models"]
        found, token, pages = [], "", 0
        while True:
            page = (await http.get(f"/v1beta/models?pageSize=4&pageToken={token}")).json
            found += page["models"]
            pages += 1
            if not (token := page.get("nextPageToken", "")):
                break
        assert found == whole
        assert pages == -(-len(whole) // 4)

    @pytest.mark.parametrize("query", ["pageSize=many", "pageToken=-1"])
    async def test_a_wrong_page(self, http: Client, query: str) -> None:
        """400 that names the parameter."""
        answer = await http.get(f"/v1beta/models?{query}")
        assert answer.status == 400
        field = detail(status_of(answer), "BadRequest")["fieldViolations"][0]["field"]
        assert field == query.partition("=")[0]

    @pytest.mark.parametrize("name", ["a__ok", "a/ok", "a__acme%2Fok-large", "llmproxy/auto"])
    async def test_one(self, http: Client, name: str) -> None:
        """Each by any of its names."""
        answer = await http.request("GET", url(http, f"/v1beta/models/{name}"))
        assert answer.status == 200
        assert answer.json["name"].startswith("models/")

    async def test_an_unknown_one(self, http: Client) -> None:
        """404 in Google's shape."""
        answer = await http.get("/v1beta/models/nobody")
        assert (answer.status, status_of(answer)["status"]) == (404, "NOT_FOUND")

    @pytest.mark.parametrize("path", ["/v1/models", "/v1/models/a__ok"])
    async def test_whose_shape_it_has(self, http: Client, path: str) -> None:
        """Under `/v1` Google's clients are known by their key, Anthropic's by their version; OpenAI's by neither."""
        plain = (await http.get(path)).json
        theirs = (await http.get(path, headers={"anthropic-version": "2023-06-01"})).json
        header = (await http.get(path, headers={"x-goog-api-key": "x"})).json
        query = (await http.get(f"{path}?key=x")).json
        assert "object" in plain
        assert "object" not in theirs
        assert header == query
        assert ("models" if path.endswith("models") else "name") in header

    async def test_an_unknown_one_in_whose_shape(self, http: Client) -> None:
        """Errors follow the same rule."""
        answer = await http.get("/v1/models/nobody:free", headers={"x-goog-api-key": "x"})
        assert status_of(answer)["status"] == "NOT_FOUND"
        assert (await http.get("/v1/models/nobody:free")).error["code"] == "model_not_found"


@pytest.fixture(scope="module")
def locked(upstream: UpstreamThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that wants a key."""
    config = {"server": {"api_keys": [KEY]}, "providers": {"a": provider(upstream.url)}, "local": {"models": []}}
    with serving(config, tmp_path_factory.mktemp("locked"), "--no-local", "--log-level", "INFO") as server:
        yield server


@pytest.fixture
async def shut(locked: Server) -> AsyncIterator[Client]:
    async with client_of(locked) as client:
        yield client


PATHS = ["/v1beta/models/a/ok:generateContent", "/v1/models/a/ok:generateContent"]


class TestKeys:
    """Where a client of Google may put its key."""

    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize("place", ["x-goog-api-key", "x-api-key", "Authorization", "?key"])
    async def test_a_key_opens(self, shut: Client, upstream: UpstreamThread, path: str, place: str) -> None:
        """In a header of three or in the query; it goes no further, and in no log."""
        given = {"Authorization": f"Bearer {KEY}"} if place == "Authorization" else {place: KEY}
        query = f"?key={KEY}" if place == "?key" else ""
        answer = await shut.post(path + query, HELLO, headers={} if query else given)
        assert answer.status == 200
        got = upstream.requests[-1]
        assert KEY not in f"{got.headers} {got.query} {got.body.decode()}"

    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize("given", ["", "?key=", "?key=wrong"])
    async def test_without_one_it_stays_shut(self, shut: Client, path: str, given: str) -> None:
        """401 UNAUTHENTICATED, in Google's shape."""
        answer = await shut.post(path + given, HELLO)
        assert (answer.status, status_of(answer)["status"]) == (401, "UNAUTHENTICATED")

    async def test_lists_are_shut_too(self, shut: Client) -> None:
        """The lists of models under both versions, and open with the key."""
        for path in ("/v1beta/models", "/v1/models"):
            assert (await shut.get(path)).status == (await shut.get(f"{path}?key=wrong")).status == 401
            assert (await shut.get(f"{path}?key={KEY}")).json["models"]

    @pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat"])
    async def test_elsewhere_a_query_is_no_place_for_a_key(self, shut: Client, path: str) -> None:
        """401: a query ends up in logs of whoever is between."""
        assert (await shut.post(f"{path}?key={KEY}", {})).status == 401

    async def test_no_key_is_logged(self, shut: Client, locked: Server) -> None:
        """Neither the right one nor a wrong one, whatever came of it."""
        for key in (KEY, "sk-wrong-0123456789"):
            answer = await shut.post(f"{PATHS[0]}?key={key}", HELLO)
            told = partial(locked.log_lines, event="request", id=answer.headers["x-request-id"])
            await asyncio.to_thread(wait_until, told)
        assert KEY not in locked.log
        assert "sk-wrong" not in locked.log
