"""The smaller methods of the Gemini API."""

from __future__ import annotations

from typing import Any

import pytest

from llmproxy.core.errors import InvalidRequest
from llmproxy.dialects import gemini_other as other
from llmproxy.dialects.openai import parse_embeddings

CONTENTS = [{"parts": [{"text": "hello"}]}]
MODELS: list[dict[str, Any]] = [
    {
        "id": f"groq__model-{number}",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "groq",
        "context_length": 4096,
        "llmproxy": {"name": f"groq/model-{number}", "capabilities": ["reasoning", "tools"]},
    }
    for number in range(3)
]


def test_counting() -> None:
    """What is to be counted may stand in the body itself or in a request inside it."""
    assert other.counted_request({"contents": CONTENTS}) == {"contents": CONTENTS}
    assert other.counted_request({"generate_content_request": {"contents": CONTENTS}}) == {"contents": CONTENTS}
    assert other.token_count(8) == {
        "totalTokens": 8,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 8}],
    }


def test_embed() -> None:
    """One content gives one vector."""
    body = {"content": {"parts": [{"text": "a"}, {"text": "b"}]}, "outputDimensionality": "2", "taskType": "X"}
    found = other.embed_request(body, "models/e")
    assert found == {"model": "e", "input": ["a\nb"], "dimensions": 2}
    parse_embeddings(found, "c1")
    reply = {"data": [{"index": 0, "embedding": [0.5, 1.0]}], "usage": {"prompt_tokens": 2}}
    assert other.embed_reply(reply) == {
        "embedding": {"values": [0.5, 1.0]},
        "usageMetadata": {"promptTokenCount": 2},
    }


def test_batch_embed() -> None:
    """Vectors come in the order of the requests, whatever the order of the reply."""
    body = {"requests": [{"model": "models/e", "content": {"parts": [{"text": text}]}} for text in "ab"]}
    assert other.batch_embed_request(body, "e") == {"model": "e", "input": ["a", "b"]}
    data = [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]
    assert other.batch_embed_reply({"data": data}) == {"embeddings": [{"values": [1.0]}, {"values": [2.0]}]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "requests"),
        ({"requests": [{}]}, "requests.0.content"),
        ({"requests": [{"content": {"parts": []}}]}, "requests.0.content.parts"),
        (
            {"requests": [{"content": {"parts": [{"inlineData": {}}]}}]},
            "requests.0.content.parts.0",
        ),
        (
            {
                "requests": [
                    {"content": {"parts": [{"text": "a"}]}, "outputDimensionality": 2},
                    {"content": {"parts": [{"text": "b"}]}},
                ]
            },
            "requests.0.outputDimensionality",
        ),
    ],
)
def test_wrong_batches(body: dict[str, Any], param: str) -> None:
    """What is wrong in a batch is named by its path."""
    with pytest.raises(InvalidRequest) as caught:
        other.batch_embed_request(body, "e")
    assert caught.value.param == param


def test_models() -> None:
    """A model is shown with its window and what it can do."""
    assert other.model_entry(MODELS[0]) == {
        "name": "models/groq__model-0",
        "version": "1700000000",
        "displayName": "groq/model-0",
        "description": "of groq",
        "inputTokenLimit": 4096,
        "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"],
        "thinking": True,
    }
    embeds = {"id": "e", "owned_by": "x", "llmproxy": {"capabilities": ["embeddings"]}}
    assert "embedContent" in other.model_entry(embeds)["supportedGenerationMethods"]


def test_pages() -> None:
    """All models come on pages of the wanted size, each once and in order."""
    found: list[str] = []
    token: str | None = None
    while True:
        page = other.model_list(MODELS, "2", token)
        assert len(page["models"]) <= 2
        found += [model["name"] for model in page["models"]]
        token = page.get("nextPageToken")
        if token is None:
            break
    assert found == [f"models/{model['id']}" for model in MODELS]
    assert len(other.model_list(MODELS)["models"]) == 3
    with pytest.raises(InvalidRequest):
        other.model_list(MODELS, "many")
