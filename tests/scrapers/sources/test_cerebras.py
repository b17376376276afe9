"""Cerebras' pages: the tab of the free tier or of the trial alone, and models with the window that is free."""

from __future__ import annotations

from pathlib import Path

import pytest

from scrapers.base import Evidence, NotUnderstood, Rank, Value
from scrapers.sources.cerebras import SOURCES, parse_limits, parse_models
from tests.scrapers.sources.damage import encoded_otherwise, of_cut_pages

DATA = Path(__file__).parents[2] / "data/scrape/cerebras"
FREE = (DATA / "rate-limits-free.md").read_bytes()
TRIAL = (DATA / "rate-limits-trial.md").read_bytes()
OVERVIEW = (DATA / "overview.md").read_bytes()
RENDERED = (DATA / "overview.html").read_bytes()


def told(claims: list[Evidence]) -> set[tuple[str, str, Value]]:
    assert all(claim.provider == "cerebras" for claim in claims)
    return {(claim.model, claim.field, claim.value) for claim in claims}


def test_the_free_tab_is_read_and_no_other() -> None:
    """Each limit of the tab Free, by the headers of its columns; the Developer tab says nothing."""
    assert told(parse_limits(FREE)) == {
        ("anvil-120b", "free", "quota"),
        ("anvil-120b", "limit.tokens_per_minute", 61000),
        ("anvil-120b", "limit.tokens_per_hour", 1100000),
        ("anvil-120b", "limit.tokens_per_day", 2000000),
        ("anvil-120b", "limit.requests_per_minute", 31),
        ("anvil-120b", "limit.requests_per_hour", 901),
        ("anvil-120b", "limit.requests_per_day", 14400),
        ("anvil-120b", "limit.reset", "bucket"),
        ("tongs3.1-8b", "free", "quota"),
        ("tongs3.1-8b", "limit.tokens_per_minute", 150000),
        ("tongs3.1-8b", "limit.tokens_per_hour", 1000000),
        ("tongs3.1-8b", "limit.tokens_per_day", 1000000),
        ("tongs3.1-8b", "limit.requests_per_minute", 10),
        ("tongs3.1-8b", "limit.requests_per_hour", 100),
        ("tongs3.1-8b", "limit.requests_per_day", 100),
        ("tongs3.1-8b", "limit.reset", "bucket"),
    }


def test_a_trial_is_no_quota() -> None:
    """The tab Free Trial is a trial, of uncached tokens, with its credit; marks are no part of an id."""
    claims = parse_limits(TRIAL)
    assert told(claims) == {
        ("anvil-120b", "free", "trial"),
        ("anvil-120b", "limit.requests_per_minute", 5),
        ("anvil-120b", "limit.tokens_per_minute", 31000),
        ("anvil-120b", "limit.tokens_per_hour", 1000000),
        ("anvil-120b", "limit.tokens_per_day", 1200000),
        ("anvil-120b", "limit.reset", "bucket"),
        ("tongs-3.8", "free", "trial"),
        ("tongs-3.8", "limit.requests_per_minute", 6),
        ("tongs-3.8", "limit.tokens_per_minute", 30000),
        ("tongs-3.8", "limit.tokens_per_hour", 1000000),
        ("tongs-3.8", "limit.reset", "bucket"),
        ("*", "limit.usd_once", 7),
    }
    assert [claim.model for claim in claims if claim.shared] == ["*"]


def test_windows_are_those_of_a_free_account() -> None:
    """Of `65k / 131k` under `Context (free / paid)` the first counts; a table of dedicated models is left out."""
    assert told(parse_models(OVERVIEW)) == {
        ("anvil-120b", "exists", True),
        ("anvil-120b", "context", 65000),
        ("tongs-3.8", "exists", True),
        ("tongs-3.8", "context", 64000),
    }


@pytest.mark.parametrize(
    ("header", "cell", "context"),
    [
        ("Context (paid / free)", "131k / 65k", 65000),
        ("Context window", "131,072 tokens", 131072),
        ("Context (free / paid)", "65k / 100k / 131k", None),
        ("Context", "65k / 131k", None),
        ("Context (free / paid)", "soon", None),
        ("Speed (tokens/s)", "3000", None),
    ],
)
def test_a_window_is_read_only_where_it_is_clear_whose_it_is(header: str, cell: str, context: float | None) -> None:
    """A pair needs a header that says which is which."""
    page = f"| Model ID | {header} |\n| - | - |\n| `anvil` | {cell} |\n".encode()
    expected = {("anvil", "exists", True)} | ({("anvil", "context", context)} if context else set())
    assert told(parse_models(page)) == expected


