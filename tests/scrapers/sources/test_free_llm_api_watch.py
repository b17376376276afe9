"""free-llm-api-watch's catalogue: what it repeats of OpenRouter, and what it has not verified of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scrapers.base import NotUnderstood
from scrapers.sources.free_llm_api_watch import SOURCE

CATALOG = (Path(__file__).parents[2] / "data/scrape/free_llm_api_watch/catalog.json").read_bytes()


def read(raw: bytes) -> dict[tuple[str, str, str], Any]:
    claims = SOURCE.read(raw, seen_at_s=0)
    assert {claim.dated for claim in claims} == {"2026-07-09"}
    return {(claim.provider, claim.model, claim.field): claim.value for claim in claims}


def test_free_ids_and_prices_of_zero() -> None:
    """Free is what the id says, not a price of zero; what was not verified is neither free nor not."""
    assert read(CATALOG) == {
        ("openrouter", "google/gemma-4-31b-it:free", "exists"): True,
        ("openrouter", "google/gemma-4-31b-it:free", "free"): "price",
        ("openrouter", "google/gemma-4-31b-it:free", "context"): 262_144,
        ("openrouter", "google/lyria-3-clip-preview", "exists"): True,
        ("openrouter", "google/lyria-3-clip-preview", "chat"): False,
        ("openrouter", "google/lyria-3-clip-preview", "context"): 1_048_576,
    }
    assert SOURCE.derived == {"openrouter"}


def test_flags() -> None:
    """Yes and no are claims, unknown is none."""
    data = json.loads(CATALOG)
    data[2] |= {"tool_calling": "yes", "reasoning": "no"}
    found = read(json.dumps(data).encode())
    model = ("openrouter", "google/gemma-4-31b-it:free")
    assert found[(*model, "capability.tools")] is True
    assert found[(*model, "capability.reasoning")] is False
    assert (*model, "capability.json") not in found


@pytest.mark.parametrize(
    "raw",
    [CATALOG[:900], json.dumps(json.loads(CATALOG)[:2]).encode(), CATALOG.replace(b'"ok"', b'"failed"')],
    ids=["cut off", "nothing verified", "not fetched"],
)
def test_catalogues_without_models(raw: bytes) -> None:
    """Without records of single models that were fetched there are no claims."""
    with pytest.raises(NotUnderstood):
        SOURCE.read(raw, seen_at_s=0)
