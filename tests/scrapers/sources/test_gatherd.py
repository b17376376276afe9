"""gatherd's copy of Google's limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scrapers.base import NotUnderstood
from scrapers.sources.gatherd import SOURCE

MODELS = (Path(__file__).parents[2] / "data/scrape/gatherd/models.json").read_bytes()
EXPECTED = {
    ("Gemini-2.5-Pro-Preview-05-06", "exists"): True,
    ("Gemini-2.5-Pro-Preview-05-06", "context"): 1_048_576,
    ("Gemini-2.5-Pro-Preview-05-06", "max_output"): 65_536,
    ("Gemini-2.0-Flash", "exists"): True,
    ("Gemini-2.0-Flash", "free"): "quota",
    ("Gemini-2.0-Flash", "limit.requests_per_minute"): 15,
    ("Gemini-2.0-Flash", "limit.requests_per_day"): 1500,
    ("Gemini-2.0-Flash", "limit.tokens_per_minute"): 1_000_000,
    ("Gemini-2.0-Flash", "context"): 1_048_576,
    ("Gemini-2.0-Flash", "max_output"): 8192,
    ("Gemini-2.0-Flash-Preview-Image-Generation", "exists"): True,
    ("Gemini-2.0-Flash-Preview-Image-Generation", "free"): "quota",
    ("Gemini-2.0-Flash-Preview-Image-Generation", "limit.requests_per_minute"): 10,
    ("Gemini-2.0-Flash-Preview-Image-Generation", "limit.requests_per_day"): 100,
    ("Gemini-2.0-Flash-Preview-Image-Generation", "limit.tokens_per_minute"): 200_000,
    ("Gemini-2.0-Flash-Preview-Image-Generation", "chat"): False,
    ("Gemini-2.0-Flash-Preview-Image-Generation", "context"): 32_000,
    ("Gemini-2.0-Flash-Preview-Image-Generation", "max_output"): 8192,
}


def read(raw: bytes) -> dict[tuple[str, str], Any]:
    claims = SOURCE.read(raw, seen_at_s=0)
    assert {claim.provider for claim in claims} == {"google"}
    return {(claim.model, claim.field): claim.value for claim in claims}


def test_the_free_tier() -> None:
    """Only the free tier counts; a model that it does not have is there, and no kind of free is claimed of it."""
    assert read(MODELS) == EXPECTED
    assert SOURCE.derived == {"google"}


def test_another_order_of_tiers() -> None:
    """Tiers and fields are found by their names."""
    data = {
        tier: {name: dict(reversed(record.items())) for name, record in models.items()}
        for tier, models in reversed(json.loads(MODELS).items())
    }
    assert read(json.dumps(data).encode()) == EXPECTED


@pytest.mark.parametrize("raw", [MODELS[:300], MODELS.replace(b"tier-free", b"tier-0"), b'{"tier-free": {}}'])
def test_files_without_a_free_tier(raw: bytes) -> None:
    """A file without the free tier is not understood."""
    with pytest.raises(NotUnderstood):
        SOURCE.read(raw, seen_at_s=0)
