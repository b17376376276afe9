"""What was found beside what people wrote: the configuration always wins, the catalogue fills in."""

from __future__ import annotations

from typing import Any

import pytest

from llmproxy.core import config as configuration
from llmproxy.core.config import Config, FreeLimit
from llmproxy.core.types import Candidate, Model
from llmproxy.routing.book import Book
from llmproxy.routing.capabilities import Facts, describe
from llmproxy.routing.catalog import Catalog, Offer
from llmproxy.routing.costs import Cost
from llmproxy.routing.declared import Rule, rules_of_catalog
from llmproxy.routing.findings import Finding, Findings, Found, rule_with

MODEL = Model("groq", "m")


def told(rule: Rule | None) -> dict[str, float]:
    """The limits of a rule and of the one beside it."""
    if rule is None:
        return {}
    return {limit.name: limit.amount for limit in rule.limits} | told(rule.beside)


def found(name: str = "groq/m", *, as_of: str = "2026-11-20", **limit: Any) -> Findings:
    return Findings(1, limits={name: Found(FreeLimit(**limit), as_of, "groq page")})


def listed(*entries: dict[str, Any]) -> tuple[Rule, ...]:
    return rules_of_catalog(entries)


def test_what_a_person_wrote_wins() -> None:
    """A limit in the configuration is all that counts, whatever was found since."""
    written = {"groq/*": FreeLimit(requests_per_day=7)}
    rule = rule_with(MODEL, written, found(requests_per_day=1000, tokens_per_day=5), ())
    assert told(rule) == {"requests per day": 7}
    assert rule is not None
    assert rule.origin == "configuration"


def test_what_was_found_counts_before_the_catalogue() -> None:
    """A newer number replaces the catalogue's; what nobody found again stays as the catalogue has it."""
    known = listed(
        {"models": ["m"], "requests_per_day": 1000, "tokens_per_day": 9, "reset": "bucket", "as_of": "2026-06"}
    )
    rule = rule_with(MODEL, {}, found(requests_per_day=500), known)
    assert told(rule) == {"requests per day": 500, "tokens per day": 9}
    assert rule is not None
    assert {limit.kind for limit in rule.limits} == {"bucket"}  # the page does not tell how it renews
    assert rule.origin == "groq page, 2026-11-20"


def test_a_later_catalogue_wins() -> None:
    """The catalogue's number counts where it is of a later month than what was found."""
    known = listed({"models": ["m"], "requests_per_day": 1000, "as_of": "2026-12"})
    rule = rule_with(MODEL, {}, found(requests_per_day=500, tokens_per_day=3), known)
    assert told(rule) == {"requests per day": 1000, "tokens per day": 3}


def test_own_and_shared_limits_stand_beside_each_other() -> None:
    """A model with limits of its own also uses up what all models of the account share."""
    both = Findings(
        1,
        limits={
            "groq/m": Found(FreeLimit(requests_per_minute=20), "2026-11-20", "page"),
            "groq/*": Found(FreeLimit(requests_per_month=1000, shared=True), "2026-11-20", "page"),
        },
    )
    book = Book(lambda model: rule_with(model, {}, both, ()))
    mine, other = Candidate(MODEL), Candidate(Model("groq", "n"))
    for _ in range(20):
        assert book.reserve(mine, Cost(1.0), 0.0) is not None
    blocked = book.blocked(mine, Cost(1.0), 0.0)
    assert blocked is not None
    assert str(blocked.limit) == "20 requests per minute"
    left = {line["limit"]: line["left"] for line in book.told(other, 0.0)}
    assert left == {"1000 requests per month": 980}


def test_a_shared_rule_of_the_catalogue_gives_way_for_what_was_found_of_the_model() -> None:
    """Of the same window only the newer number counts; the shared rule's other windows stay."""
    known = listed(
        {"models": ["*"], "requests_per_minute": 20, "requests_per_month": 1000, "shared": True, "as_of": "2025-11"}
    )
    rule = rule_with(MODEL, {}, found(requests_per_minute=10), known)
    assert told(rule) == {"requests per minute": 10, "requests per month": 1000}


@pytest.mark.parametrize(
    ("config", "finding", "free"),
    [
        ({}, "quota", True),
        ({}, "none", False),
        ({}, "trial", False),
        ({}, "", True),  # nobody knows: the catalogue says so
        ({"believed_free": ["groq/m"]}, "none", True),
        ({"cost_observed_free_tier": ["groq/m"]}, "quota", False),
        ({"free_limits": {"groq/m": {"requests_per_day": 1}}}, "none", True),
    ],
)
def test_who_says_what_is_free(config: dict[str, Any], finding: str, free: bool) -> None:
    """The configuration first, then what was found, then the catalogue."""
    findings = Findings(1, models={"groq/m": Finding(free=finding)})
    model = describe(MODEL, configuration.parse(config), Facts(free_models=("*",)), findings)
    assert model.free is free


def test_tags_are_added_and_taken_away() -> None:
    """What was found adds to what list and catalogue say and takes away what it denies; a person's tags stand."""
    findings = Findings(
        1,
        models={
            "groq/m": Finding(
                have=frozenset({"json"}), lacks=frozenset({"vision", "tools"}), context_tokens=9, tier="deep", chat=True
            )
        },
    )
    facts = Facts(capabilities=(("*", frozenset({"tools", "reasoning"})),), context_tokens=(("*", 5),))
    model = describe(MODEL, Config(), facts, findings)
    assert model.capabilities == {"json", "reasoning"}
    assert model.lacks == {"vision", "tools"}
    assert (model.context_tokens, model.tier) == (9, "deep")
    said = configuration.parse({"model_capabilities": {"groq/m": ["tools"]}, "model_reasoning": {"groq/m": "standard"}})
    model = describe(MODEL, said, facts, findings)
    assert (model.capabilities, model.tier) == ({"tools"}, "standard")


def test_what_is_gone_or_does_not_chat_leaves_the_pools() -> None:
    """A retired model and one that does not chat are in no chat pool; by name they can still be asked."""
    findings = Findings(1, models={"groq/m": Finding(gone=True), "groq/speaks": Finding(chat=False, free="quota")})
    offer = Offer("groq", (MODEL, Model("groq", "speaks"), Model("groq", "n")), facts=Facts(free_models=("*",)))
    catalog = Catalog([offer], Config(), findings)
    assert [one.model.id for one in catalog.select("llmproxy/free").candidates if one.model.chat] == ["n"]
    assert catalog.select("groq/m").candidates


def test_a_glob_fills_in() -> None:
    """What is said of a whole provider counts for a model of which nothing is said itself."""
    findings = Findings(1, models={"groq/*": Finding(free="retired"), "groq/m": Finding(have=frozenset({"tools"}))})
    assert findings.of(MODEL) == Finding(free="retired", have=frozenset({"tools"}))
    assert findings.of(Model("other", "m")) == Finding()


def test_what_is_no_findings_is_refused() -> None:
    """JSON of another shape is an error, not an empty version."""
    for wrong in ({}, {"models": 3, "limits": {}}, {"models": {"a/b": {"nonsense": 1}}, "limits": {}}):
        with pytest.raises(ValueError, match="findings"):
            Findings.from_json(wrong)
