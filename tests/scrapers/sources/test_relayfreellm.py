"""RelayFreeLLM's table of limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scrapers.base import NotUnderstood
from scrapers.sources.relayfreellm import SOURCE

LIMITS = (Path(__file__).parents[2] / "data/scrape/relayfreellm/limits.json").read_bytes()
EXPECTED = {
    ("groq", "groq/compound", "exists"): True,
    ("groq", "groq/compound", "free"): "quota",
    ("groq", "groq/compound", "limit.requests_per_minute"): 30,
    ("groq", "groq/compound", "limit.requests_per_day"): 250,
    ("groq", "groq/compound", "limit.tokens_per_minute"): 70_000,
    ("mistral", "mistral-medium-2505", "exists"): True,
    ("mistral", "mistral-medium-2505", "free"): "quota",
    ("mistral", "mistral-medium-2505", "limit.requests_per_minute"): 50,
    ("mistral", "mistral-medium-2505", "limit.requests_per_day"): 60_000,
    ("mistral", "mistral-medium-2505", "limit.tokens_per_minute"): 50_000,
    ("mistral", "mistral-medium-2505", "capability.vision"): True,
}


def read(raw: bytes) -> dict[tuple[str, str, str], Any]:
    return {(claim.provider, claim.model, claim.field): claim.value for claim in SOURCE.read(raw, seen_at_s=0)}


def test_limits_by_the_minute_and_the_day() -> None:
    """Its own pacing, -1, a day below its minute, and services outside the catalog are left out."""
    assert read(LIMITS) == EXPECTED


def test_another_order_of_fields() -> None:
    """Fields are found by their names."""
    data = json.loads(LIMITS)
    data["providers"] = [dict(reversed(provider.items())) for provider in reversed(data["providers"])]
    assert read(json.dumps(data).encode("utf-16")) == EXPECTED


@pytest.mark.parametrize("raw", [LIMITS[:800], b'{"providers": []}', LIMITS.replace(b'"limits"', b'"quota"')])
def test_files_without_limits(raw: bytes) -> None:
    """A file that is cut off or names its fields otherwise is not understood."""
    with pytest.raises(NotUnderstood):
        SOURCE.read(raw, seen_at_s=0)
