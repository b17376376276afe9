"""Google's pages: limits of the free tier in each form that they had, and what the models page tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scrapers.base import Evidence, NotUnderstood
from scrapers.sources.google import LIMITS, MODELS

PAGES = Path(__file__).parents[2] / "data/scrape/google"


def page(name: str) -> bytes:
    return (PAGES / name).read_bytes()


def told(claims: list[Evidence]) -> dict[tuple[str, str], Any]:
    assert {claim.provider for claim in claims} == {"google"}
    return {(claim.model, claim.field): claim.value for claim in claims}


def test_numbers_separated_by_slashes() -> None:
    """A cell's numbers are the limits that the row below the heads names; a dash for one says nothing of it."""
    assert told(LIMITS.read(page("limits_triples.md"), seen_at_s=0)) == {
        ("Gemini 7.5 Flash Preview 04-17", "free"): "quota",
        ("Gemini 7.5 Flash Preview 04-17", "limit.requests_per_minute"): 11,
        ("Gemini 7.5 Flash Preview 04-17", "limit.tokens_per_minute"): 260_000,
        ("Gemini 7.5 Flash Preview 04-17", "limit.requests_per_day"): 510,
        ("Gemini 7.5 Pro Preview 05-06", "free"): "none",
        ("Gemini 7.0 Flash Preview Image Generation", "free"): "quota",
        ("Gemini 7.0 Flash Preview Image Generation", "chat"): False,
        ("Gemini 7.0 Flash Preview Image Generation", "limit.requests_per_minute"): 12,
        ("Gemini 7.0 Flash Preview Image Generation", "limit.tokens_per_minute"): 210_000,
        ("Gemini 7.0 Flash Preview Image Generation", "limit.requests_per_day"): 110,
        ("gemini-2.0-flash-exp", "free"): "quota",
        ("gemini-2.0-flash-exp", "limit.requests_per_minute"): 13,
        ("gemini-2.0-flash-exp", "limit.tokens_per_minute"): 1_100_000,
        ("gemini-2.0-flash-exp", "limit.requests_per_day"): 1010,
        ("gemma-3-*", "free"): "quota",
        ("gemma-3-*", "limit.requests_per_minute"): 31,
        ("gemma-3-*", "limit.tokens_per_minute"): 16_000,
        ("gemma-3-*", "limit.requests_per_day"): 14_500,
        ("veo-2.0-generate-001", "free"): "none",
        ("veo-2.0-generate-001", "chat"): False,
        ("gemini-embedding-exp-03-07", "free"): "quota",
        ("gemini-embedding-exp-03-07", "chat"): False,
        ("gemini-embedding-exp-03-07", "limit.requests_per_minute"): 6,
        ("gemini-embedding-exp-03-07", "limit.requests_per_day"): 120,
    }


def test_another_order_of_numbers_and_tiers() -> None:
    """The order is read from the page, and so is which column is the free one."""
    raw = page("limits_triples.md").replace(b"RPM / TPM / RPD", b"RPD / RPM / TPM")
    raw = raw.replace(b"Free Tier", b"Paid Tier").replace(b"Tier 1", b"Free Tier")
    found = told(LIMITS.read(raw, seen_at_s=0))
    assert found["Gemini 7.5 Flash Preview 04-17", "limit.requests_per_day"] == 1_000
    assert found["Gemini 7.5 Flash Preview 04-17", "limit.requests_per_minute"] == 1_000_000
    assert found["Gemini 7.5 Flash Preview 04-17", "limit.tokens_per_minute"] == 10_000
    assert found["Gemini 7.5 Pro Preview 05-06", "free"] == "quota"
    assert found["gemma-3-*", "free"] == "none"


