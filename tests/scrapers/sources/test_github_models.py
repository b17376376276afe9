"""GitHub Models: limits of single models on the free plan, what its classes leave open, and that it has ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scrapers.base import Evidence, NotUnderstood
from scrapers.sources.github_models import SOURCE
from tests.scrapers.sources.damage import of_cut_pages

RAW = (Path(__file__).parents[2] / "data/scrape/github_models/limits.md").read_bytes()


def told(claims: list[Evidence]) -> dict[tuple[str, str], Any]:
    assert {claim.provider for claim in claims} == {"github"}
    return {(claim.model, claim.field): claim.value for claim in claims}


WHOLE: dict[tuple[str, str], Any] = {
    ("*", "free"): "quota",
    ("*", "limit.requests_per_minute"): None,
    ("*", "limit.requests_per_day"): None,
    ("*", "limit.max_prompt_tokens"): None,
    ("*", "limit.max_completion_tokens"): None,
    ("*", "limit.max_request_tokens"): None,
    ("*", "limit.concurrency"): None,
    ("o11", "free"): "none",
    ("o13", "free"): "none",
    ("gpt-15", "free"): "none",
    **{
        (model, name): value
        for model in ("DeepSeek-R9", "DeepSeek-R9-0528", "MAI-DS-R9")
        for name, value in {
            "free": "quota",
            "limit.requests_per_minute": 1,
            "limit.requests_per_day": 9,
            "limit.max_prompt_tokens": 4300,
            "limit.max_completion_tokens": 4400,
            "limit.concurrency": 1,
        }.items()
    },
    ("Grok-9-Mini", "free"): "quota",
    ("Grok-9-Mini", "limit.requests_per_day"): 33,
}


def test_the_free_plan() -> None:
    """Models that are named have the first plan's limits; the classes' limits are unknown for a model by name."""
    claims = SOURCE.read(RAW, seen_at_s=0)
    assert told(claims) == WHOLE
    (minute,) = (claim for claim in claims if (claim.model, claim.field) == ("*", "limit.requests_per_minute"))
    assert minute.note == "low 16, high 11, embedding 17"
    assert not minute.shared


def test_the_free_plan_in_another_column() -> None:
    """The plan is found by its name."""
    raw = RAW.replace(b"Copilot Free", b"Copilot Basic").replace(b"Copilot Pro", b"Free and Copilot Individual")
    found = told(SOURCE.read(raw, seen_at_s=0))
    assert found["DeepSeek-R9", "limit.max_prompt_tokens"] == 5000
    assert found["o11", "limit.requests_per_minute"] == 1
    assert found["o11", "free"] == "quota"


@pytest.mark.parametrize(
    ("sentence", "day"),
    [
        ("GitHub Models was retired on July 30, 2026.", "2026-07-30"),
        ("GitHub Models is now retired.", ""),
        ("As of 2026-07-30, GitHub Models has been fully retired.", ""),
        ("{% data variables.product.prodname_github_models %} was retired on 30 July 2026.", "2026-07-30"),
    ],
)
def test_a_service_that_has_ended(sentence: str, day: str) -> None:
    """A page that says so makes every model retired, whatever tables it still has."""
    (claim,) = SOURCE.read(b"> [!WARNING]\n> " + sentence.encode() + b"\n\n" + RAW, seen_at_s=0)
    assert (claim.provider, claim.model, claim.field, claim.value) == ("github", "*", "free", "retired")
    assert claim.dated == day


def test_an_end_that_is_announced() -> None:
    """Until the day that is announced has passed the limits hold."""
    raw = b"GitHub Models is being fully retired on July 30, 2026.\n\n" + RAW
    claims = SOURCE.read(raw, seen_at_s=0)
    assert told(claims) == WHOLE
    assert {claim.until_s for claim in claims} == {1_785_456_000}  # 2026-07-31


@pytest.mark.parametrize(
    "sentence",
    [
        "GitHub Models is no longer available to new customers.",
        "The Azure endpoint for GitHub Models is deprecated.",
        "Jais-30b-chat was retired from GitHub Models.",
        "What to do when GitHub Models is retired.",
        "<script>GitHub Models was retired.</script>",
    ],
)
def test_other_news_is_no_end(sentence: str) -> None:
    """That somebody or something else has to go is not the end of the service."""
    assert told(SOURCE.read(sentence.encode() + b"\n\n" + RAW, seen_at_s=0)) == WHOLE


def test_a_truncated_page() -> None:
    """Cut anywhere, the page says nothing that the whole page does not say."""
    for part in of_cut_pages(lambda raw: told(SOURCE.read(raw, seen_at_s=0)), RAW, 101):
        assert {name for name, _ in part} <= {name for name, _ in WHOLE}
        assert part.keys() <= WHOLE.keys()


def test_without_the_table() -> None:
    """A page that has lost its table, or its free plan, is not understood."""
    with pytest.raises(NotUnderstood):
        SOURCE.read(RAW.split(b"<table>")[0], seen_at_s=0)
    with pytest.raises(NotUnderstood):
        SOURCE.read(RAW.replace(b"Copilot Free", b"Copilot Basic"), seen_at_s=0)
