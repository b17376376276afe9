"""OpenRouter: the requests that all free models share, from constants, tables or sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scrapers.base import NotUnderstood
from scrapers.sources.openrouter_limits import SOURCE

RAW = (Path(__file__).parents[2] / "data/scrape/openrouter_limits/limits.md").read_bytes()
WHOLE = {"free": "quota", "limit.requests_per_minute": 21, "limit.requests_per_day": 51, "limit.reset": "UTC"}
NOTE = "1,001 a day after 11 credits were bought"
TABLE = b"""# Limits

| Credits purchased (all time) | Requests per day | Requests per minute |
|---|---|---|
| At least 11 | 1001 | 21 |
| Less than 11 | 51 | 21 |
"""
SENTENCES = b"""1. Free usage limits: If you're using a free model variant (with an ID ending in `:free`), you can make
up to 21 requests per minute. The following per-day limits apply:

* If you have purchased less than 11 credits, you're limited to 51 `:free` model requests per day.
* If you purchase at least 11 credits, your daily limit is increased to 1001 `:free` model requests per day.

For all other requests you can make 1 request per credit per second.
"""


def told(raw: bytes) -> dict[str, Any]:
    claims = SOURCE.read(raw, seen_at_s=0)
    assert {(claim.provider, claim.model) for claim in claims} == {("openrouter", "*:free")}
    assert all(claim.shared for claim in claims if claim.field.startswith("limit."))
    return {claim.field: claim.value for claim in claims}


@pytest.mark.parametrize(
    "raw",
    [
        RAW,
        b"\n".join(line for line in RAW.splitlines() if line.startswith(b"export const FREE_MODEL")),
        TABLE,
        SENTENCES,
    ],
    ids=["page with constants", "constants", "table", "sentences"],
)
def test_each_form_of_the_page(raw: bytes) -> None:
    """The limits are those before credits were bought; what comes after stands in the note."""
    assert told(raw) == WHOLE
    assert {claim.note for claim in SOURCE.read(raw, seen_at_s=0)} == {"", NOTE}


def test_a_page_whose_constants_are_elsewhere() -> None:
    """Names of constants without their values are no numbers."""
    raw = b"\n".join(line for line in RAW.splitlines() if not line.startswith(b"export const FREE_MODEL"))
    with pytest.raises(NotUnderstood, match="FREE_MODEL_RATE_LIMIT_RPM"):
        told(raw)


def test_only_the_daily_limit_for_paying_accounts_is_left() -> None:
    """Without the number that holds before credits were bought there is nothing to say."""
    with pytest.raises(NotUnderstood):
        told(RAW.replace(b"FREE_MODEL_NO_CREDITS_RPD = 51", b"FREE_MODEL_NO_CREDITS_RPD = NONE"))
    with pytest.raises(NotUnderstood):
        told(TABLE.replace(b"| Less than 11 | 51 | 21 |\n", b""))
    with pytest.raises(NotUnderstood):
        told(SENTENCES.replace(b"less than 11 credits", b"few credits"))


@pytest.mark.parametrize("raw", [RAW, TABLE, SENTENCES], ids=["constants", "table", "sentences"])
def test_a_truncated_page(raw: bytes) -> None:
    """Cut between two lines, the page tells the same or nothing."""
    lines = raw.splitlines(keepends=True)
    for end in range(len(lines)):
        try:
            assert told(b"".join(lines[:end])) == WHOLE
        except NotUnderstood:
            continue
