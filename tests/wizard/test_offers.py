"""What a person is told about a provider before making a key."""

from __future__ import annotations

import pytest

from llmproxy.wizard import offers
from providers.catalog import catalog


def test_only_what_can_be_used_is_offered() -> None:
    """No service that ended, none that runs on this machine."""
    found = {entry.id for entry in offers.usable()}
    assert "groq" in found
    assert not found & {"github", "ollama"}


def test_what_renews_comes_first() -> None:
    """Those that cost from the first call stand behind those with something to give."""
    kinds = [offers.kind(entry.id) for entry in offers.usable()]
    assert kinds.index("quota") == 0
    assert kinds.index("trial") > max(place for place, kind in enumerate(kinds) if kind == "quota")
    assert kinds[-1] in ("none", "unknown")


@pytest.mark.parametrize("name", sorted(catalog()))
def test_every_provider_has_a_page(name: str) -> None:
    """What is free is said of each, and where a key is made if one is needed."""
    entry = catalog()[name]
    rows = dict(offers.page(entry))
    assert entry.free_note in rows["Free"]
    assert "Key" in rows or not entry.key_required


def test_limits_in_words() -> None:
    """Units, windows, shared budgets and ceilings read like a sentence."""
    limits = [
        {"models": ["*:free"], "requests_per_minute": 20, "requests_per_day": 50, "shared": True, "as_of": "2026-09"},
        {"models": ["*"], "tokens_per_day": 1000000, "max_request_tokens": 8000, "concurrency": 2, "usd_once": 5},
        {"models": ["x"], "reset": "UTC"},
    ]
    assert offers.limit_lines(limits) == [
        "*:free: 20 requests a minute, 50 requests a day in all",
        "1,000,000 tokens a day, 8,000 tokens a request, 2 at a time, 5 usd once",
    ]


def test_what_is_free_can_come_from_elsewhere() -> None:
    """The text is a function of the provider, so that fresher findings can take its place."""
    rows = dict(offers.page(catalog()["groq"], lambda provider: f"everything at {provider}"))
    assert rows["Free"] == "everything at groq"


def test_variables_of_addresses() -> None:
    """Account ids are told by the references in the addresses, and filled without touching others."""
    gateway = catalog()["cloudflare-ai-gateway"]
    assert offers.address_variables(gateway) == ["CLOUDFLARE_ACCOUNT_ID", "CLOUDFLARE_GATEWAY_ID"]
    assert offers.filled("/${A}/${B}", {"A": "1"}) == "/1/${B}"
