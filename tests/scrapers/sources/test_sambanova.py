"""SambaNova's page: the tabs of the free tier, for production and for preview models."""

from __future__ import annotations

from pathlib import Path

import pytest

from scrapers.base import Evidence, NotUnderstood, Rank, Value
from scrapers.sources.sambanova import SOURCE, parse
from tests.scrapers.sources.damage import encoded_otherwise, of_cut_pages

PAGE = (Path(__file__).parents[2] / "data/scrape/sambanova/rate-limits.md").read_bytes()
WHOLE = {
    ("Anvil-V3.1", "free", "quota"),
    ("Anvil-V3.1", "limit.requests_per_minute", 21),
    ("Anvil-V3.1", "limit.requests_per_day", 22),
    ("Anvil-V3.1", "limit.tokens_per_day", 200001),
    ("Whisper-Large-v9", "free", "quota"),
    ("Whisper-Large-v9", "limit.requests_per_minute", 23),
    ("Whisper-Large-v9", "limit.requests_per_day", 24),
    ("Whisper-Large-v9", "chat", False),
    ("Tongs-4-31B-it", "free", "quota"),
    ("Tongs-4-31B-it", "limit.requests_per_minute", 20),
    ("Tongs-4-31B-it", "limit.requests_per_day", 20),
    ("Tongs-4-31B-it", "limit.tokens_per_day", 200000),
}


def told(claims: list[Evidence]) -> set[tuple[str, str, Value]]:
    assert all(claim.provider == "sambanova" for claim in claims)
    return {(claim.model, claim.field, claim.value) for claim in claims}


def test_both_free_tabs_are_read_and_no_other() -> None:
    """Before or behind the paid tab, in any order of columns; a model of the paid tab alone is not named."""
    assert told(parse(PAGE)) == WHOLE


def test_a_vendor_is_no_model() -> None:
    """The column `Developer` names who made a model, and neither the id nor the tier."""
    assert "Anvil" not in {claim.model for claim in parse(PAGE)}


def test_a_limit_of_zero_is_no_free_tier() -> None:
    """A model with no requests a day on the free tier is not free."""
    page = PAGE.replace(b"| 21      | 22      | 200001  |", b"| 21      | 0       | 200001  |")
    assert {claim for claim in told(parse(page)) if claim[0] == "Anvil-V3.1"} == {("Anvil-V3.1", "free", "none")}


@pytest.mark.parametrize(
    "page",
    [
        b"",
        PAGE.replace(b'title="Free Tier"', b'title="Trial"'),
        b"## Free Tier\n\nTwenty requests a day.\n",
        b"| Developer | Model ID | RPM | RPD |\n| - | - | - | - |\n| Anvil | `Anvil-V3.1` | 60 | 12000 |\n",
        b'<Tabs>\n<Tab title="Free Tier">\n| Model ID | Speed |\n| - | - |\n| `Anvil-V3.1` | 60 |\n</Tab>\n</Tabs>\n',
        b"<html><head><title>Free Tier</title></head><body>Sign in</body></html>",
        bytes(range(256)) * 20,
    ],
    ids=["empty", "no free tab", "no table", "no tabs", "no limits", "sign in", "noise"],
)
def test_other_pages_are_not_understood(page: bytes) -> None:
    """A page without the table in a tab of the free tier is no evidence."""
    with pytest.raises(NotUnderstood):
        parse(page)


def test_a_page_that_was_cut_short_says_nothing_wrong() -> None:
    """Wherever the page ends, what is read of it is part of what the whole page says."""
    for part in of_cut_pages(parse, PAGE):
        assert told(part) <= WHOLE


def test_other_encodings_and_line_ends_read_the_same() -> None:
    """UTF-16 with a mark, a mark of UTF-8, and Windows' line ends change nothing."""
    for other in encoded_otherwise(PAGE):
        assert told(parse(other)) == WHOLE


def test_the_source_is_sambanovas_own_page() -> None:
    """It reads the Markdown that SambaNova serves, as a page of the provider."""
    assert (SOURCE.name, SOURCE.rank, SOURCE.confidence, SOURCE.provider) == ("sambanova", Rank.DOCS, 0.85, "sambanova")
    assert SOURCE.url.startswith("https://docs.sambanova.ai/")