def test_a_table_for_each_tier() -> None:
    """The free tier's table is read, the others are not; tokens per minute are of prompts where the page says so."""
    found = told(LIMITS.read(page("limits_by_tier.md"), seen_at_s=0))
    day = "America/Los_Angeles"
    assert found == {
        ("Gemini 7.5 Pro", "free"): "quota",
        ("Gemini 7.5 Pro", "limit.requests_per_minute"): 3,
        ("Gemini 7.5 Pro", "limit.prompt_tokens_per_minute"): 126_000,
        ("Gemini 7.5 Pro", "limit.requests_per_day"): 51,
        ("Gemini 7.5 Pro", "limit.reset"): day,
        ("Gemini 7.5 Flash Live", "free"): "quota",
        ("Gemini 7.5 Flash Live", "chat"): False,
        ("Gemini 7.5 Flash Live", "limit.prompt_tokens_per_minute"): 1_000_000,
        ("Gemini 7.5 Flash Live", "limit.reset"): day,
        ("Gemini 7.5 Flash Preview TTS", "free"): "quota",
        ("Gemini 7.5 Flash Preview TTS", "chat"): False,
        ("Gemini 7.5 Flash Preview TTS", "limit.requests_per_minute"): 4,
        ("Gemini 7.5 Flash Preview TTS", "limit.prompt_tokens_per_minute"): 11_000,
        ("Gemini 7.5 Flash Preview TTS", "limit.requests_per_day"): 16,
        ("Gemini 7.5 Flash Preview TTS", "limit.reset"): day,
        **{
            (glob, name): value
            for glob in ("gemma-3-*", "gemma-3n-*")
            for name, value in {
                "free": "quota",
                "limit.requests_per_minute": 31,
                "limit.prompt_tokens_per_minute": 16_000,
                "limit.requests_per_day": 14_500,
                "limit.reset": day,
            }.items()
        },
        ("Gemini 6.5 Flash", "free"): "quota",
        ("Gemini 6.5 Flash", "limit.requests_per_minute"): 16,
        ("Gemini 6.5 Flash", "limit.prompt_tokens_per_minute"): 260_000,
        ("Gemini 6.5 Flash", "limit.requests_per_day"): 52,
        ("Gemini 6.5 Flash", "limit.reset"): day,
        ("Gemini 7 Image Preview", "free"): "quota",
        ("Gemini 7 Image Preview", "chat"): False,
        ("Gemini 7 Image Preview", "limit.requests_per_minute"): 5,
        ("Gemini 7 Image Preview", "limit.prompt_tokens_per_minute"): 12_000,
        ("Gemini 7 Image Preview", "limit.requests_per_day"): 17,
        ("Gemini 7 Image Preview", "limit.reset"): day,
    }


def test_another_order_of_columns() -> None:
    """Columns are found by their heads, in HTML as well."""
    raw = (
        b"<!doctype html><html><body><h2>Standard limits</h2><h3>Free Tier</h3><table><thead><tr><th>RPD</th>"
        b"<th>Model</th><th>RPM</th></tr></thead><tbody><tr><td colspan=3>Text-out models</td></tr>"
        b"<tr><td>70</td><td>Gemini 7.5 Pro</td><td>7</td></tr></tbody></table></body></html>"
    )
    assert told(LIMITS.read(raw, seen_at_s=0)) == {
        ("Gemini 7.5 Pro", "free"): "quota",
        ("Gemini 7.5 Pro", "limit.requests_per_day"): 70,
        ("Gemini 7.5 Pro", "limit.requests_per_minute"): 7,
    }


def test_a_page_without_numbers() -> None:
    """Limits that only the console tells are unknown for all models; tokens waiting in batches are no limits."""
    assert told(LIMITS.read(page("limits_unpublished.md"), seen_at_s=0)) == {
        ("*", "limit.requests_per_minute"): None,
        ("*", "limit.prompt_tokens_per_minute"): None,
        ("*", "limit.requests_per_day"): None,
        ("*", "limit.reset"): "America/Los_Angeles",
    }


