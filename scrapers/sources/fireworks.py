"""Fireworks: how often an account without a payment method may ask.

The page calls nothing free: what such an account spends is credit that it was given. The starting rates of the
serverless models are those of every account and move with its use; they are no limits of anything free.
"""

from __future__ import annotations

import re

from scrapers import amounts, tables
from scrapers.base import Evidence, NotUnderstood, Rank, Source, Value, limits
from scrapers.prose import prose

PROVIDER = "fireworks"
_UNPAID = "no payment method"
# A page saved as text has the cells of a row glued together.
_GLUED = re.compile(r"\bAccount state ?Request-rate limit No payment method ?(\d[\d,]{0,9}) RPM\b", re.IGNORECASE)
_LONGEST = 200


def parse(raw: bytes) -> list[Evidence]:
    """The request limit of an account without a payment method, which all models share."""
    found = _limits(tables.tables(raw))
    if not found:
        match = _GLUED.search(prose(raw))
        number = amounts.number(match[1]) if match else None
        found = {"requests_per_minute": number} if number else {}
    if not found:
        raise NotUnderstood("no table with Account state, a request-rate limit and a row No payment method")
    return limits(PROVIDER, "*", found, shared=True, note="without a payment method")


def _limits(found: list[tables.Table]) -> dict[str, Value]:
    for table in found:
        titles = table.titles
        place = next((place for place, title in enumerate(titles) if "limit" in title), None)
        if titles[:1] != ["account state"] or place is None:
            continue
        for row in table.body:
            per = amounts.rates(row[place][:_LONGEST]) if row[0][:_LONGEST].casefold() == _UNPAID else {}
            if per:
                return dict(per)
    return {}


SOURCE = Source(
    name="fireworks",
    url="https://docs.fireworks.ai/guides/quotas_usage/account-quotas.md",
    rank=Rank.DOCS,
    confidence=0.85,
    parse=parse,
    provider=PROVIDER,
)
