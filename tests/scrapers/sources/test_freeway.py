"""freeway's files, one a provider."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scrapers.base import NotUnderstood
from scrapers.sources.freeway import SOURCES

FILES = Path(__file__).parents[2] / "data/scrape/freeway"
SOURCE = SOURCES[0]


def file(name: str) -> bytes:
    return (FILES / f"{name}.json").read_bytes()


def read(raw: bytes) -> dict[tuple[str, str, str], Any]:
    claims = SOURCE.read(raw, seen_at_s=0)
    assert {claim.dated for claim in claims} == {"2026-08-16"}
    return {(claim.provider, claim.model, claim.field): claim.value for claim in claims}


def test_a_quota() -> None:
    """Limits are those of the chat models that are listed; null tells none, an absent tag denies nothing."""
    model = ("groq", "llama-3.3-70b-versatile")
    assert read(file("groq")) == {
        (*model, "exists"): True,
        (*model, "free"): "quota",
        (*model, "limit.requests_per_minute"): 31,
        (*model, "limit.requests_per_day"): 14_500,
        (*model, "limit.tokens_per_minute"): 6100,
        (*model, "chat"): True,
        (*model, "context"): 131_072,
        (*model, "max_output"): 32_768,
        (*model, "capability.tools"): True,
        (*model, "capability.json"): True,
        ("groq", "whisper-large-v3", "exists"): True,
        ("groq", "whisper-large-v3", "free"): "quota",
        ("groq", "whisper-large-v3", "chat"): False,
    }


def test_a_budget() -> None:
    """Cloudflare's credits are neurons, one budget for the account; embeddings do not converse."""
    assert read(file("cloudflare")) == {
        ("cloudflare-workers", "*", "limit.neurons_per_day"): 11_000,
        ("cloudflare-workers", "@cf/meta/llama-3.2-3b-instruct", "exists"): True,
        ("cloudflare-workers", "@cf/meta/llama-3.2-3b-instruct", "free"): "budget",
        ("cloudflare-workers", "@cf/meta/llama-3.2-3b-instruct", "chat"): True,
        ("cloudflare-workers", "@cf/meta/llama-3.2-3b-instruct", "context"): 8192,
        ("cloudflare-workers", "@cf/baai/bge-small-en-v1.5", "exists"): True,
        ("cloudflare-workers", "@cf/baai/bge-small-en-v1.5", "free"): "budget",
        ("cloudflare-workers", "@cf/baai/bge-small-en-v1.5", "chat"): False,
        ("cloudflare-workers", "@cf/baai/bge-small-en-v1.5", "context"): 512,
        ("cloudflare-workers", "@cf/baai/bge-small-en-v1.5", "capability.embeddings"): True,
    }


def test_a_credit_that_runs_out() -> None:
    """Notes that the credits run out make it a trial."""
    assert read(file("nvidia-nim")) == {("nvidia", "*", "free"): "trial"}


def test_another_order_of_fields() -> None:
    """Fields are found by their names."""
    shuffled = dict(reversed(json.loads(file("groq")).items()))
    assert read(json.dumps(shuffled).encode()) == read(file("groq"))


@pytest.mark.parametrize(
    "raw",
    [
        file("ollama"),
        file("groq")[:400],
        file("groq").replace(b'"label"', b'"enabled": false, "label"'),
        b'{"title": "Freeway provider spec", "properties": {"baseUrl": {"type": "string"}}}',
        b'{"baseUrl": "https://api.together.xyz/v1", "limits": {"rpm": 60}, "models": []}',
    ],
    ids=["the own machine", "cut off", "disabled", "schema", "no models"],
)
def test_files_that_claim_nothing(raw: bytes) -> None:
    """Other services, the schema, and limits that are nobody's claim nothing."""
    with pytest.raises(NotUnderstood):
        SOURCE.read(raw, seen_at_s=0)


def test_a_source_for_each_file() -> None:
    """Every file is a source of its own name and address."""
    assert len({source.name for source in SOURCES}) == len({source.url for source in SOURCES}) == len(SOURCES) == 7
