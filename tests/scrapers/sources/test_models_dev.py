"""models.dev tells what models can do and cost, never that they are free."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scrapers.base import NotUnderstood, Rank
from scrapers.sources.models_dev import SOURCE, parse

RAW = (Path(__file__).parents[2] / "data/scrape/models_dev/api.json").read_bytes()


def facts(raw: bytes, provider: str, model: str) -> dict[str, Any]:
    return {claim.field: claim.value for claim in parse(raw) if (claim.provider, claim.model) == (provider, model)}


def test_everything_of_one_model() -> None:
    """A model gets every claim that its entry makes."""
    assert facts(RAW, "google", "gemini-2.5-flash-lite") == {
        "exists": True,
        "chat": True,
        "context": 1048576,
        "max_output": 65536,
        "price.prompt": 0.1,
        "price.completion": 0.4,
        "capability.tools": True,
        "capability.reasoning": True,
        "capability.json": True,
        "capability.vision": True,
        "capability.audio": True,
    }


def test_what_is_not_said_is_unknown() -> None:
    """A flag that is missing is no lack, one that is false is; a model without a cost has no price."""
    found = facts(RAW, "cohere", "c4ai-aya-expanse-32b")
    assert "capability.json" not in found
    assert (found["capability.tools"], found["capability.vision"]) == (False, False)
    assert not [name for name in found if name.startswith("price.")]


def test_zero_costs_say_nothing() -> None:
    """0 and 0 is "not billed by the token": neither a price nor free; one zero of two is a price."""
    assert not [name for name in facts(RAW, "nvidia", "openai/gpt-oss-120b") if name.startswith(("price.", "free"))]
    assert facts(RAW, "huggingface", "Qwen/Qwen3-Embedding-4B")["price.completion"] == 0.0
    assert not [claim for claim in parse(RAW) if claim.field == "free"]


def test_deprecated_models_are_gone() -> None:
    """`deprecated` is "no longer served"; `alpha` is there."""
    there = {claim.model: claim.value for claim in parse(RAW) if claim.field == "exists"}
    assert [model for model, value in there.items() if not value] == ["llama3-70b-8192"]
    assert there["openrouter/owl-alpha"] is True


def test_who_chats() -> None:
    """Models that give pictures, or whose name says embedding, do not chat, and have no longest answer."""
    for provider, model in (("nvidia", "qwen/qwen-image-edit"), ("huggingface", "Qwen/Qwen3-Embedding-4B")):
        found = facts(RAW, provider, model)
        assert found["chat"] is False
        assert "max_output" not in found


def test_the_same_id_at_two_providers() -> None:
    """What a model can do is told of each provider alone."""
    assert facts(RAW, "groq", "openai/gpt-oss-120b")["capability.tools"] is True
    assert facts(RAW, "nvidia", "openai/gpt-oss-120b")["capability.tools"] is False


def test_providers_that_nobody_knows() -> None:
    """Providers outside the catalogue, and entries of an odd shape, are passed over."""
    body = json.loads(RAW)
    more = {"somebody": body["groq"], "mistral": {"models": [1]}, "zai": None, "xai": {"models": {"": {}, "x": 3}}}
    assert parse(json.dumps(body | more).encode()) == parse(RAW)


@pytest.mark.parametrize(
    ("raw", "missing"),
    [
        (b"", "not JSON"),
        (RAW[:900], "not JSON"),
        (b"<!doctype html><script>let x = 1</script>", "not JSON"),
        (b"[]", "no object"),
        (b"{}", "no models"),
        (b'{"providers": {"groq": {}}}', "no models"),
        (b'{"groq": {"models": {}}}', "no models"),
    ],
)
def test_what_is_not_the_list(raw: bytes, missing: str) -> None:
    """A reply that is cut or in a new form is refused, with the reason."""
    with pytest.raises(NotUnderstood, match=missing):
        parse(raw)


def test_source() -> None:
    """It is a list that people keep, and a copy of the API where it is about OpenRouter."""
    assert (SOURCE.rank, SOURCE.complete, SOURCE.derived) == (Rank.COMMUNITY, False, frozenset({"openrouter"}))
