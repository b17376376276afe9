"""Limits as people and the catalogue write them."""

from __future__ import annotations

from typing import Any

import pytest

from llmproxy.core.config import Config, FreeLimit, parse
from llmproxy.core.errors import ConfigError
from llmproxy.core.types import Model
from llmproxy.routing.declared import Rule, limits_of, rule_for, rules_of_catalog
from llmproxy.routing.limits import Limit
from providers.catalog import catalog


@pytest.mark.parametrize(
    ("written", "limits"),
    [
        ({}, ()),
        (
            {"requests_per_minute": 30, "requests_per_day": 1000},
            (Limit("requests", 30, "sliding", 60.0), Limit("requests", 1000, "sliding", 86_400.0)),
        ),
        (
            {"requests_per_minute": 5, "requests_per_day": 20, "reset": "America/Los_Angeles"},
            (
                Limit("requests", 5, "sliding", 60.0),
                Limit("requests", 20, "fixed", 86_400.0, "day", "America/Los_Angeles"),
            ),
        ),
        (
            {"requests_per_minute": 50, "tokens_per_month": 1e9, "reset": "minute"},
            (Limit("requests", 50, "fixed", 60.0, "minute"), Limit("tokens", 1e9, "sliding", 2_678_400.0)),
        ),
        ({"tokens_per_day": 200_000, "reset": "bucket"}, (Limit("tokens", 200_000, "bucket", 86_400.0),)),
        ({"usd_once": 5, "concurrency": 2}, (Limit("usd", 5, "once"), Limit("requests", 2, "concurrent"))),
        ({"max_request_tokens": 8000}, (Limit("tokens", 8000, "request"),)),
        (
            {"windows": [{"unit": "requests", "amount": 100, "seconds": 18_000}]},
            (Limit("requests", 100, "sliding", 18_000.0),),
        ),
        ({"requests_per_day": 0}, (Limit("requests", 0, "sliding", 86_400.0),)),
    ],
)
def test_the_limits_of_an_entry(written: dict[str, Any], limits: tuple[Limit, ...]) -> None:
    """The predecessor's four fields and the longer form."""
    assert limits_of(FreeLimit.model_validate(written)) == limits


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ({"reset": "Mars/Olympus"}, "free_limits.a/m.reset: 'Mars/Olympus' is neither"),
        ({"tokens_per_fortnight": 1}, "free_limits.a/m.tokens_per_fortnight: unknown key"),
        ({"windows": [{"unit": "bananas", "amount": 1, "seconds": 1}]}, "free_limits.a/m.windows.0.unit: "),
        ({"usd_per_month": -1}, "free_limits.a/m.usd_per_month: "),
    ],
)
def test_a_wrong_entry_is_told(written: dict[str, Any], problem: str) -> None:
    """With the path of the field."""
    with pytest.raises(ConfigError, match=problem):
        parse({"free_limits": {"a/m": written}})


def test_what_a_person_wrote_comes_first_and_the_exact_name_before_globs() -> None:
    """Then the catalogue's first rule that matches."""
    written = Config.model_validate(
        {"free_limits": {"a/*": {"requests_per_day": 1}, "a/m": {"requests_per_day": 2}, "b/*": {"shared": True}}}
    ).free_limits
    listed = rules_of_catalog([{"models": ["m*"], "requests_per_day": 3, "as_of": "2026-07"}, {"models": ["*"]}])
    assert rule_for(Model("a", "m"), written, listed) == Rule(
        ("a/m",), (Limit("requests", 2, "sliding", 86_400.0),), False, "configuration"
    )
    glob = rule_for(Model("a", "n"), written, listed)
    assert glob is not None
    assert (glob.globs, glob.shared) == (("a/*",), False)
    shared = rule_for(Model("b", "n"), written, ())
    assert shared is not None
    assert (shared.shared, shared.pool) == (True, "b/*")
    found = rule_for(Model("c", "mm"), written, listed)
    assert found is not None
    assert found.origin == "catalogue, 2026-07"
    assert rule_for(Model("c", "m"), written, ()) is None


def test_every_rule_of_the_catalogue_can_be_read() -> None:
    """And names at least one limit."""
    entries = {name: entry.free_limits for name, entry in catalog().items() if entry.free_limits}
    assert len(entries) > 15
    assert all(rule.limits for rules in entries.values() for rule in rules)
