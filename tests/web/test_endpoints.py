"""The proxy's own endpoints, request ids, the list of models, and calls that are passed through."""

from __future__ import annotations

import re

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from llmproxy import __version__
from tests.fakes.upstream import UpstreamThread
from tests.servers import Client, Json


async def test_health_ready_and_version(http: Client) -> None:
    """They tell that the server is up, that it can route, and what it is."""
    health, ready, version = [await http.get(path) for path in ("/health", "/ready", "/version")]
    assert (health.json["status"], health.json["version"]) == ("ok", __version__)
    assert health.json["models"] >= 10
    assert health.json["in_flight"] == 1
    assert ready.json == {"ready": True}
    assert version.json == {"name": "llmproxy", "version": __version__}


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/nothing"])
async def test_a_clients_request_id_is_kept(http: Client, path: str) -> None:
    """A sensible id comes back as it was sent, with answers and errors alike."""
    answer = await http.get(path, headers={"x-request-id": "trace-7:a.b_c"})
    assert answer.headers["x-request-id"] == "trace-7:a.b_c"


@pytest.mark.parametrize("given", [None, "", "two words", "x" * 200, pytest.param("é")])
async def test_any_other_request_gets_an_id_of_its_own(http: Client, given: str | None) -> None:
    """Ids are made where none was given, or none that could be written to a log; no two are equal."""
    headers = {} if given is None else {"x-request-id": given}
    ids = [(await http.get("/health", headers=headers)).headers["x-request-id"] for _ in range(2)]
    assert all(re.fullmatch(r"req_[0-9a-f]+", one) for one in ids)
    assert ids[0] != ids[1]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_has_the_headers_that_tell_of_it(http: Client, stream: bool) -> None:
    """Id, candidate, reason and attempts, whole or streamed; a stream is not buffered on its way."""
    answer = await http.chat("gpt-4o-mini", stream=stream)
    assert answer.headers["x-llmproxy-selected-model"] == "b/ok"
    assert answer.headers["x-llmproxy-route-reason"] == "alias of b/ok"
    assert answer.headers["x-llmproxy-attempts"] == "1"
    assert answer.headers["x-request-id"].startswith("req_")
    if stream:
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert (answer.headers["Cache-Control"], answer.headers["X-Accel-Buffering"]) == ("no-cache", "no")


async def test_the_list_of_models(http: Client) -> None:
    """Concrete models as `provider__model`, aliases, and pools that have a candidate."""
    listed = (await http.get("/v1/models")).json
    assert listed["object"] == "list"
    entries: dict[str, Json] = {entry["id"]: entry for entry in listed["data"]}
    assert len(entries) == len(listed["data"])
    assert {"a__ok", "b__ok", "a__acme/ok-large", "a__ok:free", "a__embed"} <= entries.keys()
    assert {"helexa/small", "llmproxy/auto", "llmproxy/free", "llmproxy/a", "llmproxy/pair"} <= entries.keys()
    assert not {"llmproxy/local", "llmproxy/deep"} & entries.keys()
    assert entries["a__ok"].items() >= {"object": "model", "owned_by": "a", "created": 1_700_000_000}.items()
    assert "embeddings" in entries["a__embed"]["llmproxy"]["capabilities"]
    assert entries["helexa/small"]["llmproxy"] == {"is": "alias of a/ok"}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a__ok", "a__ok"),
        ("a/ok", "a__ok"),
        ("a__acme/ok-large", "a__acme/ok-large"),
        ("a/acme/ok-large", "a__acme/ok-large"),
        ("a__acme%2Fok-large", "a__acme/ok-large"),
        ("a__ok:free", "a__ok:free"),
        ("a__ok%3Afree", "a__ok:free"),
        ("ok (a)", "a__ok"),
        ("helexa/small", "helexa/small"),
        ("llmproxy/auto", "llmproxy/auto"),
        ("llmproxy__free", "llmproxy__free"),
    ],
)
async def test_one_model(http: Client, name: str, found: str) -> None:
    """Each spelling is found; `/` and `:` may be escaped or not."""
    answer = await http.get(f"/v1/models/{name}")
    assert (answer.status, answer.json["id"], answer.json["object"]) == (200, found, "model")


async def test_an_unknown_model_is_not_there(http: Client) -> None:
    """404 in OpenAI's shape."""
    answer = await http.get("/v1/models/nobody/knows")
    assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "model_not_found", "model")


async def test_explain_tells_the_plan_and_asks_nobody(http: Client, upstream: UpstreamThread) -> None:
    """Kept candidates in their order, with reasons; messages may be left out."""
    before = upstream.count()
    body = {"model": "llmproxy/pair", "tools": [{"type": "function", "function": {"name": "f"}}]}
    plan = (await http.post("/v1/route/explain", body)).json
    assert [entry["model"] for entry in plan["kept"]] == ["a/ok", "b/ok"]
    assert (plan["needs"], plan["dropped"]) == (["tools"], [])
    assert all("pool pair" in entry["reason"] for entry in plan["kept"])
    assert upstream.count() == before


