"""What OpenRouter says of a key tells the daily limit of its account."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scrapers.base import Evidence, NotUnderstood, Rank
from scrapers.sources.openrouter_key import SOURCE, parse

RAW = (Path(__file__).parents[2] / "data/scrape/openrouter_key/key.json").read_bytes()


def test_the_daily_limit() -> None:
    """All free models share it, and its day is that of UTC."""
    assert parse(RAW) == [
        Evidence("openrouter", "*:free", "limit.requests_per_day", 1000.0, shared=True),
        Evidence("openrouter", "*:free", "limit.reset", "UTC", shared=True),
    ]
    assert SOURCE.rank is Rank.OBSERVED


def told(**fields: Any) -> bytes:
    return json.dumps({"data": fields}).encode()


@pytest.mark.parametrize(
    "raw",
    [
        told(is_free_tier=True, limit=None, usage=0, rate_limit={"requests": -1, "interval": "10s"}),
        told(is_free_tier=False, limit=20),
        told(free_model_daily_requests=None),
        told(free_model_daily_requests={"used": 0}),
        told(free_model_daily_requests={"used": 0, "limit": 0, "remaining": 0}),
        told(free_model_daily_requests={"used": 0, "limit": -1, "remaining": -1}),
        told(free_model_daily_requests={"used": 0, "limit": "many", "remaining": "all"}),
        told(free_model_daily_requests={"used": 0, "limit": 1e300, "remaining": 1e300}),
        b'{"error": {"message": "No auth credentials found", "code": 401}}',
        b"[]",
        b"<html>",
        RAW[:200],
    ],
)
def test_replies_without_it(raw: bytes) -> None:
    """The older form tells whether credits were bought, not how many requests that gives: nothing is made up."""
    with pytest.raises(NotUnderstood):
        parse(raw)
