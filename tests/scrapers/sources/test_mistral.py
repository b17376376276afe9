"""Mistral: a free mode with limits whose numbers no page tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scrapers.base import NotUnderstood
from scrapers.sources.mistral import SOURCE
from tests.scrapers.sources.damage import of_cut_pages

PAGES = Path(__file__).parents[2] / "data/scrape/mistral"
WHOLE = {
    "free": "quota",
    "limit.requests_per_second": None,
    "limit.tokens_per_minute": None,
    "limit.tokens_per_month": None,
}


def told(raw: bytes) -> dict[str, Any]:
    claims = SOURCE.read(raw, seen_at_s=0)
    assert {(claim.provider, claim.model) for claim in claims} == {("mistral", "*")}
    return {claim.field: claim.value for claim in claims}


@pytest.mark.parametrize("name", ["tier.md", "tier_older.mdx"])
def test_the_page(name: str) -> None:
    """Each limit that the page names exists, without a number, and the use is free up to it."""
    assert told((PAGES / name).read_bytes()) == WHOLE


def test_as_html() -> None:
    """The rendered page says the same."""
    assert (
        told(
            b"<!doctype html><html><body><h1>Rate limits and usage tiers</h1><p>When you use the Mistral API</p><ul>"
            b"<li>Requests per second (RPS)</li><li>Tokens per minute</li><li>Tokens per month</li></ul>"
            b"<p><strong>Experiment plan (free)</strong></p></body></html>"
        )
        == WHOLE
    )


@pytest.mark.parametrize(
    "news", [b"There is no free tier.", b"The free mode was removed.", b"The free API tier is no longer offered."]
)
def test_a_free_tier_that_has_ended(news: bytes) -> None:
    """A page that speaks of the end of the free tier does not make it free."""
    with pytest.raises(NotUnderstood):
        told((PAGES / "tier.md").read_bytes() + b"\n" + news + b"\n")


def test_a_truncated_page() -> None:
    """Cut anywhere, the page says a part of the same or nothing."""
    raw = (PAGES / "tier.md").read_bytes()
    for part in of_cut_pages(told, raw, 23):
        assert part.items() <= WHOLE.items()


def test_somebody_elses_page() -> None:
    """Limits, tiers and a free tier of another provider are not Mistral's."""
    raw = (PAGES / "tier.md").read_bytes().replace(b"mistral", b"other").replace(b"Mistral", b"Other")
    with pytest.raises(NotUnderstood):
        told(raw)