async def test_explain_tells_what_was_dropped(http: Client) -> None:
    """An embedding model in a chat pool is dropped with its reason."""
    plan = (await http.post("/v1/route/explain", {"model": "llmproxy/free"})).json
    dropped = {entry["model"]: entry["reason"] for entry in plan["dropped"]}
    assert dropped == {"a/embed": "not a model for chat", "b/embed": "not a model for chat"}


async def test_metrics_are_counted(http: Client) -> None:
    """The text parses, and each answer counts: requests, attempts, durations and tokens."""

    async def samples() -> dict[tuple[str, str], float]:
        text = (await http.get("/metrics")).body.decode()
        return {
            (sample.name, str(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def labels(**values: str) -> str:
        return str(sorted(values.items()))

    model = "a/ok+tokens=5"
    await http.chat(model)
    before = await samples()
    await http.chat(model)
    await http.chat(model, stream=True)
    after = await samples()
    grown = {
        ("llmproxy_requests_total", labels(route="/v1/chat/completions", status="200")): 2,
        ("llmproxy_attempts_total", labels(model=model, outcome="ok")): 2,
        ("llmproxy_attempt_duration_seconds_count", labels(model=model)): 2,
        ("llmproxy_tokens_total", labels(kind="completion", model=model)): 10,
        ("llmproxy_tokens_total", labels(kind="prompt", model=model)): 4,
    }
    assert {key: after[key] - before[key] for key in grown} == grown
    assert after["llmproxy_requests_in_flight", "[]"] == 1


ESCAPED = ("x%20y", "x%0D%0Ax-evil:%201", "%2520")


class TestPassThrough:
    """Any other `/v1/*` goes to the provider of the model that it names."""

    async def test_json(self, http: Client, upstream: UpstreamThread) -> None:
        """The body is sent on with the upstream's own model id; path and query stay."""
        body = {"prompt": "a cat \u2713", "model": "a/acme/ok-large", "size": {"w": 1}}
        answer = await http.post("/v1/images/generations?quality=high", body)
        assert (answer.status, answer.json["path"]) == (200, "/v1/images/generations")
        assert answer.headers["x-llmproxy-selected-model"] == "a/acme/ok-large"
        got = upstream.requests[-1]
        assert (got.method, got.query, got.json) == ("POST", "quality=high", body | {"model": "acme/ok-large"})
        assert got.headers["authorization"] == "Bearer sk-upstream-0123456789"

    async def test_multipart(self, http: Client, upstream: UpstreamThread) -> None:
        """A file goes on byte by byte; only the model's name is replaced."""
        audio = bytes(range(256)) * 40
        form = aiohttp.FormData()
        form.add_field("model", "b/ok")
        form.add_field("language", "en")
        form.add_field("file", audio, filename="speech.wav", content_type="audio/wav")
        answer = await http.request("POST", "/v1/audio/transcriptions", data=form)
        assert answer.status == 200
        assert answer.json["text"] == f"speech.wav {len(audio)}"
        assert upstream.requests[-1].fields == {"model": "ok", "language": "en"}

    @pytest.mark.parametrize("purpose", ["fine-tune", "a%26model%3Db", *(pytest.param(text) for text in ESCAPED)])
    async def test_query(self, http: Client, upstream: UpstreamThread, purpose: str) -> None:
        """Without a body the model is named in the query, and the rest of that arrives with its escapes."""
        path = f"/v1/files?purpose={purpose}&model=a/ok&limit=3"
        answer = await http.request("GET", URL(http.url + path, encoded=True))
        assert answer.status == 200
        got = upstream.requests[-1]
        assert got.query == URL(f"?purpose={purpose}&limit=3", encoded=True).query_string
        assert (got.method, "x-evil" in got.headers) == ("GET", False)

    async def test_header(self, http: Client) -> None:
        """Or in a header, as for a body that is neither JSON nor a form."""
        headers = {"x-llmproxy-model": "a/ok", "Content-Type": "application/octet-stream"}
        answer = await http.request("PUT", "/v1/blobs/7", data=b"\x00\x01", headers=headers)
        assert (answer.json["method"], answer.json["body_bytes"]) == ("PUT", 2)
        assert answer.json["content_type"] == "application/octet-stream"

    async def test_failover(self, http: Client) -> None:
        """A pool goes on to the next candidate here too."""
        answer = await http.post("/v1/images/generations", {"model": "llmproxy/pair", "prompt": "a cat"})
        assert answer.headers["x-llmproxy-selected-model"] == "a/ok"

    async def test_a_refusal_is_passed_on(self, http: Client) -> None:
        """The upstream's 400 is the client's error."""
        answer = await http.post("/v1/images/generations", {"model": "a/status-400", "prompt": "a cat"})
        assert (answer.status, answer.error["message"]) == (400, "The request is not valid.")

    async def test_a_quote_in_a_name_stays_in_it(self, http: Client, upstream: UpstreamThread) -> None:
        """A model's name cannot break the JSON, or add fields to it."""
        await http.post("/v1/images/generations", {"model": 'a/o"k', "prompt": "a cat"})
        assert upstream.requests[-1].json == {"model": 'o"k', "prompt": "a cat"}
