"""Cloudflare Workers AI: the neurons that an account may spend a day, and which models there are at which price.

How many neurons a model takes for a million tokens is in the same tables; evidence has no field for such a rate.
"""

from __future__ import annotations

import re

from scrapers import amounts, tables
from scrapers.base import Evidence, NotUnderstood, Rank, Source, Value, limits
from scrapers.prose import prose

PROVIDER = "cloudflare-workers"
_ID = re.compile(r"@(?:cf|hf)/[\w.-]{1,60}/[\w.-]{1,80}")
_PRICE = re.compile(
    r"\$ ?(\d{1,6}(?:\.\d{1,9})?) per (?:1 ?)?M(?:illion)? (cached )?(input|output) tokens?\b", re.IGNORECASE
)
_NOT_CHAT = ("embedding", "image", "audio", "speech", "translation", "classification", "rerank", "other model")
_GUARDS = re.compile(r"guard|moderation|safety", re.IGNORECASE)
_AT_MIDNIGHT = re.compile(r"\breset daily at 00:00 UTC\b", re.IGNORECASE)
_MAX_CELL = 1000


def parse(raw: bytes) -> list[Evidence]:
    """The free allocation of neurons, and every model with a price: that it exists, what it costs, whether it chats."""
    found = tables.tables(raw)
    claims = [*_allocation(found, raw), *(claim for table in found for claim in _priced(table))]
    if not claims:
        raise NotUnderstood("neither a table with a free allocation for Workers Free nor one with Model and Price")
    return claims


def _allocation(found: list[tables.Table], raw: bytes) -> list[Evidence]:
    for table in found:
        titles = table.titles
        place = next((place for place, title in enumerate(titles) if "free allocation" in title), None)
        for row in table.body if place is not None else ():
            if "free" not in row[0][:_MAX_CELL].casefold().split() or place is None:
                continue
            neurons = amounts.rates(row[place][:_MAX_CELL]).get("neurons_per_day")
            if neurons:
                reset: dict[str, Value] = {"reset": "UTC"} if _AT_MIDNIGHT.search(prose(raw)) else {}
                per: dict[str, Value] = {"neurons_per_day": neurons}
                return [Evidence(PROVIDER, "*", "free", "budget"), *limits(PROVIDER, "*", per | reset, shared=True)]
    return []


def _priced(table: tables.Table) -> list[Evidence]:
    """The models of one table of prices; the heading tells whether they chat."""
    titles = table.titles
    if titles[:1] != ["model"] or not any("neuron" in title for title in titles):
        return []
    price = next((place for place, title in enumerate(titles) if "price" in title and "token" in title), None)
    heading = " ".join(table.headings[-1:]).casefold()
    silent = any(word in heading for word in _NOT_CHAT)
    claims: list[Evidence] = []
    for row in table.body:
        if not _ID.fullmatch(row[0]):
            continue
        claims.append(Evidence(PROVIDER, row[0], "exists", True))
        if silent or _GUARDS.search(row[0]):
            claims.append(Evidence(PROVIDER, row[0], "chat", False))
        if "embedding" in heading:
            claims.append(Evidence(PROVIDER, row[0], "capability.embeddings", True))
        claims += _prices(row[0], row[price][:_MAX_CELL]) if price is not None else []
    return claims


def _prices(model: str, cell: str) -> list[Evidence]:
    """USD per million tokens; what a cached prompt costs is no price of its own here."""
    fields = {"input": "price.prompt", "output": "price.completion"}
    return [
        Evidence(PROVIDER, model, fields[kind.lower()], float(usd))
        for usd, cached, kind in _PRICE.findall(" ".join(cell.split()))
        if not cached
    ]


SOURCE = Source(
    name="cloudflare",
    url="https://developers.cloudflare.com/workers-ai/platform/pricing/index.md",
    rank=Rank.DOCS,
    confidence=0.85,
    parse=parse,
    provider=PROVIDER,
)