@pytest.mark.parametrize("name", ["limits_triples.md", "limits_by_tier.md", "limits_unpublished.md"])
def test_a_truncated_page_of_limits(name: str) -> None:
    """Cut between two lines, the page tells a part of the same or nothing."""
    lines = page(name).splitlines(keepends=True)
    whole = told(LIMITS.read(page(name), seen_at_s=0))
    for end in range(len(lines)):
        try:
            part = told(LIMITS.read(b"".join(lines[:end]), seen_at_s=0))
        except NotUnderstood:
            continue
        assert part.items() <= whole.items()


def test_the_models_page() -> None:
    """Limits, inputs and capabilities of each model; what is experimental, or true of one of two, is left open."""
    claims = MODELS.read(page("models.html"), seen_at_s=0)
    assert told(claims) == {
        ("gemini-7.5-pro-exp-01", "exists"): False,
        ("gemini-7.5-pro", "exists"): True,
        ("gemini-7.5-pro", "context"): 1_048_577,
        ("gemini-7.5-pro", "max_output"): 65_537,
        ("gemini-7.5-pro", "capability.vision"): True,
        ("gemini-7.5-pro", "capability.audio"): True,
        ("gemini-7.5-pro", "capability.tools"): True,
        ("gemini-7.5-pro", "capability.json"): True,
        **{
            (model, name): value
            for model in ("gemini-7.5-flash-dialog", "gemini-7.5-flash-thinking-dialog")
            for name, value in {
                "exists": True,
                "context": 128_000,
                "max_output": 8_000,
                "chat": False,
                "capability.audio": True,
                "capability.tools": True,
            }.items()
        },
    }
    (there,) = (claim for claim in claims if (claim.model, claim.field) == ("gemini-7.5-pro", "exists"))
    assert there.until_s == 1_948_579_200  # 2031-10-01, when the month of its end is over


def test_models_in_markdown() -> None:
    """Speech, image and embedding models do not chat, and a model that was shut down is not there."""
    assert told(MODELS.read(page("models.md"), seen_at_s=0)) == {
        ("gemini-7.5-flash-preview-tts", "exists"): True,
        ("gemini-7.5-flash-preview-tts", "context"): 8_001,
        ("gemini-7.5-flash-preview-tts", "max_output"): 16_001,
        ("gemini-7.5-flash-preview-tts", "chat"): False,
        ("gemini-7.5-flash-preview-tts", "capability.speech"): True,
        ("gemini-7.5-flash-preview-tts", "capability.vision"): False,
        ("gemini-7.5-flash-preview-tts", "capability.audio"): False,
        ("gemini-7.5-flash-preview-tts", "capability.tools"): False,
        ("gemini-7.5-flash-preview-tts", "capability.json"): False,
        ("gemini-7.5-flash-preview-tts", "capability.reasoning"): False,
        ("gemini-8-flash-image", "exists"): True,
        ("gemini-8-flash-image", "context"): 65_537,
        ("gemini-8-flash-image", "max_output"): 4_097,
        ("gemini-8-flash-image", "chat"): False,
        ("gemini-8-flash-image", "capability.vision"): True,
        ("gemini-8-flash-image", "capability.audio"): False,
        ("gemini-8-flash-image", "capability.tools"): True,
        ("gemini-8-flash-image", "capability.reasoning"): True,
        ("gemini-embedding-9", "exists"): True,
        ("gemini-embedding-9", "context"): 2_049,
        ("gemini-embedding-9", "chat"): False,
        ("gemini-embedding-9", "capability.embeddings"): True,
        ("gemini-embedding-9", "capability.vision"): False,
        ("gemini-embedding-9", "capability.audio"): False,
        ("gemini-6-flash", "exists"): False,
    }


@pytest.mark.parametrize("name", ["limits_triples.md", "limits_by_tier.md", "limits_unpublished.md"])
def test_the_models_page_is_another_one(name: str) -> None:
    """Neither source reads the page of the other."""
    with pytest.raises(NotUnderstood):
        MODELS.read(page(name), seen_at_s=0)
    with pytest.raises(NotUnderstood):
        LIMITS.read(page("models.html"), seen_at_s=0)
