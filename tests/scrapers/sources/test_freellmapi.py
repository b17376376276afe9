"""freellmapi's README: a few limits of whole providers."""

from __future__ import annotations

from pathlib import Path

import pytest

from scrapers.base import NotUnderstood
from scrapers.sources.freellmapi import SOURCE

LIST = (Path(__file__).parents[2] / "data/scrape/freellmapi/list.md").read_bytes()
EXPECTED = {
    ("nvidia", "*", "free", "quota", False),
    ("nvidia", "*", "limit.requests_per_minute", 40.0, True),
    ("ollama-cloud", "*", "free", "quota", False),
    ("ollama-cloud", "*", "limit.concurrency", 1.0, True),
    ("ovhcloud", "*", "free", "quota", False),
    ("ovhcloud", "*", "limit.requests_per_minute", 2.0, False),
}


def read(raw: bytes) -> set[tuple[str, str, str, object, bool]]:
    claims = SOURCE.read(raw, seen_at_s=0)
    return {(claim.provider, claim.model, claim.field, claim.value, claim.shared) for claim in claims}


def test_limits_of_providers() -> None:
    """Numbers in the table of providers and in the review of terms count; names of families claim nothing."""
    assert read(LIST) == EXPECTED


def test_another_order_of_columns() -> None:
    """Columns are found by their heads."""
    lines = LIST.decode().split("\n")
    start = lines.index("| Provider | Verdict | Notes |")
    for place in range(start, len(lines)):
        if lines[place].startswith("|"):
            first, second, third = lines[place].strip("|").split("|")
            lines[place] = f"|{third}|{first}|{second}|"
    assert read("\n".join(lines).encode()) == EXPECTED


@pytest.mark.parametrize(
    "raw",
    [
        LIST.replace(b"40 RPM", b"some").replace(b"1 concurrent", b"one").replace(b"2 req/min", b"a few"),
        LIST[: LIST.index(b"## Supported")],
        LIST.replace(b"## Supported providers", b"## Who").replace(b"## Terms of Service review", b"## Terms"),
    ],
    ids=["no numbers", "cut off", "other headings"],
)
def test_a_readme_without_limits(raw: bytes) -> None:
    """As before May 2026, a README that gives no limits claims nothing."""
    with pytest.raises(NotUnderstood):
        SOURCE.read(raw, seen_at_s=0)
