"""Hugging Face Inference Providers: the credit that an account gets each month, for all models together."""

from __future__ import annotations

import re

from scrapers import tables
from scrapers.base import Evidence, NotUnderstood, Rank, Source, limits

PROVIDER = "huggingface"
_USD = re.compile(r"\$ ?(\d{1,6}(?:\.\d{1,4})?)")
_MAX_CELL = 200


def parse(raw: bytes) -> list[Evidence]:
    """What free users get; the credits of paying accounts are not free."""
    for table in tables.tables(raw):
        titles = table.titles
        place = next((place for place, title in enumerate(titles) if title.startswith("monthly credit")), None)
        for row in table.body if place is not None else ():
            account = row[0][:_MAX_CELL].casefold().split()
            if place is None or account[:1] != ["free"]:
                continue
            match = _USD.match(row[place][:_MAX_CELL].strip())
            if match is not None and float(match[1]) > 0:
                note = "subject to change" if "subject to change" in row[place].casefold() else ""
                return [
                    Evidence(PROVIDER, "*", "free", "budget"),
                    *limits(PROVIDER, "*", {"usd_per_month": float(match[1])}, shared=True, note=note),
                ]
    raise NotUnderstood("no table with a column Monthly Credits and a row of free users with an amount in dollars")


SOURCE = Source(
    name="huggingface",
    url="https://raw.githubusercontent.com/huggingface/hub-docs/main/docs/inference-providers/pricing.md",
    rank=Rank.DOCS,
    confidence=0.85,
    parse=parse,
    provider=PROVIDER,
)
