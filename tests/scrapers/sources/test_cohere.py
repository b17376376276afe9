"""Cohere's pages: what a trial key may do, the calls of a month over all endpoints, and models by endpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from scrapers.base import Evidence, NotUnderstood, Rank, Value
from scrapers.sources.cohere import SOURCES, parse_limits, parse_models
from tests.scrapers.sources.damage import encoded_otherwise, of_cut_pages

DATA = Path(__file__).parents[2] / "data/scrape/cohere"
LIMITS = (DATA / "rate-limits.mdx").read_bytes()
OLDER = (DATA / "rate-limits-2024.mdx").read_bytes()
MODELS = (DATA / "models.mdx").read_bytes()


def told(claims: list[Evidence]) -> set[tuple[str, str, Value]]:
    assert all(claim.provider == "cohere" for claim in claims)
    return {(claim.model, claim.field, claim.value) for claim in claims}


def test_limits_of_a_trial_key_by_model_and_endpoint() -> None:
    """Names are mapped to ids where these do not spell them; what is counted in inputs has no limit here."""
    assert told(parse_limits(LIMITS)) == {
        ("*", "free", "quota"),
        ("*", "limit.requests_per_month", 1100),
        ("command-a-reasoning-08-2025", "free", "quota"),
        ("command-a-reasoning-08-2025", "limit.requests_per_minute", 21),
        ("command-a-reasoning-08-2025", "chat", True),
        ("command-a-plus-05-2026", "free", "quota"),
        ("command-a-plus-05-2026", "limit.requests_per_minute", 22),
        ("command-a-plus-05-2026", "chat", True),
        ("command-r-plus-08-2024", "free", "quota"),
        ("command-r-plus-08-2024", "limit.requests_per_minute", 23),
        ("command-r-plus-08-2024", "chat", True),
        ("Anvil Mini Code", "free", "quota"),
        ("Anvil Mini Code", "limit.requests_per_minute", 24),
        ("Anvil Mini Code", "chat", True),
        ("embed-*", "free", "quota"),
        ("embed-*", "chat", False),
        ("embed-*", "capability.embeddings", True),
        ("rerank-*", "free", "quota"),
        ("rerank-*", "limit.requests_per_minute", 11),
        ("rerank-*", "chat", False),
        ("rerank-*", "capability.rerank", True),
        ("cohere-transcribe-*", "free", "quota"),
        ("cohere-transcribe-*", "limit.requests_per_minute", 6),
        ("cohere-transcribe-*", "chat", False),
        ("cohere-transcribe-*", "capability.speech", True),
    }


def test_the_older_page_has_endpoints_alone() -> None:
    """`20/min` counts requests, and the month stands in a sentence of its own."""
    assert told(parse_limits(OLDER)) == {
        ("*", "free", "quota"),
        ("*", "limit.requests_per_month", 1200),
        ("command-*", "free", "quota"),
        ("command-*", "limit.requests_per_minute", 25),
        ("c4ai-aya-*", "free", "quota"),
        ("c4ai-aya-*", "limit.requests_per_minute", 25),
        ("embed-*", "free", "quota"),
        ("embed-*", "limit.requests_per_minute", 105),
        ("embed-*", "chat", False),
        ("embed-*", "capability.embeddings", True),
        ("rerank-*", "free", "quota"),
        ("rerank-*", "limit.requests_per_minute", 15),
        ("rerank-*", "chat", False),
        ("rerank-*", "capability.rerank", True),
    }


def test_what_many_models_use_up_together_is_shared() -> None:
    """The month of the account and the minute of an endpoint are shared; the minute of a model is its own."""
    shared = {(claim.model, claim.field) for claim in parse_limits(LIMITS) if claim.shared}
    assert shared == {
        ("*", "limit.requests_per_month"),
        ("rerank-*", "limit.requests_per_minute"),
        ("cohere-transcribe-*", "limit.requests_per_minute"),
    }
    assert {claim.note for claim in parse_limits(LIMITS) if claim.field.startswith("limit.")} == {"trial key"}


def test_the_trial_column_goes_by_its_header() -> None:
    """The column of production keys is not read, even where it stands first."""
    page = (
        b"## Chat\n\n| Production rate limit | Trial rate limit | Model |\n| - | - | - |\n"
        b"| 500 req / min | 20 req / min | Command A |\n"
    )
    assert told(parse_limits(page)) == {
        ("command-a-03-2025", "free", "quota"),
        ("command-a-03-2025", "limit.requests_per_minute", 20),
        ("command-a-03-2025", "chat", True),
    }


def test_a_month_of_production_keys_is_not_that_of_trial_keys() -> None:
    """Only the sentence about trial keys tells the calls of a month."""
    page = OLDER.replace(b"with a **trial** key", b"with a production key")
    assert not any(claim.field == "limit.requests_per_month" for claim in parse_limits(page))


def test_models_by_their_endpoints() -> None:
    """Windows, what a model is for, and what is gone; other platforms and descriptions say nothing."""
    assert told(parse_models(MODELS)) == {
        ("anvil-plus-05-2026", "exists", True),
        ("anvil-plus-05-2026", "context", 128000),
        ("anvil-plus-05-2026", "max_output", 64000),
        ("anvil-plus-05-2026", "chat", True),
        ("anvil-plus-05-2026", "capability.vision", True),
        ("anvil-03-2025", "exists", True),
        ("anvil-03-2025", "context", 256000),
        ("anvil-03-2025", "max_output", 8000),
        ("anvil-03-2025", "chat", True),
        ("anvil", "context", 4000),
        ("anvil", "max_output", 4000),
        ("anvil", "chat", True),
        ("anvil-vision-8b", "exists", False),
        ("embed-anvil", "exists", True),
        ("embed-anvil", "context", 512),
        ("embed-anvil", "chat", False),
        ("embed-anvil", "capability.embeddings", True),
        ("rerank-anvil-v4", "exists", True),
        ("rerank-anvil-v4", "context", 32000),
        ("rerank-anvil-v4", "chat", False),
        ("rerank-anvil-v4", "capability.rerank", True),
        ("transcribe-anvil", "exists", True),
        ("transcribe-anvil", "chat", False),
        ("transcribe-anvil", "capability.speech", True),
    }


@pytest.mark.parametrize("parse", [parse_limits, parse_models])
@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"You are using a Trial key, which is limited to 40 API calls / minute.\n",
        b"<details>\n<summary>Some</summary>\n|message|\n|---|\n|trial key limit is 100 calls a month|\n</details>\n",
        b"| Model Name | Amazon Bedrock Model ID |\n| - | - |\n| `anvil` | N/A |\n",
        b"| Model | Production rate limit |\n| - | - |\n| Command A | 500 req / min |\n",
        bytes(range(256)) * 20,
    ],
    ids=["empty", "a refusal", "refusals", "platforms", "production", "noise"],
)
def test_other_pages_are_not_understood(parse: type, page: bytes) -> None:
    """A page without the table, whatever else it holds, is no evidence."""
    with pytest.raises(NotUnderstood):
        parse(page)


@pytest.mark.parametrize(("parse", "page"), [(parse_limits, LIMITS), (parse_limits, OLDER), (parse_models, MODELS)])
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


def test_the_sources_are_coheres_own_pages() -> None:
    """Both read the Markdown that Cohere serves, as pages of the provider."""
    assert [source.name for source in SOURCES] == ["cohere_limits", "cohere_models"]
    for source in SOURCES:
        assert source.url.startswith("https://docs.cohere.com/docs/")
        assert (source.rank, source.confidence, source.provider) == (Rank.DOCS, 0.85, "cohere")
