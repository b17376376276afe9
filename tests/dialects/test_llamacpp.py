"""llama.cpp's embedding requests and replies, to and from the canonical ones."""

from __future__ import annotations

from typing import Any

import pytest

from llmproxy.core.errors import InvalidRequest, ModelNotFound, NoCandidates
from llmproxy.dialects.llamacpp import embedding_reply, embedding_request, error_body, unheard


@pytest.mark.parametrize("given", ["one", ["one", "two"], [1, 2, 3], [[1, 2], [3]]])
@pytest.mark.parametrize("name", ["content", "input"])
def test_requests(name: str, given: Any) -> None:
    """A text, texts, tokens, lists of tokens: under either name they are the canonical input."""
    assert embedding_request({name: given}) == {"input": given}
    assert embedding_request({name: given, "model": "m", "dimensions": 8, "embd_normalize": 2}) == {
        "input": given,
        "model": "m",
        "dimensions": 8,
    }


@pytest.mark.parametrize("given", [None, [], [[]], [1, "a"], ["a", [1]], [True], [1.5], {"prompt_string": "a"}, 7])
def test_wrong_requests(given: Any) -> None:
    """What is no text, or mixes kinds, is refused with the name of the field."""
    with pytest.raises(InvalidRequest) as caught:
        embedding_request({"content": given})
    assert caught.value.param == "content"


def test_base64_is_refused() -> None:
    """These endpoints give lists of numbers."""
    with pytest.raises(InvalidRequest) as caught:
        embedding_request({"content": "a", "encoding_format": "base64"})
    assert caught.value.param == "encoding_format"


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"content": "a", "embd_normalize": 2}, ()),
        ({"content": "a", "embd_normalize": -1}, ("embd_normalize",)),
        ({"content": "a", "cache_prompt": True, "user": "u", "id_slot": None}, ("cache_prompt",)),
    ],
)
def test_what_cannot_be_honoured(body: dict[str, Any], names: tuple[str, ...]) -> None:
    """Other lengths than the Euclidean one, and options of its server, are named."""
    assert unheard(body) == names


def test_replies() -> None:
    """A list with one row of vectors for each text, under its index."""
    data = [{"index": 1, "embedding": [0.5]}, {"embedding": [0.25]}]
    assert embedding_reply({"data": data}) == [
        {"index": 1, "embedding": [[0.5]]},
        {"index": 1, "embedding": [[0.25]]},
    ]
    assert embedding_reply({}) == []


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InvalidRequest("no"), 400, "invalid_request_error"),
        (ModelNotFound("no"), 404, "not_found_error"),
        (NoCandidates("no"), 503, "unavailable_error"),
        (NoCandidates("no"), 502, "server_error"),
        (InvalidRequest("no"), 413, "invalid_request_error"),
    ],
)
def test_errors(error: Any, status: int, kind: str) -> None:
    """The code is the status, as a number."""
    assert error_body(error, status) == {"error": {"code": status, "message": "no", "type": kind}}
