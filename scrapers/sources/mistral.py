"""Mistral: that there is a free mode, and which limits it has; the numbers are shown in its console only."""

from __future__ import annotations

import re

from scrapers.base import Evidence, NotUnderstood, Rank, Source, limits
from scrapers.prose import prose

PROVIDER = "mistral"
_LIMITS = {
    "requests_per_second": re.compile(r"\brequests per second\b", re.IGNORECASE),
    "requests_per_minute": re.compile(r"\brequests per minute\b", re.IGNORECASE),
    "tokens_per_minute": re.compile(r"\btokens per minute\b", re.IGNORECASE),
    "tokens_per_month": re.compile(r"\btokens per (?:minute ?/ ?)?month\b", re.IGNORECASE),
}
_FREE = re.compile(r"\bfree (?:API )?(?:tier|mode)\b|\bexperiment plan \(free\)", re.IGNORECASE)
_NO_LONGER = re.compile(
    r"\bno (?:longer (?:an? |any )?)?free (?:API )?(?:tier|mode)\b"
    r"|\bfree (?:API )?(?:tier|mode) (?:is|was|has been) (?:no longer|discontinued|removed|retired|closed)",
    re.IGNORECASE,
)


def parse(raw: bytes) -> list[Evidence]:
    """Each limit that the page speaks of as one that exists, without its number, for all models."""
    text = prose(raw)
    said = text.casefold()
    if b"mistral" not in raw.lower() or not all(word in said for word in ("rate limit", "tier")):
        raise NotUnderstood("nothing about rate limits and tiers of Mistral")
    if not _FREE.search(text) or _NO_LONGER.search(text):
        raise NotUnderstood("no word of a free tier or mode that there is now")
    named = {name: None for name, words in _LIMITS.items() if words.search(text)}
    if not named:
        raise NotUnderstood("a free tier, but no limit that is named: requests per second, tokens per minute")
    return [
        Evidence(PROVIDER, "*", "free", "quota"),
        *limits(PROVIDER, "*", dict(named), note="told only in the console"),
    ]


SOURCE = Source(
    name="mistral",
    url="https://docs.mistral.ai/admin/user-management-finops/tier.md",
    rank=Rank.DOCS,
    confidence=0.85,
    parse=parse,
    provider=PROVIDER,
)
