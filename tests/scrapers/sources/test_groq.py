"""Groq's pages: limits of the free plan by id, windows by the link of a model's page, nothing of other plans."""

from __future__ import annotations

from pathlib import Path

import pytest

from scrapers.base import Evidence, NotUnderstood, Rank, Value
from scrapers.sources.groq import SOURCES, parse_limits, parse_models
from tests.scrapers.sources.damage import encoded_otherwise, of_cut_pages

DATA = Path(__file__).parents[2] / "data/scrape/groq"
LIMITS = (DATA / "rate-limits.md").read_bytes()
MODELS = (DATA / "models.md").read_bytes()
HEAD = b"| MODEL ID | RPM | TPM |\n| --- | --- | --- |\n"


def told(claims: list[Evidence]) -> set[tuple[str, str, Value]]:
    assert all(claim.provider == "groq" for claim in claims)
    return {(claim.model, claim.field, claim.value) for claim in claims}


def test_every_limit_of_every_row_is_read() -> None:
    """K and M are expanded, dashes say nothing, and the header in a table of its own belongs to the rows below it."""
    assert told(parse_limits(LIMITS)) == {
        ("acme/anvil-70b", "free", "quota"),
        ("acme/anvil-70b", "limit.requests_per_minute", 31),
        ("acme/anvil-70b", "limit.requests_per_day", 7000),
        ("acme/anvil-70b", "limit.tokens_per_minute", 6500),
        ("acme/anvil-70b", "limit.tokens_per_day", 510000),
        ("acme/prompt-guard-2", "free", "quota"),
        ("acme/prompt-guard-2", "limit.requests_per_minute", 32),
        ("acme/prompt-guard-2", "limit.requests_per_day", 14400),
        ("acme/prompt-guard-2", "limit.tokens_per_minute", 15000),
        ("acme/prompt-guard-2", "limit.tokens_per_day", 520000),
        ("acme/prompt-guard-2", "chat", False),
        ("groq/compound", "free", "quota"),
        ("groq/compound", "limit.requests_per_minute", 33),
        ("groq/compound", "limit.requests_per_day", 251),
        ("groq/compound", "limit.tokens_per_minute", 70000),
        ("openai/gpt-safeguard-2", "free", "quota"),
        ("openai/gpt-safeguard-2", "limit.requests_per_minute", 34),
        ("openai/gpt-safeguard-2", "limit.requests_per_day", 1000),
        ("openai/gpt-safeguard-2", "limit.tokens_per_minute", 8000),
        ("openai/gpt-safeguard-2", "limit.tokens_per_day", 1500000),
        ("whisper-large-v9", "free", "quota"),
        ("whisper-large-v9", "limit.requests_per_minute", 21),
        ("whisper-large-v9", "limit.requests_per_day", 2000),
        ("whisper-large-v9", "limit.audio_seconds_per_hour", 7200),
        ("whisper-large-v9", "limit.audio_seconds_per_day", 28800),
        ("whisper-large-v9", "chat", False),
        ("whisper-large-v9", "capability.speech", True),
    }


def test_windows_come_from_the_page_of_models() -> None:
    """The id is what the link names at the end of the cell; the limits of the Developer plan are not read."""
    assert told(parse_models(MODELS)) == {
        ("acme/anvil-70b", "exists", True),
        ("acme/anvil-70b", "context", 131072),
        ("acme/anvil-70b", "max_output", 32768),
        ("anvil-8b-instant", "exists", True),
        ("anvil-8b-instant", "context", 8192),
        ("anvil-8b-instant", "max_output", 4096),
        ("anvil-8b-instant", "free", "none"),
        ("whisper-large-v9", "exists", True),
        ("whisper-large-v9", "chat", False),
        ("whisper-large-v9", "capability.speech", True),
        ("groq/compound", "exists", True),
        ("groq/compound", "context", 131072),
        ("groq/compound", "max_output", 8192),
        ("bard/voice-v1", "exists", True),
        ("bard/voice-v1", "context", 4000),
        ("bard/voice-v1", "max_output", 50000),
        ("bard/voice-v1", "chat", False),
        ("acme/prompt-guard-2", "exists", True),
        ("acme/prompt-guard-2", "context", 512),
        ("acme/prompt-guard-2", "max_output", 512),
        ("acme/prompt-guard-2", "chat", False),
    }


def test_columns_go_by_their_headers() -> None:
    """Another order of the columns, and one more of them, changes nothing."""
    page = b"| TPM | NEW | MODEL ID | RPM |\n| - | - | - | - |\n| 6K | 99 | acme/anvil | 30 |\n"
    assert told(parse_limits(page)) == {
        ("acme/anvil", "free", "quota"),
        ("acme/anvil", "limit.tokens_per_minute", 6000),
        ("acme/anvil", "limit.requests_per_minute", 30),
    }


def test_the_free_plan_is_taken_where_plans_are_told_apart() -> None:
    """Of two tables under headings that name their plans, the free one counts, wherever it stands."""
    paid = b"## Developer Plan Limits\n\n" + HEAD + b"| acme/anvil | 1K | 250K |\n\n"
    free = b"## Free Plan Limits\n\n" + HEAD + b"| acme/anvil | 30 | 6K |\n\n"
    expected = {
        ("acme/anvil", "free", "quota"),
        ("acme/anvil", "limit.requests_per_minute", 30),
        ("acme/anvil", "limit.tokens_per_minute", 6000),
    }
    assert told(parse_limits(paid + free)) == told(parse_limits(free + paid)) == expected
    with pytest.raises(NotUnderstood):
        parse_limits(paid)