def test_the_rendered_page_of_models_reads_like_its_markdown() -> None:
    """Of the HTML page the tables with ids count; scripts and the table of precisions do not."""
    assert told(parse_models(RENDERED)) == {("anvil-120b", "exists", True), ("tongs-3.8", "exists", True)}


def test_the_bucket_is_claimed_only_where_the_page_says_so() -> None:
    """Without the sentence about token buckets nothing is said of how a quota refills."""
    page = FREE.replace(b"token bucketing", b"usual").replace(b"Token_bucket", b"x")
    assert "limit.reset" not in {claim.field for claim in parse_limits(page)}


def test_without_a_free_tab_nothing_is_said() -> None:
    """Neither the paid tabs alone nor tables without tabs under a heading of all tiers tell what is free."""
    table = b"| Model | TPM | RPM |\n| - | - | - |\n| `anvil` | 1M | 1K |\n"
    for page in (
        FREE.replace(b'title="Free"', b'title="Basic"'),
        b"## Limits by Tier\n\n" + table,
        b'<Tabs>\n<Tab title="Developer (free of hourly limits)">\n' + table + b"</Tab>\n</Tabs>\n",
    ):
        with pytest.raises(NotUnderstood, match="Free"):
            parse_limits(page)


@pytest.mark.parametrize("parse", [parse_limits, parse_models])
@pytest.mark.parametrize(
    "page",
    [
        b"",
        b'# Build with Speed\n\n<Columns cols={2}>\n  <Card title="Free">\n    Pages.\n  </Card>\n</Columns>\n',
        b"# Cerebras Free Tier\n\n| Model | Max Context Length | Type | Quota |\n| - | - | - | - |\n"
        b"| **anvil** | 65,536 | Requests | 30/min |\n",
        b"tiers:\n- tier: Free Trial\n  limits:\n  - model: anvil\n    rpm: 5\n",
        b"| Bucket | What counts |\n| - | - |\n| **Uncached TPM** | all |\n",
        bytes(range(256)) * 20,
    ],
    ids=["empty", "landing", "another list", "yaml", "buckets", "noise"],
)
def test_other_pages_are_not_understood(parse: type, page: bytes) -> None:
    """A page without the table, whatever else it holds, is no evidence."""
    with pytest.raises(NotUnderstood):
        parse(page)


@pytest.mark.parametrize(
    ("parse", "page"), [(parse_limits, FREE), (parse_limits, TRIAL), (parse_models, OVERVIEW), (parse_models, RENDERED)]
)
def test_a_page_that_was_cut_short_says_nothing_wrong(parse: type, page: bytes) -> None:
    """Wherever the page ends, what is read of it is part of what the whole page says."""
    whole = told(parse(page))
    for part in of_cut_pages(parse, page):
        assert told(part) <= whole


def test_a_page_that_ends_in_its_tabs_is_not_understood() -> None:
    """A page that stops between two rows of a tab would seem to have lost the models below."""
    with pytest.raises(NotUnderstood, match="ends inside"):
        parse_limits(FREE[: FREE.index(b"    | `tongs3.1-8b`")])


@pytest.mark.parametrize(("parse", "page"), [(parse_limits, TRIAL), (parse_models, RENDERED)])
def test_other_encodings_and_line_ends_read_the_same(parse: type, page: bytes) -> None:
    """UTF-16 with a mark, a mark of UTF-8, and Windows' line ends change nothing."""
    for other in encoded_otherwise(page):
        assert told(parse(other)) == told(parse(page))


def test_the_sources_are_cerebras_own_pages() -> None:
    """Both read the Markdown that Cerebras serves, as pages of the provider."""
    assert [source.name for source in SOURCES] == ["cerebras_limits", "cerebras_models"]
    for source in SOURCES:
        assert source.url.startswith("https://inference-docs.cerebras.ai/")
        assert (source.rank, source.confidence, source.provider) == (Rank.DOCS, 0.85, "cerebras")
