"""LiteLLM's map is a second opinion on what models can do, and no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scrapers.base import NotUnderstood, Rank
from scrapers.sources.litellm import SOURCE, parse

RAW = (Path(__file__).parents[2] / "data/scrape/litellm/prices.json").read_bytes()


def facts(raw: bytes, provider: str, model: str) -> dict[str, Any]:
    return {claim.field: claim.value for claim in parse(raw) if (claim.provider, claim.model) == (provider, model)}


def test_everything_of_one_model() -> None:
    """Flags count where they are, true or false; the window is that of the input, never `max_tokens`."""
    assert facts(RAW, "groq", "llama-3.3-70b-versatile") == {
        "chat": True,
        "context": 128000,
        "max_output": 32768,
        "price.prompt": 0.59,
        "price.completion": 0.79,
        "capability.tools": True,
        "capability.json": False,
    }


def test_what_it_never_says() -> None:
    """Nothing of limits (its own are those of paid tiers), of being free, or of who is there."""
    assert {claim.field.partition(".")[0] for claim in parse(RAW)} == {
        "chat", "context", "max_output", "price", "capability",
    }  # fmt: skip


def test_a_cost_of_zero() -> None:
    """It may be one that nobody filled in: no price."""
    assert facts(RAW, "openrouter", "meta-llama/llama-3-8b-instruct:free") == {"chat": True}


@pytest.mark.parametrize(
    ("provider", "model", "expected"),
    [
        ("groq", "whisper-large-v3", {"chat": False}),
        ("cohere", "rerank-v3.5", {"chat": False, "context": 4096, "capability.rerank": True}),
        (
            "fireworks",
            "thenlper/gte-base",
            {
                "chat": False,
                "context": 512,
                "price.prompt": 0.008,
                "price.completion": 0.0,
                "capability.embeddings": True,
            },
        ),
        (
            "openai",
            "gpt-5-pro",
            {
                "context": 128000,
                "max_output": 272000,
                "price.prompt": 15.0,
                "price.completion": 120.0,
                "capability.tools": True,
            },
        ),
    ],
)
def test_modes(provider: str, model: str, expected: dict[str, Any]) -> None:
    """A mode tells what a model is for; one that only answers to another interface is left open."""
    assert facts(RAW, provider, model) == expected


def test_names_that_are_no_models() -> None:
    """The sample, prices by size, sizes of pictures, fine-tuned models and unknown providers are passed over."""
    assert {(claim.provider, claim.model) for claim in parse(RAW)} == {
        ("groq", "llama-3.3-70b-versatile"),
        ("groq", "whisper-large-v3"),
        ("google", "gemini-1.5-flash"),
        ("openrouter", "meta-llama/llama-3-8b-instruct:free"),
        ("xai", "grok-4-1-fast-reasoning"),
        ("cohere", "rerank-v3.5"),
        ("fireworks", "thenlper/gte-base"),
        ("openai", "gpt-5-pro"),
    }


@pytest.mark.parametrize(
    ("written", "read"),
    [(8192, 8192), ("8192", 8192), (2e6, 2000000), ("many", None), (True, None), (0, None), (-1, None), (1.5, None)],
)
def test_numbers(written: Any, read: int | None) -> None:
    """Numbers may be text or floats there; what is none is unknown."""
    raw = json.dumps({"groq/m": {"litellm_provider": "groq", "mode": "chat", "max_input_tokens": written}}).encode()
    assert facts(raw, "groq", "m").get("context") == read


@pytest.mark.parametrize("written", ["5.9e-07", 5.9e-07])
def test_prices_may_be_text(written: Any) -> None:
    """A cost is the same as a number and as text."""
    raw = json.dumps({"groq/m": {"litellm_provider": "groq", "input_cost_per_token": written}}).encode()
    assert facts(raw, "groq", "m") == {"price.prompt": 0.59}


@pytest.mark.parametrize(
    ("raw", "missing"),
    [
        (b"", "not JSON"),
        (RAW[:500], "not JSON"),
        (b"404: Not Found", "not JSON"),
        (b"[]", "no object"),
        (b"{}", "no models"),
        (b'{"groq/m": {"provider": "groq"}, "x": 1, "y": {"litellm_provider": ["groq"], "mode": []}}', "no models"),
    ],
)
def test_what_is_not_the_map(raw: bytes, missing: str) -> None:
    """A reply that is cut or in a new form is refused, with the reason."""
    with pytest.raises(NotUnderstood, match=missing):
        parse(raw)


def test_source() -> None:
    """Its claims weigh least, and what is missing from it has not left."""
    assert (SOURCE.rank, SOURCE.complete) == (Rank.MAP, False)
    assert SOURCE.confidence < 0.5
