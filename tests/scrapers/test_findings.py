"""From verdicts to findings: what becomes a finding, its tier, and what changed and why."""

from __future__ import annotations

from typing import Any

import pytest

from llmproxy.core.types import Model, Tier
from llmproxy.routing.findings import Findings
from scrapers.base import Evidence, Rank
from scrapers.findings import build, changes
from scrapers.merge import Sighting, verdicts
from scrapers.tiers import tier_of

NOW = 1_795_000_000.0  # 2026-11-18


def found(*claims: tuple[str, str, str, Any], shared: bool = False, **options: Any) -> Findings:
    """The findings of one page that claims so."""
    sightings = [
        Sighting(
            Evidence(
                *claim,
                shared=shared,
                source="page",
                url="https://p.test",
                rank=Rank.DOCS,
                confidence=0.85,
                seen_at_s=NOW,
            ),
            NOW,
        )
        for claim in claims
    ]
    return build(verdicts(sightings, NOW), providers={"groq", "google", "gemini"}, **options)


def test_every_field_has_its_place() -> None:
    """Existence, free, capabilities, window and limits of one model stand together."""
    findings = found(
        ("groq", "big-120b", "exists", True),
        ("groq", "big-120b", "free", "quota"),
        ("groq", "big-120b", "capability.tools", True),
        ("groq", "big-120b", "capability.reasoning", True),
        ("groq", "big-120b", "capability.vision", False),
        ("groq", "big-120b", "context", 131072),
        ("groq", "big-120b", "limit.requests_per_day", 1000),
        ("groq", "big-120b", "limit.tokens_per_day", None),
        ("groq", "big-120b", "limit.reset", "bucket"),
    )
    assert findings.to_json() == {
        "models": {
            "groq/big-120b": {
                "free": "quota",
                "have": ["reasoning", "tools"],
                "lacks": ["vision"],
                "context_tokens": 131072,
                "tier": "deep",
            }
        },
        "limits": {
            "groq/big-120b": {"requests_per_day": 1000, "reset": "bucket", "as_of": "2026-11-18", "source": "page"}
        },
    }
    assert Findings.from_json(findings.to_json()) == findings


def test_an_account_shares_a_limit() -> None:
    """A limit over a glob is shared where the page says so, and says of each model that it is free."""
    findings = found(("groq", "*:free", "free", "quota"), ("groq", "*:free", "limit.requests_per_day", 50), shared=True)
    assert findings.limits["groq/*:free"].entry.shared is True
    assert findings.of(Model("groq", "x:free")).is_free is True
    assert findings.of(Model("groq", "x")).is_free is None


@pytest.mark.parametrize(
    ("kind", "is_free"),
    [*((kind, True) for kind in ("quota", "budget", "price", "promo")), ("trial", False), ("none", False)],
)
def test_kinds_of_free(kind: str, is_free: bool) -> None:
    """A credit that is spent once is no free tier, and a retired service is none."""
    assert found(("groq", "m", "free", kind)).of(Model("groq", "m")).is_free is is_free


def test_what_is_not_free_has_no_free_limits() -> None:
    """Numbers of a model that is paid are nobody's free limits."""
    findings = found(("groq", "m", "free", "none"), ("groq", "m", "limit.requests_per_minute", 1000))
    assert findings.limits == {}


def test_unknown_numbers_are_no_limits() -> None:
    """A page that tells no number makes no limit, and a time zone alone is none."""
    findings = found(("groq", "m", "limit.requests_per_day", None), ("groq", "m", "limit.reset", "UTC"))
    assert findings.limits == {}


def test_a_reset_that_is_no_zone_is_left_out() -> None:
    """The numbers of a claim are kept when its time zone is nonsense."""
    findings = found(("groq", "m", "limit.requests_per_day", 9), ("groq", "m", "limit.reset", "Mars/Olympus"))
    assert findings.limits["groq/m"].entry.model_dump(exclude_defaults=True) == {"requests_per_day": 9}


def test_a_provider_under_two_names() -> None:
    """What is found of one name counts for its twin as well."""
    findings = found(("google", "gemini-x", "free", "quota"), twins={"gemini": "google"})
    assert sorted(findings.models) == ["gemini/gemini-x", "google/gemini-x"]


def test_changes_tell_the_reason() -> None:
    """Each difference names what it was, what it is, and the source that decided it."""
    before = found(("groq", "m", "free", "quota"), ("groq", "m", "limit.requests_per_day", 1000))
    claim = Evidence(
        "groq",
        "m",
        "limit.requests_per_day",
        500,
        source="page",
        url="https://p.test",
        rank=Rank.DOCS,
        confidence=0.85,
        seen_at_s=NOW,
    )
    free = Evidence("groq", "m", "free", "quota", source="page", rank=Rank.DOCS, confidence=0.85, seen_at_s=NOW)
    decided = verdicts([Sighting(claim, NOW), Sighting(free, NOW)], NOW)
    (change,) = changes(before, build(decided, providers={"groq"}), decided)
    assert (change.kind, change.name, change.field) == ("changed", "groq/m", "limit.requests_per_day")
    assert (change.before, change.after) == (1000, 500)
    assert (change.source, change.url, change.seen) == ("page", "https://p.test", "2026-11-18")


@pytest.mark.parametrize(
    ("model", "tags", "tier"),
    [
        ("openai/gpt-oss-120b", {"reasoning"}, "deep"),
        ("openai/gpt-oss-20b", {"reasoning"}, "standard"),
        ("meta-llama/llama-3.3-70b-instruct:free", set(), "standard"),
        ("llama-3.1-8b-instant", set(), "exploratory"),
        ("qwen3-235b-a22b-thinking", {"reasoning"}, "deep"),
        ("mixtral-8x7b", set(), "standard"),
        ("gemini-2.5-flash-lite", {"reasoning"}, "exploratory"),
        ("gemini-2.5-pro", {"reasoning"}, "deep"),
        ("command-a", set(), "standard"),
        ("mistral-large-latest", set(), "deep"),
    ],
)
def test_tiers_of_well_known_models(model: str, tags: set[str], tier: Tier) -> None:
    """Sizes in ids count in billions of parameters, the active part of a mixture does not."""
    assert tier_of(model, tags) == tier
