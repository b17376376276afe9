"""free-llm-api-hub's providers: kinds of free, and limits told in prose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scrapers.base import Evidence, NotUnderstood
from scrapers.sources.free_llm_api_hub import SOURCE

PAGES = Path(__file__).parents[2] / "data/scrape/free_llm_api_hub"
PROVIDERS = (PAGES / "providers.json").read_bytes()


def told(claims: list[Evidence], provider: str) -> dict[tuple[str, str], Any]:
    return {(claim.model, claim.field): claim.value for claim in claims if claim.provider == provider}


def read(provider: str) -> dict[tuple[str, str], Any]:
    return told(SOURCE.read(PROVIDERS, seen_at_s=0), provider)


def test_limits_of_models_that_are_named() -> None:
    """A statement is about the models in it, also about one that the sample leaves out; ranges tell no number."""
    assert read("groq") == {
        ("llama-3.1-8b-instant", "exists"): True,
        ("llama-3.1-8b-instant", "free"): "quota",
        ("llama-3.1-8b-instant", "limit.requests_per_minute"): 30,
        ("llama-3.1-8b-instant", "limit.requests_per_day"): 14_400,
        ("llama-3.1-8b-instant", "limit.tokens_per_minute"): 6000,
        ("llama-3.1-8b-instant", "limit.tokens_per_day"): 500_000,
        ("openai/gpt-oss-120b", "exists"): True,
        ("openai/gpt-oss-120b", "free"): "quota",
        ("whisper-large-v3", "exists"): True,
        ("whisper-large-v3", "free"): "quota",
        ("whisper-large-v3", "chat"): False,
        ("qwen3-32b", "exists"): True,
        ("qwen3-32b", "free"): "quota",
        ("qwen3-32b", "limit.requests_per_minute"): 60,
        ("qwen3-32b", "limit.requests_per_day"): 1000,
        ("qwen3-32b", "limit.tokens_per_minute"): 6000,
        ("qwen3-32b", "limit.tokens_per_day"): 500_000,
    }
    cerebras = read("cerebras")
    assert cerebras["gemma-4-31b", "limit.tokens_per_hour"] == cerebras["gpt-oss-120b", "limit.tokens_per_hour"] == 1e6
    assert not any(model == "*" for model, _ in cerebras)
    assert read("google") == {
        ("gemini-2.5-flash", "exists"): True,
        ("gemini-2.5-flash", "free"): "quota",
        ("gemini-2.5-pro", "exists"): True,
        ("gemini-2.5-pro", "free"): "quota",
    }


def test_limits_of_what_models_do() -> None:
    """`chat` and `rerank` say whose limit it is; the total of a month is the account's."""
    assert read("cohere") == {
        ("*", "limit.requests_per_month"): 1000,
        ("command-a-03-2025", "exists"): True,
        ("command-a-03-2025", "free"): "quota",
        ("command-a-03-2025", "limit.requests_per_minute"): 20,
        ("embed-v4.0", "exists"): True,
        ("embed-v4.0", "free"): "quota",
        ("embed-v4.0", "chat"): False,
        ("rerank-v3.5", "exists"): True,
        ("rerank-v3.5", "free"): "quota",
        ("rerank-v3.5", "limit.requests_per_minute"): 10,
        ("rerank-v3.5", "chat"): False,
    }


def test_limits_of_the_account() -> None:
    """Other statements are about the account: what has to be paid for is left out, the time of a reset is told."""
    assert read("openrouter") == {
        ("*:free", "limit.requests_per_minute"): 20,
        ("*:free", "limit.requests_per_day"): 50,
        ("google/gemma-4-31b-it:free", "exists"): True,
        ("google/gemma-4-31b-it:free", "free"): "quota",
    }
    assert read("cloudflare-workers") == {
        ("*", "limit.neurons_per_day"): 10_000,
        ("*", "limit.reset"): "UTC",
        ("@cf/google/gemma-3-12b-it", "exists"): True,
        ("@cf/google/gemma-3-12b-it", "free"): "budget",
    }
    assert read("sambanova") == {
        ("*", "limit.requests_per_minute"): 20,
        ("*", "limit.requests_per_day"): 20,
        ("*", "limit.tokens_per_day"): 200_000,
        ("DeepSeek-V3.1", "exists"): True,
        ("DeepSeek-V3.1", "free"): "quota",
    }
    assert read("ovhcloud") == {("*", "limit.requests_per_minute"): 2}
    shared = {
        claim.provider: claim.shared for claim in SOURCE.read(PROVIDERS, seen_at_s=0) if claim.field[:6] == "limit."
    }
    assert shared["openrouter"] is shared["sambanova"] is True
    assert shared["ovhcloud"] is False


def test_providers_without_models() -> None:
    """The kind is that of all models, unless only some are meant; a credit without a figure is an unknown one."""
    assert read("mistral") == {("*", "free"): "quota"}
    assert read("huggingface") == {("*", "free"): "budget", ("*", "limit.usd_per_month"): 0.1}
    assert read("vercel") == {("*", "limit.usd_per_month"): None}
    assert read("scaleway") == {
        ("*", "free"): "trial",
        ("*", "limit.tokens_once"): 1e6,
        ("gemma-3-27b-it", "exists"): True,
    }


def test_dates() -> None:
    """A claim is of the day on which its provider was checked, else of that of the whole list."""
    dates = {claim.provider: claim.dated for claim in SOURCE.read(PROVIDERS, seen_at_s=0)}
    assert dates["groq"] == "2026-07-11"
    assert dates["cloudflare-workers"] == "2026-07-30"


def test_a_tier_that_ended() -> None:
    """Of a provider that asked for payment when the list probed it nothing is claimed."""
    data = json.loads(PROVIDERS)
    for provider in data["providers"]:
        provider["probe_status"] = "tier-ended" if provider["slug"] == "groq" else "live"
    assert not told(SOURCE.read(json.dumps(data).encode(), seen_at_s=0), "groq")


def test_an_id_within_another() -> None:
    """A statement about a model is not one about another whose id begins it."""
    record = {
        "name": "Groq",
        "free_type": "renewing-quota",
        "free_tier": "free",
        "rate_limits": "gpt-4.1-mini: 15 RPM; gpt-4.1: 10 RPM",
        "models_free": ["gpt-4.1", "gpt-4.1-mini"],
    }
    found = told(SOURCE.read(json.dumps({"providers": [record]}).encode(), seen_at_s=0), "groq")
    assert found["gpt-4.1-mini", "limit.requests_per_minute"] == 15
    assert found["gpt-4.1", "limit.requests_per_minute"] == 10


@pytest.mark.parametrize(
    "raw",
    [
        (PAGES / "probe-report.json").read_bytes(),
        b'{"$defs": {"provider": {"type": "object"}}, "properties": {"providers": {"type": "array"}}}',
        PROVIDERS[:3000],
        PROVIDERS.replace(b"free_type", b"type_of_free"),
    ],
    ids=["probe report", "schema", "cut off", "other fields"],
)
def test_other_files(raw: bytes) -> None:
    """The probe report, in which nothing was probed, and the schema say nothing of any provider."""
    with pytest.raises(NotUnderstood):
        SOURCE.read(raw, seen_at_s=0)