def test_tables_that_contradict_each_other_say_nothing() -> None:
    """Two tables with different limits of one model, of which none is called free, are no evidence."""
    page = b"## A\n\n" + HEAD + b"| acme/anvil | 30 | 6K |\n\n## B\n\n" + HEAD + b"| acme/anvil | 300 | 6K |\n"
    with pytest.raises(NotUnderstood, match="acme/anvil"):
        parse_limits(page)


def test_a_limit_of_zero_is_no_free_tier() -> None:
    """A model whose free limit is 0 is not free, and has no limit that could be used."""
    assert told(parse_limits(HEAD + b"| acme/anvil | 0 | 6K |\n")) == {("acme/anvil", "free", "none")}


def test_a_badge_alone_makes_no_model_paid() -> None:
    """A model counts as sold only by contract when its badge says so and its price does."""
    page = MODELS.replace(b"ContactSales             |", b"$0.05 input$0.08 output  |", 1)
    assert ("anvil-8b-instant", "free", "none") not in told(parse_models(page))


def test_a_link_that_does_not_fit_gives_no_id() -> None:
    """A cell that does not end with what its link names is left out, not guessed at."""
    page = MODELS.replace(b"(/docs/model/acme/anvil-70b)acme", b"(/docs/model/acme/other)acme")
    assert "acme/anvil-70b" not in {claim.model for claim in parse_models(page)}


@pytest.mark.parametrize("parse", [parse_limits, parse_models])
@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"<html><body><h1>Just a moment...</h1></body></html>",
        b"| Model | Max Context Length | Type | Quota |\n| - | - | - | - |\n"
        b"| **acme/anvil** | 128,000 | Requests | 30/min<br>1,000/day |\n",
        b"| Model | RPM | TPM | |-----|-----|-----| | Anvil 70B | 30 | 6,000 | | Anvil 8B | 30 | 6,000 |\n",
        b"| Header | Value |\n| - | - |\n| x-ratelimit-limit-requests | 14400 |\n",
        b"| MODEL ID | RPM | CONTEXT WINDOW |\n| - | - | - |\n",
        b"\xff\xfe<\x00!",
        bytes(range(256)) * 20,
    ],
    ids=["empty", "challenge", "another list", "flattened", "headers", "no rows", "utf-16", "noise"],
)
def test_other_pages_are_not_understood(parse: type, page: bytes) -> None:
    """A page without the table, whatever else it holds, is no evidence."""
    with pytest.raises(NotUnderstood):
        parse(page)


@pytest.mark.parametrize(("parse", "page"), [(parse_limits, LIMITS), (parse_models, MODELS)])
def test_a_page_that_was_cut_short_says_nothing_wrong(parse: type, page: bytes) -> None:
    """Wherever the page ends, what is read of it is part of what the whole page says."""
    whole = told(parse(page))
    for part in of_cut_pages(parse, page):
        assert told(part) <= whole


@pytest.mark.parametrize(("parse", "page"), [(parse_limits, LIMITS), (parse_models, MODELS)])
def test_other_encodings_and_line_ends_read_the_same(parse: type, page: bytes) -> None:
    """UTF-16 with a mark, a mark of UTF-8, and Windows' line ends change nothing."""
    for other in encoded_otherwise(page):
        assert told(parse(other)) == told(parse(page))


def test_what_is_in_scripts_and_comments_is_not_read() -> None:
    """A table in a script, a style, a comment or a block of code is no table of the page."""
    row = "<table><tr><th>MODEL ID</th><th>RPM</th></tr><tr><td>acme/fake</td><td>9</td></tr></table>"
    for around in ("<script>{}</script>", "<style>{}</style>", "<!-- {} -->", "<template>{}</template>"):
        with pytest.raises(NotUnderstood):
            parse_limits(f"<html><body>{around.format(row)}</body></html>".encode())
    with pytest.raises(NotUnderstood):
        parse_limits(b"```\n" + HEAD + b"| acme/fake | 9 | 9 |\n```\n")


def test_a_cell_that_spans_the_table_is_no_limit() -> None:
    """A cell over all columns stands in each of them, and gives neither an id nor a number."""
    page = (
        "<html><body><table><tr><th>MODEL ID</th><th>RPM</th></tr><tr><td colspan=1000>Preview</td></tr>"
        "<tr><td>acme/anvil&#45;2</td><td>&#51;0</td></tr></table></body></html>"
    )
    assert told(parse_limits(page.encode())) == {
        ("acme/anvil-2", "free", "quota"),
        ("acme/anvil-2", "limit.requests_per_minute", 30),
    }


def test_the_sources_are_groqs_own_pages() -> None:
    """Both read the Markdown that Groq serves, as pages of the provider."""
    assert [source.name for source in SOURCES] == ["groq_limits", "groq_models"]
    for source in SOURCES:
        assert source.url.startswith("https://console.groq.com/docs/")
        assert (source.rank, source.confidence, source.provider) == (Rank.DOCS, 0.85, "groq")
    claims = SOURCES[0].read(LIMITS, seen_at_s=1.0)
    assert {claim.source for claim in claims} == {"groq_limits"}
