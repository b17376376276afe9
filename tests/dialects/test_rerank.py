"""Reranking requests of Cohere, Jina and llama.cpp, and the one reply that all of their clients read."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from llmproxy.core.errors import InvalidRequest
from llmproxy.dialects.rerank import RerankRenderer, error_body, read

DOCUMENTS = ["a dog", "a fox", "rain"]


def body_of(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "query": "fox", "documents": DOCUMENTS, **fields}


def rendered(said: Any, *, pieces: int = 1, **fields: Any) -> Any:
    """The reply that a client gets for what an upstream said, in so many pieces."""
    renderer = RerankRenderer(read(body_of(**fields)), "req_1", "p/m")
    raw = said if isinstance(said, bytes) else orjson.dumps(said)
    step = -(-len(raw) // pieces)
    for start in range(0, len(raw), step):
        assert renderer.feed(raw[start : start + step]) == b""
    return orjson.loads(renderer.finish())


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({}, {}),
        ({"top_n": 2}, {"top_n": 2}),
        ({"return_documents": True, "rank_fields": ["text"]}, {}),
        ({"max_chunks_per_doc": 3, "top_n": None}, {"max_chunks_per_doc": 3}),
    ],
)
def test_requests(fields: dict[str, Any], sent: dict[str, Any]) -> None:
    """Everything goes on but the model, and what is done here."""
    assert read(body_of(**fields)).body == {"query": "fox", "documents": DOCUMENTS, **sent}


@pytest.mark.parametrize(
    ("document", "fields", "text"),
    [
        ({"text": "a fox"}, None, "a fox"),
        ({"text": "a fox", "title": "Animals"}, ["title", "text"], "Animals\na fox"),
        ({"title": "Animals", "year": 7}, ["year", "title", "none"], "7\nAnimals"),
        ({"image": "data:image/png;base64,AA"}, None, {"image": "data:image/png;base64,AA"}),
    ],
)
def test_documents_that_are_objects(document: Any, fields: Any, text: Any) -> None:
    """They become the text of the fields that they are ranked by, in that order; an image stays one."""
    assert read(body_of(documents=[document], rank_fields=fields)).body["documents"] == [text]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"query": ""}, "query"),
        ({"query": 7}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": "a"}, "documents"),
        ({"documents": ["a"] * 10_001}, "documents"),
        ({"documents": ["a", 7]}, "documents.1"),
        ({"documents": ["a", {}]}, "documents.1"),
        ({"top_n": 0}, "top_n"),
        ({"top_n": True}, "top_n"),
        ({"return_documents": "yes"}, "return_documents"),
        ({"rank_fields": "text"}, "rank_fields"),
        ({"rank_fields": []}, "rank_fields"),
    ],
)
def test_wrong_requests(fields: dict[str, Any], param: str) -> None:
    """A wrong field is named."""
    with pytest.raises(InvalidRequest) as caught:
        read(body_of(**fields))
    assert caught.value.param == param


COHERE = {
    "id": "up",
    "results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.2}],
    "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
}
JINA = {
    "model": "jina-reranker",
    "object": "list",
    "usage": {"total_tokens": 15},
    "results": [{"index": 1, "relevance_score": 0.9, "document": {"text": "a fox"}}],
}


def test_a_reply_of_cohere() -> None:
    """It keeps what it has, and gets a model and the usage that clients of Jina look for."""
    found = rendered(COHERE)
    assert found["results"] == COHERE["results"]
    assert (found["id"], found["model"]) == ("up", "p/m")
    assert found["usage"]["total_tokens"] > 0
    assert found["usage"]["estimated"] is True
    assert found["meta"]["billed_units"] == {"search_units": 1}


def test_a_reply_of_jina() -> None:
    """It keeps what it has, and gets an id and the `meta` that clients of Cohere look for."""
    found = rendered(JINA, pieces=7)
    assert found["results"] == JINA["results"]
    assert (found["id"], found["model"]) == ("req_1", "jina-reranker")
    assert found["usage"] == {"prompt_tokens": 15, "total_tokens": 15}
    assert found["meta"]["tokens"]["input_tokens"] == 15


@pytest.mark.parametrize(
    "said",
    [
        {"data": [{"index": 0, "relevance_score": 0.1}, {"index": 1, "relevance_score": 0.8}]},  # Voyage
        [{"index": 0, "score": 0.1}, {"index": 1, "score": 0.8}],  # text-embeddings-inference
        {"results": [{"index": 0, "relevance_score": 0.1}, {"index": 1, "relevance_score": 0.8}]},
    ],
)
def test_other_shapes_and_orders(said: Any) -> None:
    """Whatever the list is called, the best comes first, and no more than were asked for."""
    assert rendered(said, top_n=1)["results"] == [{"index": 1, "relevance_score": 0.8}]


@pytest.mark.parametrize(("wanted", "document"), [(True, {"text": "a fox"}), (False, None), (None, {"text": "a fox"})])
def test_documents_in_replies(wanted: bool | None, document: Any) -> None:
    """Asked for, they come whether the upstream gives them or not; forbidden, they do not."""
    assert rendered(JINA, return_documents=wanted)["results"][0].get("document") == document
    plain = {"results": [{"index": 1, "relevance_score": 0.9}]}
    expected = {"text": "a fox"} if wanted else None
    assert rendered(plain, return_documents=wanted)["results"][0].get("document") == expected


def test_documents_come_back_as_they_were_sent() -> None:
    """An object is given back whole, not as the text that it was ranked by."""
    documents = [{"text": "a fox", "page": 7}]
    said = {"results": [{"index": 0, "relevance_score": 0.5}]}
    found = rendered(said, documents=documents, return_documents=True)
    assert found["results"][0]["document"] == documents[0]


@pytest.mark.parametrize(
    "said",
    [
        {"echo": 1},
        {"results": [{"index": 0}]},
        {"results": [{"relevance_score": 1}]},
        {"results": [7]},
        {"results": 7},
        {"results": [{"index": 9, "relevance_score": 1}]},
    ],
)
def test_what_is_no_reply_goes_out_as_it_came(said: Any) -> None:
    """Nothing is made up."""
    assert rendered(said, return_documents=True) == said


def test_errors() -> None:
    """The message stands where each kind of client looks for it."""
    found = error_body(InvalidRequest("no", param="query"))
    assert (found["message"], found["detail"], found["error"]["param"]) == ("no", "no", "query")
